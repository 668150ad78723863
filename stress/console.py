"""What the command line shows: the table of a run, a progress bar, a config with all its defaults."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import xarray as xr

    from stress.build import Built
    from stress.config import Run
    from stress.risk import Row
    from stress.run import Progress as Report

_WIDTH = 120
"""Columns where the output is not a terminal [characters]."""


_ACROSS = {
    "fund ": "insurance funds",
    "vault at ": "backstop vaults, per run",
    "ADL at ": "auto-deleveraging (ADL), volume per run",
    "winners at ": "who pays for ADL, medians of runs with it",
    "sold at ": "collateral sold in the spot market, per run",
}
"""Titles of the tables with one column a group, by what its groups start with."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; of a fixed width in a file or a pipe, so that nothing depends on the shell."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDTH)


def show_run(ds: xr.Dataset, store: Path, picture: Path) -> None:
    """Print the figures of a finished run, and where it lies.

    Args:
        ds: The run.
        store: Its zarr store.
        picture: Its PNG; the SVG lies beside it.
    """
    from stress.console_days import day_rows
    from stress.results import group_of
    from stress.risk import summary_table

    out, attrs, rows = console(), ds.attrs, summary_table(ds)
    if group_of(ds) > 1:
        from stress.grouped import mean_rows

        rows = [*(row._replace(interval="") for row in rows), *mean_rows(ds)]
    alone = ds.sizes["path"] == 1
    if alone:
        rows = [row._replace(interval="") for row in rows]
    plain = [row for row in rows if not row.group.startswith(tuple(_ACROSS))]
    title, ends = f"{attrs['name']}: {ds.sizes['hour']} h, seed {attrs['seed']}", "" if alone else "95 % interval"
    table = figures_table(title, "", "", ends)
    last = None
    for row in plain:
        if last not in (None, row.group):
            table.add_section()
        table.add_row(row.group if row.group != last else "", escape(row.quantity), row.value, _interval(row))
        last = row.group
    table.add_section()
    for group, name, value in _facts(attrs):
        table.add_row(group, name, value)
    out.print(table)
    for prefix, title in _ACROSS.items():
        if any(row.group.startswith(prefix) for row in rows):
            out.print(_across(title, prefix, rows))
    if (days := day_rows(ds)) is not None:
        table = figures_table(days.title, *days.columns)
        for row in days.rows:
            table.add_row(*row)
        out.print(table)
    if alone:
        out.print("One path: these are its own figures, and say nothing of how often they come.")
    if group_of(ds) > 1:
        out.print("Intervals are of means alone; those in the picture are of as many independent paths.")
    out.print(f"store    {escape(str(store))}", soft_wrap=True)
    out.print(f"picture  {escape(str(picture))}, .svg", soft_wrap=True)


