"""Reports: the same numbers in the page, the files and the dataset; the same bytes twice; refusals; languages."""

from __future__ import annotations

import csv
import errno
import json
import re
import tomllib
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
import xarray as xr
from conftest import Command, Finished

import stress
from stress import risk
from stress.comparison import measures, payments
from stress.config import load_config
from stress.cover import cover, worst_moves
from stress.digests import config_json, digest
from stress.fund_size import fund_sizes
from stress.intervals import Estimate
from stress.policies import Policy
from stress.printed_reverse import write_reverse
from stress.reference import Row, to_csv
from stress.report import facts, front, make
from stress.report.adequacy import adequacy
from stress.report.back import reverse
from stress.report.days import days_after, facts_of_days
from stress.report.document import Figure, Paragraph, Table
from stress.report.facts import Cell, facts_of
from stress.report.fits import fits
from stress.report.frameworks import fields
from stress.report.given import Given, Sheet, read_fit
from stress.report.language import SHIPPED, packaged, read_language
from stress.report.method import parameters
from stress.report.quantities import QUANTITIES, Facts, Form
from stress.report.results import _cover
from stress.report.sources import sources, trust
from stress.report.story import Story
from stress.spec import InputError

FILES = {"disclosure.csv", "disclosure.json", "schema.json", "mapping.csv", "config.toml"}


