"""All numbers of one cell, a scenario under a policy, read off its dataset."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stress import absorbers, intervals, risk, tail
from stress.config import Run
from stress.intervals import Estimate, quantile_intervals
from stress.paired import mean_intervals, mean_ratio
from stress.report.language import packaged
from stress.report.quantities import LEVELS, Fact, exactly
from stress.results import by_path, in_memory, read, sound, weights
from stress.spec import validate

if TYPE_CHECKING:
    import xarray as xr

Found = tuple[str, Estimate, Mapping[str, str]]
"""A quantity, its value, and what it is of: `venue`, `pool`, `item`."""
_OFTEN = ("liquidation_volume", "open_interest", "adl_volume", "deficit", "socialised_loss", "fund_equity")
"""Variables from which several numbers are read."""
_FAN = {0.5: "fan_q50", 0.95: "fan_q95", 0.99: "fan_q99"}


@dataclass(frozen=True)
class Cell:
    """A scenario under a policy."""

    scenario: str
    policy: str
    """Empty where a run stands alone."""
    ds: xr.Dataset

    @property
    def config(self) -> dict[str, Any]:
        """Of its run."""
        return json.loads(self.ds.attrs["config"])

    @property
    def run(self) -> Run:
        """Its run; `InputError` where the config is one of another version of the program."""
        return validate(Run, self.config, f"{self.ds.attrs['name']}: config")


def facts_of(cell: Cell) -> Iterator[Fact]:
    """All numbers of a cell but those of the funds' adequacy."""
    ds = in_memory(cell.ds, *_OFTEN)
    kept, summary = sound(ds), risk.summary(ds)
    weight = weights(kept)
    config, hourly = cell.config, by_path(kept, "liquidation_volume", "hour", "venue", "asset")
    parts = (
        _quality(kept, summary),
        _volumes(kept, weight, summary, hourly.sum(axis=3)),
        _spread(kept, weight, config, hourly),
        _layers(kept, weight),
        _prices(kept, weight),
        _funds(kept, weight, summary, config),
        _deleveraging(kept, weight, summary),
    )
    for part in parts:
        for quantity, estimate, where in part:
            yield Fact(quantity, cell.scenario, cell.policy, estimate, **where)


def _quality(ds: xr.Dataset, summary: risk.Summary) -> Iterator[Found]:
    yield "paths", exactly(summary.paths), {}
    yield "failed", exactly(summary.failed), {}
    yield "effective_paths", exactly(summary.effective_paths), {}
    yield "ledger_residual", exactly(read(ds, "ledger_residual").values.max()), {}


def _volumes(ds: xr.Dataset, weight: np.ndarray, summary: risk.Summary, by_venue: np.ndarray) -> Iterator[Found]:
    """Liquidation volume, [path hour venue], by hour, by 24 hours and by run: of all venues and of each."""
    total = by_venue.sum(axis=2)
    each = {"": total} | {str(name): by_venue[:, :, v] for v, name in enumerate(ds["venue"].values)}
    means = _means(np.stack([volume.sum(axis=1) for volume in each.values()], axis=1), weight)
    for (venue, volume), mean in zip(each.items(), means, strict=True):
        where = {"venue": venue}
        yield "run_mean", mean, where
        hours = quantile_intervals(volume, list(LEVELS), weight) if venue else summary.hourly.quantiles
        yield from _named("hour", hours, where)
        yield "hour_largest", exactly(volume.max()), where
        yield from _named("day", quantile_intervals(_largest_day(volume), list(LEVELS), weight), where)
    yield "hour_shortfall", summary.shortfall, {}
    yield "chance_hour", summary.some_hour_above, {"item": f"{summary.hour_threshold:.0f}"}
    yield "chance_day", summary.day_above, {"item": f"{summary.day_threshold:.0f}"}
    for quantity, values in (("tail_hour_q999", total.max(axis=1)), ("tail_day_q999", _largest_day(total))):
        if tail.thresholds(values):
            fitted = tail.fitted(quantity, values, weight, levels=[0.999]).levels[0.999].fitted
            yield from [(quantity, fitted, {})] if fitted else []
    for hour, volume in zip(ds["hour"].values, total.T, strict=True):
        for level, found in quantile_intervals(volume, list(_FAN), weight).items():
            yield _FAN[level], found, {"item": str(hour)}
    edges = thresholds(float(total.max()))
    for edge, value, low, high in zip(edges, *intervals.exceedance(total, np.array(edges), weight), strict=True):
        yield "exceedance", Estimate(value, low, high), {"item": f"{edge:.10g}"}


