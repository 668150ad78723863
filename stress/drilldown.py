"""One path of a finished run, step by step, computed again from the run's config and seed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.config import Run
from stress.devices import Devices, Kind, choose
from stress.digests import digest
from stress.results import coords, read, sound
from stress.run import laid_out
from stress.spec import InputError, validate
from stress.suite_run import run_or_cell
from stress.variables import COORDINATES, VARIABLES, Variable

if TYPE_CHECKING:
    import xarray as xr

FLOWS = (
    "liquidation_volume", "absorbed_volume", "first_round_volume", "deficit", "surplus", "socialised_loss",
    "adl_volume", "adl_haircut", "collateral_sold", "accounts_liquidated",
)  # fmt: skip
"""What adds up over the steps of an hour to what the run keeps of it."""
STOCKS = ("fund_equity", "vault_equity", "open_interest", "index_close")
"""What at the last step of an hour is what the run keeps of it."""
APART = 1e-3
"""Most of an hour's volume by which the steps may differ from what the run kept [1]."""

_MARKET = ("step", "venue", "asset")
_MORE = {
    "mark": Variable("mark", _MARKET, "float64", "USD", "mark price at the end of the step"),
    "last": Variable("last", _MARKET, "float64", "USD", "price of the perpetual's last trade, before what is unwound"),
    "index": Variable("index", ("step", "asset"), "float64", "USD", "index price at the end of the step"),
    "fund_start": Variable("fund_start", ("pool",), "float64", "USD", "insurance fund's equity at the start"),
}


def explain(store: str | Path, path: int | str = "worst", *, device: Kind = "auto") -> xr.Dataset:
    """What happened on one path of a finished run, step by step.

    The block of paths that was simulated together is simulated again, so that the steps are those of the run but for
    rounding; `largest_difference` says by how much they are apart from what the run kept of its hours.

    Args:
        store: Store of the run, or SUITE#SCENARIO/POLICY, with /SEED where the suite has several.
        path: Its number; `worst`, that with the largest hour; or `fund`, that on which insurance funds fall most.
        device: Where to compute.

    Returns:
        Variables as in a run, with `step` in place of `path` and `hour`, and prices [USD]; without the days of
        `[behaviour.recovery]`. The attribute `weight` is the path's likelihood ratio, 1 but for importance sampling.

    Raises:
        InputError: There is no such run or path, or this program no longer computes what is in the store.
        RunError: The store is damaged.
    """
    ds = run_or_cell(store)
    run, number = _config(store, ds), choose_path(ds, path)
    arrays, start = _steps(run, number, device)
    kept = ds.sel(path=number)
    found = _dataset(run, arrays, start)
    apart = largest_difference(found, kept)
    if not apart <= APART:
        raise InputError(
            f"{store}: path {number} computed again differs by {100 * apart:.2g} % of an hour's volume from what is "
            f"kept, expected at most {100 * APART:g} %. The run is of version {ds.attrs['liqstress_version']} "
            f"({str(ds.attrs['git_commit'])[:7]}): run its config again."
        )
    return found.assign_attrs(
        name=run.name, path=number, seed=run.seed, step_seconds=run.step_seconds, largest_difference=apart,
        weight=float(np.exp(kept["log_weight"])), recovery_days=run.recovery_days,
    )  # fmt: skip


def choose_path(ds: xr.Dataset, path: int | str) -> int:
    """The number of a path, from itself or from what it is known for.

    Raises:
        InputError: There is no such path.
    """
    from stress.absorbers import falls
    from stress.results import by_path

    paths = ds.sizes["path"]
    wanted = str(path).strip()
    if wanted.isdecimal() and int(wanted) < paths:
        return int(wanted)
    kept = sound(ds)
    if wanted == "worst":
        place = by_path(kept, "liquidation_volume", "hour").max(axis=1).argmax()
    elif wanted == "fund":
        place = falls(kept).argmax()
    else:
        raise InputError(
            f"--path is {wanted!r}, expected 'worst', 'fund' or a number from 0 to {paths - 1}, as the run has "
            f"{paths:,} paths. Give one of these."
        )
    return int(kept["path"].values[place])


