"""The page of variables, from their table."""

from __future__ import annotations

from collections.abc import Iterable

from stress.manual.markdown import anchor, code, heading, link, named, table
from stress.variables import ALWAYS, COORDINATES, DECLARED, LAYERS, OF_SUITES, SIDES, WITH_VAULT, Variable


def variables_page() -> str:
    """Every variable of a run and every dimension."""
    dims = {**COORDINATES, **OF_SUITES}
    return "\n".join([
        "# Variables of a run\n",
        "A run is an `xarray.Dataset` with these variables. USD at the prices of the moment, positive unless said. In "
        "a market that a venue does not list, volumes and premiums are 0. "
        f"{link('`keep`', anchor('key', 'Run', 'keep'))} says which of them a store keeps; "
        f"{' and '.join(map(code, ALWAYS))} are always there. Those named `recovery_...` are of days after "
        f"the last hour, where {link('`behaviour.recovery`', anchor('key', 'Behaviour', 'recovery'))} asks for any.\n",
        table(("variable", "dims", "unit", "dtype", "what"), _variables(DECLARED.values())),
        heading(2, "Dimensions and labels", "dimensions"),
        f"`side` is {_either(SIDES)}; `layer` is {_either(LAYERS)}, in the order of the waterfall, and "
        f"{_either([layer for layer in WITH_VAULT if layer not in LAYERS])} before `adl` where a venue has one. A "
        "suite has the last ones before those of a run.\n",
        table(("name", "unit", "dtype", "labels"), _dims(dims.values())),
    ])  # fmt: skip


def _variables(variables: Iterable[Variable]) -> list[tuple[str, ...]]:
    return [
        (
            named(variable.name, anchor("variable", variable.name)),
            " ".join(link(code(dim), anchor("dim", dim)) for dim in variable.dims),
            variable.units,
            variable.dtype,
            variable.long_name,
        )
        for variable in variables
    ]


def _dims(dims: Iterable[Variable]) -> list[tuple[str, ...]]:
    return [(named(dim.name, anchor("dim", dim.name)), dim.units, dim.dtype, dim.long_name) for dim in dims]


def _either(names: Iterable[str]) -> str:
    return ", ".join(map(code, names))
