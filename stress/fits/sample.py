"""What all fits share: hourly returns of price tables, block-bootstrap errors, and sums that a report repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from stress.diffusions import Diffusion, total_volatility
from stress.prices import Bars, iso
from stress.spec import InputError

THRESHOLD = 5.0  # a return is a jump beyond this many truncated standard deviations: one normal hour in 200 years
FEWEST = 20  # with fewer detected common jumps there is no fit; own jumps with fewer are left out
BLOCK_HOURS, REPLICATES, SEED = 240, 200, 20210519
HOUR, DAY = 3600, 24
FROM_FILES = "A run draws hours from price files, in prices.dir or by --prices DIR, that hold all from start to until."
_ONE_SIGMA = (0.1587, 0.8413)


def hourly_returns(
    hourly: Mapping[str, Bars], level: float | None = None
) -> tuple[Float64[np.ndarray, "hour asset"], str, float]:
    """Log-returns from close to close over the hours that all assets have, the period, and what they were scaled by."""
    common: Any = None
    for bars in hourly.values():
        if bars.bar_seconds != HOUR:
            raise InputError(f"{bars.name}: has bars of {bars.bar_seconds} s, expected 3600. Give hourly prices.")
        common = bars.time if common is None else np.intersect1d(common, bars.time)
    logs = np.stack([np.log(bars.close[np.isin(bars.time, common)]) for bars in hourly.values()], axis=1)
    joined = np.diff(common) == HOUR
    if joined.sum() < 2 * BLOCK_HOURS:
        names = ", ".join(hourly)
        raise InputError(f"prices of {names}: share {joined.sum()} hours, expected {2 * BLOCK_HOURS}. Give more.")
    returns = np.diff(logs, axis=0)[joined]
    scale = 1.0 if level is None else level / float(np.sqrt(DAY * np.mean(returns[:, 0] ** 2)))
    return returns * scale, f"{iso(common[0])} to {iso(common[-1] + HOUR)}", scale


def standard_errors(
    rows: Float64[np.ndarray, "hour column"],
    numbers: Callable[[np.ndarray], dict[str, np.ndarray]],
    *,
    by_quantiles: bool = False,
) -> dict[str, np.ndarray]:
    """Standard deviation of each of the numbers over resampled blocks of ten days; the same on every call.

    `by_quantiles` takes half the distance between the 16 and the 84 % quantile instead: the same for what is normal,
    and finite for what a few resamples do not hold at all.
    """
    rng = np.random.default_rng(SEED)
    hours = len(rows)
    draws = []
    for _ in range(REPLICATES):
        starts = rng.integers(0, hours, -(-hours // BLOCK_HOURS))
        order = (starts[:, None] + np.arange(BLOCK_HOURS)).ravel()[:hours] % hours
        draws.append(numbers(rows[order]))
    gathered = {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
    if by_quantiles:
        return {
            name: np.asarray(np.ptp(np.quantile(x, _ONE_SIGMA, axis=0), axis=0) / 2) for name, x in gathered.items()
        }
    return {name: np.asarray(np.std(x, axis=0, ddof=1)) for name, x in gathered.items()}


def second_moments(returns: Float64[np.ndarray, "hour asset"]) -> Float64[np.ndarray, "asset asset"]:
    """Mean products of an hour's returns: no mean is taken off."""
    return returns.T @ returns / len(returns)


def volatility(covariance: Float64[np.ndarray, "asset asset"]) -> dict[str, np.ndarray]:
    """Daily volatility and correlation of an hourly covariance, by the names of the config."""
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    return {"daily_volatility": np.sqrt(DAY) * sd, "correlation": covariance / np.outer(sd, sd)}


def truncated_sd(values: Float64[np.ndarray, " n"]) -> float:
    """Standard deviation about zero of the values within `THRESHOLD` times itself."""
    last, sd = np.inf, float(np.sqrt(np.mean(values**2)))
    while sd < last:
        last, sd = sd, float(np.sqrt(np.mean(values[np.abs(values) <= THRESHOLD * sd] ** 2)))
    return sd


def unexplained(
    returns: Float64[np.ndarray, "hour asset"], calm: Bool[np.ndarray, " hour"]
) -> Float64[np.ndarray, "calm asset"]:
    """What the leader does not explain of the calm hours, by a slope through zero in these."""
    quiet = returns[calm]
    leader = quiet[:, 0]
    return quiet - np.outer(leader, leader @ quiet / (leader @ leader))


def rounded(value: Any, digits: int = 4) -> Any:
    """Significant digits; arrays become lists."""
    if np.ndim(value):
        return [rounded(part, digits) for part in value]
    return float(f"{float(value):.{digits}g}")


def by_asset(assets: Sequence[str], values: np.ndarray, digits: int = 4) -> dict[str, float]:
    """A table of rounded numbers."""
    return dict(zip(assets, rounded(values, digits), strict=True))


def diffusion_table(assets: Sequence[str], numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a `Diffusion`."""
    return {
        "daily_volatility": by_asset(assets, numbers["daily_volatility"]),
        "correlation": rounded(numbers["correlation"], 3),
    }


def check(
    assets: Sequence[str], returns: Float64[np.ndarray, "hour asset"], shock: Diffusion, errors: np.ndarray
) -> dict[str, dict[str, float]]:
    """Daily volatility by asset: of the hours, its error, of the fit, from day to day, and by bipower variation."""
    fitted = total_volatility(shock)
    days = returns[: len(returns) // DAY * DAY].reshape(-1, DAY, len(assets)).sum(axis=1)
    columns = {
        "realised": np.sqrt(DAY * np.mean(returns**2, axis=0)),
        "error": errors,
        "fitted": np.array([fitted[asset] for asset in assets]),
        "day_to_day": np.sqrt(np.mean(days**2, axis=0)),
        "bipower": np.sqrt(DAY * np.pi / 2 * np.mean(np.abs(returns[1:] * returns[:-1]), axis=0)),
    }
    return {asset: {name: float(part[a]) for name, part in columns.items()} for a, asset in enumerate(assets)}


def check_notes(table: Mapping[str, Mapping[str, float]]) -> list[str]:
    """`check` in words."""
    lines = ["Daily volatility, jumps included, for [assets.X].daily_volatility; bipower variation sees few jumps:"]
    for asset, row in table.items():
        lines.append(
            f"  {asset:5} realised {row['realised']:.4f} +- {row['error']:.4f}, fitted {row['fitted']:.4f}; "
            f"from day to day {row['day_to_day']:.4f}; bipower {row['bipower']:.4f}"
        )
    return lines


def tail(
    leader: Float64[np.ndarray, " hour"], threshold: float, beyond: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[float, int, float]]:
    """Hours in which the leader moved by more than a size: (size, seen, expected by the fit).

    Args:
        leader: Hourly returns of the first asset.
        threshold: Sizes are 0.75 to 2.5 times this [1].
        beyond: The fit's chance of an hour beyond each of some sizes.
    """
    sizes = threshold * np.array([0.75, 1.0, 1.25, 1.5, 2.0, 2.5])
    expected = len(leader) * beyond(sizes)
    seen = (np.abs(leader)[:, None] > sizes).sum(axis=0)
    return [(float(s), int(n), float(e)) for s, n, e in zip(sizes, seen, expected, strict=True)]


def tail_notes(rows: Sequence[tuple[float, int, float]]) -> list[str]:
    """`tail` in words."""
    lines = ["Hours in which the first asset moved by more than: seen, expected by the fit"]
    return [*lines, *(f"  {size:.1%}: {seen}, {expected:.1f}" for size, seen, expected in rows)]
