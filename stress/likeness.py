"""How a shock resembles recorded prices: moments, tails, how assets fall together, and the memory of volatility.

Everything is of hourly log-returns, `returns` of shape (segment, hour, asset): hours of one segment follow each other,
those of different segments do not. Recorded hours are cut into segments of ten days, which are also what is resampled
for intervals; each path is a segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from stress_kernels.simulate import path_keys

from stress.fits.sample import BLOCK_HOURS, DAY, HOUR, SEED
from stress.history import recorded_log_prices
from stress.recorded import BlockBootstrap, Replay, Window
from stress.scenarios import Prescribed, Shock
from stress.shock import Grid, compile_shock
from stress.spec import InputError

Array = NDArray[np.float64]

FEATURES = {
    "volatility": "daily volatility from hours [%]",
    "day_to_day": "volatility of sums of 24 hours [%]",
    "kurtosis": "kurtosis of hours",
    "fall_99.9": "fall in the worst 0.1 % of hours [%]",
    "fall_99": "fall in the worst 1 % of hours [%]",
    "rise_99": "rise in the best 1 % of hours [%]",
    "rise_99.9": "rise in the best 0.1 % of hours [%]",
    "falls_together": "share of the first asset's worst 1 % of hours that are among this one's [%]",
    "rises_together": "the same for the best 1 % [%]",
    "memory_1h": "correlation of absolute returns with those of the next hour [%]",
    "memory_24h": "the same with those a day later [%]",
}
"""What `features` gives, in words."""
_RESAMPLES = 400


@dataclass(frozen=True)
class Interval:
    """A feature of recorded prices by asset, and the 95 % interval of it."""

    value: Array
    low: Array
    high: Array


def features(returns: Array) -> dict[str, Array]:
    """Each of `FEATURES` by asset."""
    _, hours, assets = returns.shape
    flat = returns.reshape(-1, assets)
    days = returns[:, : hours // DAY * DAY].reshape(len(returns), -1, DAY, assets).sum(axis=2).reshape(-1, assets)
    square = np.mean(flat**2, axis=0)
    worst, bad, good, best = np.quantile(flat, [0.001, 0.01, 0.99, 0.999], axis=0)
    down, up = flat < bad, flat > good
    return {
        "volatility": 100 * np.sqrt(DAY * square),
        "day_to_day": 100 * np.sqrt(np.mean(days**2, axis=0)),
        "kurtosis": np.mean(flat**4, axis=0) / square**2,
        "fall_99.9": -100 * worst,
        "fall_99": -100 * bad,
        "rise_99": 100 * good,
        "rise_99.9": 100 * best,
        "falls_together": 100 * down[down[:, 0]].mean(axis=0),
        "rises_together": 100 * up[up[:, 0]].mean(axis=0),
        "memory_1h": 100 * _memory(np.abs(returns), 1),
        "memory_24h": 100 * _memory(np.abs(returns), DAY),
    }


def _memory(size: Array, lag: int) -> Array:
    """Correlation of sizes a lag apart."""
    centred = size - size.mean(axis=(0, 1))
    return np.mean(centred[:, :-lag] * centred[:, lag:], axis=(0, 1)) / np.mean(centred**2, axis=(0, 1))


def recorded_features(returns: Array) -> dict[str, Interval]:
    """Features of recorded hours, (hour asset), with intervals from resampled segments of ten days."""
    hours = len(returns) // BLOCK_HOURS * BLOCK_HOURS
    segments = returns[len(returns) - hours :].reshape(-1, BLOCK_HOURS, returns.shape[1])
    rng = np.random.default_rng(SEED)
    drawn = [features(segments[rng.integers(0, len(segments), len(segments))]) for _ in range(_RESAMPLES)]
    found = features(segments)
    bounds = {name: np.quantile([each[name] for each in drawn], [0.025, 0.975], axis=0) for name in found}
    return {name: Interval(found[name], *bounds[name]) for name in found}


def simulated_returns(
    shock: Shock,
    assets: Sequence[str],
    prices: tuple[Path, Mapping[str, str]] | None = None,
    paths: int = 4096,
    hours: int = 48,
    seed: int = 1,
) -> Array:
    """Hourly log-returns of simulated paths, (path hour asset).

    Args:
        shock: Of any kind that is drawn.
        assets: The leader first.
        prices: Folder of price files and `prices.files`, where the shock draws from them.
        paths: How many.
        hours: Length of each [h].
        seed: Of the random numbers.
    """
    if isinstance(shock, Replay | Prescribed):
        raise InputError(f"shock.kind is '{shock.kind}', expected one that is drawn, as 'merton' is. Give another.")
    moved = assets if isinstance(shock, BlockBootstrap) else shock.assets()
    if missing := [asset for asset in assets if asset not in moved]:
        raise InputError(f"shock: does not move {', '.join(missing)}, expected {', '.join(assets)}. Change --assets.")
    recorded = None
    if isinstance(shock, Window) and prices is not None:
        recorded = recorded_log_prices(shock, prices[0], prices[1], assets, hours, HOUR)
    tables = jax.tree.map(jnp.asarray, compile_shock(shock, Grid(assets, hours, HOUR), recorded))
    log = jax.jit(lambda shock, keys: shock.paths(keys))(tables, path_keys(jnp.uint32(seed), jnp.int32(0), paths))
    return np.diff(np.asarray(log, np.float64), axis=0, prepend=0.0).transpose(2, 0, 1)


def table(recorded: Mapping[str, Interval], simulated: Mapping[str, Array], assets: Sequence[str]) -> Iterator[str]:
    """Lines: recorded features with their intervals, simulated ones, and whether these lie inside."""
    yield f"{'':5} {'recorded':>9} {'95 % interval':>16} {'simulated':>10}"
    for name, words in FEATURES.items():
        yield words
        given, drawn = recorded[name], simulated[name]
        for a, asset in enumerate(assets):
            if name.endswith("together") and a == 0:
                continue
            low, high, here = given.low[a], given.high[a], drawn[a]
            inside = "" if low <= here <= high else "  below" if here < low else "  above"
            yield f"  {asset:5} {given.value[a]:7.2f} {low:7.2f} to {high:6.2f} {here:9.2f}{inside}"


def as_json(
    recorded: Mapping[str, Interval], simulated: Mapping[str, Array], assets: Sequence[str], source: str
) -> str:
    """The same for programs: by feature, lists in the order of the assets."""
    rows = {
        name: {
            "what": words,
            "recorded": recorded[name].value.tolist(),
            "low": recorded[name].low.tolist(),
            "high": recorded[name].high.tolist(),
            "simulated": simulated[name].tolist(),
        }
        for name, words in FEATURES.items()
    }
    return json.dumps({"source": source, "assets": list(assets), "features": rows}, indent=1) + "\n"


def recorded_from_json(text: str) -> dict[str, Interval]:
    """Recorded features out of `as_json`."""
    rows = json.loads(text)["features"]
    return {name: Interval(*(np.array(row[key]) for key in ("recorded", "low", "high"))) for name, row in rows.items()}
