"""Means of a run whose paths are drawn in pairs or nets: errors from how the groups scatter, and what that gains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from stress.intervals import TAILS, Estimate
from stress.results import by_path, group_of
from stress.risk import HOUR_THRESHOLD_USD, Row, percent, span, usd

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class GroupMean(Estimate):
    """A mean over paths, with Student's interval over independent groups."""

    draws: float = 0.0
    """Independent paths by which it would be known as well."""


def group_mean(values: np.ndarray, group: int) -> GroupMean:
    """Mean of [path], of which so many consecutive ones depend on each other.

    Every path by itself has the law that independent ones have: their variance is that of all paths, but for what the
    mean's own error adds, and the paths that this would take to scatter as little are what the groups are worth.
    """
    means = np.asarray(values, np.float64).reshape(-1, group).mean(axis=1)
    mean, groups = float(means.mean()), len(means)
    if groups < 2:
        return GroupMean(mean, -np.inf, np.inf, draws=np.nan)
    square = float(means.var(ddof=1)) / groups
    reach = float(stdtrit(groups - 1, TAILS[1])) * np.sqrt(square)
    draws = (float(np.var(values)) + square) / square if square > 0 else np.nan
    return GroupMean(mean, mean - reach, mean + reach, draws=draws)


def mean_rows(ds: xr.Dataset) -> Iterator[Row]:
    """Means of a run by path, as lines of text; of groups in which no path failed."""
    group = group_of(ds)
    failed = (ds["status"].values != 0).reshape(-1, group).any(axis=1)
    kept = ds.isel(path=np.flatnonzero(~np.repeat(failed, group)))
    volume = by_path(kept, "liquidation_volume", "hour")
    amounts = {
        "liquidated": volume.sum(axis=1),
        "largest hour": volume.max(axis=1),
        "largest falls of funds": kept["fund_drawdown"].values.sum(axis=1),
    }
    lead, close, low = str(ds["asset"].values[0]), kept["index_close"].values[:, -1, 0], kept["index_low"].values
    shares = {
        f"close of {lead}, from the start": close - 1.0,
        f"its square, of {lead}": (close - 1.0) ** 2,
        f"lowest {lead}, from the start": low[:, :, 0].min(axis=1) - 1.0,
        f"chance of an hour above {usd(HOUR_THRESHOLD_USD)}": volume.max(axis=1) > HOUR_THRESHOLD_USD,
    }
    for found, text in ((amounts, usd), (shares, percent)):
        for name, values in found.items():
            mean = group_mean(values, group)
            yield Row("means", name, text(mean.value), span(mean, text))
            if np.isfinite(mean.draws):
                yield Row("means", "  as by so many independent paths", f"{mean.draws:,.0f}")
