"""Who absorbs losses over a run: insurance funds, backstop vaults, deleveraged winners, buyers of collateral.

All functions take the sound paths of a run and the weight of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stress.intervals import LEVELS, Estimate, probability, quantile_intervals
from stress.results import by_path, keeps, read

if TYPE_CHECKING:
    import xarray as xr

_IN_WORST_HOUR = ("adl_top_share", "adl_top_10_share", "adl_top_keeps_of_total", "adl_top_keeps_of_largest")
OF_POOLS = ("fund_drawdown", "fund_equity", "fund_exhausted_hour", "socialised_loss", "deficit")
OF_VAULTS = ("vault_profit", "vault_equity")
OF_ADL = ("adl_haircut", "adl_overshoot", "adl_volume", "adl_open_interest", *_IN_WORST_HOUR)
"""Variables that are read to say anything of these."""


@dataclass(frozen=True)
class Distribution:
    """One quantity over paths, or over the hours of all paths."""

    mean: float
    quantiles: Mapping[float, Estimate]
    """By level, as in `LEVELS`."""
    largest: float
    positive: Estimate
    """Chance that a path has more than zero of it."""


@dataclass(frozen=True)
class PoolRisk:
    """An insurance fund over the whole run [USD]."""

    funded: bool
    """Whether it ever has money; one that has none stands for "no fund", and is not exhausted."""
    drawdown: Distribution
    exhausted: Estimate
    """Chance that equity falls to zero or below."""
    socialised: Distribution


@dataclass(frozen=True)
class VaultRisk:
    """A backstop vault over the whole run [USD]."""

    mean: float
    """Of its profit, a loss negative."""
    profit: Mapping[float, Estimate]
    """Quantiles by level: the median and lower ones."""
    smallest: float
    loss: Estimate
    """Chance that it loses."""
    lowest: Mapping[float, Estimate]
    """Quantiles, at the same levels, of the lowest equity at an hour's end."""
    exhausted: Estimate
    """Chance that equity is zero or below at an hour's end."""


@dataclass(frozen=True)
class Payers:
    """Who pays for auto-deleveraging at a venue."""

    haircut: float
    """Mean over paths of what winners lose against the mark, over the whole run [USD]."""
    overshoot: float
    """Mean over paths of what that is above what the losers lacked at the mark, negative where below [USD]."""
    medians: Mapping[str, Estimate]
    """Medians over paths with ADL [1], by variable: of `adl_open_interest` the largest of an hour and market, of the
    `adl_top_*` those of the hour in which winners lose most. What the run does not know is absent."""


@dataclass(frozen=True)
class Sold:
    """Coins of collateral sold at a venue over the whole run."""

    volume: Distribution
    """[USD]."""
    shares: Mapping[str, float]
    """Of the tokens sold, in the mean."""


def distribution(values: np.ndarray, weight: np.ndarray) -> Distribution:
    """Mean, quantiles with intervals and largest value of [path] or [path hour]."""
    values = np.asarray(values, dtype=np.float64)
    rows = values.reshape(len(values), -1)
    mean = float(weight @ rows.mean(axis=1) / weight.sum())
    some = probability((rows > 0).any(axis=1), weight)
    return Distribution(mean, quantile_intervals(values, LEVELS, weight), float(rows.max()), some)


def funded(ds: xr.Dataset) -> np.ndarray:
    """Which insurance funds ever have money, beyond the rounding of what they are asked to pay: [pool]."""
    most = np.maximum(read(ds, "fund_drawdown").values.max(axis=0), read(ds, "fund_equity").values.max(axis=(0, 1)))
    return most > 1e-6 * by_path(ds, "deficit", "pool").max(axis=0)


def vaulted(ds: xr.Dataset) -> np.ndarray:
    """Which venues have a backstop vault, where that is kept: [venue]."""
    if not keeps(ds, *OF_VAULTS):
        return np.zeros(ds.sizes["venue"], bool)
    return (np.nan_to_num(ds["vault_equity"].values) != 0).any(axis=(0, 1))


def falls(ds: xr.Dataset) -> np.ndarray:
    """What funds that have money and vaults lose: [path]."""
    lost = np.zeros((ds.sizes["path"], 1))
    if vaulted(ds).any():
        lost = np.maximum(-by_path(ds, "vault_profit", "venue")[:, vaulted(ds)], 0)
    return read(ds, "fund_drawdown").values[:, funded(ds)].sum(axis=1) + lost.sum(axis=1)


