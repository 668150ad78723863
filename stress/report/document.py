"""What a report says, apart from how it looks: sections of paragraphs, tables, figures and equations.

HTML and PDF are made from the same document, so that they cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from stress.report.language import Language
from stress.report.quantities import QUANTITIES, Fact


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table."""

    text: str
    interval: str = ""
    """In small letters below."""
    key: str = ""
    """Of the fact that it shows."""
    value: float | None = None
    """Of that fact, in its own unit."""
    number: bool = False
    """Stands to the right."""


@dataclass(frozen=True)
class Paragraph:
    """Prose; what stands between backticks is code."""

    kind: ClassVar[str] = "paragraph"
    text: str
    lead: bool = False
    """The answer: in larger letters."""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the rows."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    source: str = ""
    label: str = ""
    """`Table 3`, given by `numbered`."""


@dataclass(frozen=True)
class Figure:
    """A picture, and the numbers in it as a table below."""

    kind: ClassVar[str] = "figure"
    name: str
    """Of its file, unlike those of other figures."""
    caption: str
    alternative: str
    """What there is to see, for those who do not see it."""
    svg: str
    table: Table
    label: str = ""


@dataclass(frozen=True)
class Equation:
    """A formula of `equations.toml`."""

    kind: ClassVar[str] = "equation"
    typst: str
    mathml: str
    alternative: str


@dataclass(frozen=True)
class Listing:
    """Text to be kept as it is, as a config."""

    kind: ClassVar[str] = "listing"
    text: str


@dataclass(frozen=True)
class SignOff:
    """Lines to be filled in by hand."""

    kind: ClassVar[str] = "signoff"
    columns: Sequence[str]
    rows: Sequence[str]


Block = Paragraph | Bullets | Heading | Table | Figure | Equation | Listing | SignOff


@dataclass(frozen=True)
class Section:
    """A numbered part of the report."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    made: str
    """When the newest run ended: the report's own date, so that the same runs give the same report."""
    sections: Sequence[Section]
    words: dict[str, str] = field(default_factory=dict)
    """Of the page itself: contents, sources."""

    def blocks(self) -> Iterator[Block]:
        """All blocks; the tables of figures too."""
        for section in self.sections:
            for block in section.blocks:
                yield block
                if isinstance(block, Figure):
                    yield block.table


def numbered(sections: Sequence[Section], language: Language) -> list[Section]:
    """Sections whose tables and figures have numbers."""
    tables = figures = 0

    def label(block: Block) -> Block:
        nonlocal tables, figures
        if isinstance(block, Figure):
            figures += 1
            block = replace(block, label=language.text("words.figure", number=figures), table=label(block.table))
        elif isinstance(block, Table):
            tables += 1
            block = replace(block, label=language.text("words.table", number=tables))
        return block

    return [replace(section, blocks=[label(block) for block in section.blocks]) for section in sections]


def entry(fact: Fact | None, language: Language) -> Entry:
    """A fact in a table; a dash where there is none."""
    if fact is None or math.isnan(fact.value):
        return Entry("–", number=True)
    return Entry(language.value(fact), language.interval(fact), fact.key, fact.value, number=True)


def head(name: str, language: Language) -> str:
    """A quantity as the head of a column, with its unit."""
    unit = " [USD]" if QUANTITIES[name].form == "usd" else ""
    return language.text(f"quantity.{name}") + unit


def as_data(document: Document) -> dict[str, Any]:
    """The document as plain lists and tables, each block with its kind."""

    def plain(block: Block) -> dict[str, Any]:
        return {"kind": block.kind, **asdict(block)}

    sections = [
        {"name": section.name, "title": section.title, "blocks": [plain(block) for block in section.blocks]}
        for section in document.sections
    ]
    return {**{key: getattr(document, key) for key in ("title", "subtitle", "made", "words")}, "sections": sections}
