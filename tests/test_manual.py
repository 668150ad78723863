"""The manual: everything is in it, and every link leads somewhere."""

from __future__ import annotations

import builtins
import html
import re
import shutil
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer.main
from conftest import ROOT, Command

import stress
from stress.accessor import Liq, Pictures
from stress.cli import app
from stress.collateral import _LAYOUT as collateral
from stress.manual.keys import key_pages, places_of
from stress.manual.markdown import anchor, prose
from stress.manual.site import build, front
from stress.policies import Policy
from stress.portfolio import _LAYOUT as positions
from stress.schema import Described, schema
from stress.spec import InputError
from stress.suite import Suite
from stress.variables import COORDINATES, DECLARED, OF_SUITES

GROUP = typer.main.get_command(app)
PAGES = ("index", "model", "config", "files", "commands", "variables", "python", "glossary")
EXTERNAL = {"github.com"}
"""Hosts to which pages may point; nobody asks them here."""


class Page(HTMLParser):
    """Where one page leads, and where it can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and anchors."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if name in ("href", "src") and value is not None:
                self.links.append(value)


def dead_links(folder: Path) -> Iterator[str]:
    """Links to files or anchors that are not there, and to hosts that nobody knows of."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.netloc not in EXTERNAL:
                    yield f"{path.name}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].anchors if target in pages else ()
            if not target.is_file() or (target in pages and parts.fragment and unquote(parts.fragment) not in known):
                yield f"{path.name}: {link}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The manual, and what Sphinx warned of."""
    out = tmp_path_factory.mktemp("manual")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of the parser's calls into Sphinx.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return out, build(out, GROUP)


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str]) -> dict[str, str]:
    """Text of every page."""
    return {path.stem: path.read_text(encoding="utf-8") for path in built[0].glob("*.html")}


def has(page: str, *parts: str) -> bool:
    """Whether a page has an anchor."""
    return f'id="{anchor(*parts)}"' in page


def words(page: str) -> str:
    """A page's text without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_nothing_is_warned_of(built: tuple[Path, str]) -> None:
    assert built[1] == ""


def test_no_link_is_dead(built: tuple[Path, str]) -> None:
    assert list(dead_links(built[0])) == []


@pytest.mark.parametrize("link", ["nowhere.html", "config.html#nowhere", "#nowhere", "https://nobody.example/"])
def test_a_dead_link_is_found(built: tuple[Path, str], tmp_path: Path, link: str) -> None:
    copy = Path(shutil.copytree(built[0], tmp_path / "copy"))
    page = copy / "glossary.html"
    page.write_text(f'{page.read_text(encoding="utf-8")}<a href="{link}">x</a>', encoding="utf-8")
    assert list(dead_links(copy)) == [f"glossary.html: {link}"]


def test_it_works_without_a_network(built: tuple[Path, str], pages: dict[str, str]) -> None:
    assert set(PAGES) <= set(pages)
    for page in pages.values():
        assert not re.search(r"""<(script|link|img)[^>]+(src|href)="https?:""", page)
    assert not any("@import url(http" in style.read_text(encoding="utf-8") for style in built[0].rglob("*.css"))
    assert pages["model"].count("<math") > 20 and "$" not in words(pages["model"])
    assert not re.search(r'<mo(?: stretchy="false")?>\|', pages["model"])  # Bars have a side, and are set close.


def test_every_key_of_the_schema_is_there(pages: dict[str, str]) -> None:
    whole = "".join(page for name, page in pages.items() if name.startswith("config"))
    run = schema()
    files = {kind.__name__: kind.model_json_schema(schema_generator=Described) for kind in (Policy, Suite)}
    tables = {"Run": run, **run["$defs"], **files}
    keys = [(name, key) for name, node in tables.items() for key in node.get("properties", {})]
    assert len(keys) > 200
    assert [f"{name}.{key}" for name, key in keys if not has(whole, "key", name, key)] == []
    assert set(places_of(run)) == set(run["$defs"])


def test_every_key_says_what_it_means() -> None:
    rows = [row for page in key_pages().values() for row in page.splitlines() if "{#key-" in row]
    assert len(rows) > 200
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_number_has_a_unit() -> None:
    run = schema()
    found = re.compile(r"\[[^\]]+\](?=[.,;:]|$)")
    for name, node in {"Run": run, **run["$defs"]}.items():
        for key, of in node.get("properties", {}).items():
            if of.get("type") == "number" or {"type": "number"} in of.get("anyOf", ()):
                assert found.search(of.get("description", "")), f"{name}.{key}"