def pools(ds: xr.Dataset, weight: np.ndarray) -> dict[str, PoolRisk]:
    """By insurance fund; of a run that does not keep all of `OF_POOLS` nothing."""
    if not keeps(ds, *OF_POOLS):
        return {}
    drawdown, socialised = ds["fund_drawdown"].values, by_path(ds, "socialised_loss", "pool")
    exhausted, money = np.isfinite(ds["fund_exhausted_hour"].values), funded(ds)
    return {
        str(name): PoolRisk(
            bool(money[f]),
            distribution(drawdown[:, f], weight),
            probability(exhausted[:, f], weight),
            distribution(socialised[:, f], weight),
        )
        for f, name in enumerate(ds["pool"].values)
    }


def vaults(ds: xr.Dataset, weight: np.ndarray) -> dict[str, VaultRisk]:
    """By venue whose vault gains or loses anything, where that is kept."""
    if not keeps(ds, *OF_VAULTS):
        return {}
    profit, lowest = by_path(ds, "vault_profit", "venue"), ds["vault_equity"].values.min(axis=1)
    levels = (0.5, 0.05, 0.01)
    return {
        str(ds["venue"].values[v]): VaultRisk(
            mean=float(weight @ profit[:, v] / weight.sum()),
            profit=quantile_intervals(profit[:, v], levels, weight),
            smallest=float(profit[:, v].min()),
            loss=probability(profit[:, v] < 0, weight),
            lowest=quantile_intervals(lowest[:, v], levels, weight),
            exhausted=probability(lowest[:, v] <= 0, weight),
        )
        for v in np.flatnonzero(vaulted(ds) & (profit != 0).any(axis=0))
    }


def deleveraged(ds: xr.Dataset, weight: np.ndarray) -> dict[str, Distribution]:
    """Volume of auto-deleveraging over the whole run by venue, where that is kept [USD]."""
    if not keeps(ds, "adl_volume"):
        return {}
    volume = by_path(ds, "adl_volume", "venue")
    return {str(name): distribution(volume[:, v], weight) for v, name in enumerate(ds["venue"].values)}


def payers(ds: xr.Dataset, weight: np.ndarray) -> dict[str, Payers]:
    """By venue that deleverages; where it does so at the mark, winners lose nothing and only open interest is known.

    Nothing of a run that does not keep all of `OF_ADL`.
    """
    if not keeps(ds, *OF_ADL):
        return {}
    haircut, overshoot = by_path(ds, "adl_haircut", "hour", "venue"), by_path(ds, "adl_overshoot", "venue")
    deleveraged = by_path(ds, "adl_volume", "venue") > 0
    found = {}
    for v in np.flatnonzero(deleveraged.any(axis=0)):
        there, worst = ds.isel(venue=v), haircut[:, :, v].argmax(axis=1)
        values = {"adl_open_interest": there["adl_open_interest"].values.max(axis=(1, 2))}
        values |= {name: np.take_along_axis(there[name].values, worst[:, None], 1)[:, 0] for name in _IN_WORST_HOUR}
        known = {name: deleveraged[:, v] & np.isfinite(of) for name, of in values.items()}
        found[str(ds["venue"].values[v])] = Payers(
            haircut=float(weight @ haircut[:, :, v].sum(axis=1) / weight.sum()),
            overshoot=float(weight @ overshoot[:, v] / weight.sum()),
            medians={
                name: quantile_intervals(of[known[name]], [0.5], weight[known[name]])[0.5]
                for name, of in values.items()
                if known[name].any()
            },
        )
    return found


def stopped(ds: xr.Dataset, weight: np.ndarray) -> Distribution | None:
    """Volume of stop orders over the run; nothing where there is none, or in stores from before there were any."""
    volume = by_path(ds, "stop_volume") if "stop_volume" in ds else np.zeros(1)
    return distribution(volume, weight) if volume.any() else None


def sold(ds: xr.Dataset, weight: np.ndarray) -> dict[str, Sold]:
    """By venue at which collateral is sold, where that is kept."""
    if not keeps(ds, "collateral_sold"):
        return {}
    volume = by_path(ds, "collateral_sold", "venue", "asset")
    mean = np.tensordot(weight, volume, 1)
    return {
        str(ds["venue"].values[v]): Sold(
            distribution(volume[:, v].sum(axis=1), weight),
            {str(ds["asset"].values[a]): float(mean[v, a] / mean[v].sum()) for a in np.flatnonzero(mean[v])},
        )
        for v in np.flatnonzero(mean.sum(axis=1))
    }
