"""The sections on the model and on its parameters."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator

from stress.report.document import Block, Entry, Equation, Paragraph, Table
from stress.report.language import packaged
from stress.report.sources import TRUST, distinct
from stress.report.story import Story

_METHOD = (
    ("accounts", ("equity",)),
    ("trigger", ("bankruptcy",)),
    ("flow", ("imbalance", "depth")),
    ("impact", ("impact",)),
    ("prices", ("prices", "mark")),
    ("cascade", ()),
    ("need", ("need",)),
    ("intervals", ()),
)
"""Paragraphs of the method, each with its equations."""
_SAID = {"equity": "accounts_alt", "bankruptcy": "trigger_alt"}


def method(story: Story) -> Iterator[Block]:
    """The model on two pages."""
    text = story.language.text
    formulas = tomllib.loads(packaged("data", "equations.toml").decode())
    rounds = story.cells[0].config["rounds"]
    for name, equations in _METHOD:
        yield Paragraph(text(f"section.method.{name}", rounds=rounds))
        for equation in equations:
            said = text(f"section.method.{_SAID.get(equation, equation + '_alt')}")
            yield Equation(formulas[equation]["typst"], formulas[equation]["mathml"], said)


def parameters(story: Story) -> Iterator[Block]:
    """Every source of the config, and how far to trust it."""
    text = story.language.text
    yield Paragraph(text("section.parameters.intro"))
    names = [cell.scenario for cell in story.firsts]
    new = dict(zip(names, distinct([cell.config for cell in story.firsts]), strict=True))
    counts = Counter(source.trust for found in new.values() for source in found)
    rows = [[Entry(text(f"trust.{trust}")), Entry(story.language.count(counts[trust]), number=True)] for trust in TRUST]
    heads = [text(f"section.parameters.{name}") for name in ("trust", "count")]
    yield Table(text("section.parameters.counts"), heads, rows, text("words.config"))
    columns = [text(f"section.parameters.{name}") for name in ("place", "values", "source", "trust")]
    for scenario, found in new.items():
        rows = [
            [Entry(source.place), Entry(source.values), Entry(source.text or "–"), Entry(text(f"trust.{source.trust}"))]
            for source in found
        ]
        if rows:
            yield Table(text("section.parameters.table", scenario=scenario), columns, rows, text("words.config"))
