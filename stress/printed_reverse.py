"""What `reverse` prints and writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape

from stress.console import as_toml, console, figures_table
from stress.risk import percent, span, usd
from stress.spec import InputError, RunError

if TYPE_CHECKING:
    from stress.reverse import Reversed

_LONGEST = 1e9
"""Years beyond which a number says only that the model knows no such thing."""


def print_reverse(found: Reversed, name: str) -> None:
    """Print the most plausible move that was found."""
    from stress.reverse_target import words_of

    shown = figures_table(f"{name}: the most plausible move to {words_of(found.target)}", "", "", "", "95 % interval")
    for i, (asset, share) in enumerate(found.move.items()):
        shown.add_row(f"move in {found.minutes:g} minutes" if i == 0 else "", asset, _signed(share))
    shown.add_section()
    for i, (lever, words) in enumerate(_levers(found)):
        shown.add_row("levers" if i == 0 else "", lever, words)
    shown.add_row("confirmed", found.measure, usd(found.reached))
    shown.add_row("", "the same with smooth triggers", usd(found.smooth))
    shown.add_row("", "not reached by a move smaller by", f"{100 * (1 - found.below):.1g} %")
    shown.add_section()
    shown.add_row("plausibility", "log density, over that of no move", f"{found.log_density:.1f}")
    shown.add_row("", "Mahalanobis distance", f"{found.distance:.1f}")
    shown.add_row("", "jumps of the model in it", f"{found.jumps:.1f}")
    shown.add_row("", "a window goes as far once in", often(found.years))
    if found.per_day is not None:
        shown.add_row("", "simulated days that do", percent(found.per_day.value), span(found.per_day, percent))
    shown.add_row("optimum", "slopes of density and target (-1)", f"{found.alignment:.4f}")
    console().print(shown)


def print_frontier(told: Mapping[float, Reversed | InputError], name: str, lever: str) -> None:
    """Print what was found for each value of a lever."""
    from stress.reverse_target import words_of

    good = {value: found for value, found in told.items() if not isinstance(found, InputError)}
    if good:
        first = next(iter(good.values()))
        out = console()
        shown = figures_table("", lever, *first.move, "log density", "jumps", "once in", "simulated days")
        for value, found in good.items():
            days = "" if found.per_day is None else span(found.per_day, percent)
            moves = [_signed(share) for share in found.move.values()]
            shown.add_row(
                f"{value:g}", *moves, f"{found.log_density:.1f}", f"{found.jumps:.1f}", often(found.years), days
            )
        title = f"{name}: the most plausible move in {first.minutes:g} minutes to {words_of(first.target)}"
        out.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
        out.print(shown)
    for value, found in told.items():
        if isinstance(found, InputError):
            console().print(f"{lever} {value:g}: {escape(str(found))}", soft_wrap=True)


def write_reverse(told: Mapping[float, Reversed | InputError], lever: str, file: Path) -> None:
    """Write all figures as CSV, one row a value of the lever."""
    good = [found for found in told.values() if not isinstance(found, InputError)]
    assets = list(good[0].move) if good else []
    header = (
        "lever", "value", "target", "minutes", *(f"move_{asset}" for asset in assets), "measure", "reached_usd",
        "smooth_usd", "below", "log_density", "mahalanobis", "jumps", "log10_chance_of_window", "years",
        "days", "days_low", "days_high", "alignment", "note",
    )  # fmt: skip

    def row(value: float, found: Reversed | InputError) -> list[object]:
        if isinstance(found, InputError):
            return [lever, value, *[""] * (len(header) - 3), str(found)]
        days = [""] * 3 if found.per_day is None else [found.per_day.value, found.per_day.low, found.per_day.high]
        numbers = [found.reached, found.smooth, found.below, found.log_density, found.distance, found.jumps,
                   found.log_chance / np.log(10), found.years, *days, found.alignment]  # fmt: skip
        target = f"{found.target.kind} {found.target.name or found.target.usd}"
        written = [f"{x:.8g}" if isinstance(x, float) else x for x in numbers]
        moves = [f"{share:.8g}" for share in found.move.values()]
        return [lever, value, target, found.minutes, *moves, found.measure, *written, ""]

    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(row(value, found) for value, found in told.items())
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another place, or mend this one.") from error


def write_shock(found: Reversed, file: Path) -> None:
    """Write the move as a shock, for `liqstress run --set shock=FILE`."""
    try:
        file.write_text(as_toml(found.shock().model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another place, or mend this one.") from error


def often(years: float) -> str:
    """A time between events, in words."""
    if years > _LONGEST:
        return f"more than {_LONGEST:.0e} years".replace("e+09", "e9")
    if years >= 1:
        return f"{years:,.3g} years" if years < 1e4 else f"{years:.1e} years"
    days = years * 365.25
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.2g} hours"


def _levers(found: Reversed) -> list[tuple[str, str]]:
    of = found.levers
    return [("books thinner", f"{of.depth:g} times"), ("funds", f"{of.fund:g} times"),
            ("longs of one account", percent(of.concentration))]  # fmt: skip


def _signed(share: float) -> str:
    return f"{100 * share:+.2f} %"
