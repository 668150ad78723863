"""What a run puts out: one table that declares every variable, and how to build and open a dataset of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.spec import InputError, RunError

if TYPE_CHECKING:
    import xarray as xr

    from stress.config import Run

SIDES = ("long", "short")
"""Whose position was closed."""
LAYERS = ("book", "auction", "takeover", "adl", "remainder")
"""What absorbed it, in the order of the waterfall."""
WITH_VAULT = ("book", "auction", "takeover", "vault", "adl", "remainder")
"""The same where a venue of the run has a backstop vault."""
CELL = ("scenario", "policy", "seed")
"""Dims of a suite's cells, before those of a run."""
COMPLETE = "complete"
"""Attribute of a store: true once every path is in it."""
FEWEST_WORTH, LEAST_WORTH = 20, 0.05
"""Paths, and share of the paths, below which weights are refused: what they are worth by `effective_paths`."""
_BLOCK = 1024


@dataclass(frozen=True)
class Variable:
    """One output of a run.

    `dtype` is float64 for stocks of money that differences are taken of, and for likelihood ratios; float32, good
    to 1e-7, for flows of one hour and for shares. Take sums of flows over hours or paths in float64.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str

    @property
    def fill(self) -> float | int:
        """What a place reads as that was never written: NaN, or -1 among integers."""
        return np.nan if self.dtype.startswith("float") else -1

    @property
    def attrs(self) -> dict[str, Any]:
        """Units and meaning, as attributes of an array."""
        return {"units": self.units, "long_name": self.long_name}


def _variable(name: str, dims: str, dtype: str, units: str, long_name: str) -> Variable:
    return Variable(name, tuple(dims.split()), dtype, units, long_name)


_POOL, _VENUE, _MARKET = "path hour pool", "path hour venue", "path hour venue asset"
_TOP = (
    "of each market side's winners by profit (on ladders: of all its accounts by position at the start; on ladders and "
    "cross margin each), against the mark; NaN without a loss"
)
_KEEPS = "what the winner with the largest profit keeps of it in the hour's largest ADL of a market side, over"
_UNKNOWN = "NaN without a loss, and where it closed accounts on ladders"
_TABLE = (
    _variable("liquidation_volume", f"{_MARKET} side", "float32", "USD", "forced closings when executed"),
    _variable("absorbed_volume", f"{_MARKET} layer", "float32", "USD", "forced closings by what absorbed them"),
    _variable("deficit", _POOL, "float32", "USD", "what the insurance fund was asked to pay"),
    _variable("surplus", _POOL, "float32", "USD", "what the insurance fund received, fees included"),
    _variable("fund_equity", _POOL, "float64", "USD", "insurance fund's equity at the end of the hour"),
    _variable("fund_low", _POOL, "float64", "USD", "insurance fund's lowest equity within the hour"),
    _variable("fund_drawdown", "path pool", "float64", "USD", "largest peak-to-trough fall of the fund's equity"),
    _variable(
        "fund_exhausted_hour",
        "path pool",
        "float32",
        "h",
        "first hour with fund equity <= 0, in a fund that never has money the first of all; NaN if never",
    ),
    _variable("adl_volume", _MARKET, "float32", "USD", "winners' positions closed by auto-deleveraging"),
    _variable("adl_haircut", _MARKET, "float32", "USD", "what deleveraged winners lost against the mark"),
    _variable(
        "adl_accounts",
        _VENUE,
        "float32",
        "accounts",
        "accounts deleveraged, each once an hour; on ladders by rank parts of accounts, in every round",
    ),
    _variable("adl_top_share", _VENUE, "float32", "1", f"share of winners' losses borne by the top 1 %; {_TOP}"),
    _variable("adl_top_10_share", _VENUE, "float32", "1", f"share of winners' losses borne by the top 10 %; {_TOP}"),
    _variable("adl_top_keeps_of_total", _VENUE, "float32", "1", f"{_KEEPS} all losses in it; {_UNKNOWN}"),
    _variable(
        "adl_top_keeps_of_largest", _VENUE, "float32", "1", f"{_KEEPS} the largest loss of one account; {_UNKNOWN}"
    ),
    _variable("adl_overshoot", _MARKET, "float32", "USD", "haircut less what the losers lacked at the mark"),
    _variable(
        "adl_open_interest", _MARKET, "float32", "1", "share of the open interest before the hour that ADL closed"
    ),
    _variable("socialised_loss", _POOL, "float32", "USD", "losses taken from winners' unrealised profit"),
    _variable("collateral_sold", _MARKET, "float32", "USD", "coins of collateral sold in the spot market for debts"),
    _variable("vault_equity", _VENUE, "float64", "USD", "backstop vault's equity at the end of the hour; NaN if none"),
    _variable("vault_profit", _VENUE, "float32", "USD", "backstop vault's profit in the hour, a loss negative"),
    _variable("index_close", "path hour asset", "float32", "1", "index at the end of the hour over the start's"),
    _variable("index_low", "path hour asset", "float32", "1", "lowest index within the hour over the start's"),
    _variable("index_high", "path hour asset", "float32", "1", "highest index within the hour over the start's"),
    _variable("basis_low", _MARKET, "float32", "1", "perpetual's lowest premium over the index within the hour"),
    _variable("basis_high", _MARKET, "float32", "1", "perpetual's highest premium over the index within the hour"),
    _variable("open_interest", _MARKET, "float32", "USD", "one-sided, at the end of the hour, at the mark"),
    _variable("accounts_liquidated", _VENUE, "float32", "accounts", "accounts liquidated"),
    _variable("paused", _VENUE, "float32", "1", "share of the hour in which a circuit breaker stopped liquidations"),
    _variable("first_round_volume", _MARKET, "float32", "USD", "triggered in the first round of each step"),
    _variable("log_weight", "path", "float64", "1", "log likelihood ratio; 0 without importance sampling"),
    _variable("ledger_residual", "path", "float32", "1", "largest relative residual of the ledger at hourly ends"),
    _variable("status", "path", "int32", "1", "0: sound; other codes: the path failed"),
)

VARIABLES: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}
"""Every variable of a run, by name. In a market that a venue does not list, volumes and premiums are 0."""

COORDINATES: Mapping[str, Variable] = {
    "path": Variable("path", ("path",), "int64", "1", "number of the path; with the seed it fixes the random draws"),
    "hour": Variable("hour", ("hour",), "int64", "h", "hours since the start, at the beginning of the hour"),
    "venue": Variable("venue", ("venue",), "str", "", "exchange"),
    "asset": Variable("asset", ("asset",), "str", "", "underlying"),
    "side": Variable("side", ("side",), "str", "", "side of the position that was closed"),
    "layer": Variable("layer", ("layer",), "str", "", "what absorbed the forced order"),
    "pool": Variable("pool", ("pool",), "str", "", "insurance fund, as VENUE/NAME"),
}
"""Every dimension of a run, with what its labels are."""

OF_SUITES: Mapping[str, Variable] = {
    "scenario": Variable("scenario", ("scenario",), "str", "", "what happens"),
    "policy": Variable("policy", ("policy",), "str", "", "the rules under which it does"),
    "seed": Variable("seed", ("seed",), "int64", "1", "seed of the random draws"),
    "config": Variable("config", CELL, "str", "", "config of each cell, as JSON"),
}
"""The further dimensions of a suite, and what differs along them."""


def coords(run: Run) -> dict[str, np.ndarray]:
    """Labels along every dimension of what `run` puts out."""
    pools = [f"{venue}/{pool.name}" for venue, spec in run.venues.items() for pool in spec.pools]
    layers = WITH_VAULT if any(venue.vault for venue in run.venues.values()) else LAYERS
    return labels(run.paths, run.horizon_hours, list(run.venues), list(run.assets), pools, layers)


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
        arrays: Array of each variable by name; its axes are those of `VARIABLES`.
        coords: Labels along every dimension, as from `coords`.
        attrs: Attributes of the dataset.

    Raises:
        ValueError: A variable is not declared, or its shape is not what its dims and the labels say.
    """
    import xarray as xr

    checked = {name: conform(name, array, coords) for name, array in arrays.items()}
    variables = {name: (VARIABLES[name].dims, array, VARIABLES[name].attrs) for name, array in checked.items()}
    axes = {name: ((name,), array, COORDINATES[name].attrs) for name, array in coords.items()}
    return xr.Dataset(variables, axes, dict(attrs or {}))


