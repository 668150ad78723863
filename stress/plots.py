"""Pictures of a run: how much is liquidated when, how often how much, what becomes of the funds, and who absorbs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from stress import absorbers, intervals, risk
from stress.days import has_days
from stress.drawing import BLACK, BLUE, GREY, PALETTE, SKY, VERMILION, axes_of, hold, legend, plain_log
from stress.intervals import Estimate
from stress.paired import mean_intervals
from stress.plots_days import DRAWN, recovery
from stress.results import by_path, keeps, sound, weights

if TYPE_CHECKING:
    import xarray as xr

_WORST = 0.01


def overview(ds: xr.Dataset) -> Figure:
    """Four panels on one page, more where there is more to say, with what they say in one sentence as the title."""
    kept = sound(ds)
    panels = [hourly_volume, exceedance, *_panels(kept)]
    rows = -(-len(panels) // 2)
    height = 1.0 + 4.1 * rows
    fig = Figure(figsize=(13, height))
    top, bottom = 1 - 1.43 / height, 0.87 / height
    fig.subplots_adjust(left=0.08, right=0.98, bottom=bottom, top=top, wspace=0.22, hspace=0.46)
    FigureCanvasAgg(fig)
    axes = list(fig.subplots(rows, 2).flat)
    for draw, ax in zip(panels, axes, strict=False):
        draw(kept, ax)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    fig.suptitle(takeaway(kept), fontsize=14, fontweight="bold", x=0.015, y=1 - 0.14 / height, ha="left")
    fig.text(0.015, 0.11 / height, _caption(ds, kept), fontsize=9, color=GREY)
    return fig


def _panels(ds: xr.Dataset) -> Iterator[Callable[[xr.Dataset, Axes], Axes]]:
    """Those that a run keeps the variables of, and has something to put in."""
    funds = keeps(ds, *absorbers.OF_POOLS)
    if funds and keeps(ds, "fund_low"):
        yield fund_equity
    if funds and keeps(ds, "absorbed_volume"):
        yield absorption
    if keeps(ds, *absorbers.OF_ADL) and (ds["adl_top_10_share"].values > 0).any():
        yield adl_payers
    if funds and keeps(ds, "collateral_sold") and (ds["collateral_sold"].values > 0).any():
        yield collateral_sold
    if has_days(ds) and keeps(ds, *DRAWN):
        yield recovery


def takeaway(ds: xr.Dataset) -> str:
    """What the run says, in one or two lines."""
    ds = sound(ds)
    weight, volume = weights(ds), by_path(ds, "liquidation_volume", "hour")
    usual = intervals.quantile(volume, [0.99], weight)[0]
    chance = intervals.probability(volume.max(axis=1) > risk.HOUR_THRESHOLD_USD, weight)
    return (
        f"99 % of hours liquidate at most {risk.usd(usual)}. "
        f"An hour above {risk.usd(risk.HOUR_THRESHOLD_USD)} comes in\n"
        f"{risk.percent(chance.value)} of {len(ds['hour'])}-hour runs "
        f"(95 % interval {risk.percent(chance.low)} to {risk.percent(chance.high)}){_exhausted(ds, weight)}."
    )


def _exhausted(ds: xr.Dataset, weight: np.ndarray) -> str:
    """How often a fund, or a vault, loses all it has, as the end of a sentence."""
    if not keeps(ds, *absorbers.OF_POOLS):
        return ""
    emptied = {
        "fund": np.isfinite(ds["fund_exhausted_hour"].values)[:, absorbers.funded(ds)],
    }
    if absorbers.vaulted(ds).any():
        emptied["vault"] = (ds["vault_equity"].values.min(axis=1) <= 0)[:, absorbers.vaulted(ds)]
    chances = {what: intervals.probability(empty.any(axis=1), weight).value for what, empty in emptied.items()}
    hit = [f"a {what} in {risk.percent(chance)}" for what, chance in chances.items() if chance > 0]
    if hit:
        return f", and {', '.join(hit)} of runs".replace(" in ", " is exhausted in ", 1)
    there = " and ".join(f"no {what}" for what, empty in emptied.items() if empty.shape[1])
    return f", and {there} is exhausted" if there else ", and there is no insurance fund"


def hourly_volume(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Fan chart: quantiles over paths of the volume liquidated in each hour."""
    ds, ax = sound(ds), axes_of(ax, "Liquidations of each hour, quantiles over paths")
    weight, volume = weights(ds), by_path(ds, "liquidation_volume", "hour")
    levels = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    lines = np.array([intervals.quantile(hour, levels, weight) for hour in volume.T]).T / 1e6
    shown = lines[lines > 0]
    # At least three decades: within one the axis would have no labels.
    floor = max(min(shown.min(), shown.max() * 1e-3), shown.max() * 1e-6) if shown.size else 1e-3
    low, quarter, middle, upper, high, rare = np.maximum(lines, floor)
    edges = np.arange(volume.shape[1] + 1)
    for bottom, top, alpha, label in ((low, high, 0.3, "5 to 95 %"), (quarter, upper, 0.65, "25 to 75 %")):
        ax.fill_between(edges, hold(bottom), hold(top), step="post", color=SKY, alpha=alpha, lw=0, label=label)
    ax.step(edges, hold(middle), where="post", color=BLUE, lw=2, label="median")
    ax.step(edges, hold(rare), where="post", color=VERMILION, lw=1.5, label="99 %")
    ax.set_yscale("log")
    plain_log(ax, "y")
    if (lines <= 0).any():
        ax.set_ylim(bottom=floor)
        x, side = (0.99, "right") if lines[-1, -1] <= 0 else (0.01, "left")
        ax.annotate("at the lower edge: zero", (x, 0.02), xycoords="axes fraction", fontsize=8, color=GREY, ha=side)
    ax.set(xlim=(0, edges[-1]), xlabel="hours since the start [h]", ylabel="liquidated in the hour [M USD]")
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 3, 6, 10], integer=True))
    legend(ax, ncols=4)
    return ax


