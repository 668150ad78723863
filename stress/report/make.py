"""Make a report: open the runs, find the numbers, write them down, and set them as HTML, PDF, CSV and JSON."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stress.comparison import Comparison, compare
from stress.report import annex, back, disclosure, front, method, results
from stress.report.adequacy import adequacy
from stress.report.days import facts_of_days
from stress.report.document import Block, Document, Paragraph, Section, numbered
from stress.report.facts import Cell, facts_of
from stress.report.given import Given, read_given
from stress.report.html import page
from stress.report.inputs import cells
from stress.report.language import Language, packaged, read_language
from stress.report.looks import Templates, read_templates
from stress.report.pdf import check_fonts, pdf
from stress.report.quantities import Facts
from stress.report.story import Story
from stress.spec import InputError, RunError

_SECTIONS: dict[str, Callable[[Story], Iterator[Block]]] = {
    "summary": front.summary,
    "scope": front.scope,
    "scenarios": front.scenarios,
    "method": method.method,
    "parameters": method.parameters,
    "results": results.results,
    "adequacy": results.adequacy,
    "concentration": results.concentration,
    "reverse": back.reverse,
    "comparison": back.comparison,
    "validation": back.validation,
    "limitations": back.limitations,
    "mapping": annex.mapping,
    "reproducibility": annex.reproducibility,
    "signoff": annex.signoff,
}
"""By name, as in `sections` of a file of texts; other names there are sections of text alone."""

_NAMED = 3
"""Scenarios named in the title."""
_CONFIG = re.compile(r"config(-[A-Za-z0-9._-]+)?\.toml")
"""File of a config in a disclosure."""


def report(
    *runs: str | Path,
    out: str | Path,
    language: str = "en",
    templates: str | Path | None = None,
    logo: str | Path | None = None,
    frontier: str | Path | None = None,
    validation: str | Path | None = None,
    fit: str | Path | None = None,
    likeness: str | Path | None = None,
    cover: bool = False,
) -> list[Path]:
    """Write `report.html`, `report.pdf` and `disclosure/` of finished runs; the same runs give the same bytes.

    Args:
        runs: One store; several on a common base, the first of which the others are compared with; or one suite.
        out: Folder to write to, made if it is not there.
        language: `en`, `nl`, or one whose texts stand in the folder of templates.
        templates: Folder with templates and texts put over those that come with the program.
        logo: Picture for the head of the report.
        frontier: CSV of a reverse-stress frontier.
        validation: CSV of `liqstress validate --csv`.
        fit: TOML of `liqstress fit-shocks`, of the shock of a run.
        likeness: JSON of `liqstress compare-shock --json`.
        cover: Set funds against their largest accounts where these are a synthetic population too.

    Returns:
        The files written.

    Raises:
        InputError: A run is not finished, not as it was written, or of another base; or what was given is wrong.
    """
    looks = read_templates(templates, logo)
    words = read_language(language, looks.folder)
    given = read_given(frontier, validation, fit, likeness)
    _check_sections(words)
    check_fonts(words, looks)
    try:
        story = _story(cells(runs), words, given, cover=cover)
    except RunError as error:
        raise InputError(str(error)) from None
    return _write(Path(out), files_of(story, looks))


def _story(found: Sequence[Cell], language: Language, given: Given, *, cover: bool) -> Story:
    facts, adequacies = Facts(), {}
    for cell in found:
        for fact in (*facts_of(cell), *facts_of_days(cell)):
            facts.put(fact)
        of = adequacies[cell.scenario, cell.policy] = adequacy(cell, synthetic=cover)
        for fact in of.facts:
            facts.put(fact)
    comparisons = list(_comparisons(found))
    for each in comparisons:
        for fact in back.change_facts(each):
            facts.put(fact)
    configs = {_config_file(cell, alone=len(found) == 1): cell for cell in found}
    return Story(found, facts, adequacies, comparisons, language, given, configs)


def _comparisons(found: Sequence[Cell]) -> Iterator[Comparison]:
    for scenario in dict.fromkeys(cell.scenario for cell in found):
        policies = {cell.policy: cell.ds for cell in found if cell.scenario == scenario}
        if len(policies) > 1:
            yield compare(policies, scenario)


def _config_file(cell: Cell, *, alone: bool) -> str:
    if alone:
        return "config.toml"
    return f"config-{re.sub(r'[^A-Za-z0-9._-]', '_', f'{cell.scenario}-{cell.policy}')}.toml"


def files_of(story: Story, looks: Templates) -> dict[str, bytes]:
    """All files of a report, by their place in its folder."""
    document, language = document_of(story), story.language
    found = {"report.html": page(document, language, looks).encode(), "report.pdf": pdf(document, language, looks)}
    labels = tomllib.loads(packaged("texts", "en.toml").decode("utf-8"))["quantity"]
    rows = disclosure.rows_of(story.facts, labels, story.given.frontier)
    runs = [_provenance(file, cell) for file, cell in story.configs.items()]
    found |= {f"disclosure/{name}": data for name, data in disclosure.files(runs, rows).items()}
    return found | {f"disclosure/{file}": annex.config_toml(cell).encode() for file, cell in story.configs.items()}


def _provenance(file: str, cell: Cell) -> disclosure.Provenance:
    attrs = cell.ds.attrs
    return disclosure.Provenance(
        name=str(attrs["name"]),
        config_file=file,
        config_sha256=attrs.get("config_sha256"),
        seed=str(attrs["seed"]),
        version=str(attrs["liqstress_version"]),
        git_commit=str(attrs["git_commit"]),
        device=str(attrs["device"]),
        end_time=str(attrs["end_time"]),
    )


def document_of(story: Story) -> Document:
    """The whole report; sections without anything to say are left out."""
    language = story.language
    made = max(str(cell.ds.attrs["end_time"]) for cell in story.cells)
    sections = [section for name in language.texts_of("sections") if (section := _section(name, story)).blocks]
    names = ("contents", "source", "numbers", "listing", "page", "of", "logo")
    scenarios = list(dict.fromkeys(cell.scenario for cell in story.cells))
    name = ", ".join(scenarios[:_NAMED])
    if len(scenarios) > _NAMED:
        name = language.text("words.more", names=name, count=len(scenarios) - _NAMED)
    words = {name: language.text(f"words.{name}") for name in names}
    words["made"] = language.text("words.made", date=language.date(made))
    return Document(
        language.text("words.title", name=name), language.text("words.subtitle"), made,
        numbered(sections, language), words,
    )  # fmt: skip


def _section(name: str, story: Story) -> Section:
    """One of ours, or one of a user's own, which has a title and paragraphs."""
    language = story.language
    blocks = (
        list(_SECTIONS[name](story))
        if name in _SECTIONS
        else [Paragraph(text) for text in language.texts_of(f"section.{name}.text")]
    )
    return Section(name, language.text(f"section.{name}.title"), blocks)


