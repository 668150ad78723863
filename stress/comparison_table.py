"""A comparison of policies on the terminal, and which stores or cells a command line means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from stress.comparison import Comparison, Difference, Unit, compare
from stress.console import figures_table
from stress.run import open_sound
from stress.spec import InputError
from stress.suite_run import cell, run_or_cell

_ACROSS = 3
"""Policies side by side in one table."""
_SCALE: dict[Unit, tuple[float, str]] = {"usd": (1e-6, "M USD"), "share": (100.0, "%"), "accounts": (1.0, "")}
_KEYS = 4


def comparisons(words: Sequence[str]) -> list[Comparison]:
    """What a command line asks to compare.

    Args:
        words: Stores of runs; cells of suites as STORE#SCENARIO/POLICY; or one suite, whose policies are compared with
            the first in each scenario.

    Raises:
        InputError: A store or a cell is not there, or runs share no common base.
    """
    if len(words) == 1 and "#" not in words[0]:
        ds = open_sound(words[0])
        if ds.attrs.get("kind") == "suite":
            scenarios, policies = ([str(x) for x in ds[dim].values] for dim in ("scenario", "policy"))
            return [
                compare({policy: cell(ds, scenario, policy) for policy in policies}, scenario) for scenario in scenarios
            ]
    if len(set(words)) < len(words):
        raise InputError(f"{' '.join(words)}: names one run twice, expected different ones. Leave it out.")
    return [compare({word: run_or_cell(word) for word in words})]


def print_comparison(found: Comparison, out: Console) -> None:
    """Print the differences and who pays, a few policies side by side."""
    failed = f" ({found.failed:,} failed in one or another and left out)" if found.failed else ""
    title = f"{found.title}: " if found.title else ""
    out.print(f"[bold]{escape(title)}differences from {escape(found.base)}[/bold]", soft_wrap=True)
    out.print(f"the same {found.paths:,} paths of {found.hours} h{failed}; 95 % intervals of the paired difference")
    for other in found.others:
        keys = ", ".join(other.changed[:_KEYS]) + (
            f" and {len(other.changed) - _KEYS} more" if len(other.changed) > _KEYS else ""
        )
        out.print(f"  {escape(other.name)}: {escape(keys) or 'nothing differs'}", soft_wrap=True)
    for start in range(0, len(found.others), _ACROSS):
        some = found.others[start : start + _ACROSS]
        for title, columns in (
            ("means and chances", [other.differences for other in some]),
            ("who pays, mean per run; receipts are negative", [other.payments for other in some]),
        ):
            table = figures_table(title, "quantity", found.base, *(other.name for other in some))
            for rows in zip(*columns, strict=True):
                table.add_row(escape(_label(rows[0])), number(rows[0].base, rows[0].unit), *map(_cell, rows))
            out.print(table)


def _label(row: Difference) -> str:
    return f"{row.name} [{_SCALE[row.unit][1]}]" if row.unit != "accounts" else row.name


def _cell(row: Difference) -> str:
    if row.differs == 0 and row.change.low == row.change.high:
        return "the same"
    low, high = (number(x, row.unit, signed=True) for x in (row.change.low, row.change.high))
    interval = f"{low} to {high}" if math.isfinite(row.change.high) else "unknown: few paths"
    return f"{number(row.change.value, row.unit, signed=True)}\n[dim]{interval}[/dim]"


def number(value: float, unit: Unit, *, signed: bool = False) -> str:
    """A value in the unit of its row, three digits."""
    scaled = value * _SCALE[unit][0]
    size = abs(scaled)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    text = f"{scaled:{'+' if signed else ''},.{digits}f}"
    return "0" if not text.strip("+-0.,") else text


def picture_of(words: Sequence[str], found: Comparison) -> Path:
    """Where the picture of a comparison lies: beside the first store."""
    store = Path(words[0].partition("#")[0])
    stem = store.with_suffix("") if store.suffix == ".zarr" else store
    return stem.with_name(f"{stem.name}-compare{'-' if found.title else ''}{found.title}.png")
