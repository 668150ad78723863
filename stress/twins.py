"""A run beside its twin without impact, path by path on the same random numbers: how much forced orders add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stress import intervals, paired
from stress.intervals import LEVELS, Estimate
from stress.results import by_path, independent, weights

if TYPE_CHECKING:
    import xarray as xr

_RARE = 0.99


@dataclass(frozen=True)
class Ratio:
    """The same figure of both runs [USD], and how many times as large it is with impact."""

    impact: float
    without: float
    ratio: Estimate
    """NaN where there is none without impact; its interval is over pairs of paths."""


@dataclass(frozen=True)
class Amplification:
    """Forced closings with impact, against those without."""

    paths: int
    """Pairs of sound paths."""
    hours: int
    run: Ratio
    """Mean over paths of the whole run."""
    added: Estimate
    """The same with impact less that without [USD]."""
    assets: Mapping[str, Ratio]
    """As `run`; those in which anything is closed."""
    hourly: Mapping[float, Ratio]
    """Quantiles of the volume of an hour, over all hours of all paths."""
    shortfall: Ratio
    """Mean of the largest 1 % of hours."""
    of_paths: Mapping[float, Estimate]
    """Quantiles over paths of the ratio of a path to its own twin; those without volume in the twin are left out."""


def pairs(ds: xr.Dataset, twin: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both runs on the paths that are sound in both."""
    sound = np.flatnonzero((ds["status"].values == 0) & (twin["status"].values == 0))
    return (ds, twin) if len(sound) == ds.sizes["path"] else (ds.isel(path=sound), twin.isel(path=sound))


def compare(ds: xr.Dataset, twin: xr.Dataset) -> Amplification:
    """Read the amplification off a run and its twin.

    Args:
        ds: With impact.
        twin: The same run with `impact.i_ref = 0`.
    """
    ds, twin = pairs(independent(ds), twin)
    weight = weights(ds)
    hours, hours_without = (by_path(one, "liquidation_volume", "hour") for one in (ds, twin))
    runs, runs_without = hours.sum(axis=1), hours_without.sum(axis=1)
    by_asset = [by_path(one, "liquidation_volume", "asset") for one in (ds, twin)]

    def of_runs(over: np.ndarray, under: np.ndarray) -> Ratio:
        impact, without = (float(weight @ x / weight.sum()) for x in (over, under))
        return Ratio(impact, without, paired.mean_ratio(over, under, weight))

    ratios = paired.quantile_ratios(hours, hours_without, LEVELS, weight)
    levels = zip(*(intervals.quantile(x, LEVELS, weight).tolist() for x in (hours, hours_without)), strict=True)
    worst, worst_without = (intervals.expected_shortfall(x, _RARE, weight) for x in (hours, hours_without))
    some = runs_without > 0
    return Amplification(
        paths=len(weight),
        hours=hours.shape[1],
        run=of_runs(runs, runs_without),
        added=paired.paired_mean(runs - runs_without, weight),
        assets={
            str(name): of_runs(*(x[:, a] for x in by_asset))
            for a, name in enumerate(ds["asset"].values)
            if by_asset[0][:, a].any()
        },
        hourly={q: Ratio(x, y, ratios[q]) for q, (x, y) in zip(LEVELS, levels, strict=True)},
        shortfall=Ratio(worst, worst_without, paired.shortfall_ratio(hours, hours_without, _RARE, weight)),
        of_paths=intervals.quantile_intervals(runs[some] / runs_without[some], LEVELS, weight[some])
        if some.any()
        else {},
    )
