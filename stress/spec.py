"""What every config is made of: frozen specs read from TOML, and errors that a person can act on."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

BLOCK = 1024
"""Paths that one device simulates together; fewer where accounts on cross margin need the memory
(`stress.cross.paths_together`), by what is simulated alone. Chunks of whole blocks give the same paths to the last bit:
as a chunk above this is a multiple of it and every block a power of two, it is whole blocks with any accounts."""


class InputError(Exception):
    """A config or an input file is wrong: one line that says where, what, and what to do. Exit code 2."""


class RunError(Exception):
    """A run failed: one line that says what is safe and how to go on. Exit code 3."""


class Spec(BaseModel):
    """Base of all configs: immutable, no unknown keys, no NaN or infinity, strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _whole_as_float(value: Any) -> Any:
    """TOML writes 5 for 5.0: accept whole numbers where a fraction is meant, and nothing else."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _list_as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[float, BeforeValidator(_whole_as_float)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
_T = TypeVar("_T")
Many = Annotated[tuple[_T, ...], BeforeValidator(_list_as_tuple)]


_ADVICE = {
    "finite_number": "NaN and infinity are not allowed: give a number.",
}
_WORDS = (
    ("input should be ", ""),
    ("value should have ", ""),
    (" after validation, not 0", ""),
    (" after validation", ""),
    (" or object to extract fields from", ""),
    ("dictionary", "table"),
    ("tuple", "list"),
)
"""Words of pydantic, and ours for them."""
_LONGEST = 60


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file; `InputError` where it is absent or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Give the path of an existing TOML file.") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Give the path of a readable TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not valid TOML: {error}. Mend the line named.") from None


def validate[S: Spec](kind: type[S], data: Mapping[str, Any], origin: str) -> S:
    """Build a spec from a table; every problem becomes one line that starts with `origin`, usually the file."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise InputError("\n".join(_lines(kind, error.errors(), data, origin))) from None


def _lines(kind: type[Spec], problems: Sequence[Any], data: Mapping[str, Any], origin: str) -> list[str]:
    """One line a problem; missing keys of one table share a line, and so do the ways for a value to be right."""
    located = [(_location(problem, data), problem) for problem in problems]
    inner = {where[:depth] for where, _ in located for depth in range(len(where))}
    missing: dict[tuple[Any, ...], list[str]] = {}
    wrong: dict[tuple[Any, ...], list[Any]] = {}
    for where, problem in located:
        if problem["type"] == "missing":
            missing.setdefault(where[:-1], []).append(str(where[-1]))
        elif not (problem["type"].endswith("_type") and where in inner):
            wrong.setdefault(where, []).append(problem)
    lines = [f"{_named(origin, where)}{_wrong(kind, found)}" for where, found in wrong.items()]
    for where, keys in missing.items():
        many = len(keys) > 1
        what = "are missing, values were expected. Add them." if many else "is missing, a value was expected. Add it."
        path = ".".join([_named("", where), *keys[:1]]).removeprefix(".")
        lines.append(f"{origin}: {', '.join([path, *keys[1:]])} {what}")
    return lines


def _location(problem: Any, data: Any) -> tuple[Any, ...]:
    """Where in the data a problem is: pydantic's path less the names of kinds and types that stand in it."""
    where: list[Any] = []
    for part in problem["loc"]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            if problem["type"] != "missing" or part != problem["loc"][-1]:
                continue
        where.append(part)
    return tuple(where)


def _named(origin: str, where: tuple[Any, ...]) -> str:
    """File and field, as people write them."""
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    return f"{origin}: {field}" if origin and field else origin or field


def _wrong(kind: type[Spec], problems: Sequence[Any]) -> str:
    """What is wrong with the value at one place, what was expected, and what to do."""
    first = problems[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    match first["type"]:
        case "extra_forbidden":
            return f" is not a known key.{_suggestion(kind, first['loc'])}"
        case "value_error":
            return f": {message}"
        case "union_tag_invalid":
            tags = first["ctx"]["expected_tags"]
            return f".kind is {_shown(first['ctx']['tag'])}, expected one of {tags}. Choose one."
        case "union_tag_not_found":
            return ".kind is missing, a value was expected. Add it."
    messages = [problem["msg"][:1].lower() + problem["msg"][1:].partition(" or instance of")[0] for problem in problems]
    for theirs, ours in _WORDS:
        messages = [text.replace(theirs, ours) for text in messages]
    advice = _ADVICE.get(first["type"], "Change it.")
    return f" is {_shown(first['input'])}, expected {' or '.join(dict.fromkeys(messages))}. {advice}"


def _shown(value: Any) -> str:
    """A value as TOML has it, a long one cut short."""
    text = str(value).lower() if isinstance(value, bool) else "a table" if isinstance(value, dict) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _suggestion(kind: type[BaseModel], location: tuple[Any, ...]) -> str:
    """The key that was probably meant, or all that there are."""
    here = [kind]
    for part in location[:-1]:
        inside = [spec.model_fields[part].annotation for spec in here if part in spec.model_fields]
        tagged = [spec for spec in here if part in get_args(getattr(spec.model_fields.get("kind"), "annotation", None))]
        here = [spec for annotation in inside for spec in _specs(annotation)] if inside else tagged or here
    known = list(dict.fromkeys(name for spec in here for name in spec.model_fields))
    return nearest(str(location[-1]), known) or (f" Known keys: {', '.join(known)}." if known else " Remove it.")


def nearest(word: str, known: Iterable[str]) -> str:
    """A question for what was probably meant; nothing where no word is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _specs(annotation: Any) -> list[type[BaseModel]]:
    """The specs in an annotation such as `dict[str, Venue]` or `Population | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs(part)]
