"""What is read off the days after a run's last hour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stress.intervals import Estimate, quantile_intervals
from stress.results import by_path, keeps, sound, weights

if TYPE_CHECKING:
    import xarray as xr


class Course(NamedTuple):
    """A quantity day by day."""

    name: str
    units: str
    values: np.ndarray
    """By path and day."""


def has_days(ds: xr.Dataset) -> bool:
    """Whether anything follows the last hour of a run."""
    return "day" in ds.dims


def courses(ds: xr.Dataset) -> Iterator[Course]:
    """What a run keeps of its days, over all venues; volatility is that of the first asset.

    Leverage is notional over equity of all markets together, notional taken to be as open interest is.
    """
    ds = sound(ds)
    if keeps(ds, "recovery_volatility"):
        name, values = str(ds["asset"].values[0]), ds["recovery_volatility"].values[:, :, 0]
        yield Course(f"daily volatility of {name}", "1", values.astype(float))
    if keeps(ds, "recovery_open_interest"):
        yield Course("open interest", "USD", by_path(ds, "recovery_open_interest", "day"))
    if keeps(ds, "recovery_open_interest", "recovery_mean_leverage"):
        interest, leverage = (
            ds[f"recovery_{name}"].values.astype(float) for name in ("open_interest", "mean_leverage")
        )
        there = np.isfinite(leverage)
        notional, equity = np.where(there, interest, 0.0), np.where(there, interest / leverage, 0.0)
        yield Course("mean leverage", "1", notional.sum(axis=(2, 3)) / equity.sum(axis=(2, 3)))
    if keeps(ds, "recovery_liquidation_volume"):
        yield Course("liquidated in 24 h", "USD", by_path(ds, "recovery_liquidation_volume", "day"))
    if keeps(ds, "recovery_fund_equity"):
        yield Course("insurance funds", "USD", by_path(ds, "recovery_fund_equity", "day"))


def of_days(ds: xr.Dataset, course: Course, level: float) -> list[Estimate]:
    """A quantile over paths of each day, with its interval."""
    weight = weights(sound(ds))
    return [quantile_intervals(values, [level], weight)[level] for values in course.values.T]
