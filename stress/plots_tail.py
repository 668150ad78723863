"""Pictures of a tail: how often a run is worse, with the fit, and what the fit would be above other thresholds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from stress import intervals
from stress.drawing import BLUE, GREY, SKY, VERMILION, axes_of, legend, plain_log
from stress.intervals import Estimate
from stress.risk import span, usd
from stress.tail import Tail

_POINTS = 80
_DECADES = 300
"""Ratio of the largest to the smallest below which 20 and 50 are written on an axis too."""


def tail_figure(found: Tail, name: str) -> Figure:
    """The fitted tail, mean excess and shape by threshold."""
    fig = Figure(figsize=(13, 9))
    FigureCanvasAgg(fig)
    fig.subplots_adjust(left=0.08, right=0.98, bottom=0.09, top=0.85, wspace=0.22, hspace=0.55)
    grid = fig.add_gridspec(2, 2)
    exceedance(found, fig.add_subplot(grid[0, :]))
    mean_excess(found, fig.add_subplot(grid[1, 0]))
    shape(found, fig.add_subplot(grid[1, 1]))
    fig.suptitle(takeaway(found), fontsize=14, fontweight="bold", x=0.015, y=0.985, ha="left")
    fig.text(0.015, 0.012, f"{name} | {len(found.values):,} paths | {found.what}", fontsize=9, color=GREY)
    return fig


def takeaway(found: Tail) -> str:
    """What the tail says, in two lines."""
    level, at = max(found.levels.items())
    best = at.fitted or at.seen
    what = found.what[0].upper() + found.what[1:]
    return f"{what}:\n{100 * level:g} % are at most {usd(best.value)} (95 % interval {span(best, usd)})"


def exceedance(found: Tail, ax: Axes | None = None) -> Axes:
    """Chance of more: the paths, their interval, the fitted tail and its band."""
    ax = axes_of(ax, "How often a run is worse")
    tail, fit = found.chosen.fit.tail, found.chosen.fit
    ascending = np.sort(found.values)
    floor = min(1 - max(found.levels), 1 / len(ascending)) / 3
    start = max(ascending[len(ascending) // 2], tail.threshold / 100, 1.0)
    reach = max(ascending[-1], float(tail.quantile(1 - floor)))
    wide = reach > 10 * start
    seen = np.unique(ascending[ascending > start])
    seen = seen[np.unique(np.linspace(0, len(seen) - 1, 4 * _POINTS).astype(int))]
    value, low, high = intervals.exceedance(found.values, seen, found.weight)
    low = np.maximum(low, floor)
    ax.fill_between(seen / 1e6, low, high, color=SKY, alpha=0.45, lw=0, label="95 % interval of paths")
    ax.plot(seen[value > 0] / 1e6, value[value > 0], ".", color=BLUE, ms=5, label="paths")
    far = (np.geomspace if wide else np.linspace)(max(tail.threshold, start), reach, _POINTS)
    band = [fit.interval(lambda t, x=x: t.exceedance(x)) for x in far]
    ends = np.maximum([[e.low for e in band], [e.high for e in band]], floor)
    ax.fill_between(far / 1e6, *ends, color=VERMILION, alpha=0.2, lw=0, label="95 % interval of the fit")
    ax.plot(far / 1e6, np.maximum([e.value for e in band], floor), color=VERMILION, lw=2, label="fitted tail")
    ax.axvline(tail.threshold / 1e6, color=GREY, lw=1, ls=":")
    ax.set(yscale="log", xscale="log" if wide else "linear", ylim=(floor, 1))
    ax.set(xlabel=f"{found.what} [M USD]", ylabel="share of runs above it [%]")
    if wide:
        plain_log(ax, "x")
        if reach < _DECADES * start:
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
    plain_log(ax, "y", 100)
    legend(ax, ncols=4)
    return ax


def mean_excess(found: Tail, ax: Axes | None = None) -> Axes:
    """Mean of what lies above each threshold, straight in it where the tail is generalised-Pareto."""
    ax = axes_of(ax, "Mean excess: straight from where the tail fits")
    _by_threshold(found, [c.mean_excess for c in found.candidates], 1e6, ax)
    tail = found.chosen.fit.tail
    if tail.shape < 1 and found.candidates:
        right = max(c.threshold for c in found.candidates)
        line = np.array([tail.threshold, max(right, tail.threshold)])
        mean = (tail.scale + tail.shape * (line - tail.threshold)) / (1 - tail.shape)
        ax.plot(line / 1e6, mean / 1e6, color=VERMILION, lw=2, label="of the fitted tail")
    ax.set(xlabel="threshold [M USD]", ylabel="mean excess [M USD]")
    legend(ax, ncols=3)
    return ax


def shape(found: Tail, ax: Axes | None = None) -> Axes:
    """Fitted shape above each threshold, level from where the tail fits."""
    ax = axes_of(ax, "Shape: level from where the tail fits")
    _by_threshold(found, [c.shape for c in found.candidates], 1.0, ax)
    ax.axhline(found.chosen.fit.tail.shape, color=VERMILION, lw=2, label="of the fitted tail")
    ax.set(xlabel="threshold [M USD]", ylabel="shape [1]")
    legend(ax, ncols=3)
    return ax


def _by_threshold(found: Tail, figures: list[Estimate], unit: float, ax: Axes) -> None:
    """Estimates with their intervals over thresholds."""
    place = np.array([c.threshold for c in found.candidates]) / 1e6
    value, low, high = (np.array([getattr(e, end) for e in figures]) / unit for end in ("value", "low", "high"))
    unknown = np.isinf(high)
    high = np.where(unknown, 1.25 * max([*value, *high[~unknown]], default=0.0), high)
    ax.vlines(place, low, high, color=SKY, lw=4, alpha=0.6, label="95 % interval")
    if unknown.any():
        ax.plot(place[unknown], high[unknown], "^", color=SKY, ms=8, label="open above")
    ax.plot(place, value, "o", color=BLUE, ms=5, label="paths above")
    ax.axvline(found.chosen.threshold / 1e6, color=GREY, lw=1, ls=":")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
