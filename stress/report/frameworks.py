"""Fields of public disclosures, and which quantities are given for them: `data/frameworks.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any, Literal

from stress.report.language import packaged
from stress.spec import Many, Spec, validate

Framework = Literal["pqd", "esma", "own"]


class Field(Spec):
    """A field of a disclosure, or several that are treated alike."""

    framework: Framework
    field: str
    """Its number or name in the framework."""
    checked: str = ""
    """What was published under this number and compared with the title; of most sub-numbers nothing was found."""
    title: str
    applies: Literal["yes", "in part", "no"]
    maps_to: str
    """What is given for it, in words."""
    quantities: Many[str]
    """The quantities given for it."""
    reason: str


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(packaged("data", "frameworks.toml").decode("utf-8"))


@cache
def fields() -> tuple[Field, ...]:
    """All fields, in the order of the file."""
    return tuple(validate(Field, field, "frameworks.toml") for field in _table()["fields"])


def framework_name(framework: Framework) -> str:
    """As it stands in the disclosure."""
    return _table()["frameworks"][framework]


def fields_of(quantity: str) -> list[Field]:
    """The fields that a quantity is given for."""
    return [field for field in fields() if quantity in field.quantities]
