"""What is given to a report beside its runs: files of other commands."""

from __future__ import annotations

import csv
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.spec import InputError

_LINE = re.compile(r"^(?P<key>\w+) = .*?  # \+- (?P<error>[-+.,e\d ]*\d(?: at most)?)$")
"""A number of a fitted shock, with its standard errors."""
_OF_FEATURE = ("what", "low", "high", "simulated")


@dataclass(frozen=True)
class Sheet:
    """A file of figures that was given: a frontier, or reference cases."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Fit:
    """A shock as `fit-shocks` wrote it."""

    name: str
    """Of the file."""
    source: str
    """Command and period, as in the config of a run with this shock."""
    shock: Mapping[str, Any]
    errors: Mapping[str, Sequence[float]]
    """Standard errors of what has any, by dotted key; of a matrix the largest."""
    notes: Sequence[str]
    """What the fit says of itself: jumps found, hours beyond a move, seen and expected."""


@dataclass(frozen=True)
class Likeness:
    """Recorded features beside simulated ones, as `compare-shock --json` wrote them."""

    name: str
    """Of the file."""
    source: str
    assets: Sequence[str]
    features: Mapping[str, Mapping[str, Any]]
    """By name: `what` it is, and lists by asset."""


@dataclass(frozen=True)
class Given:
    """What was given beside the runs."""

    frontier: Sheet | None = None
    validation: Sheet | None = None
    fit: Fit | None = None
    likeness: Likeness | None = None


def read_given(
    frontier: str | Path | None, validation: str | Path | None, fit: str | Path | None, likeness: str | Path | None
) -> Given:
    """Those files that are given; `InputError` where one is not what it should be."""
    return Given(
        None if frontier is None else read_sheet(Path(frontier)),
        None if validation is None else read_sheet(Path(validation)),
        None if fit is None else read_fit(Path(fit)),
        None if likeness is None else read_likeness(Path(likeness)),
    )


def read_sheet(file: Path) -> Sheet:
    """A CSV with a head; `InputError` where it is none."""
    try:
        head, *rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error}). Give a readable CSV file.") from None
    except ValueError:
        raise InputError(f"{file}: is empty, expected a line of column names and rows. Give another file.") from None
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise InputError(f"{file}: line {number} has {len(row)} values, expected {len(head)}. Mend the line.")
    if not rows or len(set(head)) < len(head):
        raise InputError(f"{file}: expected at least one row, and columns of different names. Give another file.")
    return Sheet(file.name, head, rows)


def read_fit(file: Path) -> Fit:
    """The TOML of `fit-shocks`; `InputError` where it is none."""
    text = _read(file)
    try:
        shock = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: is no TOML ({error}). Give what `fit-shocks` printed.") from None
    errors, table = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif found := _LINE.match(line):
            errors[table + found["key"]] = [float(x) for x in found["error"].removesuffix(" at most").split(",")]
    if "source" not in shock or not text.startswith("# Made by: liqstress fit-shocks"):
        raise InputError(f"{file}: its first line is not that of `fit-shocks`. Give what `fit-shocks` printed.")
    return Fit(file.name, " ".join(shock["source"].split()), shock, errors, _notes(text))


def _notes(text: str) -> list[str]:
    """Comments below the first two lines; those that are indented go on with the one before."""
    notes: list[str] = []
    for line in (line for line in text.splitlines()[2:] if line.startswith("#")):
        if line.startswith("#  ") and notes:
            joint = " " if notes[-1].endswith(":") else "; " if notes[-1][-1].isdigit() else ": "
            notes[-1] += joint + " ".join(line[1:].split())
        else:
            notes.append(line[1:].strip())
    return notes


def read_likeness(file: Path) -> Likeness:
    """The JSON of `compare-shock`; `InputError` where it is none."""
    try:
        found = json.loads(_read(file))
        features = {name: {key: row[key] for key in _OF_FEATURE} for name, row in found["features"].items()}
        return Likeness(file.name, found["source"], found["assets"], features)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: is not what `compare-shock --json` writes. Give a file that it wrote.") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}). Give a readable file.") from None


def number_of(text: str) -> float | None:
    """A cell of a file as a number; nothing where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