def _spread(ds: xr.Dataset, weight: np.ndarray, config: Mapping[str, Any], hourly: np.ndarray) -> Iterator[Found]:
    """Where liquidations, [path hour venue asset], are: sides, assets, markets, and how large for a market."""
    volume = by_path(ds, "liquidation_volume", "venue", "asset", "side")
    whole, sides = volume.sum(axis=(1, 2, 3)), list(ds["side"].values)
    by_market = volume.sum(axis=3)
    interest = read(ds, "open_interest").isel(hour=0).values.astype(np.float64)
    yield "share_long", _share(volume[..., sides.index("long")].sum(axis=(1, 2)), whole, weight), {}
    largest = _largest_day(hourly.sum(axis=(2, 3)))
    yield "day_of_interest", mean_ratio(largest, interest.sum(axis=(1, 2)), weight), {}
    for a, asset in enumerate(ds["asset"].values):
        yield "share_asset", _share(by_market[:, :, a].sum(axis=1), whole, weight), {"item": str(asset)}
    worst = hourly.max(axis=1)
    for v, venue in enumerate(ds["venue"].values):
        for a, asset in enumerate(ds["asset"].values):
            market = config["venues"][str(venue)]["markets"].get(str(asset))
            if market is None:
                continue
            where = {"venue": str(venue), "item": str(asset)}
            hours = worst[:, v, a] / market["adv_usd"]
            yield "share_market", _share(by_market[:, v, a], whole, weight), where
            yield "interest_market", mean_intervals(interest[:, v, a, None], weight)[0], where
            yield "market_hour_q999", quantile_intervals(hours, [0.999], weight)[0.999], where


def _layers(ds: xr.Dataset, weight: np.ndarray) -> Iterator[Found]:
    """What absorbed the forced orders: mean of a run, by venue and layer."""
    taken, layers = by_path(ds, "absorbed_volume", "venue", "layer"), [str(name) for name in ds["layer"].values]
    each = {"": taken.sum(axis=1)} | {str(name): taken[:, v] for v, name in enumerate(ds["venue"].values)}
    for venue, amounts in each.items():
        for layer, amount, mean in zip(layers, amounts.T, _means(amounts, weight), strict=True):
            yield "layer_mean", mean, {"venue": venue, "item": layer}
            yield "layer_share", _share(amount, amounts.sum(axis=1), weight), {"venue": venue, "item": layer}


def _prices(ds: xr.Dataset, weight: np.ndarray) -> Iterator[Found]:
    """How far each index goes within a run, from its start."""
    low, high = read(ds, "index_low").values.min(axis=1) - 1.0, read(ds, "index_high").values.max(axis=1) - 1.0
    for a, asset in enumerate(ds["asset"].values):
        where = {"item": str(asset)}
        lows = quantile_intervals(low[:, a], [0.5, 0.01, 0.001], weight)
        highs = quantile_intervals(high[:, a], [0.99, 0.999], weight)
        yield from ((name, lows[q], where) for q, name in ((0.5, "low_q50"), (0.01, "low_q01"), (0.001, "low_q001")))
        yield "low_lowest", exactly(low[:, a].min()), where
        yield from ((name, highs[q], where) for q, name in ((0.99, "high_q99"), (0.999, "high_q999")))
        for move in recorded_falls(str(asset)):
            yield "beyond", intervals.probability(low[:, a] < move, weight), {"item": f"{asset} {move:g}"}


def _funds(ds: xr.Dataset, weight: np.ndarray, summary: risk.Summary, config: Mapping[str, Any]) -> Iterator[Found]:
    """What insurance funds lose, are asked for and socialise."""
    sizes = [pool["equity_usd"] for venue in config["venues"].values() for pool in venue["pools"]]
    yield "fund_size_total", exactly(sum(sizes)), {}
    money, asked = absorbers.funded(ds), by_path(ds, "deficit", "hour", "pool")
    empty = np.isfinite(read(ds, "fund_exhausted_hour").values)[:, money]
    if money.any():
        yield "exhausted_any", intervals.probability(empty.any(axis=1), weight), {}
    socialised = by_path(ds, "socialised_loss", "pool")
    names = [str(name) for name in ds["pool"].values]
    each = np.concatenate([socialised.sum(axis=1)[:, None], socialised, asked.sum(axis=1)], axis=1)
    total, *means = _means(each, weight)
    yield "socialised_mean", total, {}
    for f, name in enumerate(names):
        pool, where = summary.pools[name], {"venue": name.partition("/")[0], "pool": name}
        yield "fund_size", exactly(sizes[f]), where
        yield "deficit_mean", means[len(names) + f], where
        yield "deficit_hour_q999", quantile_intervals(asked[:, :, f].max(axis=1), [0.999], weight)[0.999], where
        yield "deficit_largest", exactly(asked[:, :, f].max()), where
        yield "socialised_mean", means[f], where
        yield "socialised_q99", pool.socialised.quantiles[0.99], where
        yield "socialised_chance", pool.socialised.positive, where
        if pool.funded:
            yield from _named("fall", pool.drawdown.quantiles, where)
            yield "fall_largest", exactly(pool.drawdown.largest), where
            yield "exhausted", pool.exhausted, where