def exceedance(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of all hours above a volume, with its interval, and the headline hour."""
    ds, ax = sound(ds), axes_of(ax, "How often an hour is worse")
    weight, volume = weights(ds), by_path(ds, "liquidation_volume", "hour")
    headline = risk.HOUR_THRESHOLD_USD
    start = max(intervals.quantile(volume, [0.3], weight)[0], volume.max() * 1e-5, 1e3)
    grid = np.geomspace(start, max(1.2 * volume.max(), 5 * headline), 120)
    value, low, high = intervals.exceedance(volume, grid, weight)
    seen = value > 0
    smallest = value[seen].min() if seen.any() else 1 / volume.size
    drawn = np.clip([low, high], smallest / 3, None)
    ax.fill_between(grid[seen] / 1e6, *drawn[:, seen], color=SKY, alpha=0.45, lw=0, label="95 % interval")
    ax.plot(grid[seen] / 1e6, value[seen], color=BLUE, lw=2, label="share of hours")
    over = intervals.exceedance(volume, np.array([headline]), weight)[0, 0]
    ax.axvline(headline / 1e6, color=VERMILION, lw=1.5, ls="--")
    per_hour = f"{risk.percent(over)} of hours" if over > 0 else "never in this run"
    ax.annotate(
        f"{risk.usd(headline)}:\n{per_hour}", (headline / 1e6, 0.9 if over < 0.03 else 0.2),
        xycoords=("data", "axes fraction"),
        xytext=(6, 0), textcoords="offset points", color=VERMILION, fontsize=9, va="top",
    )  # fmt: skip
    # Room for the words beside the line: a quarter of the axis.
    right = max(grid[-1], headline * (headline / grid[0]) ** (1 / 3))
    ax.set(xscale="log", yscale="log", ylim=(smallest / 3, 1), xlim=(grid[0] / 1e6, right / 1e6))
    ax.set(xlabel="liquidated in an hour [M USD]", ylabel="share of all hours above it [%]")
    plain_log(ax, "x")
    plain_log(ax, "y", 100)
    legend(ax, ncols=2)
    return ax


def fund_equity(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Fan chart of each fund with money and each vault: median and 1 to 99 % at the end of each hour, lowest within it.

    Of a vault the lowest at the end of each hour.
    """
    ds = sound(ds)
    weight, funds, vaults = weights(ds), absorbers.funded(ds), absorbers.vaulted(ds)
    ax = axes_of(ax, "Equity of the insurance funds" + (" and vaults" if vaults.any() else ""))
    lines = [(str(ds["pool"].values[f]), *(ds[name].values[:, :, f] for name in ("fund_equity", "fund_low")))
             for f in np.flatnonzero(funds)]  # fmt: skip
    lines += [(f"{ds['venue'].values[v]}/vault", *(2 * [ds["vault_equity"].values[:, :, v]]))
              for v in np.flatnonzero(vaults)]  # fmt: skip
    hours = np.arange(1, ds.sizes["hour"] + 1)
    marker = "o-" if len(hours) < 3 else "-"
    for i, (name, equity, low) in enumerate(lines):
        colour = PALETTE[i % len(PALETTE)]
        fan = np.array([intervals.quantile(hour, [0.01, 0.5, 0.99], weight) for hour in equity.T]) / 1e6
        ax.fill_between(hours, fan[:, 0], fan[:, 2], color=colour, alpha=0.25, lw=0)
        ax.plot(hours, fan[:, 1], marker, color=colour, lw=2, label=name)
        ax.plot(hours, low.min(axis=0) / 1e6, color=colour, lw=1, ls=":")
    if not lines:
        ax.annotate("no fund has money", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
    ax.axhline(0, color=BLACK, lw=0.8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    ax.set(xlim=(0, hours[-1] + 0.02 * len(hours)), xlabel="hours since the start [h]", ylabel="equity [M USD]")
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 3, 6, 10], integer=True))
    keys = [Line2D([], [], color=GREY, lw=8, alpha=0.3), Line2D([], [], color=GREY, lw=1, ls=":")]
    handles, names = ax.get_legend_handles_labels()
    names += ["1 to 99 %", "lowest"]
    legend(ax, [*handles, *keys], names, ncols=5 if len(names) <= 5 and len("".join(names)) <= 48 else 3)
    return ax


