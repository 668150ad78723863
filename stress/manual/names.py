"""The page of Python names: what `import stress` offers, and `ds.liq`, from their docstrings."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import stress
from stress.accessor import Liq, Pictures
from stress.manual.markdown import anchor, code, heading, prose

_WIDE = 88
_LONGEST = 40
_FUNCTIONS = {"report": "stress.report.make", "run": "stress.run"}
"""Where the functions are that modules of their names stand for."""


class _Bare(str):
    """An annotation as it stands in the source, which `inspect` shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def names_page() -> str:
    """Every public name."""
    public = sorted(name for name in stress.__all__ if not name.startswith("_"))
    parts = [
        "# Python\n",
        "`import stress` costs nothing: names are looked up on first use. What is wrong in a config or an input raises "
        "`stress.spec.InputError`, a run that fails `stress.spec.RunError`.\n",
        *(_entry(f"stress.{name}", found(name)) for name in public),
        heading(2, "The accessor of a run", "python-liq"),
        prose(sys.modules[Liq.__module__].__doc__),
        prose(Liq.__doc__),
        *(_entry(f"ds.liq.{name}", member, 3) for name, member in _members(Liq)),
        heading(2, "Pictures", "python-pictures"),
        prose(Pictures.__doc__),
        *(_entry(f"ds.liq.plot.{name}", member, 3) for name, member in _members(Pictures)),
    ]
    return "\n".join(parts)


def found(name: str) -> Any:
    """What a public name stands for; some are modules that can be called as their functions."""
    value = getattr(stress, name)
    return getattr(importlib.import_module(_FUNCTIONS[name]), name) if inspect.ismodule(value) else value


def _members(kind: type) -> list[tuple[str, Any]]:
    """Public methods and properties, in the order of the source."""
    return [(name, value) for name, value in vars(kind).items() if not name.startswith("_") and _documented(value)]


def _documented(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, property)


def _entry(name: str, value: Any, level: int = 2) -> str:
    """Heading, signature and docstring; of a class its public methods too."""
    lines = [heading(level, code(name), anchor("python", name))]
    if not isinstance(value, property):
        lines.append(f"```python\n{_signature(name, value)}\n```\n")
    lines.append(prose(value.__doc__))
    if inspect.isclass(value):
        lines += [_entry(f"{name}.{member}", of, level + 1) for member, of in _members(value)]
    return "\n".join(lines)


def _signature(name: str, value: Any) -> str:
    """How it is called, a long one a parameter a line."""
    whole = inspect.signature(value)
    parameters = [_shown(p) for p in whole.parameters.values() if p.name != "self"]
    signature = whole.replace(parameters=parameters, return_annotation=_bare(whole.return_annotation))
    line = f"{name}{signature}"
    if len(line) <= _WIDE or not parameters:
        return line
    lines, kinds = [str(p) for p in parameters], [p.kind for p in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        lines.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = str(signature.replace(parameters=[])).removeprefix("()")
    return "\n".join([f"{name}(", *(f"    {part}," for part in lines), f"){returned}"])


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter without quotes about its annotation, and without a default that fills the line."""
    default = parameter.default
    if len(repr(default)) > _LONGEST and default is not inspect.Parameter.empty:
        default = _Bare("...")
    return parameter.replace(annotation=_bare(parameter.annotation), default=default)


def _bare(annotation: Any) -> Any:
    return _Bare(annotation) if isinstance(annotation, str) else annotation