def _check_sections(language: Language) -> None:
    for name in language.texts_of("sections"):
        if name not in _SECTIONS and not language.texts_of(f"section.{name}.text"):
            raise InputError(
                f"texts of language '{language.code}': sections names '{name}', expected one of "
                f"{', '.join(_SECTIONS)}, or one with a table [section.{name}] of title and text. Correct it."
            )


def _configs_of(folder: Path) -> list[Path]:
    """Configs that an earlier report wrote into a folder, as its disclosure names them."""
    try:
        runs = json.loads((folder / "disclosure.json").read_text(encoding="utf-8"))["runs"]
        names = [str(run["config_file"]) for run in runs]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / name for name in names if _CONFIG.fullmatch(name)]


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write all files or none, so that no old report is mixed with a new one; `InputError` where that is refused."""
    places = [folder / name for name in files]
    earlier = [place for place in _configs_of(folder / "disclosure") if place not in places]
    drafts = [place.with_name(f".{place.name}.partial") for place in places]
    try:
        for draft, data in zip(drafts, files.values(), strict=True):
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
        for draft, place in zip(drafts, places, strict=True):
            draft.replace(place)
        for place in earlier:
            place.unlink(missing_ok=True)
    except OSError as error:
        for draft in drafts:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        raise InputError(f"{folder}: cannot be written to: {error.strerror}. Give another --out.") from None
    return places