def absorption(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """What each layer took per path: the mean of all paths, and of the 1 % on which funds and vaults lost most."""
    ds = sound(ds)
    ax = axes_of(ax, "What absorbed the forced orders, per run")
    return _amounts(ds, by_path(ds, "absorbed_volume", "layer"), ds["layer"].values, "taken in a run", ax)


def collateral_sold(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Coins of collateral sold per path, by token, as `absorption`."""
    ds = sound(ds)
    ax = axes_of(ax, "Collateral sold in the spot market, per run")
    sold = by_path(ds, "collateral_sold", "asset")
    some = (sold > 0).any(axis=0)
    return _amounts(ds, sold[:, some], ds["asset"].values[some], "sold in a run", ax)


def adl_payers(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of winners' losses from deleveraging that the top 1 and 10 % of winners bear: median of runs with ADL."""
    ds = sound(ds)
    ax = axes_of(ax, "Who pays for auto-deleveraging (ADL)")
    paid = {name: paid.medians for name, paid in absorbers.payers(ds, weights(ds)).items()}
    found = {name: medians for name, medians in paid.items() if "adl_top_share" in medians}
    ax.set_xlim(0, 118)
    for label, name, colour, marker, shift in (
        ("top 1 % of winners by profit", "adl_top_share", BLUE, "o", -0.16),
        ("top 10 %", "adl_top_10_share", VERMILION, "D", 0.16),
    ):
        shares = np.array([medians[name].value for medians in found.values()])
        _dots(ax, 100 * shares, np.arange(len(found)) + shift, colour, marker, label)
        for row, medians in enumerate(found.values()):
            _interval(ax, medians[name], 100, row + shift, colour)
        for row, medians in enumerate(found.values()):
            share = medians[name]
            _beside(ax, risk.percent(share.value), 100 * _end(share), row + shift, colour)
    rows_of(ax, list(found))
    ax.set_xlabel("share of winners' losses, worst hour, median of runs with ADL [%]")
    ax.set_xticks(range(0, 101, 20))
    _legend_of_intervals(ax)
    return ax


def _amounts(ds: xr.Dataset, taken: np.ndarray, names: ArrayLike, what: str, ax: Axes) -> Axes:
    """Rows of amounts, [path row]: the mean of all paths, and of the 1 % on which funds and vaults lost most."""
    weight, falls = weights(ds), absorbers.falls(ds)
    behind = "funds and vaults" if absorbers.vaulted(ds).any() else "funds"
    worst = weight * ((falls >= intervals.quantile(falls, [1 - _WORST], weight)[0]) & (falls > 0))
    rows = np.arange(taken.shape[1])
    series = (
        ("mean of all paths", weight, BLUE, "o", -0.16),
        (f"mean of the 1 % worst for the {behind}", worst, VERMILION, "D", 0.16),
    )[: 2 if worst.any() else 1]
    found = [mean_intervals(taken, share) for _, share, *_ in series]
    means = np.array([[mean.value for mean in of] for of in found]).reshape(len(series), -1)
    shown = means[means > 0] / 1e6
    left, right = (max(shown.min(), shown.max() * 1e-5) / 3, shown.max() * 30) if shown.size else (0.1, 10.0)
    ax.set(xscale="log", xlim=(left, right), xlabel=f"{what} [M USD], log scale")
    for (label, _, colour, marker, shift), mean, of in zip(series, means, found, strict=True):
        where, some = np.maximum(mean / 1e6, left), mean / 1e6 > left
        _dots(ax, where[some], rows[some] + shift, colour, marker, label)
        for row in rows[some]:
            _interval(ax, of[row], 1e-6, row + shift, colour)
        for row, amount, estimate in zip(rows, mean, of, strict=True):
            share = amount / mean.sum() if mean.sum() > 0 else 0.0
            text = f"{risk.usd(amount)} ({risk.percent(share)})" if amount > 0 else "none"
            _beside(ax, text, max(_end(estimate) / 1e6, left), row + shift, colour)
    rows_of(ax, names)
    plain_log(ax, "x")
    _legend_of_intervals(ax)
    return ax


def _interval(ax: Axes, of: Estimate, scale: float, y: float, colour: str) -> None:
    """Its 95 % interval as a bar, within the axes; none where an end is not known."""
    if np.isfinite([of.low, of.high]).all():
        ends = np.clip([scale * of.low, scale * of.high], *ax.get_xlim())
        ax.plot(ends, [y, y], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")


def _end(of: Estimate) -> float:
    """Where its bar ends."""
    return of.high if np.isfinite(of.high) else of.value


def _legend_of_intervals(ax: Axes) -> None:
    """The legend, with what the bars are."""
    ax.plot([], [], color=GREY, lw=5, alpha=0.5, label="95 % interval")
    legend(ax, ncols=2)


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str, label: str) -> None:
    """Marks with lines to the left edge."""
    ax.hlines(y, 0 if ax.get_xscale() == "linear" else ax.get_xlim()[0], x, color=colour, lw=1.5, alpha=0.5)
    ax.plot(x, y, marker, color=colour, ms=7, ls="", label=label, clip_on=False)


def _beside(ax: Axes, text: str, x: float, y: float, colour: str) -> None:
    """Words to the right of a mark."""
    place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(text, (x, y), fontsize=9, color=colour, **place)


def rows_of(ax: Axes, names: ArrayLike) -> None:
    """Names of rows at the left, the first one on top."""
    labels = [str(name) for name in np.asarray(names)] or ["none"]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(False, axis="y")


def _caption(ds: xr.Dataset, kept: xr.Dataset) -> str:
    """Where the figures come from: run, paths, hours, seed, version."""
    attrs, failed = ds.attrs, ds.sizes["path"] - kept.sizes["path"]
    parts = [str(attrs["name"])] if "name" in attrs else []
    parts.append(f"{kept.sizes['path']:,} paths of {kept.sizes['hour']} h")
    if failed:
        parts.append(f"{failed:,} failed paths left out")
    parts += [f"seed {attrs['seed']}"] if "seed" in attrs else []
    parts += [f"version {attrs['liqstress_version']}"] if "liqstress_version" in attrs else []
    return " | ".join(parts)