def _facts(attrs: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """How the run was made."""
    done = int(attrs.get("paths_computed", attrs["paths"]))
    speed = float(attrs["paths_per_second"])
    part = "" if done == int(attrs["paths"]) else f" (the last {done:,} paths, after --resume)"
    return [
        ("made in", "wall time", f"{attrs['wall_seconds']:,.1f} s{part}"),
        ("", "speed", f"{speed:,.0f} paths/s" if speed >= 10 else f"{speed:.2g} paths/s"),
        ("", "device", str(attrs["device"])),
        ("", "version", f"{attrs['liqstress_version']} ({str(attrs['git_commit'])[:7]})"),
    ]


def _across(title: str, prefix: str, rows: Sequence[Row]) -> Table:
    """Rows whose group starts with `prefix`, one column a group, intervals below the figures; a dash for none."""
    groups = list(dict.fromkeys(row.group for row in rows if row.group.startswith(prefix)))
    cells = {(row.quantity, row.group): row for row in rows if row.group in groups}
    quantities = {group: [quantity for quantity, of in cells if of == group] for group in groups}
    longest_first = sorted(quantities.values(), key=len, reverse=True)
    table = figures_table(title, "", *(group.removeprefix(prefix) for group in groups))
    for quantity in dict.fromkeys(quantity for several in longest_first for quantity in several):
        found = [cells.get((quantity, group)) for group in groups]
        table.add_row(quantity, *(_cell(row) if row else "-" for row in found))
    return table


def _cell(row: Row) -> str:
    return row.value + (f"\n[dim]{_interval(row)}[/dim]" if _interval(row) else "")


def _interval(row: Row) -> str:
    """The interval of a figure, unless it is of no width."""
    return "" if row.interval == f"{row.value} to {row.value}" else row.interval


def facts_of(built: Built, config: Run) -> list[str]:
    """What a checked config amounts to, in lines: accounts, open interest, exactness, length, program."""
    from stress.cross import coins_held
    from stress.fast import said
    from stress.risk import usd

    book, cross, number = built.book, np.zeros(2), 0.0
    if built.accounts is not None:
        cross, number = coins_held(built.accounts).sum(axis=(0, 1)), float(np.sum(built.accounts.count))
    interest = (built.held.max(axis=2) + built.world.block).sum(axis=0)
    listed = {asset for venue in config.venues.values() for asset in venue.markets}
    by_asset = zip(config.assets, interest, strict=True)
    parts = ", ".join(f"{asset} {usd(part)}" for asset, part in by_asset if asset in listed)
    exact = "exact: every trigger has a rung of its own"
    if not book.exact:
        exact = f"not exact: accounts share {config.ladder.rungs:,} rungs in each market side"
    stops = [f"stop orders: {usd(book.stops_usd[0])} of longs, {usd(book.stops_usd[1])} of shorts"]
    return [
        f"{config.name}: sound. {config.paths:,} paths of {config.horizon_hours} h in steps of {config.step_seconds} s",
        f"accounts: {book.accounts + number:,.0f}, {usd(book.long_usd + cross[0])} long and "
        f"{usd(book.short_usd + cross[1])} short at the start",
        f"engines: {book.accounts:,.0f} accounts on ladders, {number:,.0f} on cross margin",
        *(stops if any(book.stops_usd) else []),
        f"open interest: {usd(interest.sum())} one-sided, hedgers included ({parts})",
        f"book: {exact}",
        said(built),
    ]


def figures_table(title: str, *columns: str) -> Table:
    """A table whose figures stand to the right; the first column, and a second without a name, hold words."""
    looks: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "box": None, "padding": (0, 2, 0, 0)}
    table = Table(title=escape(title), min_width=len(title), **looks)
    words = [i == 0 or not name for i, name in enumerate(columns)]
    for name, text in zip(columns, words, strict=True):
        table.add_column(escape(name), justify="left" if text else "right", no_wrap=True)
    return table


class _Rate(ProgressColumn):
    """Paths a second since the run began or went on, and the time left at that rate."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.seen: list[tuple[float, int]] = []
        """When how many paths were done."""

    def render(self, task: Task) -> Text:
        """The figures of this moment; nothing before the first chunk of paths is done."""
        if len(self.seen) < 2 or task.total is None:
            return Text("")
        (began, first), (last, done) = self.seen[0], self.seen[-1]
        speed = (done - first) / (last - began)
        left = max(0.0, (task.total - done) / speed - (time.monotonic() - last))
        return Text(f"{speed:,.3g} {self.what}/s, {timedelta(seconds=round(left))} left")


@contextmanager
def progress(what: str = "paths") -> Iterator[Report]:
    """A bar on standard error: paths done, paths/s, time left. The block is given what to call with (done, all)."""
    rate = _Rate(what)
    words = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.fields[count]}")
    with Progress(*words, rate, console=console(stderr=True)) as bar:
        task = bar.add_task("reading and sorting the positions", total=None, count="")

        def report(done: int, total: int) -> None:
            rate.seen.append((time.monotonic(), done))
            doing = "simulating" if len(rate.seen) > 1 else f"compiling, first {what}"
            bar.update(task, description=doing, total=total, completed=done, count=f"{done:,} of {total:,} {what}")

        yield report


def as_toml(table: Mapping[str, Any], path: str = "") -> str:
    """A config as TOML, which can be read again; absent values are left out."""
    given = {key: value for key, value in table.items() if value is not None}
    plain = [f"{_key(key)} = {_value(value)}" for key, value in given.items() if not isinstance(value, Mapping)]
    parts = [f"[{path}]", *plain] if path and (plain or not given) else plain
    text = "\n".join(parts) + "\n" if parts else ""
    for key, value in given.items():
        if isinstance(value, Mapping):
            inner = as_toml(value, f"{path}.{_key(key)}" if path else _key(key))
            text += "\n" + inner if text and inner else inner
    return text


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        lines = [_value(item) for item in value]
        nested = any(isinstance(item, Mapping | list | tuple) for item in value)
        return "[\n" + "".join(f"    {line},\n" for line in lines) + "]" if nested else f"[{', '.join(lines)}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