def conform(name: str, array: np.ndarray, coords: Mapping[str, np.ndarray]) -> np.ndarray:
    """`array` in the declared dtype; `ValueError` unless its shape is what the declaration and the labels say."""
    if name not in VARIABLES:
        raise ValueError(f"{name!r} is not a declared variable; declare it in stress.results.")
    variable = VARIABLES[name]
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
    import xarray as xr

    path = Path(path)
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
    sampling = json.loads(ds.attrs.get("config", "{}")).get("sampling") or {}
    return {"antithetic": 2, "sobol": sampling.get("points", 1)}.get(sampling.get("kind", ""), 1)


def independent(ds: xr.Dataset) -> xr.Dataset:
    """The same run; `InputError` where paths are drawn in groups, of which an interval over paths would be wrong."""
    group = group_of(ds)
    if group > 1:
        raise InputError(
            f"{ds.attrs['name']}: paths are drawn in groups of {group}, expected independent ones for what is read off "
            "here. Run it without sampling, or with sampling.kind = 'importance'."
        )
    return ds


def by_path(ds: xr.Dataset, name: str, *keep: str) -> np.ndarray:
    """Sum of a variable over all dims but `path` and `keep`, in float64: [path, *keep].

    Reads a block of paths at a time, so that memory does not grow with the dims summed over.
    """
    array, kept = ds[name], ("path", *keep)
    axes = tuple(axis for axis, dim in enumerate(array.dims) if dim not in kept)
    left = [dim for dim in array.dims if dim in kept]
    starts = range(0, ds.sizes["path"], _BLOCK)
    blocks = [array.isel(path=slice(i, i + _BLOCK)).values.sum(axis=axes, dtype=np.float64) for i in starts]
    return np.concatenate(blocks, axis=left.index("path")).transpose([left.index(dim) for dim in kept])
