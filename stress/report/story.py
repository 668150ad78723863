"""What all sections are written from: cells, their numbers, the language, and what was given beside the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stress.comparison import Comparison
from stress.report.adequacy import Adequacy
from stress.report.document import Entry, Table, entry, head
from stress.report.facts import Cell
from stress.report.given import Given
from stress.report.language import Language
from stress.report.quantities import Fact, Facts


@dataclass(frozen=True)
class Story:
    """Cells with their numbers."""

    cells: Sequence[Cell]
    facts: Facts
    adequacy: Mapping[tuple[str, str], Adequacy]
    """By scenario and policy."""
    comparisons: Sequence[Comparison]
    """One a scenario, where there are several policies."""
    language: Language
    given: Given = field(default_factory=Given)
    configs: Mapping[str, Cell] = field(default_factory=dict)
    """The cell whose config stands in a file of the disclosure, by its name."""

    @property
    def firsts(self) -> list[Cell]:
        """The first policy of each scenario, which sections go into."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.scenario, cell)
        return list(first.values())

    @property
    def worst(self) -> Cell:
        """The first policy of the scenario that is worst for the funds: by exhaustion, then by what is liquidated."""

        def harm(cell: Cell) -> tuple[float, float, float]:
            empty, adl, volume = (self.fact(name, cell) for name in ("exhausted_any", "adl_mean", "run_mean"))
            return empty.value if empty else 0.0, adl.value if adl else 0.0, volume.value if volume else 0.0

        return max(self.firsts, key=harm)

    @property
    def several(self) -> bool:
        """Whether there is more than one scenario or policy."""
        return len(self.cells) > 1

    def fact(self, quantity: str, cell: Cell, *, venue: str = "", pool: str = "", item: str = "") -> Fact | None:
        """A number of a cell; nothing where there is none."""
        return self.facts.of(quantity, cell.scenario, cell.policy, venue=venue, pool=pool, item=item)

    def sure(self, quantity: str, cell: Cell, *, venue: str = "", pool: str = "", item: str = "") -> Fact:
        """A number that every cell has."""
        found = self.fact(quantity, cell, venue=venue, pool=pool, item=item)
        assert found is not None, quantity
        return found

    def pools(self, cell: Cell) -> list[str]:
        """Insurance funds, as VENUE/NAME."""
        return [str(name) for name in cell.ds["pool"].values]

    def table(
        self,
        caption: str,
        cell: Cell,
        first: str,
        rows: Sequence[tuple[str, Mapping[str, str]]],
        quantities: Sequence[str],
        source: str = "",
    ) -> Table:
        """A table of quantities across and what they are of down; columns without any number are left out.

        Args:
            caption: Its title.
            cell: Whose numbers.
            first: Head of the first column.
            rows: What to call each row, and what its numbers are of.
            quantities: Columns.
            source: Where the numbers come from; the run where empty.
        """
        found = [[self.fact(name, cell, **where) for name in quantities] for _, where in rows]
        kept = [i for i, _ in enumerate(quantities) if any(row[i] is not None for row in found)]
        return Table(
            caption,
            [first, *(head(quantities[i], self.language) for i in kept)],
            [
                [Entry(label), *(entry(row[i], self.language) for i in kept)]
                for (label, _), row in zip(rows, found, strict=True)
            ],
            source or self.source(cell),
        )

    def source(self, cell: Cell) -> str:
        """Where the numbers of a cell come from, in short."""
        paths, failed = self.sure("paths", cell), self.sure("failed", cell)
        attrs, text = cell.ds.attrs, self.language.text
        left = text("words.failed", failed=self.language.count(failed.value)) if failed.value else ""
        return text(
            "words.source_run", name=attrs["name"], paths=self.language.count(paths.value) + left, seed=attrs["seed"],
            version=attrs.get("liqstress_version", "–"),
        )  # fmt: skip
