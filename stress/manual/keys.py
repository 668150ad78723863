"""Pages of config keys, from the JSON schemas of runs, policies and suites.

A table of the schema is named after its place in a run's file: `venues.NAME.adl`; `shock(kou)` is the table `shock` of
`kind = "kou"`, and `pools[]` one of a list of tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stress.manual.markdown import anchor, code, heading, link, named, one_line, prose, table
from stress.policies import Policy
from stress.schema import Described, schema
from stress.suite import Suite

Node = Mapping[str, Any]
_UNIT = re.compile(r"\s\[([^\[\]]+)\](?=[.,;:]|$)")
_BOUNDS = (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
_PLAIN = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "nothing", "object": "table"}
_FILES = "config-files"
_EVERYWHERE = {"kind": "Which of the kinds this is.", "source": 'What, where, when; a guess says "assumed".'}
"""What keys mean that many tables have."""


def key_pages() -> dict[str, str]:
    """Text of each page by its name: the keys of a file, and each of its tables that holds further tables."""
    run = schema()
    defs, places = run["$defs"], places_of(run)
    first = {name: found[0] for name, found in places.items()}
    single: list[str] = []
    pages = {}
    for key, node in run["properties"].items():
        inside = [name for name, place in first.items() if re.match(rf"{key}\b", place)]
        if len(inside) > 1:
            pages[f"config-{key}"] = _large(key, node, inside, defs, places)
        else:
            single += inside
    parts = [
        _front(run),
        *(_section(name, defs[name], places[name]) for name in single),
        _written("A policy's file", Policy.model_json_schema(schema_generator=Described), "Policy"),
        _written("A suite's file", Suite.model_json_schema(schema_generator=Described), "Suite"),
    ]
    return {"config": "\n".join(parts), **pages}


def places_of(run: Node) -> dict[str, list[str]]:
    """Where in a file each table of the schema may stand, the shortest way first."""
    places: dict[str, list[str]] = {}
    waiting = [("", run)]
    while waiting:
        at, here = waiting.pop(0)
        for key, node in here.get("properties", {}).items():
            for place, name in _inside(node, f"{at}.{key}" if at else key):
                if name not in places:
                    waiting.append((place, run["$defs"][name]))
                places.setdefault(name, []).append(place)
    return places


def _inside(node: Node, place: str) -> Iterator[tuple[str, str]]:
    """The tables that a key may hold, each at its place."""
    if "$ref" in node:
        yield place, _name(node["$ref"])
    elif "discriminator" in node:
        for kind, ref in node["discriminator"]["mapping"].items():
            yield f"{place.removesuffix('[]')}({kind})", _name(ref)
    for part in node.get("anyOf", ()):
        yield from _inside(part, place)
    if "items" in node:
        yield from _inside(node["items"], f"{place}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _inside(node["additionalProperties"], f"{place}.NAME")


def _front(run: Node) -> str:
    """What every file may say, and the keys of a run's."""
    return "\n".join([
        "# Config keys\n",
        "A run is a file in TOML. Unknown keys are refused, as are NaN and infinity. Units that are not USD, coins, "
        "seconds or plain fractions stand in the key's name; a unit of 1 is a plain number or fraction. In the names "
        "of tables below, `NAME` is chosen by the file, `[]` is one of a list of tables, and `shock(kou)` is the "
        'table `shock` with `kind = "kou"`.\n',
        heading(2, "Tables in files of their own", _FILES),
        "`shock`, `portfolio.population` and each of `venues` may be the name of a TOML file that holds the table, "
        "relative to the file that names it, or a table with `file` and what differs from it: tables merge, unless of "
        "another `kind`; anything else is replaced. `--set KEY=VALUE` and [policies](#table-policy) change single "
        "keys of what was read.\n",
        heading(2, "A run's file", anchor("table", "Run")),
        prose(run["description"]),
        _keys("Run", run),
    ])  # fmt: skip


def _large(key: str, node: Node, inside: list[str], defs: Node, places: Mapping[str, list[str]]) -> str:
    """The page of a key that holds tables of tables."""
    what = node.get("description", "")
    sections = [_section(name, defs[name], places[name]) for name in inside]
    return "\n".join([f"# {code(key)}\n", one_line(what) + "\n", f"{_type(node).capitalize()}.\n", *sections])


def _section(name: str, node: Node, places: list[str]) -> str:
    """A table of a run's file."""
    also = f"Also {', '.join(map(code, places[1:]))}.\n" if len(places) > 1 else ""
    title = heading(2, code(places[0]), anchor("table", name))
    return "\n".join([title, prose(node.get("description")), also, _keys(name, node)])


def _written(title: str, node: Node, name: str) -> str:
    """A file of another sort."""
    return "\n".join([heading(2, title, anchor("table", name)), prose(node["description"]), _keys(name, node)])


def _keys(name: str, node: Node) -> str:
    required = node.get("required", ())
    rows = []
    for key, of in sorted(node.get("properties", {}).items(), key=lambda item: item[0] != "kind"):
        meaning, unit = _meaning(key, of)
        default = "required" if key in required else _default(of)
        rows.append((named(key, anchor("key", name, key)), _type(of), default, unit, meaning))
    return table(("key", "value", "default", "unit", "what"), rows) if rows else ""


def _meaning(key: str, node: Node) -> tuple[str, str]:
    """What a key means, and its unit, which the description has in brackets."""
    text = one_line(node.get("description", _EVERYWHERE.get(key, "")))
    units = _UNIT.findall(text)
    return _UNIT.sub("", text), units[-1] if units else ""


def _default(node: Node) -> str:
    value = node.get("default")
    if value in (None, "", [], {}):
        return "none"
    return "its own" if isinstance(value, dict) else code(json.dumps(value))


def _type(node: Node) -> str:
    """What a key holds, in words."""
    if "$ref" in node:
        return link("table", anchor("table", _name(node["$ref"])))
    if "discriminator" in node:
        kinds = node["discriminator"]["mapping"].items()
        return f"table of kind {', '.join(link(code(k), anchor('table', _name(ref))) for k, ref in kinds)}"
    if "anyOf" in node:
        return _either(node["anyOf"])
    if "enum" in node or "const" in node:
        return " or ".join(code(json.dumps(value)) for value in node.get("enum") or [node["const"]])
    if node.get("type") == "array":
        return _list(node)
    if isinstance(node.get("additionalProperties"), dict):
        return f"by name: {_type(node['additionalProperties'])}"
    return _number(node)


def _either(parts: Sequence[Node]) -> str:
    """One of several; that a table may stand in a file is said in a word."""
    in_file = [part for part in parts if "file" in part.get("properties", ())]
    if in_file:
        parts = [part for part in parts if part not in in_file and part.get("type") != "string"]
    words = [_type(part) for part in parts if part.get("type") != "null"]
    return " or ".join(dict.fromkeys([*words, *([link("file", _FILES)] if in_file else [])]))


def _list(node: Node) -> str:
    if "prefixItems" in node:
        return f"{len(node['prefixItems'])} of: {_type(node['prefixItems'][0])}"
    return f"list of: {_type(node.get('items', {}))}"


def _number(node: Node) -> str:
    """A plain value, with its bounds."""
    bounds = [f"{sign} {node[key]:,}".replace(",", " ") for key, sign in _BOUNDS if key in node]
    kind = node.get("type", "anything")
    return f"{_PLAIN.get(kind, kind)} {', '.join(bounds)}".strip()


def _name(ref: str) -> str:
    return ref.removeprefix("#/$defs/")