def _deleveraging(ds: xr.Dataset, weight: np.ndarray, summary: risk.Summary) -> Iterator[Found]:
    """Auto-deleveraging, who pays for it, and backstop vaults, by venue."""
    volume = by_path(ds, "adl_volume", "venue")
    total, *means = _means(np.column_stack([volume.sum(axis=1), volume]), weight)
    lost = mean_intervals(by_path(ds, "adl_haircut", "venue"), weight)
    yield "adl_mean", total, {}
    yield "adl_q99", quantile_intervals(volume.sum(axis=1), [0.99], weight)[0.99], {}
    yield "adl_chance", intervals.probability((volume > 0).any(axis=1), weight), {}
    for (venue, adl), mean, haircut in zip(summary.adl.items(), means, lost, strict=True):
        where = {"venue": venue}
        yield "adl_mean", mean, where
        yield "adl_q99", adl.quantiles[0.99], where
        yield "adl_chance", adl.positive, where
        if venue in summary.payers:
            paid = summary.payers[venue]
            yield "adl_haircut_mean", haircut, where
            yield from ((name, paid.medians[name], where) for name in ("adl_top_share", "adl_open_interest")
                        if name in paid.medians)  # fmt: skip
    for venue, vault in summary.vaults.items():
        profit = by_path(ds.sel(venue=[venue]), "vault_profit", "venue")
        yield "vault_mean", mean_intervals(profit, weight)[0], {"venue": venue}
        yield "vault_smallest", exactly(vault.smallest), {"venue": venue}
        yield "vault_exhausted", vault.exhausted, {"venue": venue}


def _means(amounts: np.ndarray, weight: np.ndarray) -> list[Estimate]:
    """Means of amounts that are never negative, [path quantity]; above none on any path the paths cannot tell."""
    found = mean_intervals(amounts, weight)
    return [replace(mean, high=np.inf) if mean.value == 0 else mean for mean in found]


def _share(part: np.ndarray, whole: np.ndarray, weight: np.ndarray) -> Estimate:
    """Mean of a part over that of the whole, [path] each, with an interval within 0 and 1; of none or all, open."""
    share = mean_ratio(part, whole, weight)
    if share.value in (0, 1):
        return Estimate(share.value, *((0.0, np.inf) if share.value == 0 else (-np.inf, 1.0)))
    return Estimate(share.value, float(np.maximum(share.low, 0.0)), float(np.minimum(share.high, 1.0)))


def _named(stem: str, found: Mapping[float, Estimate], where: Mapping[str, str]) -> Iterator[Found]:
    for level, end in LEVELS.items():
        yield f"{stem}_{end}", found[level], where


def _largest_day(volume: np.ndarray) -> np.ndarray:
    """The largest 24 hours of each path, or all of a shorter run: [path hour] -> [path]."""
    return sliding_window_view(volume, min(24, volume.shape[1]), axis=1).sum(axis=-1).max(axis=1)


def recorded_falls(asset: str) -> list[float]:
    """Falls of an asset that were recorded, against the price before [1]."""
    falls = tomllib.loads(packaged("data", "records.toml").decode("utf-8"))["falls"]
    return [fall["move"] for fall in falls if fall["asset"] == asset]


def thresholds(largest: float) -> Sequence[float]:
    """Round amounts over four decades up to the largest hour, and the headline hour [USD]."""
    top = np.ceil(np.log10(max(largest, 1.0)))
    steps = [factor * 10.0**power for power in np.arange(top - 4, top) for factor in (1, 2, 5)]
    return sorted({*(step for step in steps if step <= largest), risk.HOUR_THRESHOLD_USD})
