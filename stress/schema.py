"""The JSON schema of a run's TOML file."""

from __future__ import annotations

from typing import Any

from stress.config import Run

_BOUNDS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "min_length": "minItems",
}  # fmt: skip


def schema() -> dict[str, Any]:
    """JSON schema of a run's TOML file, for editors."""
    whole = Run.model_json_schema()
    described = "A file, and what differs from it; tables merge unless of another kind, anything else is replaced."
    file = {
        "type": "object",
        "properties": {"file": {"type": "string"}},
        "required": ["file"],
        "description": described,
    }
    run, portfolio = whole["properties"], whole["$defs"]["Portfolio"]["properties"]
    places = (run["venues"], "additionalProperties"), (run, "shock"), (run, "sampling"), (portfolio, "population")
    for table, key in places:
        inline = table[key]
        meaning = {"description": inline.pop("description")} if "description" in inline else {}
        table[key] = {"anyOf": [{"type": "string", "description": "Name of a TOML file."}, file, inline], **meaning}
    return _with_bounds(whole)


def _with_bounds(node: Any) -> Any:
    """A JSON schema in which bounds that pydantic leaves in its own words are in the standard's."""
    if isinstance(node, list):
        return [_with_bounds(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {_BOUNDS.get(k, k) if isinstance(v, int | float) else k: _with_bounds(v) for k, v in node.items()}
