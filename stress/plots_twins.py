"""A picture of amplification: how often an hour is worse with and without impact, and the ratio by quantile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stress import intervals
from stress.drawing import BLACK, BLUE, GREY, SKY, VERMILION, axes_of, legend, plain_log
from stress.results import by_path, weights
from stress.risk import usd
from stress.twins import Amplification, compare, pairs

if TYPE_CHECKING:
    import xarray as xr


def amplification_picture(ds: xr.Dataset, twin: xr.Dataset) -> Figure:
    """Both runs' hours at the left, ratios with their intervals at the right."""
    found = compare(ds, twin)
    fig = Figure(figsize=(13, 5.8))
    fig.subplots_adjust(left=0.08, right=0.97, bottom=0.15, top=0.73, wspace=0.36)
    FigureCanvasAgg(fig)
    left, right = fig.subplots(1, 2)
    hours_of_both(ds, twin, left)
    ratios(found, right)
    fig.suptitle(takeaway(found), fontsize=14, fontweight="bold", x=0.015, y=0.97, ha="left")
    words = f"{ds.attrs['name']}, {found.paths:,} pairs of paths of {found.hours} h | seed {ds.attrs['seed']}"
    fig.text(0.015, 0.02, words, fontsize=9, color=GREY)
    return fig


def takeaway(found: Amplification) -> str:
    """What the comparison says, in two lines."""
    of, rare = found.run.ratio, found.hourly[0.999].ratio
    if np.isnan(of.value):
        return f"Without impact nothing is liquidated; with it, {usd(found.run.impact)} in the mean of all runs."
    ends = f"({rare.low:.2f} to {rare.high:.2f})" if np.isfinite(rare.high) else "(few paths)"
    return (
        f"Impact makes liquidations {of.value:.2f} times as large ({of.low:.2f} to {of.high:.2f}), "
        f"by {usd(found.added.value)} a run;\nthe hour that 0.1 % of hours exceed, {rare.value:.2f} times {ends}."
    )


def hours_of_both(ds: xr.Dataset, twin: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of all hours above a volume, with impact and without."""
    ax = axes_of(ax, "How often an hour is worse")
    kept = pairs(ds, twin)
    weight = weights(kept[0])
    volumes = [by_path(one, "liquidation_volume", "hour") for one in kept]
    largest = max(float(x.max()) for x in volumes) or 1.0
    grid = np.geomspace(largest * 1e-4, largest * 1.2, 120)
    for volume, colour, light, label in zip(volumes, (VERMILION, BLUE), (VERMILION, SKY),
                                            ("with impact", "without"), strict=True):  # fmt: skip
        value, low, high = intervals.exceedance(volume, grid, weight)
        seen = value > 0
        ax.fill_between(grid[seen] / 1e6, np.maximum(low[seen], value[seen] / 10), high[seen], color=light, alpha=0.25,
                        lw=0)  # fmt: skip
        ax.plot(grid[seen] / 1e6, value[seen], color=colour, lw=2, label=label)
    ax.set(xscale="log", yscale="log", xlabel="liquidated in an hour [M USD]")
    ax.set(ylabel="share of all hours above it [%]", xlim=(grid[0] / 1e6, grid[-1] / 1e6))
    plain_log(ax, "x")
    plain_log(ax, "y", 100)
    legend(ax, ncols=2)
    return ax


def ratios(found: Amplification, ax: Axes | None = None) -> Axes:
    """How many times as large figures are with impact."""
    alone, ax = ax is None, axes_of(ax, "Times as large with impact, 95 % intervals")
    if alone:
        ax.figure.subplots_adjust(left=0.26)  # type: ignore[union-attr]  # Names of rows are long.
    rows = {
        "whole run": found.run,
        **{f"{100 * q:g} % of hours": of for q, of in found.hourly.items()},
        "largest 1 % of hours": found.shortfall,
        **found.assets,
    }
    shown = {name: of for name, of in rows.items() if np.isfinite(of.ratio.value)}
    for row, of in enumerate(shown.values()):
        known = np.isfinite(of.ratio.high)
        if known:
            ax.hlines(row, of.ratio.low, of.ratio.high, color=BLUE, lw=2)
        ax.plot(of.ratio.value, row, "o", color=BLUE, ms=6)
        ax.annotate(f"{of.ratio.value:.2f}", (of.ratio.high if known else of.ratio.value, row), (7, 0),
                    textcoords="offset points", va="center", fontsize=9, color=BLUE)  # fmt: skip
    ax.axvline(1, color=BLACK, lw=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    ax.margins(x=0.12)
    ax.grid(False, axis="y")
    ax.set(xlabel="volume with impact over volume without [1]")
    return ax
