"""A comparison of policies as a picture: paired differences with their intervals, and who pays in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stress.comparison import Comparison, Difference
from stress.drawing import BLACK, PALETTE, axes_of, legend
from stress.plots import rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Literal["liquidated", "funds", "chances"]
_MARKERS = "oDs^"
_MILLIONS, _POINTS = (1e-6, "M USD"), (100.0, "percentage points")
_CHANCES = ("chance of an hour above", "chance that a fund", "chance of ADL", "chance of a socialised")
_PANELS = {
    "liquidated": ("Liquidated per run, change", ("liquidated", "largest hour", "99 % of hours"), _MILLIONS),
    "funds": ("Funds and ADL, change", ("largest fall of funds", "asked of funds", "deleveraged (ADL)"), _MILLIONS),
    "chances": ("Chances per run, change", _CHANCES, _POINTS),
}
"""Titles, how the names of the differences begin, and what they are shown in."""


def comparison_picture(found: Comparison) -> Figure:
    """Three panels of paired differences from the base, and what each party pays in the base and under each policy."""
    panel, between, below, above = 0.7 + 0.34 * (len(found.others) + 1), 1.45, 0.85, 1.5  # Inches.
    height = 2 * panel + between + below + above
    fig = Figure(figsize=(13, height))
    FigureCanvasAgg(fig)
    fig.subplots_adjust(left=0.16, right=0.98, wspace=0.42, hspace=between / panel, bottom=below / height,
                        top=1 - above / height)  # fmt: skip
    axes = list(fig.subplots(2, 2).flat)
    differences(found, axes[0], "liquidated")
    differences(found, axes[1], "funds")
    differences(found, axes[2], "chances")
    who_pays(found, axes[3])
    where = f"{found.title}: " if found.title else ""
    fig.suptitle(f"{where}differences from {found.base}", fontsize=14, fontweight="bold", x=0.015, ha="left")
    caption = (
        f"the same {found.paths:,} paths of {found.hours} h in all | bars: 95 % intervals of the paired difference"
    )
    fig.text(0.015, 0.11 / height, caption, fontsize=9, color="#555555")
    return fig


def differences(found: Comparison, ax: Axes | None = None, panel: Panel = "liquidated") -> Axes:
    """Paired differences from the base with 95 % intervals, a row a policy.

    Args:
        found: From `compare`.
        ax: Where to draw.
        panel: What: volumes liquidated, what funds and ADL bear, or chances.
    """
    title, names, (scale, unit) = _PANELS[panel]
    ax = _beside_names(ax, title if ax else f"{title}, 95 % intervals")
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
    return ax


def who_pays(found: Comparison, ax: Axes | None = None) -> Axes:
    """Stacked bars, payments to the right of zero and receipts to the left."""
    ax = _beside_names(ax, "Who pays, mean per run")
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
    return ax


def _beside_names(ax: Axes | None, title: str) -> Axes:
    """Axes with room for names of policies at the left, where they are made."""
    alone, ax = ax is None, axes_of(ax, title)
    if alone:
        ax.figure.subplots_adjust(left=0.24, top=0.78)  # type: ignore[union-attr]
    return ax


def _named(rows: Sequence[Difference], start: str) -> Difference:
    return next(row for row in rows if row.name.startswith(start))
