"""The sections on the model and on its parameters."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator

from stress.policies import POLICIES
from stress.report.document import Block, Entry, Equation, Paragraph, Table
from stress.report.language import packaged
from stress.report.sources import TRUST, distinct, trust
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
    rows = [[Entry(text(f"trust.{level}")), Entry(story.language.count(counts[level]), number=True)] for level in TRUST]
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
    yield from _policies(story)


def _policies(story: Story) -> Iterator[Block]:
    """What the policies put over the runs say of themselves, each once; of older stores, that they do not keep it."""
    text, rows = story.language.text, {}
    for cell in story.cells:
        for policy in cell.ds.attrs.get(POLICIES, ()):
            name, description, source = (" ".join(policy[key].split()) for key in ("name", "description", "source"))
            called = name if cell.policy in ("", name) else f"{cell.policy}: {name}"
            rows[called, description, source] = [
                Entry(called), Entry(description or "–"), Entry(source or "–"), Entry(text(f"trust.{trust(source)}"))
            ]  # fmt: skip
    if rows:
        columns = [text(f"section.parameters.{name}") for name in ("policy", "description", "source", "trust")]
        yield Table(text("section.parameters.policies"), columns, list(rows.values()), text("words.policy_files"))
    silent = dict.fromkeys(cell.policy for cell in story.cells if cell.policy and POLICIES not in cell.ds.attrs)
    if silent:
        yield Paragraph(text("section.parameters.no_policies", list=", ".join(f"`{name}`" for name in silent)))
