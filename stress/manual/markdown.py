"""Pieces of Markdown that the made pages consist of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_SECTIONS = ("Args:", "Returns:", "Raises:")
_ITEM = re.compile(r"^(\w+): ")


def anchor(*parts: str) -> str:
    """Where a page can be linked to: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def code(value: object) -> str:
    """As it is typed."""
    return f"`{value}`"


def heading(level: int, text: str, at: str) -> str:
    """A heading, and where it can be linked to."""
    return f"({at})=\n{'#' * level} {text}\n"


def named(text: str, at: str) -> str:
    """Code that can be linked to."""
    return f"[{code(text)}]{{#{at}}}"


def link(text: str, to: str) -> str:
    """A link to an anchor of any page."""
    return f"[{text}](#{to})"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns without anything in them are left out."""
    body = list(rows)
    kept = [i for i in range(len(columns)) if any(row[i] for row in body)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(_cell(cells[i]) for i in kept)} |"

    return "\n".join([line(columns), f"|{' --- |' * len(kept)}", *map(line, body)]) + "\n"


def toctree(pages: Iterable[str], *, hidden: bool = False) -> str:
    """Which pages follow."""
    return "\n".join(["```{toctree}", *([":hidden:"] if hidden else []), ":maxdepth: 2", "", *pages, "```", ""])


def prose(docstring: str | None) -> str:
    """A docstring: its sections become bold words, what they list becomes items."""
    lines, section = [], ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line in _SECTIONS:
            section = line
            lines += [f"**{line}**", ""]
        elif section and (not line or line.startswith(" ")):
            line = line.removeprefix("    ")
            lines.append(line if section == "Returns:" else _ITEM.sub(r"- `\1`: ", line))
        else:
            section = ""
            lines.append(line)
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Text that was broken into lines."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    return one_line(text).replace("|", r"\|")
