"""A suite: scenarios x policies x seeds on one base, as the configs of its cells."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stress.config import Run, configured, read_run, with_files
from stress.digests import config_json, digest
from stress.merge import merged
from stress.policies import NAME, Policy, read_policy
from stress.results import coords
from stress.spec import InputError, Many, Spec, read_toml, validate

_SAME = ("paths", "chunk", "horizon_hours", "recovery_days", "keep")
_ONE_BY_ONE = ("pool", "layer")
"""Dims whose labels may differ between cells; a place that a cell does not have is NaN there."""


class Suite(Spec):
    """Which cells there are."""

    kind: Literal["suite"]
    """By which a suite is told from a run."""
    name: Annotated[str, Field(pattern=NAME)]
    """What the store is called."""
    description: str = ""
    """For people; nothing depends on it."""
    base: str | dict[str, Any]
    """TOML file of the run that all cells start from, or a table with `file` and what differs from it."""
    seeds: Annotated[Many[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = (1,)
    """Each gives every cell the paths of a further run."""
    scenarios: Annotated[dict[str, str | dict[str, Any]], Field(min_length=1)]
    """By name: the file of a shock, or a table, or a file of one, of what differs from the base. A shock with a `kind`
    replaces the base's."""
    policies: Annotated[Many[str], Field(min_length=1)]
    """Files of policies; the first is what the others are compared with."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for name in self.scenarios:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"scenarios has {name!r}, expected letters, digits, dots and dashes. Rename it.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}, expected different seeds. Leave out the repeated one.")
        return self


@dataclass(frozen=True)
class Plan:
    """The cells of a suite."""

    name: str
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, str], Run]
    """By scenario and policy, with the first seed."""

    @property
    def scenarios(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(scenario for scenario, _ in self.runs))

    @property
    def policies(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(policy for _, policy in self.runs))

    @property
    def first(self) -> Run:
        """The config of the first cell."""
        return next(iter(self.runs.values()))

    def cell(self, scenario: str, policy: str, seed: int) -> Run:
        """The run that a cell equals."""
        return self.runs[scenario, policy].model_copy(update={"seed": seed})

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that decides the numbers of every cell."""
        cells = [[*key, digest(run)] for key, run in self.runs.items()]
        return hashlib.sha256(json.dumps([cells, list(self.seeds)]).encode()).hexdigest()

    def coords(self) -> dict[str, np.ndarray]:
        """Labels along every dim, of any cell, and the configs of all."""
        each = [coords(run) for run in self.runs.values()]
        labels = each[0] | {dim: _union([axes[dim] for axes in each]) for dim in _ONE_BY_ONE}
        shape = len(self.scenarios), len(self.policies), len(self.seeds)
        keys = itertools.product(self.scenarios, self.policies, self.seeds)
        return labels | {
            "scenario": np.array(self.scenarios),
            "policy": np.array(self.policies),
            "seed": np.array(self.seeds),
            "config": np.array([config_json(self.cell(*key)) for key in keys]).reshape(shape),
        }


def is_suite(path: str | Path) -> bool:
    """Whether a TOML file is of a suite."""
    return read_toml(Path(path)).get("kind") == "suite"