def test_units_defaults_and_kinds_are_those_of_the_specs(pages: dict[str, str]) -> None:
    def row(page: str, *of: str) -> str:
        found = next(part for part in re.split(r"<tr[ >]", pages[page]) if has(part, "key", *of))
        return words(found.partition("</tr>")[0])

    assert "USD/min" in (found := row("config-venues", "Market", "throughput_usd_per_minute")) and "required" in found
    assert "number >= 0.3, <= 1" in (found := row("config", "Impact", "delta")) and "0.7" in found
    assert 'href="config-shock.html#table-merton"' in pages["config"]


def test_columns_are_those_that_are_read(pages: dict[str, str]) -> None:
    sections = {layout.what: layout.known for layout in (positions, collateral)}
    for name, columns in sections.items():
        section = pages["files"].partition(f'id="file-{name}"')[2].partition("</table>")[0]
        assert re.findall(r"<tr[^>]*><td><p><code[^>]*>(?:<span[^>]*>)?(\w+)", section) == list(columns)


def test_every_variable_and_dimension_is_there(pages: dict[str, str]) -> None:
    page = pages["variables"]
    for name, variable in DECLARED.items():
        assert has(page, "variable", name) and variable.long_name in words(page)
    assert all(has(page, "dim", name) for name in {**COORDINATES, **OF_SUITES})


def test_every_command_and_option_is_there(pages: dict[str, str]) -> None:
    commands: dict[str, Any] = getattr(GROUP, "commands")  # noqa: B009
    assert len(commands) > 15
    for name, command in commands.items():
        assert has(pages["commands"], "command", name)
        for parameter in command.params:
            assert has(pages["commands"], "option", name, parameter.opts[0]), (name, parameter.opts)
    said = words(pages["commands"])
    assert "liqstress run [OPTIONS] CONFIG" in said and "liqstress report [OPTIONS] RUN..." in said and "{" not in said


def test_every_public_name_is_there(pages: dict[str, str]) -> None:
    page = pages["python"]
    assert all(has(page, "python", f"stress.{name}") for name in stress.__all__ if not name.startswith("_"))
    for kind, name in ((Liq, "ds.liq"), (Pictures, "ds.liq.plot")):
        members = [member for member in vars(kind) if not member.startswith("_")]
        assert members and all(has(page, "python", f"{name}.{member}") for member in members)
    assert "stress.open_run(path: str | Path) -> xr.Dataset" in words(page)


def test_sections_of_docstrings_become_lists() -> None:
    text = "Do it.\n\nArgs:\n    one: First\n        and more.\n    two: Second.\n\nReturns:\n    a: thing.\n"
    assert (
        prose(text)
        == "Do it.\n\n**Args:**\n\n- `one`: First\n    and more.\n- `two`: Second.\n\n**Returns:**\n\na: thing.\n"
    )


def test_files_that_the_readme_names_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+:|#)([^)]+)\)", text)
    named = re.findall(r"\b(?:configs|notebooks|tests|stress|kernels)/[\w./-]*\w", text)
    named = [name for name in named if not name.endswith("NAME.toml")]
    assert "notebooks/quickstart.png" in links and len(named) > 10
    assert [name for name in {*links, *named} if not (ROOT / name).exists()] == []


def test_an_installed_package_has_the_readme_without_its_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "![" in front(tmp_path) and (tmp_path / "quickstart.png").exists()
    monkeypatch.setattr("stress.manual.site._ROOT", tmp_path)
    text = front(tmp_path)
    assert text.startswith("# liqstress") and "![" not in text


def test_the_command_writes_it_and_writes_it_again(
    built: tuple[Path, str], liqstress: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stress.manual.site._sphinx", lambda source, made: made.mkdir() or "")
    said = liqstress("manual", "--out", str(built[0]))
    assert said.code == 0 and str(built[0] / "index.html") in said.out


def test_it_goes_to_no_folder_of_something_else(liqstress: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    said = liqstress("manual", "--out", str(tmp_path))
    assert said.code == 2 and len(said.err.splitlines()) == 1 and "empty folder" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_one_line(liqstress: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = liqstress("manual", "--out", str(tmp_path / "file" / "manual"))
    assert said.code == 3 and len(said.err.splitlines()) == 1 and "file" in said.err


def test_without_sphinx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "sphinx":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"sphinx is not installed.*pip install 'liqstress\[docs\]'"):
        build(tmp_path / "manual", GROUP)
    assert not (tmp_path / "manual").exists()
