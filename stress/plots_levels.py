"""Pictures of what price levels hold: the liquidation map, and the reproduction number of every market."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from stress.drawing import BLACK, GREY, PALETTE, VERMILION, axes_of, legend
from stress.risk import unit_of, usd

if TYPE_CHECKING:
    import xarray as xr


def levels_picture(closed: xr.Dataset, number: xr.Dataset) -> Figure:
    """A row for every asset that moves alone and one for all together: where triggers lie, what jumps close, and R.

    Args:
        closed: From `Levels.liquidation_map`.
        number: From `Levels.reproduction_number`.
    """
    alone = [str(name) for name in closed["asset"].values if float(closed["closed"].sel(moved=name).sum()) > 0]
    rows = [*alone, str(closed["moved"].values[-1])]
    height = 1.9 + 2.9 * len(rows)
    fig = Figure(figsize=(15, height))
    fig.subplots_adjust(left=0.06, right=0.985, bottom=0.75 / height, top=1 - 1.55 / height, wspace=0.2, hspace=0.6)
    FigureCanvasAgg(fig)
    for row, name in enumerate(rows):
        axes = [fig.add_subplot(len(rows), 3, 3 * row + column + 1) for column in range(3)]
        where_triggers_lie(closed, name, axes[0])
        what_jumps_close(closed, name, axes[1])
        if name in alone:
            reproduction(number, name, axes[2])
        else:
            axes[2].set_axis_off()
            axes[2].text(0, 0.95, _note(closed, number), fontsize=9, color=GREY, va="top", wrap=True)
    fig.suptitle(takeaway(closed, number), fontsize=14, fontweight="bold", x=0.015, y=1 - 0.2 / height, ha="left")
    fig.text(0.015, 0.12 / height, f"{closed.attrs['name']}, before any path", fontsize=9, color=GREY)
    return fig


def takeaway(closed: xr.Dataset, number: xr.Dataset) -> str:
    """What the map says, in two lines."""
    together = closed["closed"].isel(moved=-1).sum(["venue", "asset", "side"])
    lead = str(closed["asset"].values[0])
    falls = {move: float(together.sel(move=move, method="nearest")) for move in (-0.1, -0.2)}
    amounts = ", ".join(f"{usd(amount)} where {lead} falls by {-100 * move:.0f} %" for move, amount in falls.items())
    found = number["reproduction_number"].sel(side="long").stack(level=("venue", "asset", "move"))
    venue, asset, at = found.fillna(-1.0).idxmax("level").item()
    return (
        f"Closed at once, all assets together: {amounts}. A sale of {usd(number.attrs['block_usd'])}\n"
        f"triggers at most {float(found.max()):.2f} USD per USD: in {asset} at {venue}, at {100 * at:+.1f} %."
    )


def where_triggers_lie(closed: xr.Dataset, moved: str, ax: Axes | None = None) -> Axes:
    """USD closed for every per cent of the price, by venue; by asset where all move."""
    ax = axes_of(ax, f"{_name(closed, moved)}: closed for each 1 % of the price")
    by, parts = _parts(closed["added"].sel(moved=moved))
    move = 100 * closed["move"].values
    width = np.gradient(move)
    base, (unit, unit_name) = np.zeros_like(move), unit_of(float((sum(parts) / width).max()), 1e6)
    for colour, name, part in zip(PALETTE, by, parts, strict=False):
        ax.bar(move, part / width / unit, width=width, bottom=base, color=colour, lw=0, label=name)
        base = base + part / width / unit
    ax.set(ylabel=f"{unit_name} per 1 %")
    return _finish(ax, move, len(by))


def what_jumps_close(closed: xr.Dataset, moved: str, ax: Axes | None = None) -> Axes:
    """USD closed where the price jumps to a level, by venue; by asset where all move."""
    ax = axes_of(ax, f"{_name(closed, moved)}: closed by a jump to it")
    by, parts = _parts(closed["closed"].sel(moved=moved))
    move, base = 100 * closed["move"].values, 0.0
    unit, unit_name = unit_of(float(np.max(sum(parts))))
    for colour, name, part in zip(PALETTE, by, parts, strict=False):
        ax.fill_between(move, base, base + part / unit, color=colour, lw=0, alpha=0.85, label=name)
        base = base + part / unit
    ax.set(ylabel=unit_name)
    return _finish(ax, move, len(by))


def reproduction(number: xr.Dataset, asset: str, ax: Axes | None = None) -> Axes:
    """USD triggered per USD of a block, sold below the start and bought above it, by venue."""
    ax = axes_of(ax, f"{asset}: triggered per USD of a block of {usd(number.attrs['block_usd'])}")
    found = number["reproduction_number"].sel(asset=asset)
    move, listed = 100 * number["move"].values, found.notnull().any(["side", "move"]).values
    lines = {str(name): found.sel(venue=name) for name in number["venue"].values[listed]}
    first = next(iter(lines.values()))
    if all(np.allclose(line, first, equal_nan=True) for line in lines.values()):
        lines = {"every venue": first} if len(lines) > 1 else lines
    for colour, (name, line) in zip(PALETTE, lines.items(), strict=False):
        for side in ("long", "short"):
            ax.plot(move, line.sel(side=side), color=colour, lw=1.5, label=name if side == "long" else None)
    ax.axhline(1, color=VERMILION if len(lines) == 1 else BLACK, lw=1, ls="--")
    ax.set(ylabel="USD per USD")
    return _finish(ax, move, len(lines))


def _parts(amounts: xr.DataArray) -> tuple[list[str], list[np.ndarray]]:
    """By venue of one asset, by asset where all move; what is empty is left out."""
    dim = "asset" if str(amounts["moved"].values) not in amounts["asset"].values else "venue"
    sums = amounts.sum([d for d in ("venue", "asset", "side") if d != dim])
    names = [name for name in sums[dim].values if float(sums.sel({dim: name}).sum()) > 0]
    return [str(name) for name in names], [sums.sel({dim: name}).values for name in names]


def _finish(ax: Axes, move: np.ndarray, entries: int) -> Axes:
    ax.axvline(0, color=BLACK, lw=0.8)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}" if value else "0"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    ax.set(xlim=(move.min(), move.max()), ylim=(0, None), xlabel="price move [%]")
    if entries:
        legend(ax, ncols=max(1, min(entries, 5)))
    return ax


def _name(closed: xr.Dataset, moved: str) -> str:
    return f"all, by {closed['asset'].values[0]}" if moved not in closed["asset"].values else moved


def _note(closed: xr.Dataset, number: xr.Dataset) -> str:
    """What is assumed, in the empty panel."""
    moves = ", ".join(f"{asset} {beta:.2f}" for asset, beta in json.loads(closed.attrs["betas"]).items())
    depth = number.attrs["depth"]
    book = "an untouched book" if depth == 1 else f"a book {depth:g} times thinner than usual"
    return (
        f"All together: log-returns per log-return of the first asset:\n{moves}.\n\n"
        "A jump triggers what its level holds, closed at its mark,\nwithout the impact of these orders.\n\n"
        f"A block of {usd(number.attrs['block_usd'])} is sold (above 0: bought) in\n{book}, after all that the level "
        "holds\nis gone. First round, marks of that moment."
    )
