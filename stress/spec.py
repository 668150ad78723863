"""What every config is made of: frozen specs read from TOML, and errors that a person can act on."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class InputError(Exception):
    """A config or an input file is wrong: one line that says where, what, and what to do. Exit code 2."""


class RunError(Exception):
    """A run failed: one line that says what is safe and how to go on. Exit code 3."""


class Spec(BaseModel):
    """Base of all configs: immutable, no unknown keys, no NaN or infinity, strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True, use_attribute_docstrings=True)


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

_S = TypeVar("_S", bound=Spec)

_ADVICE = {
    "missing": "Add it.",
    "finite_number": "NaN and infinity are not allowed: give a number.",
    "union_tag_invalid": "Choose one of the kinds.",
    "union_tag_not_found": "Add `kind`.",
}


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


def validate(kind: type[_S], data: Mapping[str, Any], origin: str) -> _S:
    """Build a spec from a table; every error becomes one line that starts with `origin`, usually the file."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise InputError("\n".join(_line(kind, problem, origin) for problem in error.errors())) from None


def _line(kind: type[Spec], problem: Any, origin: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    where = f"{origin}: {field}" if field else origin
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a known key.{_suggestion(kind, problem['loc'])}"
    if problem["type"] == "missing":
        return f"{where} is missing, a value was expected. Add it."
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    expected = message[:1].lower() + message[1:]
    advice = _ADVICE.get(problem["type"], "Change it.")
    return f"{where} is {problem['input']!r}, expected: {expected}. {advice}"


def _suggestion(kind: type[BaseModel], location: tuple[Any, ...]) -> str:
    """Name the key that was probably meant, walking down the spec as far as plain nesting goes."""
    here: Any = kind
    for part in location[:-1]:
        field = getattr(here, "model_fields", {}).get(part)
        here = field.annotation if field is not None else None
    known = list(getattr(here, "model_fields", {}))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known keys: {', '.join(known)}." if known else " Remove it."
