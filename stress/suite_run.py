"""Carry out a suite into one store, and take cells out of it again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.devices import Devices, Kind, choose
from stress.policies import POLICIES
from stress.results import coords, kept_of, open_run
from stress.run import Progress, Simulation, damaged, fill, finished, is_finished, open_sound, open_store, provenance
from stress.spec import InputError
from stress.store import Store
from stress.suite import Plan, placed
from stress.variables import CELL, DECLARED, LAYERS, WITH_VAULT

if TYPE_CHECKING:
    import xarray as xr

_OF_ALL = ("kind", "cells", "config_sha256")
"""Attributes of a suite that say nothing of one cell."""
_DIMS = {name: variable.dims for name, variable in DECLARED.items()}


def suite_store(plan: Plan, folder: Path = Path("runs")) -> Path:
    """Where a suite is kept if nobody says otherwise: runs/NAME-HASH.zarr."""
    return folder / f"{plan.name}-{plan.digest[:10]}.zarr"


def run_suite(
    plan: Plan,
    out: str | Path | None = None,
    *,
    device: Kind = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Simulate all cells and keep them in one store, whose variables have the dims scenario, policy and seed first.

    Each cell is to the last bit what `stress.run` gives for its config. Arguments, and errors, are those of
    `stress.run`; a finished suite is checked and opened again.
    """
    path = suite_store(plan) if out is None else Path(out)
    if is_finished(path, plan.digest) and not (resume and damaged(path)):
        return open_sound(path)
    devices, began, whole = choose(device), time.perf_counter(), plan.coords()
    variables = [replace(variable, dims=(*CELL, *variable.dims)) for variable in kept_of(plan.first)]
    store = open_store(path, variables, whole, _attributes(plan, devices), plan.first.chunk, resume=resume)
    wanted = sorted(set(range(store.chunks)) - store.finished())
    simulated = time.perf_counter()
    todo = fill(store, _chunks(plan, store, wanted, devices, whole), wanted, progress)
    store.finish(finished(began, simulated, todo))
    return open_run(path)


def _chunks(
    plan: Plan, store: Store, wanted: list[int], devices: Devices, whole: dict[str, np.ndarray]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The chunks wanted, cell by cell; what the seeds of a cell have in common is built once."""
    each = store.chunks // (len(plan.runs) * len(plan.seeds))
    for number, run in enumerate(plan.runs.values()):
        first = number * len(plan.seeds) * each
        mine = [i for i in wanted if first <= i < first + len(plan.seeds) * each]
        if not mine:
            continue
        simulation, own = Simulation.of(run, devices), coords(run)
        store.made_by(simulation.kernel)
        for k, seed in enumerate(plan.seeds):
            start = first + k * each
            some = [i - start for i in mine if start <= i < start + each]
            for j, arrays in simulation.seeded(seed).chunks(some):
                yield start + j, placed(arrays, own, whole, _DIMS)


def _attributes(plan: Plan, devices: Devices) -> dict[str, Any]:
    """What is needed to trace a number and to run it again; configs stand in the variable `config`."""
    of_first = provenance(plan.first, plan.digest, devices)
    return {key: value for key, value in of_first.items() if key not in ("config", "seed")} | {
        "kind": "suite",
        "name": plan.name,
        POLICIES: {name: [policy.said for policy in run.policies] for (_, name), run in plan.runs.items()},
        "seed": ", ".join(map(str, plan.seeds)),
    }


def run_or_cell(word: str | Path) -> xr.Dataset:
    """A finished run, or a cell of a finished suite as STORE#SCENARIO/POLICY or STORE#SCENARIO/POLICY/SEED.

    Raises:
        InputError: There is none, or the word names a suite and no cell of it.
        RunError: The store is damaged.
    """
    store, mark, place = str(word).partition("#")
    ds, names = open_sound(store), place.split("/")
    is_suite = ds.attrs.get("kind") == "suite"
    if is_suite and len(names) in (2, 3):
        return cell(ds, names[0], names[1], _seed(word, names[2]) if len(names) == 3 else None)
    if is_suite or mark:
        what = "a suite: give one of its cells as" if is_suite else "one run, without cells: give it without"
        raise InputError(f"{word}: is {what} {store}#SCENARIO/POLICY.")
    return ds


def _seed(word: str | Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{word}: its seed is {text!r}, expected a whole number. Correct it.") from None


def cell(ds: xr.Dataset, scenario: str, policy: str, seed: int | None = None) -> xr.Dataset:
    """One cell of a suite, as the run that it equals; without a seed the paths of all seeds, one after another.

    Raises:
        InputError: The suite has no such cell.
    """
    import xarray as xr

    for dim, label in (("scenario", scenario), ("policy", policy), *([("seed", seed)] if seed is not None else [])):
        if label not in ds[dim].values:
            known = ", ".join(map(str, ds[dim].values))
            raise InputError(f"{ds.attrs['name']}: has no {dim} '{label}', expected one of {known}. Choose one.")
    seeds = [int(s) for s in ds["seed"].values] if seed is None else [seed]
    parts = [_of_seed(ds.sel(scenario=scenario, policy=policy, seed=s)) for s in seeds]
    if len(parts) == 1:
        return parts[0]
    joined = xr.concat(parts, "path", data_vars="all", combine_attrs="override")
    return joined.assign_coords(path=np.arange(joined.sizes["path"])).assign_attrs(seed=", ".join(map(str, seeds)))


def _of_seed(part: xr.Dataset) -> xr.Dataset:
    """A cell with the labels and attributes of its run."""
    text = str(part["config"].item())
    config = json.loads(text)
    venues = config["venues"]
    pools = [f"{name}/{pool['name']}" for name, venue in venues.items() for pool in venue["pools"]]
    layers = WITH_VAULT if any(venue["vault"] for venue in venues.values()) else LAYERS
    policy = str(part["policy"].item())
    part = part.drop_vars(["config", *CELL]).sel(pool=pools, layer=list(layers))
    attrs = {key: value for key, value in part.attrs.items() if key not in _OF_ALL}
    if POLICIES in attrs:  # Older suites do not say it.
        attrs[POLICIES] = attrs[POLICIES][policy]
    return part.drop_attrs(deep=False).assign_attrs(
        attrs | {"config": text, "name": config["name"], "seed": config["seed"]}
    )
