"""What a run puts out: how to build a dataset of it, open it, and read from it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from stress import sampling
from stress.spec import InputError, RunError
from stress.variables import ALWAYS, COORDINATES, DECLARED, LAYERS, SIDES, VARIABLES, WITH_VAULT, Variable

if TYPE_CHECKING:
    import xarray as xr

    from stress.config import Run

COMPLETE = "complete"
"""Attribute of a store: true once every path is in it."""
FEWEST_WORTH, LEAST_WORTH = 20, 0.05
"""Paths, and share of the paths, below which weights are refused: what they are worth by `effective_paths`."""
_BLOCK = 1024
_LARGE = 1 << 28
"""Bytes above which variables are read as often as they are used."""


def kept_of(run: Run) -> list[Variable]:
    """Variables that a run keeps, in the order of the table."""
    declared = DECLARED if run.recovery_days else VARIABLES
    return [variable for name, variable in declared.items() if not run.keep or name in (*run.keep, *ALWAYS)]


def coords(run: Run) -> dict[str, np.ndarray]:
    """Labels along every dimension of what `run` puts out."""
    pools = [f"{venue}/{pool.name}" for venue, spec in run.venues.items() for pool in spec.pools]
    layers = WITH_VAULT if any(venue.vault for venue in run.venues.values()) else LAYERS
    found = labels(run.paths, run.horizon_hours, list(run.venues), list(run.assets), pools, layers)
    return found | ({"day": np.arange(run.recovery_days + 1)} if run.recovery_days else {})


def labels(
    paths: int,
    hours: int,
    venues: Sequence[str],
    assets: Sequence[str],
    pools: Sequence[str],
    layers: Sequence[str] = LAYERS,
) -> dict[str, np.ndarray]:
    """Labels along every dimension, from sizes and names."""
    return {
        "path": np.arange(paths),
        "hour": np.arange(hours),
        "venue": np.array(venues, dtype=str),
        "asset": np.array(assets, dtype=str),
        "side": np.array(SIDES),
        "layer": np.array(layers),
        "pool": np.array(pools, dtype=str),
    }


def dataset(
    arrays: Mapping[str, np.ndarray], coords: Mapping[str, np.ndarray], attrs: Mapping[str, object] | None = None
) -> xr.Dataset:
    """A dataset of the declared variables in `arrays`.

    Args:
        arrays: Array of each variable by name; its axes are those of `DECLARED`.
        coords: Labels along every dimension, as from `coords`.
        attrs: Attributes of the dataset.

    Raises:
        ValueError: A variable is not declared, or its shape is not what its dims and the labels say.
    """
    xr = _xarray()
    checked = {name: conform(name, array, coords) for name, array in arrays.items()}
    variables = {name: (DECLARED[name].dims, array, DECLARED[name].attrs) for name, array in checked.items()}
    axes = {name: ((name,), array, COORDINATES[name].attrs) for name, array in coords.items()}
    return xr.Dataset(variables, axes, dict(attrs or {}))


def conform(name: str, array: np.ndarray, coords: Mapping[str, np.ndarray]) -> np.ndarray:
    """`array` in the declared dtype; `ValueError` unless its shape is what the declaration and the labels say."""
    if name not in DECLARED:
        raise ValueError(f"{name!r} is not a declared variable; declare it in stress.variables.")
    variable = DECLARED[name]
    expected = tuple(len(coords[dim]) for dim in variable.dims)
    array = np.asarray(array)
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}, expected {expected} for dims {variable.dims}.")
    return array.astype(variable.dtype, copy=False)


def open_run(path: str | Path) -> xr.Dataset:
    """Open the store of a finished run; values are read when they are used.

    Raises:
        InputError: There is no run at `path`, or it is not finished.
    """
    xr, path = _xarray(), Path(path)
    if not (path / "zarr.json").is_file():
        raise InputError(
            f"{path}: holds no run, a folder with zarr.json was expected. Give the store of a finished run."
        )
    opened = xr.open_zarr(path, consolidated=False, chunks=None)
    if COMPLETE not in opened.attrs:
        raise InputError(
            f"{path}: is a zarr store but not a run, its attribute '{COMPLETE}' is missing. "
            "Give the store of a finished run."
        )
    if not opened.attrs[COMPLETE]:
        raise InputError(f"{path}: the run is not finished. Go on with it: run the same config with --resume.")
    return opened


def sound(ds: xr.Dataset) -> xr.Dataset:
    """The paths that did not fail; `RunError` if none is left."""
    kept = np.flatnonzero(ds["status"].values == 0)
    if kept.size == 0:
        raise RunError(f"all {ds.sizes['path']} paths failed, nothing can be read off. Look at `status`.")
    return ds if kept.size == ds.sizes["path"] else ds.isel(path=kept)


def weights(ds: xr.Dataset) -> np.ndarray:
    """Likelihood ratio of each path, of mean 1 but for sampling error: [path].

    Raises:
        InputError: They are worth fewer than `FEWEST_WORTH` paths, or a share below `LEAST_WORTH` of those there are.
    """
    weight = np.exp(ds["log_weight"].values)
    worth = effective_paths(weight)
    if np.ptp(weight) > 0 and worth < max(FEWEST_WORTH, LEAST_WORTH * len(weight)):
        raise InputError(
            f"log_weight: {len(weight):,} paths are worth {worth:.3g} by their weights, expected at least "
            f"{max(FEWEST_WORTH, LEAST_WORTH * len(weight)):.3g}. Leave more to the shock itself (lower the shares of "
            "sampling.tilts), or run more paths."
        )
    return weight


def effective_paths(weight: np.ndarray) -> float:
    """How many equally weighted paths the weights are worth; none where nothing weighs anything."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def group_of(ds: xr.Dataset) -> int:
    """Consecutive paths of a run that depend on each other: 1, unless paths are drawn in pairs or nets."""
    given = json.loads(ds.attrs.get("config", "{}")).get("sampling")
    return 1 if given is None else sampling.group_of(TypeAdapter(sampling.Sampling).validate_python(given))


