"""How far insurance funds fall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from stress import absorbers, intervals
from stress.drawing import BLACK, GREY, PALETTE, axes_of, legend, plain_log
from stress.fund_size import sizes
from stress.results import read, sound, weights

if TYPE_CHECKING:
    import xarray as xr

_PLACES = 80


def fund_drawdown(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Chance that a fund falls by more than an amount within a run, with its interval; dashed: all it starts with."""
    ds = sound(ds)
    ax = axes_of(ax, "How far the insurance funds fall")
    weight, fall = weights(ds), read(ds, "fund_drawdown").values
    funds = np.flatnonzero(absorbers.funded(ds))
    largest = fall[:, funds].max(initial=0.0)
    if largest <= 0:
        ax.annotate("no fund falls", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        ax.set(xlabel="largest fall in a run [M USD]", ylabel="share of runs above it [%]")
        return ax
    grid = np.geomspace(max(largest * 1e-5, 1.0), 1.1 * largest, _PLACES)
    lowest = 1.0
    for i, f in enumerate(funds):
        value, low, high = intervals.exceedance(fall[:, f], grid, weight)
        seen, colour = value > 0, PALETTE[i % len(PALETTE)]
        if not seen.any():
            continue
        lowest = min(lowest, float(value[seen].min()))
        ax.fill_between(grid[seen] / 1e6, np.maximum(low[seen], 1e-9), high[seen], color=colour, alpha=0.2, lw=0)
        ax.plot(grid[seen] / 1e6, value[seen], color=colour, lw=2, label=str(ds["pool"].values[f]))
        if "config" in ds.attrs and 0 < sizes(ds)[f] <= grid[-1]:
            ax.axvline(sizes(ds)[f] / 1e6, color=colour, lw=1.2, ls="--")
    ax.axhline(1.0, color=BLACK, lw=0.8)
    ax.set(xscale="log", yscale="log", ylim=(lowest / 3, 1), xlim=(grid[0] / 1e6, grid[-1] / 1e6))
    ax.set(xlabel="largest fall in a run [M USD]", ylabel="share of runs above it [%]")
    plain_log(ax, "x")
    plain_log(ax, "y", 100)
    legend(ax, ncols=3)
    return ax
