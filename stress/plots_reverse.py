"""Picture of a frontier: the most plausible shock against a lever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from stress.drawing import BLACK, GREY, PALETTE, axes_of, legend, plain_log
from stress.spec import InputError

if TYPE_CHECKING:
    from stress.reverse import Reversed

_NAMES = {
    "depth": "books thinner than usual [times]",
    "fund": "money of the funds, over what it is",
    "concentration": "share of the longs of one account [%]",
}


def frontier_picture(told: Mapping[float, Reversed | InputError], name: str, lever: str, what: str) -> Figure:
    """Moves, and how often the model goes as far, against a lever.

    Args:
        told: From `Reverse.frontier`; values at which nothing was found are left out.
        name: Of the run.
        lever: What the values are of.
        what: What is reached, in words.
    """
    good = {value: found for value, found in told.items() if not isinstance(found, InputError)}
    fig = Figure(figsize=(12, 5))
    fig.subplots_adjust(left=0.07, right=0.975, bottom=0.16, top=0.72, wspace=0.22)
    FigureCanvasAgg(fig)
    left, right = fig.subplots(1, 2)
    fig.suptitle(f"The most plausible shock to {what}", fontsize=14, fontweight="bold", x=0.015, y=0.965, ha="left")
    minutes = next(iter(good.values())).minutes if good else 0
    fig.text(0.015, 0.02, f"{name}; moves of {minutes:g} minutes, confirmed in the engine", fontsize=9, color=GREY)
    moves_against(good, lever, left)
    often_against(good, lever, right)
    return fig


def moves_against(good: Mapping[float, Reversed], lever: str, ax: Axes | None = None) -> Axes:
    """The move of every asset."""
    ax = axes_of(ax, "Move of each index")
    x = _values(good, lever)
    assets = list(next(iter(good.values())).move) if good else []
    for colour, asset in zip(PALETTE, assets, strict=False):
        ax.plot(x, [100 * found.move[asset] for found in good.values()], "o-", color=colour, lw=1.5, ms=4, label=asset)
    ax.axhline(0, color=BLACK, lw=0.8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.4g}" if value else "0"))
    ax.set(ylabel="per cent")
    return _finish(ax, x, lever, len(assets))


def often_against(good: Mapping[float, Reversed], lever: str, ax: Axes | None = None) -> Axes:
    """The model's chance that a window goes as far."""
    ax = axes_of(ax, "Chance that a window of the shock model goes as far")
    x = _values(good, lever)
    ax.plot(x, [found.log_chance / np.log(10) for found in good.values()], "o-", color=PALETTE[0], lw=1.5, ms=4)
    ax.set(ylabel="log10 of the chance")
    return _finish(ax, x, lever, 0)


def _values(good: Mapping[float, Reversed], lever: str) -> list[float]:
    return [100 * value if lever == "concentration" else value for value in good]


def _finish(ax: Axes, x: list[float], lever: str, entries: int) -> Axes:
    if lever != "concentration":
        ax.set_xscale("log")
        plain_log(ax, "x")
        ax.set_xticks(x, [f"{value:g}" for value in x])
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=_NAMES[lever])
    if entries:
        legend(ax, ncols=min(entries, 5))
    return ax
