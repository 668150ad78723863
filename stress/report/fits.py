"""How well shocks fit: what `fit-shocks` and `compare-shock` wrote, as tables of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stress.report.document import Block, Bullets, Entry, Paragraph, Table
from stress.report.facts import Cell
from stress.report.given import Fit, Likeness
from stress.report.story import Story
from stress.spec import InputError


def of_cell(fit: Fit, cells: Sequence[Cell]) -> Cell:
    """The first cell with this shock; `InputError` where it is of none."""
    for cell in cells:
        if " ".join(str(cell.config["shock"].get("source", "")).split()) == fit.source:
            return cell
    raise InputError(
        f"{fit.name}: its source is '{fit.source}', expected that of a run's shock. Give the file of its config."
    )


def fits(story: Story) -> Iterator[Block]:
    """Estimates with standard errors, what the fit says of itself, and shocks beside recorded hours."""
    text = story.language.text
    if story.given.fit is None:
        yield Paragraph(text("section.validation.no_fit"))
    else:
        yield from _estimates(story, story.given.fit)
    if story.given.likeness is None:
        yield Paragraph(text("section.validation.no_likeness"))
    else:
        yield from _beside_recorded(story, story.given.likeness)


def _estimates(story: Story, fit: Fit) -> Iterator[Block]:
    text, cell = story.language.text, of_cell(fit, story.cells)
    shock, rows = cell.config["shock"], []
    for key, errors in fit.errors.items():
        fitted, used = _at(fit.shock, key), _at(shock, key)
        shown = text("section.validation.matrix") if key == "correlation" else _numbers(story, np.ravel(fitted))
        kept = text(f"words.{'yes' if fitted == used else 'no'}")
        rows.append([Entry(f"`{key}`"), Entry(shown, number=True), Entry(_numbers(story, errors), number=True),
                     Entry(kept)])  # fmt: skip
    heads = [text(f"section.validation.{name}") for name in ("estimate_of", "estimate", "error", "used")]
    caption = text("section.validation.fit", scenario=cell.scenario, kind=shock["kind"])
    if rows:
        yield Table(caption, heads, rows, f"{fit.name}: {fit.source}")
    if fit.notes:
        yield Paragraph(text("section.validation.notes", file=fit.name))
        yield Bullets(fit.notes)


def _at(shock: Mapping[str, Any], key: str) -> Any:
    found: Any = shock
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _numbers(story: Story, values: Iterable[float]) -> str:
    return "; ".join(story.language.digits(f"{value:.4g}") for value in values)


def _beside_recorded(story: Story, found: Likeness) -> Iterator[Block]:
    """A row a feature and a column an asset; of the first asset nothing that is of pairs with it."""
    text, language = story.language.text, story.language
    rows, inside, all_of_them = [], 0, 0
    for name, feature in found.features.items():
        row = [Entry(language.known(f"feature.{name}", feature["what"]))]
        for a, (drawn, low, high) in enumerate(
            zip(*(feature[key] for key in ("simulated", "low", "high")), strict=True)
        ):
            if a == 0 and name.endswith("together"):
                row.append(Entry("–", number=True))
                continue
            within, all_of_them = low <= drawn <= high, all_of_them + 1
            inside += within
            shown, *ends = (language.digits(f"{value:,.2f}") for value in (drawn, low, high))
            row.append(
                Entry(shown + ("" if within else " *"), text("words.to", low=ends[0], high=ends[1]), number=True)
            )
        rows.append(row)
    yield Paragraph(text("section.validation.inside_of", inside=inside, all=all_of_them, file=found.name))
    heads = [text("section.validation.feature"), *found.assets]
    yield Table(text("section.validation.likeness"), heads, rows, found.source)
