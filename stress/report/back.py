"""The sections after the results: reverse stress, comparison, validation, limitations."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence

from stress.comparison import Comparison, Difference
from stress.report import pictures
from stress.report.document import Block, Bullets, Entry, Figure, Paragraph, Table, entry
from stress.report.facts import Cell
from stress.report.fits import fits
from stress.report.front import in_short
from stress.report.given import Sheet, number_of
from stress.report.language import packaged
from stress.report.quantities import Fact, Form
from stress.report.story import Story

_ACROSS = 3
"""Policies side by side in one table."""
_WIDE, _ACROSS_ROWS = 9, 6
"""Columns of a file that are too many for a page, and its rows side by side where they stand across."""
_FORMS: dict[str, Form] = {"usd": "usd", "share": "percent", "accounts": "count"}
_LOWEST = re.compile(r"lowest (\w+), from the start")
"""A difference that is named after an asset."""
_CHECKS = ("paths", "failed", "effective_paths", "ledger_residual")


def reverse(story: Story) -> Iterator[Block]:
    """A frontier that was given, its first two columns of numbers that vary as a figure; nothing without one."""
    sheet, text = story.given.frontier, story.language.text
    if sheet is None:
        return
    yield Paragraph(text("section.reverse.intro", file=sheet.name))
    heads = _heads(story, sheet)
    table, *more = _sheet(story, sheet, text("section.reverse.table"), heads)
    columns = [[number_of(row[i]) for row in sheet.rows] for i, _ in enumerate(sheet.columns)]
    varying = [i for i, column in enumerate(columns) if None not in column and len(set(column)) > 1]
    if len(varying) < 2:
        yield from (table, *more)
        return
    x, y = ([value or 0.0 for value in columns[i]] for i in varying[:2])
    axes = {axis: heads[place] for axis, place in zip("xy", varying, strict=False)}
    names = {axis: head.partition(" [")[0] for axis, head in axes.items()}
    first, last = (story.language.digits(f"{value:,.6g}") for value in (y[0], y[-1]))
    yield Figure(
        "frontier",
        text("section.reverse.figure", **names),
        text("section.reverse.alternative", **names, first=first, last=last),
        pictures.line(x, y, axes, story.language, "frontier"),
        table,
    )
    yield from more


def _heads(story: Story, sheet: Sheet) -> list[str]:
    """What the columns of a file of `reverse` are of, with units; those of another file, which has no lever, stay."""
    if "lever" not in sheet.columns:
        return list(sheet.columns)
    lever, language = sheet.rows[0][sheet.columns.index("lever")], story.language

    def head(column: str) -> str:
        stem, _, asset = column.partition("_")
        if stem == "move" and asset:
            return language.text("frontier.move", asset=asset)
        name = lever if column == "value" else column
        return language.known(f"frontier.{name}", name)

    return [head(column) for column in sheet.columns]


def _sheet(story: Story, sheet: Sheet, caption: str, heads: Sequence[str] = ()) -> list[Table]:
    """A file as a table, numbers in the reader's digits; a wide one as several, columns down, without empty ones.

    Args:
        story: Whose language.
        sheet: The file.
        caption: Of every table.
        heads: What to call its columns; their names in the file where empty.
    """
    heads = heads or sheet.columns

    def shown(text: str, place: str) -> Entry:
        value = number_of(text)
        if value is None:
            return Entry(text)
        return Entry(story.language.digits(f"{value:,.6g}"), "", place, value, number=True)

    rows = [
        [shown(text, f"{sheet.name}|{i}|{column}") for column, text in zip(sheet.columns, row, strict=True)]
        for i, row in enumerate(sheet.rows, start=1)
    ]
    if len(sheet.columns) <= _WIDE:
        return [Table(caption, heads, rows, sheet.name)]
    parts = [range(i, min(i + _ACROSS_ROWS, len(rows))) for i in range(0, len(rows), _ACROSS_ROWS)]
    return [
        Table(
            caption,
            [story.language.text("section.reverse.row"), *(str(row + 1) for row in part)],
            [
                [Entry(head), *(rows[row][i] for row in part)]
                for i, head in enumerate(heads) if any(row[i] for row in sheet.rows)
            ],
            sheet.name,
        )
        for part in parts
    ]  # fmt: skip


def comparison(story: Story) -> Iterator[Block]:
    """What changes under other policies, scenario by scenario."""
    text = story.language.text
    if not story.comparisons:
        return
    yield Paragraph(text("section.comparison.intro"))
    nothing = text("section.comparison.nothing")
    if len(story.cells) > len(story.firsts):
        yield in_short(story, story.cells)
    yield Bullets(
        [text("section.comparison.changed", policy=other.name, keys=", ".join(f"`{key}`" for key in other.changed)
              or nothing) for other in story.comparisons[0].others]
    )  # fmt: skip
    for i, found in enumerate(story.comparisons):
        yield _change(story, found, f"c{i}-change")
        for start in range(0, len(found.others), _ACROSS):
            some = found.others[start : start + _ACROSS]
            for kind in ("differences", "payments"):
                caption = text(f"section.comparison.{kind}", base=found.base, scenario=found.title)
                heads = [text("section.comparison.quantity"), f"{found.base} ({text('section.comparison.base')})",
                         *(other.name for other in some)]  # fmt: skip
                columns = [getattr(other, kind) for other in some]
                rows = [_compared(story, found, some, across) for across in zip(*columns, strict=True)]
                yield Table(caption, heads, rows, _paths(story, found))


def _compared(story: Story, found: Comparison, some: Sequence, across: Sequence[Difference]) -> list[Entry]:
    """A measure in the base, and its change under some policies."""
    language, first = story.language, across[0]
    name = language.known(f"difference.{first.name}", first.name)
    if lowest := _LOWEST.fullmatch(first.name):
        name = language.text("difference.lowest", asset=lowest[1])
    unit = " [USD]" if first.unit == "usd" else ""
    base = Entry(language.number(first.base, _FORMS[first.unit]), number=True)
    changes = [
        entry(story.facts.of(f"change_{row.unit}", found.title, other.name, item=row.name), language)
        for other, row in zip(some, across, strict=True)
    ]
    return [Entry(name + unit), base, *changes]


def _change(story: Story, found: Comparison, name: str) -> Figure:
    text, language = story.language.text, story.language
    facts = [fact for other in found.others
             if (fact := story.facts.of("change_usd", found.title, other.name, item="liquidated"))]  # fmt: skip
    labels = [fact.policy for fact in facts]
    said = "; ".join(f"{fact.policy} {language.amount(fact)}" for fact in facts)
    caption = text("section.comparison.figure", base=found.base, scenario=found.title)
    rows = [[Entry(fact.policy), entry(fact, language)] for fact in facts]
    heads = [text("section.summary.policy"), f"{text('quantity.change_usd')} [USD]"]
    picture = pictures.changes(facts, labels, {"x": text("section.comparison.figure_x")}, language, name)
    table = Table(caption, heads, rows, _paths(story, found))
    return Figure(name, caption, text("section.comparison.figure_alt", list=said), picture, table)


def _paths(story: Story, found: Comparison) -> str:
    return story.language.text("words.source_pairs", paths=story.language.count(found.paths))


def validation(story: Story) -> Iterator[Block]:
    """Soundness, and published figures beside the runs."""
    text, language = story.language.text, story.language
    yield Paragraph(text("section.validation.intro"))
    rows = [
        [Entry(cell.scenario), *([Entry(cell.policy)] if story.several else []),
         *(entry(story.fact(name, cell), language) for name in _CHECKS)]
        for cell in story.cells
    ]  # fmt: skip
    heads = [text("section.summary.scenario"), *([text("section.summary.policy")] if story.several else [])]
    heads += [text(f"quantity.{name}") for name in _CHECKS]
    yield Table(text("section.validation.checks"), heads, rows, story.source(story.cells[0]))
    for cell in story.firsts:
        yield from _beside(story, cell)
    sheet = story.given.validation
    if sheet is None:
        yield Paragraph(text("section.validation.no_reference"))
    else:
        yield from _sheet(story, sheet, text("section.validation.reference", file=sheet.name))
    yield from fits(story)


def _beside(story: Story, cell: Cell) -> Iterator[Table]:
    text, language = story.language.text, story.language
    rows = []
    for figure in tomllib.loads(packaged("data", "records.toml").decode("utf-8"))["figures"]:
        fact = story.fact(figure["quantity"], cell, item=figure.get("item", ""))
        if fact is None:
            continue
        form: Form = "usd" if figure["quantity"] == "hour_q999" else "percent"
        low, high = (language.number(figure[end], form) for end in ("low", "high"))
        inside = "yes" if figure["low"] <= fact.value <= figure["high"] else "no"
        unit, item = (" [USD]" if form == "usd" else ""), f" ({figure['item']})" if "item" in figure else ""
        rows.append([
            Entry(text(f"quantity.{figure['quantity']}") + item + unit), entry(fact, language),
            Entry(text("words.to", low=low, high=high), number=True), Entry(text(f"words.{inside}")),
            Entry(text(f"trust.{figure['trust']}")), Entry(f"{figure['what']}: {figure['source']}"),
        ])  # fmt: skip
    heads = [
        text(f"section.validation.{name}") for name in ("quantity", "run", "published", "inside", "trust", "source")
    ]
    if rows:
        yield Table(text("section.validation.beside", scenario=cell.scenario), heads, rows, story.source(cell))


def limitations(story: Story) -> Iterator[Block]:
    """In plain words."""
    yield Bullets(story.language.texts_of("section.limitations.items"))


def change_facts(found: Comparison) -> Iterator[Fact]:
    """Paired differences of a comparison, payments too."""
    for other in found.others:
        for row in (*other.differences, *other.payments):
            yield Fact(f"change_{row.unit}", found.title, other.name, row.change, item=row.name)
