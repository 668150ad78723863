"""Policies on the same random numbers: paired differences, path by path, and who pays in each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stress import absorbers
from stress.common_base import changed, check_common_base
from stress.intervals import Estimate, quantile
from stress.paired import paired_chance, paired_mean, paired_quantile
from stress.results import by_path, independent, keeps, read, weights
from stress.risk import HOUR_THRESHOLD_USD, usd
from stress.spec import InputError, RunError

if TYPE_CHECKING:
    import xarray as xr

Unit = Literal["usd", "share", "accounts"]
_WHERE_ANY = ("stop_volume", "adl_volume")
_RANKED = ("adl_accounts", "adl_top_share", "adl_haircut")


@dataclass(frozen=True)
class Measure:
    """One quantity of a run, by path."""

    name: str
    unit: Unit
    values: np.ndarray
    """[path], or [path hour] of a quantile; whether it happens, of a chance."""
    level: float | None = None
    """Quantile that is looked at; the mean where absent."""


@dataclass(frozen=True)
class Difference:
    """A measure in the base and under a policy."""

    name: str
    unit: Unit
    base: float
    other: float
    change: Estimate
    """Other less base, with an interval that uses that paths are the same."""
    differs: float
    """Share of paths on which the two differ [1]."""


@dataclass(frozen=True)
class Compared:
    """One run against the base."""

    name: str
    changed: Sequence[str]
    """What differs in its config."""
    differences: Sequence[Difference]
    payments: Sequence[Difference]
    """What each party pays per run, receipts negative [USD]."""


@dataclass(frozen=True)
class Comparison:
    """Runs against a base on the same paths."""

    base: str
    title: str
    paths: int
    failed: int
    """Paths that failed in any of the runs and are left out."""
    hours: int
    others: Sequence[Compared]


def compare(runs: Mapping[str, xr.Dataset], title: str = "") -> Comparison:
    """Compare finished runs with the first of them, on the paths that all have and on which none failed.

    Args:
        runs: By what to call them, at least two.
        title: What they have in common.

    Raises:
        InputError: There is one run alone, or they share no common base; the message says what differs.
        RunError: All paths failed in one or another.
    """
    if len(runs) < 2:
        raise InputError(f"{''.join(runs)}: is one run, expected at least two to compare. Give another.")
    (base_name, first), *rest = runs.items()
    for _, other in rest:
        check_common_base(first, other)
    independent(first)
    paths = min(ds.sizes["path"] for ds in runs.values())
    cut = {name: ds.isel(path=slice(paths)) for name, ds in runs.items()}
    good = np.all([ds["status"].values == 0 for ds in cut.values()], axis=0)
    if not good.any():
        raise RunError(f"each of {paths} paths failed in one of {', '.join(runs)}, nothing can be compared.")
    cut = {name: ds if good.all() else ds.isel(path=np.flatnonzero(good)) for name, ds in cut.items()}
    weight, base = weights(cut[base_name]), cut[base_name]
    some = {name: any(np.any(by_path(ds, name)) for ds in cut.values() if name in ds) for name in _WHERE_ANY}
    ranked = some["adl_volume"] and all(keeps(ds, *_RANKED) for ds in cut.values())
    shown = {"stops": some["stop_volume"], "ranked": ranked}
    measured, paid = measures(base, **shown), payments(base)
    others = [
        Compared(
            name,
            changed(first, runs[name]),
            _against(measured, measures(ds, **shown), weight),
            _against(paid, payments(ds), weight),
        )
        for name, ds in list(cut.items())[1:]
    ]
    return Comparison(base_name, title, int(good.sum()), int(paths - good.sum()), base.sizes["hour"], others)


def measures(ds: xr.Dataset, *, stops: bool = False, ranked: bool = False) -> list[Measure]:
    """What is compared, of sound paths; stop orders too, and who is deleveraged, where any run has some."""
    volume, funded = by_path(ds, "liquidation_volume", "hour"), absorbers.funded(ds)
    adl, socialised = by_path(ds, "adl_volume"), by_path(ds, "socialised_loss")
    lead, empty = str(ds["asset"].values[0]), np.isfinite(read(ds, "fund_exhausted_hour").values)
    stopped = by_path(ds, "stop_volume") if "stop_volume" in ds else np.zeros(len(volume))
    return [
        Measure("liquidated", "usd", volume.sum(axis=1)),
        *([Measure("closed by stop orders", "usd", stopped)] if stops else []),
        Measure("largest hour", "usd", volume.max(axis=1)),
        Measure("99 % of hours", "usd", volume, 0.99),
        Measure("accounts liquidated", "accounts", by_path(ds, "accounts_liquidated")),
        Measure(f"lowest {lead}, from the start", "share", read(ds, "index_low").values[:, :, 0].min(axis=1) - 1.0),
        Measure("deleveraged (ADL)", "usd", adl),
        *(_whom_adl_hits(ds) if ranked else []),
        Measure("asked of funds (deficits)", "usd", by_path(ds, "deficit")),
        Measure("largest fall of funds", "usd", read(ds, "fund_drawdown").values.sum(axis=1)),
        Measure(f"chance of an hour above {usd(HOUR_THRESHOLD_USD)}", "share", volume.max(axis=1) > HOUR_THRESHOLD_USD),
        Measure("chance that a fund is exhausted", "share", empty[:, funded].any(axis=1)),
        Measure("chance of ADL", "share", adl > 0),
        Measure("chance of a socialised loss", "share", socialised > 0),
    ]


def _whom_adl_hits(ds: xr.Dataset) -> list[Measure]:
    """How many winners are deleveraged, and what the largest of them lose: rankings may differ in nothing else."""
    loss = by_path(ds, "adl_haircut", "hour", "venue")
    top = np.nan_to_num(read(ds, "adl_top_share").values) * loss
    return [
        Measure("accounts deleveraged", "accounts", by_path(ds, "adl_accounts")),
        Measure("ADL loss of the top 1 % of winners", "usd", top.sum(axis=(1, 2))),
    ]


def payments(ds: xr.Dataset) -> list[Measure]:
    """What each party pays per run, receipts negative, of sound paths.

    Traders who are closed pay funds (fees, and equity where the venue keeps it) and makers (the auction's discount);
    winners pay what ADL off the mark and socialisation take. Funds pay what their equity falls by, positions that they
    took over included. The lines do not sum to zero: what buyers in the order book gain is not in them, nor what
    accounts gain or lose as prices move.
    """
    config = json.loads(ds.attrs["config"])
    start = sum(pool["equity_usd"] for venue in config["venues"].values() for pool in venue["pools"])
    surplus, makers = by_path(ds, "surplus"), _discounts(ds, config)
    return [
        Measure("closed traders, to funds", "usd", surplus),
        Measure("closed traders, to makers", "usd", makers),
        Measure("insurance funds", "usd", start - read(ds, "fund_equity").values[:, -1].sum(axis=1)),
        Measure("backstop vaults", "usd", -np.nan_to_num(by_path(ds, "vault_profit"))),
        Measure("winners, by ADL", "usd", by_path(ds, "adl_haircut")),
        Measure("winners, socialised", "usd", by_path(ds, "socialised_loss")),
        Measure("market makers", "usd", -makers),
    ]


def _discounts(ds: xr.Dataset, config: Mapping) -> np.ndarray:
    """What makers gain against the mark in auctions [USD], [path]."""
    taken = by_path(ds.sel(layer="auction"), "absorbed_volume", "venue", "asset")
    discount = [
        [config["venues"][v]["markets"].get(a, {}).get("auction_discount_bps", 0.0) / 1e4 for a in ds["asset"].values]
        for v in ds["venue"].values
    ]
    return np.tensordot(taken, np.array(discount), 2)


def _against(base: Sequence[Measure], other: Sequence[Measure], weight: np.ndarray) -> list[Difference]:
    return [_difference(a, b, weight) for a, b in zip(base, other, strict=True)]


def _difference(a: Measure, b: Measure, weight: np.ndarray) -> Difference:
    unlike = (a.values != b.values).reshape(len(weight), -1).any(axis=1)
    if a.values.dtype == bool:
        change = paired_chance(a.values, b.values, weight)
    elif a.level is not None:
        change = paired_quantile(a.values, b.values, a.level, weight)
    else:
        change = paired_mean(b.values - a.values, weight)
    differs = float(weight @ unlike / weight.sum())
    return Difference(a.name, a.unit, _value(a, weight), _value(b, weight), change, differs)


def _value(measure: Measure, weight: np.ndarray) -> float:
    if measure.level is not None:
        return float(quantile(measure.values, [measure.level], weight)[0])
    return float(weight @ measure.values / weight.sum())
