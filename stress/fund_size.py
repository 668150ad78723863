"""How large an insurance fund would have to be, as far as a run with the fund of its own says.

A path's loss is the most that a fund would have had to pay out by any hour, net of what it received: the size at the
start, less the lowest equity since, plus the losses that were socialised in its stead. A fund of that size, in the same
events, would just not have been exhausted. But the events are not the same: a fund takes over up to a multiple of its
equity, and deleveraging starts when it is drawn down, so that a larger fund takes over more and loses more. Hence

- where the run's fund is exhausted more often than asked for, the reading is a lower bound, often a far one: what the
  fund could not take over went to deleveraging, and winners paid. What they lost is added in a second reading;
- where it is not, the run's own fund is enough, and the reading is on the safe side of what a smaller one needs.

To be sure, run again with the size that was read off, and look at the chance of exhaustion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stress import tail
from stress.intervals import Estimate, probability, quantile_intervals
from stress.results import by_path, independent, read, sound, weights
from stress.spec import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class SizeAt:
    """What a fund would need, not to be exhausted with a chance of `level` [USD]."""

    seen: Estimate
    """Quantile of its losses over paths."""
    with_adl: Estimate
    """The same with what winners lost to deleveraging in its markets."""
    fitted: Estimate | None
    """From the generalised-Pareto tail of its losses; none where fewer than 50 paths are in it."""
    reading: Literal["safe side", "lower bound", "undecided"]
    """By whether the run's own fund lasts that often, by the interval of its chance of exhaustion."""


@dataclass(frozen=True)
class FundSize:
    """An insurance fund of a run."""

    size: float
    """At the start [USD]."""
    exhausted: Estimate
    """Chance per run."""
    levels: Mapping[float, SizeAt]


def fund_sizes(ds: xr.Dataset, levels: Sequence[float] = tail.LEVELS) -> dict[str, FundSize]:
    """By fund of the run, those that have no money too.

    Args:
        ds: The run.
        levels: Chances of not being exhausted within the run [1].

    Raises:
        InputError: The run does not carry its config.
    """
    kept = sound(independent(ds))
    weight, size = weights(kept), sizes(ds)
    loss = losses(kept, size)
    paid = np.maximum(_paid_by_winners(kept), 0.0)
    exhausted = np.isfinite(read(kept, "fund_exhausted_hour").values)
    found = {}
    for f, name in enumerate(kept["pool"].values):
        chance = probability(exhausted[:, f], weight)
        seen, wider = (quantile_intervals(x, levels, weight) for x in (loss[:, f], loss[:, f] + paid[:, f]))
        fitted = _fitted(f"losses of {name}", loss[:, f], weight, levels)
        found[str(name)] = FundSize(
            float(size[f]),
            chance,
            {q: SizeAt(seen[q], wider[q], fitted[q], _reading(chance, q)) for q in levels},
        )
    return found


def _reading(exhausted: Estimate, level: float) -> Literal["safe side", "lower bound", "undecided"]:
    if exhausted.high <= 1 - level:
        return "safe side"
    return "lower bound" if exhausted.low > 1 - level else "undecided"


def losses(ds: xr.Dataset, size: np.ndarray) -> np.ndarray:
    """The most that each fund of these sizes [USD] would have had to pay by any hour: [path pool]."""
    socialised = np.cumsum(read(ds, "socialised_loss").values, axis=1, dtype=np.float64)
    return np.maximum((size - read(ds, "fund_low").values + socialised).max(axis=1), 0.0)


def _config(ds: xr.Dataset) -> dict[str, Any]:
    if "config" not in ds.attrs:
        raise InputError("the run carries no config, its attribute 'config' is missing. Give the store of a run.")
    return json.loads(ds.attrs["config"])


def sizes(ds: xr.Dataset) -> np.ndarray:
    """Equity of each fund at the start [USD]."""
    venues = _config(ds)["venues"]
    return np.array([pool["equity_usd"] for venue in venues.values() for pool in venue["pools"]])


def _paid_by_winners(ds: xr.Dataset) -> np.ndarray:
    """What winners lost to deleveraging in the markets of each fund: [path pool]."""
    haircut, assets = by_path(ds, "adl_haircut", "venue", "asset"), [str(asset) for asset in ds["asset"].values]
    columns = []
    for v, venue in enumerate(_config(ds)["venues"].values()):
        for pool in venue["pools"]:
            behind = [pool["markets"] == "all" or asset in pool["markets"] for asset in assets]
            columns.append(haircut[:, v] @ np.array(behind, dtype=np.float64))
    return np.stack(columns, axis=1)


def _fitted(
    what: str, loss: np.ndarray, weight: np.ndarray, levels: Sequence[float]
) -> Mapping[float, Estimate | None]:
    """Quantiles of a fitted tail; none where there are too few losses for one."""
    if not tail.thresholds(loss):
        return dict.fromkeys(levels)
    return {q: at.fitted for q, at in tail.fitted(what, loss, weight, levels=levels).levels.items()}
