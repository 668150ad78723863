"""The JSON schema of a run's TOML file."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from stress.config import Run
from stress.spec import Spec

_BOUNDS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "min_length": "minItems",
}  # fmt: skip


class Described(GenerateJsonSchema):
    """With the docstring below a field as its description.

    pydantic would read them where a class is defined, from its source: a seventh of a second of every command.
    """

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """That of one class."""
        found = super().model_schema(schema)
        for name, meaning in _meanings(schema["cls"]).items():
            found["properties"][name].setdefault("description", meaning)
        return found


def _meanings(of: type) -> dict[str, str]:
    """What the docstrings below the fields of a class and of its bases say."""
    found: dict[str, str] = {}
    for base in [base for base in reversed(of.__mro__) if issubclass(base, Spec)]:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    found[name] = inspect.cleandoc(text)
    return found


def schema() -> dict[str, Any]:
    """JSON schema of a run's TOML file, for editors."""
    whole = Run.model_json_schema(schema_generator=Described)
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
