"""Which runs a report is of: opened, checked against their checksums, and whether they belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stress.common_base import check_common_base
from stress.report.facts import Cell
from stress.results import independent, sound
from stress.run import open_sound
from stress.seal import check_seal
from stress.spec import InputError, RunError
from stress.suite_run import cell

if TYPE_CHECKING:
    import xarray as xr

_FILES = ("positions", "collateral")


def cells(words: Sequence[str | Path]) -> list[Cell]:
    """Scenarios and policies of one run, of several runs on a common base, or of one suite.

    Args:
        words: Stores of finished runs, the base first; STORE#SCENARIO/POLICY for a cell of a suite; or one suite.

    Raises:
        InputError: A store is not there, not finished, not as it was written, without a path that did not fail, of
            paths drawn in groups, or of another base than the first.
    """
    if not words:
        raise InputError("no run is given, expected at least one. Give the store of a finished run.")
    found = [each for word in words for each in _opened(str(word), alone=len(words) == 1)]
    if len({(each.scenario, each.policy) for each in found}) < len(found):
        names = " ".join(map(str, words))
        raise InputError(f"{names}: names one run twice, expected different ones. Leave it out.")
    for each in found:
        independent(each.ds)
        try:
            sound(each.ds)
        except RunError as error:
            raise InputError(f"{each.ds.attrs['name']}: {error}") from None
    if len(words) == 1:
        return found
    for other in found[1:]:
        check_common_base(found[0].ds, other.ds)
    return [replace(each, scenario=str(found[0].ds.attrs["name"])) for each in found]


def _opened(word: str, *, alone: bool) -> list[Cell]:
    """The cells that a word of the command line means."""
    store, mark, place = word.partition("#")
    check_seal(Path(store))  # First, as what has another layout may not open at all.
    try:
        ds = open_sound(store)
    except RunError as error:
        raise InputError(str(error)) from None
    suite = ds.attrs.get("kind") == "suite"
    if suite != bool(mark) and not (suite and alone):
        what = "a suite: give one of its cells as" if suite else "one run, without cells: give it without"
        raise InputError(f"{word}: is {what} {store}#SCENARIO/POLICY.")
    if not suite:
        _check_config(store, ds)
        return [Cell(str(ds.attrs["name"]) if alone else "", "" if alone else _name(ds), ds)]
    _check_suite(store, ds)
    if mark:
        scenario, _, policy = place.partition("/")
        one = _cell(ds, scenario, policy)
        return [Cell(scenario, policy, one) if alone else Cell("", _name(one), one)]
    scenarios, policies = ([str(name) for name in ds[dim].values] for dim in ("scenario", "policy"))
    return [Cell(scenario, policy, _cell(ds, scenario, policy)) for scenario in scenarios for policy in policies]


def _cell(ds: xr.Dataset, scenario: str, policy: str) -> xr.Dataset:
    """A cell of a suite with the hash of its own config in the place of that of the suite."""
    one = cell(ds, scenario, policy)
    return one.assign_attrs(config_sha256=_digest(json.loads(one.attrs["config"]), ds.attrs.get("inputs_sha256", {})))


def _name(ds: xr.Dataset) -> str:
    """What to call one of several runs: names may be equal, hashes are not."""
    return f"{ds.attrs['name']}-{ds.attrs['config_sha256'][:6]}"


def _check_config(store: str, ds: xr.Dataset) -> None:
    """`InputError` unless the config in a store is the one that its hash is of, and its labels are those of the config.

    Checksums of shards say nothing of attributes and labels.
    """
    attrs, config = ds.attrs, json.loads(ds.attrs["config"])
    if _digest(config, attrs.get("inputs_sha256", {})) != attrs.get("config_sha256"):
        raise InputError(
            f"{store}: its config does not match config_sha256, the hash it was stored with: it has been changed. "
            "Run the config again."
        )
    _check_labels(store, ds, config)


def _check_suite(store: str, ds: xr.Dataset) -> None:
    """The same of a suite. Its hash is of all cells, and can be checked where none reads a file."""
    configs = {tuple(str(name) for name in key): json.loads(str(text)) for key, text in _configs(ds)}
    read = [config for config in configs.values() if config["portfolio"]["positions"] or config["prices"]["dir"]]
    if not read:
        seeds = [int(seed) for seed in ds["seed"].values]
        parts = [[*key[:2], _digest(config, {})] for key, config in configs.items() if int(key[2]) == seeds[0]]
        found = hashlib.sha256(json.dumps([parts, seeds]).encode()).hexdigest()
        if found != ds.attrs["config_sha256"]:
            raise InputError(
                f"{store}: the configs of its cells do not match config_sha256, the hash they were stored with: they "
                "have been changed. Run the suite again."
            )
    _check_labels(store, ds, next(iter(configs.values())), pools=False)


def _configs(ds: xr.Dataset) -> list[tuple[tuple[Any, ...], str]]:
    """Scenario, policy, seed and config of each cell, policies before seeds as in the suite's hash."""
    values = ds["config"].values
    keys = [ds[dim].values for dim in ("scenario", "policy", "seed")]
    return [
        ((keys[0][i], keys[1][j], keys[2][k]), values[i, j, k])
        for i in range(values.shape[0]) for j in range(values.shape[1]) for k in range(values.shape[2])
    ]  # fmt: skip


def _digest(config: dict[str, Any], inputs: dict[str, str]) -> str:
    """The hash of `stress.digests.digest`, from a stored config and the stored hashes of its files."""
    portfolio = config["portfolio"] | {key: inputs.get(key) for key in _FILES}
    prices = {"start": config["prices"]["start"], "files": {k: v for k, v in inputs.items() if k not in _FILES}}
    return hashlib.sha256(json.dumps({**config, "portfolio": portfolio, "prices": prices}).encode()).hexdigest()


def _check_labels(store: str, ds: xr.Dataset, config: dict[str, Any], *, pools: bool = True) -> None:
    expected = {"venue": list(config["venues"]), "asset": list(config["assets"])}
    if pools:
        expected["pool"] = [f"{name}/{pool['name']}" for name, of in config["venues"].items() for pool in of["pools"]]
    for dim, names in expected.items():
        found = [str(name) for name in ds[dim].values]
        if found != names:
            raise InputError(
                f"{store}: its labels of {dim} are {', '.join(found)}, expected {', '.join(names)} as in its config: "
                "they have been changed. Run the config again."
            )
