"""The reader's language: texts, numbers and dates.

Two separators and twelve names of months are all that differs between numbers and dates of languages here: they stand
in the file of texts, where a translator changes them with the rest, instead of in a library of locales.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from stress import risk
from stress.intervals import Estimate
from stress.merge import merged
from stress.report.quantities import QUANTITIES, Fact, Form
from stress.spec import InputError, read_toml

SHIPPED = ("en", "nl")
_OPEN = ("difference.", "feature.", "frontier.", "layer.", "units.")
"""Tables of names that runs make up, and which may be left as they are."""


class Language:
    """Texts of one language, and how its readers write numbers."""

    def __init__(self, code: str, texts: Mapping[str, Any]) -> None:
        """Use `read_language`."""
        self.code = code
        self.texts = texts

    def text(self, key: str, **values: object) -> str:
        """The text at a dotted key, with values put in; `InputError` names a key that is missing."""
        found: Any = self.texts
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if not isinstance(found, str):
            raise InputError(f"texts of language '{self.code}': {key} is {found!r}, expected a text. Add it.")
        try:
            return found.format(**values) if values else found
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"texts of language '{self.code}': {key} asks for {error}, expected one of {', '.join(values)} in "
                "braces. Correct it."
            ) from None

    def known(self, key: str, otherwise: str) -> str:
        """The text at a dotted key; `otherwise` where there is none, as of names that a run makes up."""
        table, _, name = key.partition(".")
        found = self.texts.get(table, {}).get(name, otherwise)
        return found if isinstance(found, str) else otherwise

    def texts_of(self, key: str) -> list[str]:
        """A list of texts, as of paragraphs; empty where there is none."""
        found: Any = self.texts
        for part in key.split("."):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return [found] if isinstance(found, str) else list(found)

    @cached_property
    def _marks(self) -> dict[int, str]:
        return str.maketrans({",": self.text("format.group"), ".": self.text("format.decimal")})

    def number(self, value: float, form: Form, *, signed: bool = False) -> str:
        """A number as people write it; a dash where there is none."""
        if math.isnan(value):
            return "–"
        digits, _, unit = _written(value, form).partition(" ")
        plus = "+" if (signed or form == "signed") and value > 0 and digits.strip("0.") else ""
        unit = self.known(f"units.{unit}", unit)
        return plus + self.digits(digits) + (f"\u00a0{unit}" if unit else "")

    def digits(self, english: str) -> str:
        """Digits with the language's separators."""
        return english.translate(self._marks)

    def value(self, fact: Fact) -> str:
        """The number of a fact, without `USD`: that stands in the head of a table."""
        change = fact.quantity.startswith("change_")
        return self.number(fact.value, QUANTITIES[fact.quantity].form, signed=change)

    def amount(self, fact: Fact) -> str:
        """The number of a fact in a sentence, with its unit."""
        unit = " USD" if QUANTITIES[fact.quantity].form == "usd" else ""
        return self.value(fact) + unit

    def interval(self, fact: Fact) -> str:
        """Its interval in words; nothing where there is none, or where it has no width."""
        e, form = fact.estimate, QUANTITIES[fact.quantity].form
        if not fact.has_interval:
            return ""
        return self.span(e, form, signed=fact.quantity.startswith("change_"))

    def span(self, e: Estimate, form: Form, *, signed: bool = False) -> str:
        """Two ends in words; an end that the paths cannot tell is left open."""
        low, high = (self.number(x, form, signed=signed) if math.isfinite(x) else "" for x in (e.low, e.high))
        if not low:
            return self.text("words.or_less", value=high) if high else self.text("words.unknown")
        if not high:
            return self.text("words.or_more", value=low)
        return "" if low == high else self.text("words.to", low=low, high=high)

    def date(self, iso: str) -> str:
        """A day and time, as stored: UTC."""
        moment = datetime.fromisoformat(iso)
        month = self.texts["format"]["months"][moment.month - 1]
        return self.text("format.date", day=moment.day, month=month, year=moment.year, time=f"{moment:%H:%M}")

    def days(self, first: date, last: date) -> str:
        """A day, or from one to another."""
        low, high = (
            self.text("format.day", day=day.day, month=self.texts["format"]["months"][day.month - 1], year=day.year)
            for day in (first, last)
        )
        return low if first == last else self.text("words.to", low=low, high=high)

    def count(self, value: float) -> str:
        """A whole number."""
        return self.number(value, "count")


def _written(value: float, form: Form) -> str:
    """In English, the unit after a space."""
    if form == "usd":
        return risk.usd(value).removesuffix("USD").rstrip()
    if form == "percent":
        return risk.percent(value)
    if form == "signed":
        return f"{100 * value:z.1f} %"
    if form == "times":
        return "∞" if math.isinf(value) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.1e}" if form == "tiny" else f"{value:,.0f}"


def read_language(code: str, folder: Path | None) -> Language:
    """A language that is shipped, with what a folder of templates puts over it, or one that stands in the folder alone.

    Raises:
        InputError: There is no such language, or its file is wrong.
    """
    own = folder / f"{code}.toml" if folder is not None else None
    there = own is not None and own.is_file()
    if code not in SHIPPED and not there:
        hint = f"{folder}/{code}.toml" if folder is not None else f"{code}.toml in a folder for --templates"
        raise InputError(f"language is '{code}', expected one of {', '.join(SHIPPED)}. Choose one, or write {hint}.")
    texts = tomllib.loads(packaged("texts", f"{code if code in SHIPPED else 'en'}.toml").decode("utf-8"))
    if own is not None and there:
        over = read_toml(own)
        _refuse_unknown(over, texts, str(own))
        texts = merged(texts, over, str(own))
    return Language(code, texts)


def _refuse_unknown(over: Mapping[str, Any], known: Mapping[str, Any], origin: str, place: str = "") -> None:
    """`InputError` where a file of texts has a key that nobody reads: a slip would change nothing, and say nothing."""
    for key, value in over.items():
        if place in _OPEN or (place == "section." and isinstance(value, Mapping) and key not in known):
            continue
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            hint = f"Did you mean '{near[0]}'?" if near else "Take it out."
            raise InputError(f"{origin}: {place}{key} is not a known text. {hint}")
        if isinstance(value, Mapping) and isinstance(known[key], Mapping):
            _refuse_unknown(value, known[key], origin, f"{place}{key}.")


def packaged(*parts: str) -> bytes:
    """A file of this package."""
    return files("stress.report").joinpath(*parts).read_bytes()
