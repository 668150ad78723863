"""Tables put over tables: includes, policies, scenarios."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stress.spec import InputError

EVERY = "*"
"""Stands for every key of a table and for every item of a list that is there."""


def merged(under: dict[str, Any], over: dict[str, Any], where: str = "") -> dict[str, Any]:
    """A table with another put over it.

    Tables merge key by key, but for those of another `kind`; anything else is replaced. The key `*` goes through
    every key of a table, or every item of a list.

    Args:
        under: What is there.
        over: What differs.
        where: What `over` is, for messages.
    """

    def put(old: Any, new: Any, place: str) -> Any:
        both = isinstance(old, dict) and isinstance(new, dict) and new.get("kind", old.get("kind")) == old.get("kind")
        through = isinstance(old, list) and isinstance(new, dict) and EVERY in new
        return _through(old, new, put, place) if both or through else new

    return _through(under, over, put, where)


def scaled(under: dict[str, Any], factors: dict[str, Any], where: str = "") -> dict[str, Any]:
    """A table with some of its numbers multiplied.

    Args:
        under: What is there.
        factors: Tables as in `under`, with a factor in the place of each number; `*` as in `merged`.
        where: What `factors` is, for messages.

    Raises:
        InputError: A factor is not a number, or there is no number where it stands.
    """

    def multiply(old: Any, factor: Any, place: str) -> Any:
        if isinstance(factor, dict) and isinstance(old, dict | list):
            return _through(old, factor, multiply, place)
        if isinstance(factor, dict) or not _is_number(factor):
            raise InputError(f"{place} is {factor!r}, expected a factor. Give a number such as 0.5.")
        if not _is_number(old):
            there = "there is nothing" if old is None else f"there is {old!r}"
            raise InputError(f"{place} is {factor!r}, expected a number of the run to multiply: {there}. Correct it.")
        return old * factor

    return _through(under, factors, multiply, where)


def _through(old: Any, over: dict[str, Any], put: Callable[[Any, Any, str], Any], where: str) -> Any:
    """`put` at every key that `over` names."""
    if isinstance(old, list):
        if set(over) != {EVERY}:
            raise InputError(f"{where} has the keys {', '.join(over)}, expected '*' alone, for every item. Correct it.")
        return [put(item, over[EVERY], f"{where}.{EVERY}") for item in old]
    result = dict(old)
    for key, value in over.items():
        for name in list(old) if key == EVERY else [key]:
            result[name] = put(result.get(name), value, f"{where}.{key}")
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
