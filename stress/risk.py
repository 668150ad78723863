"""What is read off a run: its volumes, funds and deleveraging, as figures and as lines of text.

Paths that failed (`status` other than 0) are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view

from stress.intervals import LEVELS, Estimate, probability, quantile_intervals, shortfall_interval
from stress.results import by_path, effective_paths, sound, weights

HOUR_THRESHOLD_USD = 601e6
"""Liquidations of the headline hour at Binance, Bybit and OKX in 2025, weakly sourced [USD]."""
DAY_THRESHOLD_USD = 1.57e9
"""Liquidations of the 24 hours around it [USD]."""


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

    drawdown: Distribution
    exhausted: Estimate
    """Chance that equity falls to zero or below."""
    socialised: Distribution


@dataclass(frozen=True)
class Summary:
    """The figures of a run that a risk committee asks for first."""

    paths: int
    failed: int
    """Paths that failed; they are in nothing else here, `paths` included."""
    effective_paths: float
    """(sum of weights)^2 / sum of squared weights; as many as paths without importance sampling."""
    hours: int
    hourly: Distribution
    """Liquidation volume of an hour, over all hours of all paths [USD]."""
    shortfall: Estimate
    """Mean of the largest 1 % of hours [USD]."""
    worst_path: int
    worst_hour: int
    hour_threshold: float
    some_hour_above: Estimate
    """Chance that some hour of the run is above `hour_threshold`."""
    day_threshold: float
    day_hours: int
    """24, or the length of a shorter run [h]."""
    day_above: Estimate
    """Chance that some `day_hours` consecutive hours sum to more than `day_threshold`."""
    long_share: float
    asset_shares: Mapping[str, float]
    adl: Mapping[str, Distribution]
    """Volume over the whole run, by venue [USD]."""
    pools: Mapping[str, PoolRisk]


def distribution(values: np.ndarray, weight: np.ndarray) -> Distribution:
    """Mean, quantiles with intervals and largest value of [path] or [path hour]."""
    values = np.asarray(values, dtype=np.float64)
    rows = values.reshape(len(values), -1)
    mean = float(weight @ rows.mean(axis=1) / weight.sum())
    some = probability((rows > 0).any(axis=1), weight)
    return Distribution(mean, quantile_intervals(values, LEVELS, weight), float(rows.max()), some)


def summary(
    ds: xr.Dataset, hour_threshold: float = HOUR_THRESHOLD_USD, day_threshold: float = DAY_THRESHOLD_USD
) -> Summary:
    """The figures of a run; thresholds in USD."""
    kept = sound(ds)
    weight = weights(kept)
    volume, adl = by_path(kept, "liquidation_volume", "hour"), by_path(kept, "adl_volume", "venue")
    split = np.tensordot(weight, by_path(kept, "liquidation_volume", "asset", "side"), 1)
    split /= split.sum() or np.nan
    worst_path, worst_hour = np.unravel_index(volume.argmax(), volume.shape)
    day = min(24, volume.shape[1])
    days = sliding_window_view(volume, day, axis=1).sum(axis=-1)
    return Summary(
        paths=len(weight),
        failed=ds.sizes["path"] - len(weight),
        effective_paths=effective_paths(weight),
        hours=volume.shape[1],
        hourly=distribution(volume, weight),
        shortfall=shortfall_interval(volume, 0.99, weight),
        worst_path=int(kept["path"].values[worst_path]),
        worst_hour=int(kept["hour"].values[worst_hour]),
        hour_threshold=hour_threshold,
        some_hour_above=probability(volume.max(axis=1) > hour_threshold, weight),
        day_threshold=day_threshold,
        day_hours=day,
        day_above=probability((days > day_threshold).any(axis=1), weight),
        long_share=float(split[:, list(kept["side"].values).index("long")].sum()),
        asset_shares={str(a): float(share) for a, share in zip(kept["asset"].values, split.sum(axis=1), strict=True)},
        adl={str(name): distribution(adl[:, v], weight) for v, name in enumerate(kept["venue"].values)},
        pools=_pools(kept, weight),
    )


def _pools(ds: xr.Dataset, weight: np.ndarray) -> dict[str, PoolRisk]:
    drawdown, socialised = ds["fund_drawdown"].values, by_path(ds, "socialised_loss", "pool")
    exhausted = np.isfinite(ds["fund_exhausted_hour"].values)
    return {
        str(name): PoolRisk(
            distribution(drawdown[:, f], weight),
            probability(exhausted[:, f], weight),
            distribution(socialised[:, f], weight),
        )
        for f, name in enumerate(ds["pool"].values)
    }


def usd(amount: float) -> str:
    """An amount as people write it, three digits: `601 M USD`, `1.57 bn USD`."""
    for unit, name in ((1e9, "bn "), (1e6, "M "), (1e3, "k ")):
        if abs(amount) >= 0.9995 * unit:
            scaled = amount / unit
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:,.{digits}f} {name}USD"
    return f"{amount:.0f} USD"


def percent(share: float) -> str:
    """A share in per cent, two digits where it is small."""
    scaled = 100 * share
    if 99.9 < scaled < 100:
        return f"{100 - float(f'{100 - scaled:.2g}'):.6g} %"
    return f"{scaled:.0f} %" if scaled in (0, 100) else f"{scaled:.1f} %" if scaled >= 0.995 else f"{scaled:.2g} %"


class Row(NamedTuple):
    """A line of the summary table, ready to print."""

    group: str
    quantity: str
    value: str
    interval: str = ""


def summary_table(ds: xr.Dataset | Summary) -> list[Row]:
    """The summary of a run as lines of text."""
    s = ds if isinstance(ds, Summary) else summary(ds)
    names = {q: "median" if q == 0.5 else f"{100 * q:g} %" for q in LEVELS}
    rows = [Row("run", "paths", f"{s.paths:,}" + (f" ({s.failed:,} failed and left out)" if s.failed else ""))]
    if s.effective_paths < 0.999 * s.paths:
        rows.append(Row("run", "paths they are worth, by their weights", f"{s.effective_paths:,.0f}"))
    hourly = [_money("hourly volume", f"{names[q]} of hours", e) for q, e in s.hourly.quantiles.items()]
    rows += [*hourly, _money("hourly volume", "mean of the largest 1 % of hours", s.shortfall)]
    rows += [
        Row("hourly volume", f"largest (path {s.worst_path}, hour {s.worst_hour})", usd(s.hourly.largest)),
        _chance("chance per run", f"an hour above {usd(s.hour_threshold)}", s.some_hour_above),
        _chance("chance per run", f"{s.day_hours} h above {usd(s.day_threshold)}", s.day_above),
        Row("composition", "longs", percent(s.long_share)),
        *(Row("composition", asset, percent(share)) for asset, share in s.asset_shares.items()),
    ]
    for name, pool in s.pools.items():
        group = f"fund {name}"
        rows += [_money(group, f"drawdown, {names[q]} of runs", e) for q, e in pool.drawdown.quantiles.items()]
        rows += [
            Row(group, "drawdown, largest", usd(pool.drawdown.largest)),
            _chance(group, "chance of exhaustion", pool.exhausted),
            Row(group, "socialised loss, mean", usd(pool.socialised.mean)),
            _money(group, "socialised loss, 99 % of runs", pool.socialised.quantiles[0.99]),
            _chance(group, "chance of a socialised loss", pool.socialised.positive),
        ]
    for name, adl in s.adl.items():
        rows += [
            Row(f"ADL at {name}", "volume, mean", usd(adl.mean)),
            _money(f"ADL at {name}", "volume, 99 % of runs", adl.quantiles[0.99]),
            _chance(f"ADL at {name}", "chance of any", adl.positive),
        ]
    return rows


def _money(group: str, quantity: str, e: Estimate) -> Row:
    return Row(group, quantity, usd(e.value), f"{usd(e.low)} to {usd(e.high)}")


def _chance(group: str, quantity: str, e: Estimate) -> Row:
    return Row(group, quantity, percent(e.value), f"{percent(e.low)} to {percent(e.high)}")
