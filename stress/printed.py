"""What `map`, `amplify` and `explain` print, and the CSV files of the first and the last."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from stress.console import console, figures_table
from stress.risk import span, unit_of, usd
from stress.spec import RunError
from stress.timeline import Timeline, by_minute, choose_market, largest_hour, layer_names

if TYPE_CHECKING:
    import xarray as xr

    from stress.twins import Amplification, Ratio

_PERCENT = (-50, -40, -30, -25, -20, -15, -10, -7, -5, -3, -2, -1, 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50)
"""Moves that are printed."""
_MOST = 1e6
"""Largest unit of tables: millions, and thousands or single USD where all amounts are below one [USD]."""


def print_levels(closed: xr.Dataset, number: xr.Dataset) -> None:
    """Print the liquidation map, and the reproduction numbers of every venue.

    Args:
        closed: From `Levels.liquidation_map`, with the default moves.
        number: From `Levels.reproduction_number`, with the same.
    """
    out, name = console(), closed.attrs["name"]
    sums = closed["closed"].sum(["venue", "asset", "side"])
    moved = [str(x) for x in sums["moved"].values if float(sums.sel(moved=x).sum()) > 0]
    unit, unit_name = unit_of(float(sums.max()), _MOST)
    shown = figures_table("", "move", *moved)
    for percent in _PERCENT:
        at = sums.sel(move=percent / 100, method="nearest")
        shown.add_row(f"{percent:+d} %", *(_amount(float(at.sel(moved=x)) / unit) for x in moved))
    _titled(f"{name}: closed by a jump of the price, all venues [{unit_name}]", shown)
    beta = ", ".join(f"{asset} {b:.2f}" for asset, b in json.loads(closed.attrs["betas"]).items())
    out.print(f"each asset alone; all: log-returns by {beta}", soft_wrap=True)
    for title, table in _numbers(number):
        _titled(title, table)
    depth = number.attrs["depth"]
    out.print(
        "sold below 0 and bought above it, after all that the level holds is gone; first round, marks of that moment, "
        f"books {'as usual' if depth == 1 else f'{depth:g} times thinner'}",
        soft_wrap=True,
    )


def _numbers(number: xr.Dataset) -> Iterator[tuple[str, Table]]:
    """Reproduction numbers by venue, or once where they are the same everywhere."""
    found = number["reproduction_number"]
    venues = [str(name) for name in found["venue"].values]
    first = found.isel(venue=0)
    alike = len(venues) > 1 and all(np.allclose(found.sel(venue=v), first, equal_nan=True) for v in venues)
    for venue in venues[:1] if alike else venues:
        here = found.sel(venue=venue)
        assets = [str(a) for a in here["asset"].values if bool(here.sel(asset=a).notnull().any())]
        title = f"triggered everywhere per USD of a block of {usd(number.attrs['block_usd'])}"
        shown = figures_table("", "level", *assets)
        for percent in _PERCENT:
            at = here.sel(side="long" if percent < 0 else "short").sel(move=percent / 100, method="nearest")
            shown.add_row(f"{percent:+d} %", *(f"{float(at.sel(asset=a)):.2f}" for a in assets))
        yield f"{title} at {'every venue' if alike else venue}", shown


def write_levels(closed: xr.Dataset, number: xr.Dataset, file: Path) -> None:
    """Write map and reproduction numbers as CSV, one row for what moves, its move, a market and a side.

    The reproduction number stands where the market's own asset moves; rows without anything are left out.
    """
    header = ("moved", "move", "venue", "asset", "side", "closed_usd", "added_usd", "reproduction_number")
    stacked = closed[["closed", "added"]].stack(row=("moved", "move", "venue", "asset", "side"))
    found = number["reproduction_number"]

    def rows() -> Iterator[tuple[object, ...]]:
        for key, usd_closed, added in zip(stacked["row"].values, *(stacked[x].values for x in ("closed", "added")),
                                          strict=True):  # fmt: skip
            moved, move, venue, asset, side = key
            own = moved == asset
            ratio = float(found.sel(venue=venue, asset=asset, side=side, move=move)) if own else np.nan
            if usd_closed > 0 or added > 0 or ratio == ratio:
                yield (*key, f"{usd_closed:.10g}", f"{added:.10g}", f"{ratio:.6g}" if ratio == ratio else "")

    _write(file, header, rows())


def print_amplification(found: Amplification, name: str) -> None:
    """Print a run beside its twin without impact."""
    out = console()
    title = f"{name}: with impact against without, {found.paths:,} pairs of paths of {found.hours} h"
    shown = figures_table("", "volume", "with", "without", "times", "95 % interval")

    def add(what: str, of: Ratio) -> None:
        e = of.ratio
        ends = f"{e.low:.3f} to {e.high:.3f}" if np.isfinite(e.high) else "unknown: few paths"
        known = ("-", "") if np.isnan(e.value) else (f"{e.value:.3f}", ends)
        shown.add_row(what, usd(of.impact), usd(of.without), *known)

    add("a run, mean", found.run)
    for asset, of in found.assets.items():
        add(f"  {asset}", of)
    shown.add_section()
    for q, of in found.hourly.items():
        add("an hour, median" if q == 0.5 else f"an hour, {100 * q:g} %", of)
    add("largest 1 % of hours, mean", found.shortfall)
    shown.add_section()
    for q, e in found.of_paths.items():
        what = "a path to its twin, median" if q == 0.5 else f"a path to its twin, {100 * q:g} %"
        shown.add_row(what, "", "", f"{e.value:.3f}", span(e, "{:.3f}".format))
    _titled(title, shown)
    e = found.added
    out.print(f"impact adds {usd(e.value)} to a run ({usd(e.low)} to {usd(e.high)})")


def print_path(steps: xr.Dataset, of: Timeline, venue: str | None, asset: str | None) -> None:
    """Print the largest hour of a path, minute by minute; minutes in which nothing happens are left out.

    Args:
        steps: From `explain`.
        of: Its `timeline` with this venue and asset.
        venue: As given.
        asset: As given.
    """
    out, hour, market = console(), largest_hour(of), choose_market(steps, venue, asset)
    minutes = by_minute(of, steps.attrs["step_seconds"])
    begun = np.floor(minutes["minute"] / 60 - 1e-9) == hour
    shown_rows = np.flatnonzero(begun & ((minutes["triggered_usd"] > 0) | (minutes["closed_usd"] > 0)))
    layers = [name for name in layer_names(of) if of[f"{name}_usd"].any()]
    others = [name for name in ("deficit", "socialised") if of[f"{name}_usd"].any()]
    flows = ("triggered", "closed", *layers, *others)
    shown = figures_table("", "minute", market["asset"], "mark", *flows, "funds")
    columns = [minutes[f"{name}_usd"] for name in flows] + [minutes["fund_change_usd"]]
    unit, unit_name = unit_of(float(np.abs(np.array(columns)[:, shown_rows]).max(initial=0.0)), _MOST)
    for row in shown_rows:
        premium = f"{100 * minutes['premium'][row]:+z.2f} %"
        prices = f"{minutes['index_usd'][row]:,.6g}", premium
        shown.add_row(f"{minutes['minute'][row]:g}", *prices, *(_amount(float(x[row]) / unit) for x in columns))
    start = of["fund_usd"][0] - of["fund_change_usd"][0]
    _titled(f"{steps.attrs['name']}: path {steps.attrs['path']}, hour {hour} [{unit_name}]", shown)
    out.print(
        f"{market['asset']}: index [USD]; mark: at {market['venue']}, over the index; volumes: {asset or 'all assets'} "
        f"at {venue or 'all venues'}; funds: since the start, when they had {usd(start)}. Minutes without "
        f"closings are left out. Computed again, within {steps.attrs['largest_difference']:.0e} of what the run kept.",
        soft_wrap=True,
    )
    if (weight := steps.attrs["weight"]) != 1:
        out.print(f"Drawn by importance sampling: it weighs {weight:.2g}, where a path of the shock itself weighs 1.")
    if days := steps.attrs["recovery_days"]:
        out.print(f"The {days} days after the last hour are not in it: liqstress show has them.")


def write_path(of: Timeline, file: Path) -> None:
    """Write a path as CSV, one row a step."""
    _write(file, tuple(of), zip(*(map("{:.10g}".format, column) for column in of.values()), strict=True))


def print_files(**files: Path | None) -> None:
    """Say where files are, each by what it is."""
    for what, file in files.items():
        if file is not None:
            console().print(f"{what:8} {escape(str(file))}", soft_wrap=True)


def _titled(title: str, table: Table) -> None:
    """Print a table below its title, however narrow it is."""
    console().print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    console().print(table)


def _write(file: Path, header: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another place, or mend this one.") from error


def _amount(scaled: float) -> str:
    """An amount in the unit of a table: three digits, whole above a hundred; a dash for none."""
    if abs(scaled) < 5e-4:
        return "-"
    return f"{scaled:,.0f}" if abs(scaled) >= 99.95 else f"{scaled:.3g}"
