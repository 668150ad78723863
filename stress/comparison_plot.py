"""A comparison of policies as a picture: paired differences with their intervals, and who pays in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stress.comparison import Comparison, Difference
from stress.drawing import BLACK, PALETTE, axes_of, legend
from stress.plots import rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "oDs^"
_MILLIONS, _POINTS = (1e-6, "M USD"), (100.0, "percentage points")
_CHANCES = ("chance of an hour above", "chance that a fund", "chance of ADL", "chance of a socialised")
_PANELS = (
    ("Liquidated per run, change", ("liquidated", "largest hour", "99 % of hours"), _MILLIONS),
    ("Funds and ADL, change", ("largest fall of funds", "asked of funds", "deleveraged (ADL)"), _MILLIONS),
    ("Chances per run, change", _CHANCES, _POINTS),
)
"""Titles, how the names of the differences begin, and what they are shown in."""


def comparison_picture(found: Comparison) -> Figure:
    """Three panels of paired differences from the base, and what each party pays in the base and under each policy."""
    height = 3.2 + 2 * (0.7 + 0.34 * (len(found.others) + 1))
    fig = Figure(figsize=(13, height))
    FigureCanvasAgg(fig)
    fig.subplots_adjust(left=0.16, right=0.98, bottom=0.75 / height, top=1 - 1.5 / height, wspace=0.42, hspace=0.75)
    axes = list(fig.subplots(2, 2).flat)
    for (title, names, shown), ax in zip(_PANELS, axes, strict=False):
        _changes(found, title, names, shown, ax)
    _who_pays(found, axes[3])
    where = f"{found.title}: " if found.title else ""
    fig.suptitle(f"{where}differences from {found.base}", fontsize=14, fontweight="bold", x=0.015, ha="left")
    caption = (
        f"the same {found.paths:,} paths of {found.hours} h in all | bars: 95 % intervals of the paired difference"
    )
    fig.text(0.015, 0.11 / height, caption, fontsize=9, color="#555555")
    return fig


def _changes(found: Comparison, title: str, names: Sequence[str], shown: tuple[float, str], ax: Axes) -> None:
    """Dots with intervals, a row a policy."""
    ax, (scale, unit) = axes_of(ax, title), shown
    shifts = np.linspace(-0.25, 0.25, len(names))
    for i, (name, shift) in enumerate(zip(names, shifts, strict=True)):
        rows = [_named(other.differences, name) for other in found.others]
        value, low, high = (
            scale * np.array([getattr(row.change, end) for row in rows]) for end in ("value", "low", "high")
        )
        spread = np.maximum([value - low, high - value], 0.0)
        spread[np.isinf(spread)] = 0.0  # Of too few paths: a dot without an interval.
        label = rows[0].name.removeprefix("chance of ").removeprefix("chance that ")
        ax.errorbar(value, np.arange(len(rows)) + shift, xerr=spread, fmt=_MARKERS[i], color=PALETTE[i], ms=6, lw=1.8,
                    capsize=3, label=label)  # fmt: skip
    ax.axvline(0, color=BLACK, lw=0.8)
    rows_of(ax, [other.name for other in found.others])
    ax.set(xlabel=f"change against the base [{unit}]")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+,.6g}" if value else "0")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    legend(ax, ncols=2)


def _who_pays(found: Comparison, ax: Axes) -> None:
    """Stacked bars, payments to the right of zero and receipts to the left."""
    ax = axes_of(ax, "Who pays, mean per run")
    names = [found.base, *(other.name for other in found.others)]
    parties = [row.name for row in found.others[0].payments]
    amounts = np.array(
        [[row.base for row in found.others[0].payments], *([row.other for row in o.payments] for o in found.others)]
    )
    left = np.zeros((2, len(names)))
    for i, (party, column) in enumerate(zip(parties, amounts.T / 1e6, strict=True)):
        if not column.any():
            continue
        side = (column < 0).astype(int)
        start = np.where(side == 0, left[0], left[1])
        ax.barh(np.arange(len(names)), column, left=start, color=PALETTE[i % len(PALETTE)], height=0.62, label=party)
        left[side, np.arange(len(names))] += column
    ax.axvline(0, color=BLACK, lw=0.8)
    rows_of(ax, names)
    ax.set(xlabel="paid per run, receipts to the left [M USD]")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    legend(ax, ncols=2)


def _named(rows: Sequence[Difference], start: str) -> Difference:
    return next(row for row in rows if row.name.startswith(start))
