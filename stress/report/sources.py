"""Where the numbers of a config come from, and how far to trust it, read off the words of its sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

TRUST = ("fitted", "named", "weak", "assumed", "none")
"""From high to low."""
_WORDS = {
    "assumed": ("assumed", "hypothetical", "made up", "guess", "arbitrary", "rounded by choice"),
    "weak": ("press", "unverified", "weak", "second-hand"),
    "fitted": ("liqstress fit", "fitted", "total of the shock"),
}
"""What a source says where it is of a trust, the lowest trust first."""
_MOST = 8
"""Numbers shown of one table."""


class Source(NamedTuple):
    """A table of a config."""

    place: str
    """Dotted key."""
    values: str
    """Its own numbers, as in the config."""
    text: str
    trust: str


def sources(config: Mapping[str, Any]) -> list[Source]:
    """Every table with a source, in the order of the config; one that could name its source and does not has none."""
    found = list(_sources(config, ""))
    trusts = {source.place: source.trust for source in found}
    return [source._replace(trust=trusts.get(_sibling(source), source.trust)) for source in found]


def distinct(configs: Iterable[Mapping[str, Any]]) -> list[list[Source]]:
    """Of each config those tables that none before it has, as scenarios of a suite share most."""
    seen, found = set[tuple[str, str]](), []
    for config in configs:
        found.append([source for source in sources(config) if (source.place, source.text) not in seen])
        seen |= {(source.place, source.text) for source in found[-1]}
    return found


def _sibling(source: Source) -> str:
    """The table beside it whose source it repeats by name, as in `as BTC`."""
    words = source.text.split()
    return f"{source.place.rpartition('.')[0]}.{words[1]}" if len(words) == 2 and words[0] == "as" else ""


def _sources(node: Any, place: str) -> Iterator[Source]:
    if isinstance(node, list | tuple):
        for i, item in enumerate(node):
            yield from _sources(item, f"{place}[{i}]")
        return
    if not isinstance(node, Mapping):
        return
    if "source" in node:
        yield Source(place, _values(node), _plain(node["source"]), trust(node["source"]))
    if "tiers_source" in node:
        count = f"{len(node['tiers'])} tiers"
        yield Source(f"{place}.tiers", count, _plain(node["tiers_source"]), trust(node["tiers_source"]))
    for key, value in node.items():
        yield from _sources(value, f"{place}.{key}".lstrip("."))


def trust(source: str) -> str:
    """How far a source may be trusted, by its own words."""
    said = source.lower()
    if not said.strip():
        return "none"
    return next((level for level, words in _WORDS.items() if any(word in said for word in words)), "named")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _values(node: Mapping[str, Any]) -> str:
    numbers = [
        f"{key} = {value:g}" for key, value in node.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]  # fmt: skip
    more = f", and {len(numbers) - _MOST} more" if len(numbers) > _MOST else ""
    return ", ".join(numbers[:_MOST]) + more