class Page(HTMLParser):
    """What a page holds: numbers by key, tags, ids, what it would load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, float, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: tuple[str, float] | None = None
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            of = dict(attrs)
            self._open = str(of["data-key"]), float(str(of["value"]))

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open:
            self.numbers.append((*self._open, data))
            self._open = None


class Made(NamedTuple):
    """A report of the small run."""

    folder: Path
    store: Path
    page: Page
    rows: list[dict[str, str]]

    def value(self, quantity: str, **where: str) -> float:
        """A number of the disclosure, whatever fields it is given for."""
        of = {"venue": "", "pool": "", "item": ""} | where
        found = {row["value"] for row in self.rows if row["quantity"] == quantity and of.items() <= row.items()}
        assert len(found) == 1, (quantity, where, found)
        return float(found.pop())


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "disclosure" / "disclosure.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(finished: Finished, liqstress: Command, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report") / "deep" / "out"
    said = liqstress("report", finished.store, "--out", folder)
    assert (said.code, said.err) == (0, "")
    assert str(folder / "report.html") in said.out
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    return Made(folder, finished.store, page, read_rows(folder))


@pytest.fixture(scope="module")
def ds(made: Made) -> xr.Dataset:
    return stress.open_run(made.store).load()


# ------------------------------------------------------------------------------------------------------------ numbers
def test_page_csv_and_json_hold_the_same_numbers(made: Made) -> None:
    by_key: dict[str, set[str]] = {}
    for row in made.rows:
        by_key.setdefault(row["id"].partition("|")[2], set()).add(row["value"])
    assert len(made.page.numbers) > 100
    for key, value, _ in made.page.numbers:
        assert by_key[key] == {repr(value)}, key
    disclosed = json.loads((made.folder / "disclosure" / "disclosure.json").read_text(encoding="utf-8"))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in disclosed["rows"]] == made.rows
    assert len({row["id"] for row in made.rows}) == len(made.rows)


def test_what_is_written_on_the_page_is_the_number(made: Made) -> None:
    units = {"": 1.0, "k": 1e3, "M": 1e6, "bn": 1e9, "%": 0.01}
    for key, value, text in made.page.numbers:
        digits, _, unit = text.replace(",", "").partition("\u00a0")
        if digits not in ("–", "∞"):
            assert float(digits) * units[unit] == pytest.approx(
                value, rel=0.006, abs=0.51e-3 if unit == "%" else 0.5
            ), key


def test_numbers_are_those_of_the_dataset(made: Made, ds: xr.Dataset) -> None:
    volume = ds["liquidation_volume"].values.astype(np.float64)
    runs = volume.sum(axis=(1, 2, 3, 4))
    assert made.value("run_mean") == pytest.approx(runs.mean(), rel=1e-12)
    assert made.value("run_mean", venue="here") == made.value("run_mean")
    assert made.value("hour_largest") == volume.sum(axis=(2, 3, 4)).max()
    assert made.value("hour_q50") == np.sort(volume.sum(axis=(2, 3, 4)).ravel())[19]  # of 40 values
    assert made.value("share_long") == pytest.approx(volume[..., 0].sum() / volume.sum(), rel=1e-12)
    for layer in ds["layer"].values:
        taken = ds["absorbed_volume"].sel(layer=layer).values.astype(np.float64)
        assert made.value("layer_mean", item=str(layer)) == pytest.approx(taken.sum() / 40, rel=1e-12)
    held = ds["open_interest"].values[:, 0].astype(np.float64)
    first = made.value("interest_market", venue="here", item=str(ds["asset"].values[0]))
    assert first == pytest.approx(held[:, 0, 0].mean(), rel=1e-12)
    largest = volume.sum(axis=(1, 2, 3, 4)).mean() / held.sum(axis=(1, 2)).mean()
    assert made.value("day_of_interest") == pytest.approx(largest, rel=1e-12)
    where = {"venue": "here", "pool": "here/main"}
    assert made.value("fund_size", **where) == 500
    assert made.value("fall_largest", **where) == ds["fund_drawdown"].values.max()
    assert made.value("exhausted", **where) == np.isfinite(ds["fund_exhausted_hour"].values).mean()
    assert made.value("low_lowest", item="BTC") == pytest.approx(ds["index_low"].values[..., 0].min() - 1, rel=1e-12)
    assert made.value("beyond", item="BTC -0.13") == (ds["index_low"].values[..., 0].min(axis=1) - 1 < -0.13).mean()


def test_numbers_are_those_of_the_commands(made: Made, ds: xr.Dataset, finished: Finished) -> None:
    said, where = risk.summary(ds), {"venue": "here", "pool": "here/main"}
    assert made.value("hour_q999") == said.hourly.quantiles[0.999].value
    assert made.value("chance_day", item="1570000000") == said.day_above.value
    assert made.value("socialised_mean", **where) == pytest.approx(said.pools["here/main"].socialised.mean, rel=1e-12)
    need = fund_sizes(ds, (0.99, 0.999))["here/main"].levels
    assert made.value("need_q99", **where) == need[0.99].seen.value
    assert made.value("need_adl_q999", **where) == need[0.999].with_adl.value
    moves, config = worst_moves(ds), load_config(finished.config)
    assert made.value("cover_move", item="ETH") == moves["ETH"]
    for n in (1, 2):
        assert made.value(f"cover_{n}", **where) == pytest.approx(cover(config, moves, n)["here/main"].loss)
    assert made.value("cover_2", **where) > made.value("cover_1", **where) > 0


def test_an_interval_holds_its_number(made: Made) -> None:
    for row in made.rows:
        if row["confidence"] and row["value"]:
            low, high = (float(row[end]) if row[end] else inf for end, inf in (("lower", -np.inf), ("upper", np.inf)))
            assert low - 1e-9 <= float(row["value"]) <= high + 1e-9 * abs(high), row["id"]
            assert row["confidence"] == "0.95"
        assert row["unit"] and row["method"] and row["source_variable"] and row["description"]


def test_means_and_shares_have_intervals_that_hold_the_truth(made: Made) -> None:
    stated = {row["quantity"] for row in made.rows if row["confidence"]}
    shares = {"share_long", "share_asset", "share_market", "layer_share", "day_of_interest"}
    assert stated >= shares | {"interest_market", "adl_haircut_mean", "size_over_need"}
    rng, held = np.random.default_rng(5), 0
    for _ in range(400):
        whole = rng.lognormal(0.0, 0.5, size=64)
        share = facts._share(whole * rng.beta(2, 6, size=64), whole, np.ones(64))
        held += share.low <= 0.25 <= share.high
    assert 0.92 <= held / 400 <= 0.98
    never, weight = np.zeros((64, 1)), np.ones(64)
    none = Estimate(0.0, 0.0, np.inf)
    assert facts._means(never, weight) == [none] and facts._share(never[:, 0], weight, weight) == none
    assert facts._share(weight, weight, weight) == Estimate(1.0, -np.inf, 1.0)


# --------------------------------------------------------------------------------------------------------- disclosure
def test_the_disclosure_fits_its_schema(made: Made) -> None:
    folder = made.folder / "disclosure"
    assert {file.name for file in folder.iterdir()} == FILES
    disclosed, schema = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("disclosure", "schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(disclosed, schema, jsonschema.Draft202012Validator)
    disclosed["rows"][0]["unit"] = 3
    with pytest.raises(jsonschema.ValidationError, match="3 is not of type 'string'"):
        jsonschema.validate(disclosed, schema, jsonschema.Draft202012Validator)


def test_every_field_says_what_is_given_or_why_not(made: Made) -> None:
    with (made.folder / "disclosure" / "mapping.csv").open(encoding="utf-8", newline="") as file:
        mapped = {(row["framework"][:4], row["field"]): row for row in csv.DictReader(file)}
    for section in ("4.1", "4.2", "4.3", "4.4", "6.5", "6.6", "6.7", "6.8", "7.1"):
        assert any(field.startswith(section) for framework, field in mapped if framework == "CPMI"), section
    assert {field for framework, field in mapped if framework == "ESMA"} >= {"credit", "concentration", "reverse"}
    for row in mapped.values():
        assert row["reason"]
        assert (row["applies"] == "no") == (row["maps_to"] == "") == (int(row["rows"]) == 0), row["field"]
    given = {(row["framework"][:4], row["field"]) for row in made.rows if row["field"]}
    assert given <= set(mapped)
    assert {quantity for field in fields() for quantity in field.quantities} <= set(QUANTITIES)


def test_the_config_beside_it_repeats_the_run(made: Made, finished: Finished) -> None:
    positions = f"portfolio.positions={finished.config.parent / 'positions.csv'}"
    assert f"liqstress run disclosure/config.toml --set {positions}" in made.page.words
    again = load_config(made.folder / "disclosure" / "config.toml", overrides=dict([positions.split("=")]))
    assert digest(again) == stress.open_run(made.store).attrs["config_sha256"]


# ---------------------------------------------------------------------------------------------------------- the files
def test_the_page_needs_nothing_else(made: Made) -> None:
    text = (made.folder / "report.html").read_text(encoding="utf-8")
    for tag, attrs in made.page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\"'<> ]*", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/1998/Math/MathML",
    }  # fmt: skip


def test_the_page_can_be_read_by_those_who_do_not_see_it(made: Made) -> None:
    tags = [tag for tag, _ in made.page.tags]
    ids = [attrs["id"] for _, attrs in made.page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pictures = [attrs for tag, attrs in made.page.tags if tag == "svg"]
    assert len(pictures) == 4 == tags.count("figure") == tags.count("desc")
    for attrs in pictures:
        assert attrs["role"] == "img"
        assert set(str(attrs["aria-labelledby"]).split()) <= set(ids)
    assert tags.count("caption") == tags.count("table") - 1  # the sign-off's head says it all
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in made.page.tags if tag == "th")
    assert all(attrs.get("alttext") for tag, attrs in made.page.tags if tag == "math")
    anchors = {str(attrs["href"])[1:] for tag, attrs in made.page.tags if tag == "a"}
    assert len(anchors) > 10
    assert anchors <= set(ids)


def test_the_pdf_is_archival_and_accessible(made: Made) -> None:
    pdf = (made.folder / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-1.7")
    assert b"<pdfaid:part>2</pdfaid:part><pdfaid:conformance>A</pdfaid:conformance><pdfuaid:part>1<" in pdf


def test_a_report_made_twice_is_the_same(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "elsewhere.zarr"
    made.store.rename(copy)
    try:
        monkeypatch.chdir(tmp_path)
        files = stress.report("elsewhere.zarr", out="again")
    finally:
        copy.rename(made.store)
    assert {file.name for file in files} == FILES | {"report.html", "report.pdf"}
    for file in files:
        assert file.read_bytes() == (made.folder / file.relative_to("again")).read_bytes(), file


# ------------------------------------------------------------------------------------------------------------ refusals
def refused(liqstress: Command, *words: str | Path) -> str:
    """The one line of a report that is not made, and leaves nothing."""
    out = Path(words[words.index("--out") + 1])
    said = liqstress("report", *words)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert not out.is_dir()
    return said.err


def test_a_changed_or_truncated_store_is_refused(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store, out = finished.copy(tmp_path), tmp_path / "out"
    shard = store / "fund_low" / "c" / "1" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert f"{shard}: does not match its checksum" in refused(liqstress, store, "--out", out)
    shard.write_bytes(whole)
    head = json.loads((store / "zarr.json").read_text("utf-8"))
    del head["attributes"]["seal_sha256"]  # As in stores from before there were seals.
    text = head["attributes"]["config"]
    head["attributes"]["config"] = text.replace('"equity_usd":500.0', '"equity_usd":900.0')
    assert head["attributes"]["config"] != text
    (store / "zarr.json").write_text(json.dumps(head), "utf-8")
    assert "its config does not match config_sha256" in refused(liqstress, store, "--out", out)


def test_changed_attributes_and_layouts_are_refused(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store, out = finished.copy(tmp_path), tmp_path / "out"
    for place, key, value in (
        (store / "zarr.json", "device", "tpu (64 x tpu)"),
        (store / "fund_low" / "zarr.json", "data_type", "int64"),
        (store / "venue" / "zarr.json", "units", "USD"),
        (store / "path" / ".chunks" / "0000.json", "paths", [0, 15]),
    ):
        was = place.read_text("utf-8")
        data = json.loads(was)
        data["attributes" if key in ("device", "units") else key] = (
            data["attributes"] | {key: value} if key in ("device", "units") else value
        )
        place.write_text(json.dumps(data), "utf-8")
        assert "do not match seal_sha256" in refused(liqstress, store, "--out", out), place
        place.write_text(was, "utf-8")
    assert liqstress("report", store, "--out", out).code == 0


def test_what_is_no_finished_run_is_refused(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store, out = finished.copy(tmp_path), tmp_path / "out"
    head = json.loads((store / "zarr.json").read_text("utf-8"))
    head["attributes"]["complete"] = False
    (store / "zarr.json").write_text(json.dumps(head), "utf-8")
    assert "the run is not finished" in refused(liqstress, store, "--out", out)
    assert "holds no run" in refused(liqstress, tmp_path / "nothing", "--out", out)
    assert "names one run twice" in refused(liqstress, finished.store, finished.store, "--out", out)


def test_a_folder_that_cannot_be_written_to_is_named(made: Made, liqstress: Command, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert f"{blocked / 'out'}: cannot be written to" in refused(liqstress, made.store, "--out", blocked / "out")


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old: dict[str, bytes] = dict.fromkeys(("report.html", "disclosure/disclosure.csv"), b"old")
    make._write(tmp_path, old)
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "disclosure" in self.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written to: No space left on device\. Give another --out\."):
        make._write(tmp_path, dict.fromkeys(old, b"new"))
    left = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == old


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("en.toml", '[looks]\nfont = "Nobody Sans"', "looks.font is 'Nobody Sans', expected one of DejaVu Sans Mono"),
        ("en.toml", 'sections = ["summary", "sumary"]', "sections names 'sumary', expected one of summary"),
        ("en.toml", "[section.summary]\ntitle = 3", "section.summary.title is 3, expected a text"),
        ("en.toml", '[section.summary]\nvolume = "{hours} {days}"', "section.summary.volume asks for 'days'"),
        ("en.toml", '[words]\ntitel = "x"', "words.titel is not a known text. Did you mean 'title'?"),
        ("report.html.j2", "{{ document.titel }}", "report.html.j2: 'dict object' has no attribute 'titel'"),
        ("report.html.j2", "<p>\n{% if %}", "report.html.j2: line 2: "),
        ("report.typ", "#nothing", "report.typ: unknown variable: nothing"),
        ("report.htm", "", "report.htm: is no template"),
    ],
)
def test_a_wrong_template_is_refused(
    made: Made, liqstress: Command, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / name).write_text(text, encoding="utf-8")
    said = refused(liqstress, made.store, "--out", tmp_path / "out", "--templates", folder)
    assert expected in said


def test_wrong_words_are_refused(made: Made, liqstress: Command, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty.csv"
    empty.write_text("a,b\n")
    for words, expected in (
        (["--language", "fr"], "language is 'fr', expected one of en, nl"),
        (["--templates", tmp_path / "none"], "there is no such folder"),
        (["--logo", tmp_path / "logo.bmp"], "is no picture"),
        (["--frontier", tmp_path / "none.csv"], "cannot be read"),
        (["--frontier", empty], "expected at least one row"),
    ):
        assert expected in refused(liqstress, made.store, "--out", out, *words)


# ------------------------------------------------------------------------------------------------ languages, templates
def keys(table: dict[str, Any], place: str = "") -> set[str]:
    inner = [keys(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}"} for key, value in
             table.items()]  # fmt: skip
    return set().union(*inner)


def test_both_languages_say_everything() -> None:
    texts = {code: tomllib.loads(packaged("texts", f"{code}.toml").decode()) for code in SHIPPED}
    made_up = ("difference.", "feature.")  # Names that programs give, which may be left as they are.
    english, dutch = ({key for key in keys(texts[code]) if not key.startswith(made_up)} for code in SHIPPED)
    assert english == dutch
    assert set(texts["en"]["quantity"]) == set(QUANTITIES)
    braces = {code: {key: sorted(re.findall(r"{(\w+)}", str(value))) for key, value in flat(texts[code])} for code in
              SHIPPED}  # fmt: skip
    assert {key: braces["nl"][key] for key in english} == {key: braces["en"][key] for key in english}


def test_differences_have_names_in_dutch(ds: xr.Dataset) -> None:
    dutch = read_language("nl", None).texts["difference"]
    names = [measure.name for measure in (*measures(ds, stops=True), *payments(ds))]
    assert {name for name in names if name not in dutch} == {"lowest BTC, from the start"}  # Put together from parts.


def test_days_after_the_last_hour_have_a_table(ds: xr.Dataset) -> None:
    sizes, rng = {**ds.sizes, "day": 3}, np.random.default_rng(3)
    drawn = {
        name: (dims, rng.lognormal(size=[sizes[dim] for dim in dims]))
        for name, dims in (("recovery_open_interest", ("path", "day", "venue", "asset")),
                           ("recovery_liquidation_volume", ("path", "day", "venue", "asset", "side")))
    }  # fmt: skip
    cell = Cell("wild", "", ds.assign_coords(day=range(3)).assign(drawn))
    assert not list(facts_of_days(Cell("wild", "", ds)))
    found = Facts([*facts_of(cell), *facts_of_days(cell)])
    for name, (_, values) in drawn.items():
        runs = np.sort(values.reshape(len(values), 3, -1).sum(axis=2), axis=0)
        stem = "after_interest" if name.endswith("interest") else "after_volume"
        for day in range(3):
            median = found.of(f"{stem}_q50", "wild", "", item=str(day))
            assert median is not None and median.value == pytest.approx(runs[len(runs) // 2 - 1, day], rel=1e-6)
    for code in SHIPPED:
        said, table = days_after(Story([cell], found, {}, [], read_language(code, None)), cell)
        assert isinstance(said, Paragraph) and " 2 " in said.text and isinstance(table, Table)
        assert (len(table.rows), len(table.columns)) == (3, 4)


def test_importance_sampling_is_said(ds: xr.Dataset) -> None:
    config = json.loads(ds.attrs["config"]) | {"sampling": {"kind": "importance"}}
    weight = np.where(np.arange(40) < 20, 0.5, 1.5)
    weighed = ds.assign_attrs(config=json.dumps(config)).assign(log_weight=("path", np.log(weight)))
    for cell, end in ((Cell("wild", "", weighed), "by their weights worth 32"), (Cell("wild", "", ds), "40; 3")):
        story = Story([cell], Facts(facts_of(cell)), {}, [], read_language("en", None))
        assert dict(front._facts(story, cell))["paths"].endswith(end)


def flat(table: dict[str, Any], place: str = "") -> list[tuple[str, Any]]:
    return [
        pair for key, value in table.items()
        for pair in (flat(value, f"{place}{key}.") if isinstance(value, dict) else [(f"{place}{key}", value)])
    ]  # fmt: skip


def test_numbers_and_dates_are_the_readers() -> None:
    english, dutch = (read_language(code, None) for code in SHIPPED)
    cases: tuple[tuple[float, Form, str, str], ...] = (
        (1234.5e9, "usd", "1,234\u00a0bn", "1.234\u00a0mld."),
        (62.71e6, "usd", "62.7\u00a0M", "62,7\u00a0mln."),
        (0.0, "usd", "0", "0"),
        (0.00512, "percent", "0.51\u00a0%", "0,51\u00a0%"),
        (-0.298, "signed", "-29.8\u00a0%", "-29,8\u00a0%"),
        (10000.0, "count", "10,000", "10.000"),
        (46.3, "times", "46.3", "46,3"),
        (float("nan"), "usd", "–", "–"),
    )
    for value, form, en, nl in cases:
        assert (english.number(value, form), dutch.number(value, form)) == (en, nl)
    assert english.date("2026-11-06T02:03:04+00:00") == "6 November 2026, 02:03 UTC"
    assert dutch.date("2026-11-06T02:03:04+00:00") == "6 november 2026, 02:03 UTC"
    assert dutch.days(date(2021, 5, 19), date(2021, 5, 19)) == "19 mei 2021"
    assert dutch.days(date(2020, 3, 12), date(2020, 3, 13)) == "12 maart 2020 tot 13 maart 2020"
    assert [english.number(value, "usd", signed=True) for value in (2e6, 0.3, -2e6)] == [
        "+2.00\u00a0M",
        "0",
        "-2.00\u00a0M",
    ]


def test_a_report_in_dutch_with_ones_own_sections_and_logo(made: Made, liqstress: Command, tmp_path: Path) -> None:
    folder, out, logo = tmp_path / "templates", tmp_path / "out", tmp_path / "logo.svg"
    folder.mkdir()
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="4"/></svg>', "utf-8")
    (folder / "nl.toml").write_text(
        'sections = ["summary", "ours", "results"]\n[words]\ntitle = "Van ons: {name}"\n'
        '[section.ours]\ntitle = "Ons deel"\ntext = ["Eerste <zin>.", "Met `code`."]\n', encoding="utf-8"
    )  # fmt: skip
    said = liqstress("report", made.store, "--out", out, "--language", "nl", "--templates", folder, "--logo", logo)
    assert (said.code, said.err) == (0, "")
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags[0] == ("html", {"lang": "nl"})
    assert "<h1>Van ons: small</h1>" in text
    assert "Eerste &lt;zin&gt;." in text
    assert "<code>code</code>" in text
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["summary", "ours", "results"]
    assert any(tag == "img" and str(attrs["src"]).startswith("data:image/svg+xml;base64,") for tag, attrs in page.tags)
    assert {key: value for key, value, _ in page.numbers}.items() <= {k: v for k, v, _ in made.page.numbers}.items()
    mean = next(words for key, _, words in page.numbers if key == "small|||||run_mean")
    assert re.fullmatch(r"\d+,\d+\u00a0dzd\.", mean), mean
    assert read_rows(out) == made.rows


@pytest.mark.parametrize(("name", "text"), [("logo.svg", "<svg"), ("logo.png", "no picture")])
def test_a_logo_that_is_no_picture_is_named(
    name: str, text: str, made: Made, liqstress: Command, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    said = refused(liqstress, made.store, "--out", tmp_path / "out", "--logo", tmp_path / name)
    assert f"{tmp_path / name}: failed to" in said and "Give another picture." in said


def test_ones_own_page(made: Made, liqstress: Command, tmp_path: Path) -> None:
    folder, out = tmp_path / "templates", tmp_path / "out"
    folder.mkdir()
    (folder / "report.html.j2").write_text("<p>{{ document.sections | length }}</p>", encoding="utf-8")
    assert liqstress("report", made.store, "--out", out, "--templates", folder).code == 0
    assert (out / "report.html").read_text(encoding="utf-8") == "<p>13</p>"


# ------------------------------------------------------------------------------------------- several runs, other files
def test_a_frontier_has_its_section_and_rows(made: Made, liqstress: Command, tmp_path: Path) -> None:
    assert "reverse" not in {attrs.get("id") for tag, attrs in made.page.tags if tag == "section"}
    frontier = tmp_path / "frontier.csv"
    frontier.write_text("depth,BTC move,event\n1,-0.31,exhausted\n2,-0.205,exhausted\n", encoding="utf-8")
    assert liqstress("report", made.store, "--out", tmp_path / "out", "--frontier", frontier).code == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "reverse" in {attrs.get("id") for tag, attrs in page.tags if tag == "section"}
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    rows = {row["item"]: float(row["value"]) for row in read_rows(tmp_path / "out") if row["quantity"] == "frontier"}
    assert rows == {"1:depth": 1, "1:BTC move": -0.31, "2:depth": 2, "2:BTC move": -0.205}
    assert {words: value for _, value, words in page.numbers}["-0.205"] == -0.205


def test_a_frontier_of_reverse_has_units() -> None:
    rows = [["depth", "1", "-0.05", "150", "exhausts"], ["depth", "2", "-0.04", "149", "exhausts"]]
    sheet = Sheet("f.csv", ["lever", "value", "move_BTC", "reached_usd", "mine"], rows)
    for code, x, y in (("en", "books thinner", "move of BTC"), ("nl", "boeken dunner", "beweging van BTC")):
        language = read_language(code, None)
        story: Any = SimpleNamespace(language=language, given=Given(frontier=sheet))
        figure = list(reverse(story))[1]
        assert isinstance(figure, Figure)
        assert list(figure.table.columns)[1:3] == [f"{x} [{'times' if code == 'en' else 'maal'}]", f"{y} [1]"]
        assert figure.table.columns[3].endswith(" [USD]") and figure.table.columns[4] == "mine"
        assert figure.caption.endswith(f": {y} {'against' if code == 'en' else 'tegen'} {x}")
        assert figure.table.rows[0][1].key == "f.csv|1|value"
    other = Sheet("f.csv", ["depth", "years"], [["1", "2"], ["2", "3"]])  # Not of `reverse`: who knows its units.
    figure = list(reverse(SimpleNamespace(language=language, given=Given(frontier=other))))[1]  # type: ignore[arg-type]
    assert isinstance(figure, Figure) and list(figure.table.columns) == ["depth", "years"]


def test_every_column_of_reverse_has_a_text(tmp_path: Path) -> None:
    write_reverse({1.0: InputError("none")}, "depth", tmp_path / "f.csv")
    columns = (tmp_path / "f.csv").read_text("utf-8").splitlines()[0].split(",")
    for code in SHIPPED:
        known = read_language(code, None).texts["frontier"]
        assert set(known) == {*columns, "move", "depth", "fund", "concentration"} - {"value"}


def test_what_cover_leaves_out_is_said_under_it(made: Made, finished: Finished) -> None:
    assert "play no part" not in made.page.words
    ds = stress.open_run(made.store)
    config = load_config(finished.config, overrides={
        "behaviour": {"top_ups": {"share": 0.3, "multiple": 0.5}},
        "overlays": [{"kind": "slowdown", "venue": "here", "share": 0.5, "start_minutes": 1, "minutes": 5}],
    })  # fmt: skip
    cell = Cell("wild", "", ds.assign_attrs(config=config_json(config)))
    found = adequacy(cell)
    facts = Facts([*facts_of(cell), *found.facts])
    for code, said in (
        ("en", "of the start: behaviour.top_ups, overlays of kind slowdown play no part in these losses."),
        ("nl", "van het begin: behaviour.top_ups, overlays van soort slowdown spelen in deze verliezen geen rol."),
    ):
        blocks = list(_cover(Story([cell], facts, {("wild", ""): found}, [], read_language(code, None)), cell))
        assert isinstance(blocks[0], Table) and isinstance(blocks[1], Paragraph)
        assert blocks[1].text.endswith(said)


def test_a_wide_file_stands_with_its_columns_down() -> None:
    rows = [["depth", str(row), "", str(row * row), *("0.5" for _ in range(7))] for row in range(8)]
    sheet = Sheet("wide.csv", ["lever", "value", "note", *(f"c{i}" for i in range(8))], rows)
    story: Any = SimpleNamespace(language=read_language("en", None), given=Given(frontier=sheet))
    figure, more = list(reverse(story))[1:]
    assert isinstance(figure, Figure) and isinstance(more, Table)
    assert figure.caption == "Frontier: c0 against books thinner"
    assert [list(table.columns) for table in (figure.table, more)] == [["Row", *"123456"], ["Row", "7", "8"]]
    assert [row[0].text for row in more.rows] == ["lever", "books thinner [times]", *(f"c{i}" for i in range(8))]
    assert [entry.text for entry in more.rows[1]] == ["books thinner [times]", "6", "7"]


def test_policies_are_compared_on_a_common_base(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    half, other, out = tmp_path / "half.zarr", tmp_path / "other.zarr", tmp_path / "out"
    pools = "venues.here.pools=[{name='main', equity_usd=250, takeover_multiple=3, source='made up'}]"
    assert liqstress("run", finished.config, "--set", pools, "--out", half).code == 0
    assert liqstress("run", finished.config, "--seed", "4", "--out", other).code == 0
    assert "seed is 4, expected 3" in refused(liqstress, finished.store, other, "--out", out)
    said = liqstress("report", finished.store, half, "--out", out)
    assert (said.code, said.err) == (0, "")
    rows = read_rows(out)
    policies = [stress.open_run(store).attrs["config_sha256"][:6] for store in (finished.store, half)]
    found = stress.compare({"a": stress.open_run(finished.store), "b": stress.open_run(half)}).others[0]
    for row in (*found.differences, *found.payments):
        disclosed = next(x for x in rows if x["item"] == row.name and x["policy"] == f"small-{policies[1]}")
        assert float(disclosed["value"]) == row.change.value
        assert float(disclosed["lower"] or -np.inf) == row.change.low  # Unknown where paths are few.
    assert {file.name for file in (out / "disclosure").glob("*.toml")} == {
        f"config-small-small-{policy}.toml" for policy in policies
    }
    words = Page((out / "report.html").read_text(encoding="utf-8")).words
    assert "One scenario under 2 sets of rules" in words and "lowest BTC, from the start" in words


def policies_of(words: str) -> list[str]:
    """Names and descriptions in the table of policies, all of a source made up for tests."""
    _, _, table = words.partition("Policies put over the runs")
    squeezed = re.sub(r"\s*\n\s*", "", table.partition("files of the policies")[0])
    return [part.removesuffix("made up for tests") for part in squeezed.partition("Trust")[2].split("assumed")[:-1]]


def test_policies_change_no_hash_and_are_kept(finished: Finished) -> None:
    policy = Policy(name="p", description="What it is.", source="a rule book")
    config = load_config(finished.config, policies=[policy])
    assert config.policies == (policy,) == config.model_copy(update={"seed": 9}).policies
    plain = load_config(finished.config, overrides={"name": config.name})
    assert (digest(config), config_json(config)) == (digest(plain), config_json(plain))
    assert not plain.policies


def test_older_stores_say_that_they_do_not_keep_policies(ds: xr.Dataset) -> None:
    assert ds.attrs["policies"] == []
    said = [{"name": "p", "description": "What\nit is.", "source": "a rule book (press)"}]
    older = ds.assign_attrs({})
    del older.attrs["policies"]
    for code, weak, last in (("en", "weak source", "earlier version"), ("nl", "zwakke bron", "eerdere versie")):
        cells = [Cell("wild", "a", ds), Cell("wild", "b", ds.assign_attrs(policies=said)), Cell("wild", "c", older)]
        *_, table, paragraph = parameters(Story(cells, Facts(), {}, [], read_language(code, None)))
        assert isinstance(table, Table) and isinstance(paragraph, Paragraph)
        assert [[entry.text for entry in row] for row in table.rows] == [
            ["b: p", "What it is.", "a rule book (press)", weak]
        ]
        assert "`c`" in paragraph.text and "`a`" not in paragraph.text and last in paragraph.text


SUITE = """
kind = "suite"
name = "tiny"
base = { file = "run.toml", paths = 16 }
policies = ["present.toml", "richer.toml"]

