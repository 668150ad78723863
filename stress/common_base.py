"""Whether runs may be compared: everything equal but the rules, so that the same path meets the same prices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stress.policies import OF_PORTFOLIO
from stress.spec import InputError

if TYPE_CHECKING:
    import xarray as xr

_BASE = (
    "seed", "shock", "sampling", "overlays", "assets", "horizon_hours", "step_seconds", "dtype", "prices", "portfolio",
)  # fmt: skip
"""What two runs must have in common. The number of paths is not in it: path i is the same, however many there are."""
_OWN = ("name", "description", "paths", "chunk")
"""What a run calls itself, and how it is cut up."""
_LONGEST = 60


def check_common_base(first: xr.Dataset, other: xr.Dataset) -> None:
    """`InputError` unless two runs drew the same random numbers for the same prices, positions and venues."""
    known = all("inputs_sha256" in ds.attrs for ds in (first, other))
    a, b = (_base(ds, by_content=known) for ds in (first, other))
    for key, ours, theirs in differences(b, a):
        raise InputError(
            f"{other.attrs['name']}: {key} is {_short(ours)}, expected {_short(theirs)} as in "
            f"{first.attrs['name']}: the two share no common base. Compare runs of one config that differ in policies "
            "only."
        )


def changed(first: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Dotted keys of the config in which two runs differ; `*` for several venues, markets or funds."""
    whole = (json.loads(ds.attrs["config"]) for ds in (first, other))
    a, b = ({key: value for key, value in config.items() if key not in _OWN} for config in whole)
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for key, _, _ in differences(b, a):
        parts = key.split(".")
        named = (1, 3) if parts[0] == "venues" else ()
        pattern = tuple("" if i in named and len(parts) > i + 1 else part for i, part in enumerate(parts))
        found.setdefault(pattern, []).append(parts)
    return [".".join(x[0] if len(set(x)) == 1 else "*" for x in zip(*keys, strict=True)) for keys in found.values()]


def _base(ds: xr.Dataset, *, by_content: bool) -> dict[str, Any]:
    """What must be equal; of the files that are read their checksums, where both runs know them, or their names."""
    config = json.loads(ds.attrs["config"])
    base = {key: config.get(key) for key in _BASE} | {"seed": ds.attrs["seed"], "venues": ", ".join(config["venues"])}
    portfolio = {key: value for key, value in base["portfolio"].items() if key not in OF_PORTFOLIO}
    if by_content:
        files = ds.attrs["inputs_sha256"]
        portfolio |= {key: files.get(key) for key in ("positions", "collateral")}
        base["prices"] = {"start": base["prices"]["start"]} | {k: v for k, v in files.items() if k not in portfolio}
    return base | {"portfolio": portfolio}


def differences(ours: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two tables differ, with both values."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.get("kind") == theirs.get("kind"):
        for name in dict.fromkeys([*theirs, *ours]):
            yield from differences(ours.get(name), theirs.get(name), f"{key}.{name}".lstrip("."))
    elif ours != theirs:
        yield key, ours, theirs


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "kind" in value:
        return f"of kind '{value['kind']}'"
    text = "absent" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
