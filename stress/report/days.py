"""The days after the last hour, for runs that have any: numbers, and a table by day."""

from __future__ import annotations

from collections.abc import Iterator

from stress.days import courses, has_days, of_days
from stress.report.document import Block, Paragraph
from stress.report.facts import Cell
from stress.report.quantities import Fact
from stress.report.story import Story

_NAMES = {
    "open interest": "after_interest",
    "mean leverage": "after_leverage",
    "liquidated in 24 h": "after_volume",
    "insurance funds": "after_funds",
}
"""Stems of quantities, by the name of a course; that of volatility names an asset."""
_COLUMNS = ("after_volatility_q50", "after_interest_q50", "after_leverage_q50", "after_volume_q50", "after_volume_q95",
            "after_funds_q50")  # fmt: skip


def facts_of_days(cell: Cell) -> Iterator[Fact]:
    """Quantiles over paths of each day; none where a run ends with its last hour."""
    if not has_days(cell.ds):
        return
    for course in courses(cell.ds):
        stem = _NAMES.get(course.name, "after_volatility")
        for level, end in ((0.5, "q50"), (0.95, "q95")) if stem == "after_volume" else ((0.5, "q50"),):
            for day, found in zip(cell.ds["day"].values, of_days(cell.ds, course, level), strict=True):
                yield Fact(f"{stem}_{end}", cell.scenario, cell.policy, found, item=str(day))


def days_after(story: Story, cell: Cell) -> Iterator[Block]:
    """What they are, and the table."""
    if not has_days(cell.ds):
        return
    text, days = story.language.text, [str(day) for day in cell.ds["day"].values]
    yield Paragraph(text("section.results.days_text", days=days[-1], asset=cell.ds["asset"].values[0]))
    rows = [(day, {"item": day}) for day in days]
    yield story.table(text("section.results.days", scenario=cell.scenario), cell, text("section.results.day"), rows,
                      _COLUMNS)  # fmt: skip
