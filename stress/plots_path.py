"""A picture of one path: prices, what is triggered, who absorbs it, and what funds have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from stress.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, axes_of, legend
from stress.risk import unit_of, usd
from stress.timeline import Timeline, choose_market, largest_hour, layer_names, timeline

if TYPE_CHECKING:
    import xarray as xr

_LAYERS = {"book": SKY, "auction": GREEN, "takeover": ORANGE, "vault": PURPLE, "adl": VERMILION, "remainder": BLACK}
_AROUND = 15.0
"""What is shown before and after the largest hour [min]."""


def path_picture(steps: xr.Dataset, venue: str | None = None, asset: str | None = None) -> Figure:
    """The whole run at the left, its largest hour at the right.

    Args:
        steps: From `explain`.
        venue: As in `timeline`.
        asset: As in `timeline`.
    """
    of, market = timeline(steps, venue, asset), choose_market(steps, venue, asset)
    hour, end = largest_hour(of), float(of["minute"][-1])
    name = f"{market['asset']} at {market['venue']}"
    where = f"{asset or 'all assets'} at {venue or 'all venues'}"
    fig = Figure(figsize=(13, 13))
    fig.subplots_adjust(left=0.08, right=0.98, bottom=0.06, top=0.88, wspace=0.2, hspace=0.52)
    FigureCanvasAgg(fig)
    ranges = ((0.0, end), (max(0.0, 60 * hour - _AROUND), min(end, 60 * hour + 60 + _AROUND)))
    panels = {
        f"Prices of {name}": _prices,
        f"Premium of {name} over the index": _premium,
        f"Closed, by what absorbed it: {where}": _closed,
        f"Insurance funds at {venue or 'all venues'}": _funds,
    }
    for row, (title, draw) in enumerate(panels.items()):
        for column, span in enumerate(ranges):
            part = "whole run" if column == 0 else f"hour {hour}"
            ax = axes_of(fig.add_subplot(4, 2, 2 * row + column + 1), f"{title}, {part}")
            draw(of, span, ax)
            _time(ax, span)
    fig.suptitle(
        takeaway(steps, of, market["asset"], hour), fontsize=14, fontweight="bold", x=0.015, y=0.985, ha="left"
    )
    fig.text(0.015, 0.012, _caption(steps), fontsize=9, color=GREY)
    return fig


def cascade(steps: xr.Dataset, ax: Axes | None = None, *, venue: str | None = None, asset: str | None = None) -> Axes:
    """What is closed in each step, by the layer that absorbed it, and the mark of a market at the right.

    Args:
        steps: From `explain`.
        ax: Where to draw; a second axis of prices is put over it.
        venue: As in `timeline`.
        asset: As in `timeline`.
    """
    of, market = timeline(steps, venue, asset), choose_market(steps, venue, asset)
    alone, ax = ax is None, axes_of(ax, f"Path {steps.attrs['path']}: closed, by what absorbed it")
    if alone:
        ax.figure.subplots_adjust(right=0.86)  # type: ignore[union-attr]  # Prices stand at the right.
    span = (0.0, float(of["minute"][-1]))
    price = ax.twinx()
    price.plot(of["minute"], of["mark_usd"], color=BLUE, lw=1.5)
    price.set_ylabel(f"mark of {market['asset']} at {market['venue']} [USD]", color=BLUE)
    price.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    price.spines["top"].set_visible(False)
    _closed(of, span, ax)
    _time(ax, span)
    legend(ax, ncols=4)
    return ax


def takeaway(steps: xr.Dataset, of: Timeline, asset: str, hour: int) -> str:
    """What happened, in two lines; `asset` is the one whose prices are shown."""
    inside = (of["minute"] > 60 * hour + 1e-9) & (of["minute"] <= 60 * hour + 60 + 1e-9)
    closed, all_of_it = of["closed_usd"][inside].sum(), of["closed_usd"].sum()
    index = of["index_usd"][inside] / of["index_usd"][max(0, int(np.argmax(inside)) - 1)] - 1
    change = np.insert(of["fund_change_usd"], 0, 0.0)
    lost = float(np.max(np.maximum.accumulate(change) - change))
    return (
        f"Path {steps.attrs['path']}: {usd(closed)} are liquidated in hour {hour}, {usd(all_of_it)} in all. In that "
        f"hour {asset} moves between\n{100 * index.min():+.1f} and {100 * index.max():+.1f} %. In all insurance funds "
        f"fall by {usd(lost)} at most, and ADL closes {usd(of['adl_usd'].sum())}."
    )


def _prices(of: Timeline, span: tuple[float, float], ax: Axes) -> None:
    for column, label, colour, width in (("index_usd", "index", BLUE, 1.8), ("last_usd", "last", GREY, 0.8),
                                         ("mark_usd", "mark", VERMILION, 1.2)):  # fmt: skip
        ax.plot(*_within(of, column, span), color=colour, lw=width, label=label)
    ax.set(ylabel="USD")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    legend(ax, ncols=3)


def _premium(of: Timeline, span: tuple[float, float], ax: Axes) -> None:
    last = {"premium": of["last_usd"] / of["index_usd"] - 1, "minute": of["minute"]}
    ax.axhline(0, color=BLACK, lw=0.8)
    for values, label, colour, width in ((last, "last", GREY, 0.8), (of, "mark", VERMILION, 1.5)):
        minute, premium = _within(values, "premium", span)
        ax.plot(minute, 100 * premium, color=colour, lw=width, label=label)
    ax.set(ylabel="over the index [%]")
    legend(ax, ncols=2)


def _closed(of: Timeline, span: tuple[float, float], ax: Axes) -> None:
    names = [name for name in layer_names(of) if of[f"{name}_usd"].any()]
    minute, total = _within(of, "closed_usd", span)
    unit, unit_name = unit_of(float(max(of["closed_usd"].max(), of["triggered_usd"].max())))
    base = np.zeros_like(total)
    for name in names:
        top = base + _within(of, f"{name}_usd", span)[1] / unit
        ax.fill_between(minute, base, top, step="pre", color=_LAYERS[name], lw=0, label=name)
        base = top
    if not _long(span):
        triggered = _within(of, "triggered_usd", span)[1] / unit
        ax.plot(minute, triggered, color=BLACK, lw=0.9, ds="steps-pre", label="triggered first")
    ax.set(ylabel=f"a step [{unit_name}]", ylim=(0, None))
    legend(ax, ncols=max(6, len(names) + 1))


def _funds(of: Timeline, span: tuple[float, float], ax: Axes) -> None:
    minute, change = _within(of, "fund_change_usd", span)
    start = of["fund_usd"][0] - of["fund_change_usd"][0]
    vaults = of["vault_equity_usd"] - of["vault_equity_usd"][0] if "vault_equity_usd" in of else np.zeros(1)
    drawn = [of["fund_change_usd"], vaults, *(np.cumsum(of[name]) for name in ("deficit_usd", "socialised_usd"))]
    unit, unit_name = unit_of(max(float(np.abs(values).max()) for values in drawn))
    ax.axhline(0, color=BLACK, lw=0.8)
    ax.plot(minute, change / unit, color=BLUE, lw=1.8, label=f"equity less {usd(start)}")
    if "vault_equity_usd" in of:
        first = of["vault_equity_usd"][0]
        vault = _within(of, "vault_equity_usd", span)[1]
        ax.plot(minute, (vault - first) / unit, color=GREEN, lw=1.5, label=f"vault less {usd(first)}")
    for column, label, colour in (("deficit_usd", "asked to pay", VERMILION),
                                  ("socialised_usd", "socialised", PURPLE)):  # fmt: skip
        so_far = {"minute": of["minute"], column: np.cumsum(of[column])}
        if of[column].any():
            ax.plot(minute, _within(so_far, column, span)[1] / unit, color=colour, lw=1.3, label=label)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    ax.set(ylabel=f"since the start [{unit_name}]")
    legend(ax, ncols=4)


def _within(of: Timeline, column: str, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Minutes and values of a column inside a span."""
    inside = (of["minute"] >= span[0]) & (of["minute"] <= span[1])
    return of["minute"][inside], of[column][inside]


def _time(ax: Axes, span: tuple[float, float]) -> None:
    """Hours below a long span, minutes below a short one."""
    ax.set(xlim=span, xlabel="since the start [h]" if _long(span) else "since the start [min]")
    if _long(span):
        hours = np.arange(0, span[1] / 60 + 1e-9, max(1, round(span[1] / 60 / 8)))
        ax.set_xticks(60 * hours, [f"{hour:g}" for hour in hours])


def _long(span: tuple[float, float]) -> bool:
    return span[1] - span[0] > 240


def _caption(steps: xr.Dataset) -> str:
    attrs = steps.attrs
    return " | ".join(
        [str(attrs["name"]), f"path {attrs['path']}, seed {attrs['seed']}", f"steps of {attrs['step_seconds']} s",
         f"computed again: within {attrs['largest_difference']:.0e} of the run"]
    )  # fmt: skip
