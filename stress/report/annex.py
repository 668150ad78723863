"""The sections at the end: sign-off, what maps to public disclosures, and how to make the runs again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from stress.console import as_toml
from stress.report.document import Block, Entry, Listing, Paragraph, SignOff, Table
from stress.report.facts import Cell
from stress.report.frameworks import fields, framework_name
from stress.report.story import Story


def mapping(story: Story) -> Iterator[Block]:
    """What maps to what in public disclosures, what does not, and why."""
    text = story.language.text
    yield Paragraph(text("section.mapping.intro"))
    applies = {"yes": "yes", "no": "no", "in part": "in_part"}
    rows = [
        [Entry(text(f"section.mapping.{field.framework}")), Entry(field.field), Entry(field.title),
         Entry(text(f"words.{applies[field.applies]}")), Entry(field.maps_to or "–"), Entry(field.reason)]
        for field in fields()
    ]  # fmt: skip
    names = ("framework", "field", "title_of", "applies", "maps_to", "reason")
    source = "; ".join(framework_name(name) for name in ("pqd", "esma"))
    yield Table(text("section.mapping.table"), [text(f"section.mapping.{name}") for name in names], rows, source)


def reproducibility(story: Story) -> Iterator[Block]:
    """How each run was made, and how to make it again."""
    text = story.language.text
    yield Paragraph(text("section.reproducibility.intro"))
    file, cell = next(iter(story.configs.items()))
    name = str(cell.ds.attrs["name"])
    heads = [text("section.reproducibility.item"), text("section.scope.value")]
    rows = [[Entry(label), Entry(said)] for label, said in _made(story, file, cell)]
    yield Table(text("section.reproducibility.runs", name=name), heads, rows, text("words.config"))
    if story.several:
        heads = [text(f"section.reproducibility.{key}") for key in ("name", "command", "prefix")]
        rows = [
            [Entry(str(each.ds.attrs["name"])), Entry(f"`{_command(place, each)}`"),
             Entry(str(each.ds.attrs.get("config_sha256", "–"))[:16])]
            for place, each in story.configs.items()
        ]  # fmt: skip
        yield Table(text("section.reproducibility.commands"), heads, rows, text("words.config"))
    yield Paragraph(text("section.reproducibility.config", name=name, file=file))
    yield Listing(config_toml(cell))


def _command(file: str, cell: Cell) -> str:
    """What simulates a cell again; names of files are as they were given, as its config lies elsewhere now."""
    config, seeds = cell.config, str(cell.ds.attrs["seed"]).split(", ")
    words = ["liqstress", "run", f"disclosure/{file}"]
    for key in ("positions", "collateral"):
        if config["portfolio"][key]:
            words += ["--set", f"portfolio.{key}={config['portfolio'][key]}"]
    if config["prices"]["dir"]:
        words += ["--prices", config["prices"]["dir"]]
    return "; ".join(shlex.join([*words, *(["--seed", seed] if len(seeds) > 1 else [])]) for seed in seeds)


def config_toml(cell: Cell) -> str:
    """The config of a cell, all defaults filled in, as a file that can be run again."""
    return as_toml(json.loads(cell.ds.attrs["config"]))


def _made(story: Story, file: str, cell: Cell) -> Iterator[tuple[str, str]]:
    text, attrs, language = story.language.text, cell.ds.attrs, story.language

    def label(name: str, **values: str) -> str:
        return text(f"section.reproducibility.{name}", **values)

    yield label("command"), f"`{_command(file, cell)}`"
    if "config_sha256" in attrs:
        yield label("config_sha256"), str(attrs["config_sha256"])
    for name, digest in attrs.get("inputs_sha256", {}).items():
        yield label("inputs", file=name), digest
    yield label("seed"), str(attrs["seed"])
    yield label("version"), f"{attrs['liqstress_version']}; {attrs['git_commit']}"
    yield label("jax"), f"{attrs['jax_version']}; {attrs['backend']}; {attrs['dtype']}"
    yield label("device"), str(attrs["device"])
    yield label("start"), language.date(attrs["start_time"])
    yield label("end"), language.date(attrs["end_time"])


def signoff(story: Story) -> Iterator[Block]:
    """Who signs for it."""
    yield Paragraph(story.language.text("section.signoff.text"))
    columns, rows = (story.language.texts_of(f"section.signoff.{name}") for name in ("columns", "rows"))
    yield SignOff(columns, rows)