[scenarios]
wild = {}
still = { impact = { i_ref = 0.0 } }
"""


def test_a_suite_is_reported_by_scenario_and_policy(liqstress: Command, small: Path, tmp_path: Path) -> None:
    for name, text in (("present", ""), ("richer", '[scale.venues."*".pools."*"]\nequity_usd = 2.0\n')):
        policy = f'name = "{name}"\ndescription = "The rule\\nof {name}."\nsource = "made up for tests"\n{text}'
        (small.parent / f"{name}.toml").write_text(policy, encoding="utf-8")
    (small.parent / "suite.toml").write_text(SUITE, encoding="utf-8")
    store, out = tmp_path / "tiny.zarr", tmp_path / "out"
    assert liqstress("run", small.parent / "suite.toml", "--out", store).code == 0
    said = liqstress("report", store, "--out", out)
    assert (said.code, said.err) == (0, "")
    rows, suite = read_rows(out), stress.open_run(store)
    for scenario in ("wild", "still"):
        for policy in ("present", "richer"):
            volume = stress.cell(suite, scenario, policy)["liquidation_volume"].values.astype(np.float64)
            found = {row["value"] for row in rows if row["quantity"] == "run_mean"
                     and (row["scenario"], row["policy"], row["venue"]) == (scenario, policy, "")}  # fmt: skip
            assert [float(value) for value in found] == [pytest.approx(volume.sum() / 16, rel=1e-12)]
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert {"comparison", "results"} <= {attrs.get("id") for tag, attrs in page.tags if tag == "section"}
    assert sum(tag == "svg" for tag, _ in page.tags) == 2 * 4 + 2
    assert len({key for key, *_ in page.numbers}) > 200
    configs = [json.loads(stress.cell(suite, name, "present").attrs["config"]) for name in ("wild", "still")]
    once = {(source.place, source.text): source.trust for config in configs for source in sources(config)}
    assumed = sum(trust in ("assumed", "none") for trust in once.values())
    assert f"{assumed} of {len(once)} sources of parameters" in page.words
    assert policies_of(page.words) == ["presentThe rule of present.", "richerThe rule of richer."]
    kept = {"name": "richer", "description": "The rule\nof richer.", "source": "made up for tests"}
    assert stress.cell(suite, "still", "richer").attrs["policies"] == [kept]
    assert len(list((out / "disclosure").glob("config-*.toml"))) == 4
    (out / "disclosure" / "config-mine.toml").write_text("mine", encoding="utf-8")
    assert liqstress("report", f"{store}#wild/richer", "--out", out).code == 0
    assert {file.name for file in (out / "disclosure").iterdir()} == FILES | {"config-mine.toml"}
    assert policies_of(Page((out / "report.html").read_text("utf-8")).words) == ["richerThe rule of richer."]
    assert "a suite: give one of its cells as" in refused(liqstress, store, store, "--out", tmp_path / "two")


def test_reference_cases_stand_in_the_validation(made: Made, liqstress: Command, tmp_path: Path) -> None:
    rows = [
        Row("a case", "total", "M USD", (100.0, 140.0), 119.0, held=True),
        Row("", "low", "%", (3.0,), 4.0, held=False),
    ]
    table = to_csv(rows)
    assert table.splitlines()[1:] == ["a case,total,M USD,100 and 140,119,0.992,yes,yes", ",low,%,3,4,1.333,no,no"]
    (tmp_path / "reference.csv").write_text(table, encoding="utf-8")
    out = tmp_path / "out"
    assert liqstress("report", made.store, "--out", out, "--validation", tmp_path / "reference.csv").code == 0
    assert "100 and 140" in Page((out / "report.html").read_text(encoding="utf-8")).words


def test_a_fit_stands_in_the_validation(made: Made, liqstress: Command, tmp_path: Path) -> None:
    file = Path("configs/scenarios/merton-2025-level.toml")
    fit = read_fit(file)
    shown = {key: fit.errors[key] for key in ("correlation", "common.minutes", "common.beta.ETH", "own.DOGE.per_day")}
    assert shown == {
        "correlation": [0.06], "common.minutes": [0.35, 2.7], "common.beta.ETH": [0.092], "own.DOGE.per_day": [0.16],
    }  # fmt: skip
    assert len(fit.notes) == 5 and fit.notes[-1].endswith("4.9%: 4, 2.9; 6.1%: 2, 0.4")
    shock = dict(fit.shock) | {"common": fit.shock["common"] | {"per_day": 9.0}}
    story: Any = SimpleNamespace(language=read_language("en", None), given=Given(fit=fit),
                                 cells=[SimpleNamespace(scenario="here", config={"shock": shock})])  # fmt: skip
    table = next(block for block in fits(story) if isinstance(block, Table))
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    assert rows["`common.per_day`"] == ["0.4637", "0.17", "no"]
    assert rows["`common.minutes`"] == ["1; 27", "0.35; 2.7", "yes"]
    said = refused(liqstress, made.store, "--out", tmp_path / "out", "--fit", file)
    assert "expected that of a run's shock" in said
    said = refused(liqstress, made.store, "--out", tmp_path / "out", "--fit", "configs/venues/okx.toml")
    assert "its first line is not that of `fit-shocks`" in said


def test_recorded_hours_stand_in_the_validation(made: Made, liqstress: Command, tmp_path: Path) -> None:
    ends = {"what": "a thing [%]", "recorded": [2.0, 2.0], "low": [1.0, 1.0], "high": [3.0, 3.0]}
    features = {"volatility": ends | {"simulated": [0.5, 3.5]}, "falls_together": ends | {"simulated": [100.0, 2.0]}}
    likeness = {"source": "a command; a period", "assets": ["BTC", "ETH"], "features": features}
    (tmp_path / "like.json").write_text(json.dumps(likeness), encoding="utf-8")
    out = tmp_path / "out"
    assert liqstress("report", made.store, "--out", out, "--likeness", tmp_path / "like.json").code == 0
    words = Page((out / "report.html").read_text(encoding="utf-8")).words
    assert "was recorded are 1 of 3 features of hours" in words and "a command; a period" in words
    assert "0.50 *" in words and "3.50 *" in words and "2.00 *" not in words
    (tmp_path / "like.json").write_text("{}", encoding="utf-8")
    said = refused(liqstress, made.store, "--out", tmp_path / "none", "--likeness", tmp_path / "like.json")
    assert "is not what `compare-shock --json` writes" in said


def test_trust_is_read_off_a_source() -> None:
    for text, expected in (
        ("Binance FAQ, undated", "named"), ("about 1.2 bn (press, unverified)", "weak"), ("", "none"),
        ("liqstress fit-shocks DIR", "fitted"), ("Binance FAQ; fee 1 %: assumed", "assumed"),
    ):  # fmt: skip
        assert trust(text) == expected
    config = {"impact": {"rho": 0.4, "depth": True, "source": ""}, "m": [{"tiers": [1, 2], "tiers_source": "a\n b"}]}
    assert [tuple(source) for source in sources(config)] == [
        ("impact", "rho = 0.4", "", "none"), ("m[0].tiers", "2 tiers", "a b", "named"),
    ]  # fmt: skip
    assets = {"BTC": {"source": "total of the shock"}, "ETH": {"source": "as BTC"}, "SOL": {"source": "as elsewhere"}}
    assert [source.trust for source in sources({"assets": assets})] == ["fitted", "fitted", "named"]