def read_suite(
    path: str | Path,
    *,
    paths: int | None = None,
    seed: int | None = None,
    prices: str | Path | None = None,
    policies: Sequence[Policy] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Read a suite and all that it names; files in it are relative to it.

    Args:
        path: Its TOML file.
        paths: Paths of each cell instead of the file's.
        seed: The one seed instead of the file's.
        prices: As in `load_config`, for all cells.
        policies: Put over the base.
        overrides: As in `load_config`, for all cells.

    Raises:
        InputError: Something is wrong; one line per problem.
    """
    path = Path(path)
    suite, folder = validate(Suite, read_toml(path), str(path)), path.parent
    base = _base(suite.base, folder, f"{path}: base")
    for policy in policies:
        base = policy.applied(base)
    read = [read_policy(folder / file) for file in suite.policies]
    names = [policy.name for policy in read]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: policies are named {', '.join(names)}, expected different names. Rename one.")
    seeds = suite.seeds if seed is None else (seed,)
    _without_seed(dict(overrides or {}), "--set")
    given = {"paths": paths, "prices.dir": None if prices is None else str(prices)}
    given = {key: value for key, value in given.items() if value is not None} | dict(overrides or {})
    runs = {}
    for scenario, what in suite.scenarios.items():
        data = _scenario(base, what, folder, f"{path}: scenarios.{scenario}")
        for policy in read:
            origin = f"{path}: scenario '{scenario}', policy '{policy.name}'"
            named = {**data, "name": f"{suite.name}-{scenario}"}
            run = configured(named, origin, [policy], {"seed": seeds[0]} | given)
            runs[scenario, policy.name] = run.made_by([*policies, policy])
    _check_equal(runs, str(path))
    return Plan(suite.name, seeds, runs)


def _base(what: str | dict[str, Any], folder: Path, origin: str) -> dict[str, Any]:
    """The table of the run that cells start from."""
    if isinstance(what, str):
        return read_run(folder / what)
    if not isinstance(what.get("file"), str):
        raise InputError(f"{origin}.file is {what.get('file')!r}, expected the name of a run's TOML file. Give one.")
    changes = with_files({key: value for key, value in what.items() if key != "file"}, folder, origin)
    return merged(read_run(folder / what["file"]), _without_seed(changes, origin), origin)


def _scenario(base: dict[str, Any], what: str | dict[str, Any], folder: Path, origin: str) -> dict[str, Any]:
    """The table of the base in a scenario."""
    if isinstance(what, str):
        folder, what = (folder / what).parent, read_toml(folder / what)
        if "kind" in what:
            what = {"shock": what}
    changes = with_files(what, folder, origin)
    if "kind" in changes.get("shock", {}):
        base = {key: value for key, value in base.items() if key != "shock"}
    return merged(base, _without_seed(changes, origin), origin)


def _without_seed(changes: dict[str, Any], origin: str) -> dict[str, Any]:
    """`InputError` where a seed is given that no cell would have."""
    if "seed" in changes:
        raise InputError(
            f"{origin}.seed is {changes['seed']!r}, expected none: every cell has the suite's seeds. Put it "
            "there, or give --seed."
        )
    return changes


def _check_equal(runs: Mapping[tuple[str, str], Run], origin: str) -> None:
    """`InputError` unless all cells fit into one store."""
    (first, *_), base = runs, next(iter(runs.values()))
    for (scenario, policy), run in runs.items():
        for name in (*_SAME, "venues", "assets"):
            ours, theirs = getattr(run, name), getattr(base, name)
            if name in ("venues", "assets"):
                ours, theirs = ", ".join(ours), ", ".join(theirs)
            if ours != theirs:
                raise InputError(
                    f"{origin}: {name} is {ours} in scenario '{scenario}' under policy '{policy}', expected {theirs} "
                    f"as in scenario '{first[0]}' under policy '{first[1]}': all cells share one store. "
                    "Make them equal."
                )


def _union(labels: Sequence[np.ndarray]) -> np.ndarray:
    """All labels, each once, in the order of the longest list that has it."""
    longest_first = sorted(labels, key=len, reverse=True)
    return np.array(list(dict.fromkeys(str(label) for axis in longest_first for label in axis)))


def placed(
    arrays: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
) -> dict[str, np.ndarray]:
    """Arrays of a cell at the labels of its suite, NaN at those that the cell does not have.

    Args:
        arrays: By name, paths first.
        own: Labels of the cell.
        whole: Labels of the suite.
        dims: Of each array.
    """
    place = {dim: [list(whole[dim]).index(label) for label in own[dim]] for dim in _ONE_BY_ONE}
    differ = {dim for dim in _ONE_BY_ONE if place[dim] != list(range(len(whole[dim])))}

    def laid(name: str, array: np.ndarray) -> np.ndarray:
        if not differ & set(dims[name]):
            return array
        pairs = list(zip(dims[name], array.shape, strict=True))
        wide = np.full([len(whole[dim]) if dim in differ else size for dim, size in pairs], np.nan, array.dtype)
        wide[np.ix_(*(place[dim] if dim in differ else range(size) for dim, size in pairs))] = array
        return wide

    return {name: laid(name, array) for name, array in arrays.items()}