def largest_difference(steps: xr.Dataset, kept: xr.Dataset) -> float:
    """How far sums of steps are from the hours of a run, over the path's largest hourly volume [1].

    Args:
        steps: From `explain`.
        kept: The same path in the run, in what it keeps; volumes of liquidation at least.
    """
    hours = kept.sizes["hour"]
    scale = max(float(by_hour(steps["liquidation_volume"].values, hours).sum(axis=(1, 2, 3)).max()), 1.0)
    apart = []
    for name in FLOWS:
        if VARIABLES[name].units == "USD" and (name in kept or not apart):
            apart.append(np.max(np.abs(by_hour(steps[name].values, hours) - read(kept, name).values)) / scale)
    if "fund_equity" in kept:
        ends = steps["fund_equity"].values.reshape(hours, -1, steps.sizes["pool"])[:, -1]
        apart.append(np.max(np.abs(ends - kept["fund_equity"].values)) / max(scale, float(np.abs(ends).max())))
    return float(max(apart))


def by_hour(values: np.ndarray, hours: int) -> np.ndarray:
    """Sums over the steps of each hour, in 64 bits."""
    return values.reshape(hours, -1, *values.shape[1:]).sum(axis=1, dtype=np.float64)


def _config(store: str | Path, ds: xr.Dataset) -> Run:
    """The config of a finished run.

    Raises:
        InputError: It is no config of this version, or it or a file that it names now means something else.
    """
    if "," in str(ds.attrs["seed"]):
        raise InputError(
            f"{store}: has the paths of seeds {ds.attrs['seed']}, expected those of one. Give {store}/SEED."
        )
    version = f"version {ds.attrs['liqstress_version']} ({str(ds.attrs['git_commit'])[:7]})"
    try:
        run = validate(Run, json.loads(ds.attrs["config"]), str(store))
    except InputError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{first} The run was made by {version}: explain it with that, or run it again.") from None
    kept, now = ds.attrs.get("config_sha256"), digest(run)
    if kept is not None and now != kept:
        raise InputError(
            f"{store}: config_sha256 is {str(kept)[:12]}, expected {now[:12]}: a file that its config names "
            f"has changed since, or the config means something else than to {version}. Bring back the files, or run it "
            "again."
        )
    return run


def _steps(run: Run, path: int, device: Kind) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of every step of a path, and the starting prices [USD]."""
    import jax

    found = choose(device)
    alone = Devices(found.kind, found.all[:1])
    built, world, size = laid_out(run, alone)
    given = jax.device_put((world, built.ladders, built.shock, built.accounts), alone.all[0])
    first, place = divmod(path, size)
    numbers = np.uint32(run.seed), np.int32(run.paths), np.int32(first * size), np.int32(place)
    return jax.device_get(_program(size)(*numbers, *given)), built.start_price


@functools.cache
def _program(size: int) -> Callable[..., Any]:
    """Every step of one path in a block of so many, compiled: of the seed, the number of paths in all, the block's
    first one and the place in it, and what all paths share."""
    import jax
    import jax.numpy as jnp
    from stress_kernels.simulate import path_keys, trace

    def steps(
        seed: Any, paths: Any, first: Any, place: Any, world: Any, ladders: Any, shock: Any, accounts: Any
    ) -> Any:
        log = jnp.where(first + jnp.arange(size) < paths, shock.paths(path_keys(seed, first, size)), 0.0)
        return trace(log, ladders, world, place, accounts)

    return jax.jit(steps)


def _dataset(run: Run, arrays: Mapping[str, np.ndarray], start: np.ndarray) -> xr.Dataset:
    import xarray as xr

    labels = coords(run)
    labels = {name: labels[name] for name in ("venue", "asset", "side", "layer", "pool")}
    tables = {name: _by_step(VARIABLES[name]) for name in (*FLOWS, *STOCKS)} | _MORE
    prices = {name: start * np.exp(np.asarray(arrays[name], np.float64)) for name in ("mark", "last")}
    prices["index"] = start * np.asarray(arrays["index_close"], np.float64)
    cash = [pool.equity_usd for venue in run.venues.values() for pool in venue.pools]
    values = {**arrays, **prices, "fund_start": cash}
    variables = {
        name: (table.dims, np.asarray(values[name]).astype(table.dtype), table.attrs) for name, table in tables.items()
    }
    axes: dict[str, Any] = {name: ((name,), of, COORDINATES[name].attrs) for name, of in labels.items()}
    minutes = (np.arange(len(prices["index"])) + 1) * run.step_seconds / 60
    axes["step"] = ("step", minutes, {"units": "min", "long_name": "end of the step, since the start"})
    return xr.Dataset(variables, axes)


def _by_step(variable: Variable) -> Variable:
    return replace(variable, dims=("step", *variable.dims[2:]))