def independent(ds: xr.Dataset) -> xr.Dataset:
    """The same run; `InputError` where paths are drawn in groups, of which an interval over paths would be wrong."""
    group = group_of(ds)
    if group > 1:
        raise InputError(
            f"{ds.attrs['name']}: paths are drawn in groups of {group}, expected independent ones for what is read off "
            "here. Run it without sampling, or with sampling.kind = 'importance'."
        )
    return ds


def keeps(ds: xr.Dataset, *names: str) -> bool:
    """Whether a run keeps all of these variables."""
    return all(name in ds for name in names)


def _xarray() -> ModuleType:
    """xarray, whose datasets then have `ds.liq`, which stands on everything else and is found by its name alone."""
    importlib.import_module("stress.accessor")
    return importlib.import_module("xarray")


def read(ds: xr.Dataset, name: str) -> xr.DataArray:
    """A variable of a run; `InputError` where the run does not keep it."""
    if name not in ds:
        raise InputError(
            f"{ds.attrs.get('name', 'the run')}: keeps no {name}, which was expected for this. Add it to `keep` in the "
            "config, and run that."
        )
    return ds[name]


def in_memory(ds: xr.Dataset, *names: str) -> xr.Dataset:
    """The same run with these variables read once for all, unless they are large; of what it does not keep, none."""
    there = [name for name in names if name in ds]
    if sum(ds[name].nbytes for name in there) > _LARGE:
        return ds
    # A slice, as xarray would keep what it reads of a whole variable in the dataset that was given.
    return ds.assign({name: ds[name].isel(path=slice(0, None)).load() for name in there})


def by_path(ds: xr.Dataset, name: str, *keep: str) -> np.ndarray:
    """Sum of a variable over all dims but `path` and `keep`, in float64: [path, *keep].

    Reads a block of paths at a time, so that memory does not grow with the dims summed over.
    """
    array, kept = read(ds, name), ("path", *keep)
    axes = tuple(axis for axis, dim in enumerate(array.dims) if dim not in kept)
    left = [dim for dim in array.dims if dim in kept]
    starts = range(0, ds.sizes["path"], _BLOCK)
    blocks = [array.isel(path=slice(i, i + _BLOCK)).values.sum(axis=axes, dtype=np.float64) for i in starts]
    return np.concatenate(blocks, axis=left.index("path")).transpose([left.index(dim) for dim in kept])
