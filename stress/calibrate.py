"""Fit shocks to price tables: a Merton jump-diffusion and a Brownian motion, with standard errors.

An hour's log-return of asset a is a mixture; jumps that all assets share are read off the leader, BTC:

    r_a = beta_a J + J_a + e_a     J ~ N(mean, sd^2) with chance p, J_a ~ N(., .) with chance p_a, e ~ N(0, S)

1. Hours in which the leader moves by more than `THRESHOLD` truncated standard deviations hold a jump. Their number, sum
   and sum of squares give p, mean and sd: maximum likelihood of a normal seen only beyond the threshold, so that jumps
   below it are counted in.
2. Slopes through zero at those hours give the betas, freed of the diffusion in them.
3. Own jumps come by the same rule from what the leader does not explain in the other hours.
4. S is what the jumps leave of the realised second moments, so every asset's total variance is met exactly. Bipower
   variation, which knows nothing of this, is reported beside it, and so are counts of large moves.
5. Standard errors: a bootstrap of blocks of ten days, because volatility comes in weeks.

The model has no changing volatility: what turbulent weeks do to the tail goes into the jumps. A jump that straddles two
hours is seen as two smaller ones; spread over up to 27 minutes that bends intensity and size by less than a tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import ndtr

from stress.prices import Bars, iso
from stress.scenarios import Gbm, Merton
from stress.spec import InputError, validate

THRESHOLD = 5.0  # a return is a jump beyond this many truncated standard deviations: one normal hour in 200 years
FEWEST = 20  # with fewer detected common jumps there is no fit; own jumps with fewer are left out
ASSUMED_MINUTES = (1.0, 15.0)  # spread of a jump where no minute prices are given [min]
_BLOCK_HOURS, _REPLICATES, _SEED = 240, 200, 20210519
_HOUR, _DAY = 3600, 24


@dataclass(frozen=True)
class Estimate:
    """What one sample of hourly returns says; the leader is the first asset."""

    chance: float
    """Of a common jump in an hour."""
    mean: float
    sd: float
    beta: Float64[np.ndarray, " asset"]
    own: Float64[np.ndarray, "asset 3"]
    """Chance in an hour, mean and sd of own jumps; 0 where there are none."""
    covariance: Float64[np.ndarray, "asset asset"]
    """Of the diffusion over an hour."""
    total: Float64[np.ndarray, "asset asset"]
    """Second moments of an hour's returns."""
    threshold: float
    detected: int

    def numbers(self) -> dict[str, np.ndarray]:
        """By the names of the config: what gets standard errors."""
        return {
            **volatility(self.covariance),
            "per_day": np.array(_DAY * self.chance),
            "mean": np.array(self.mean),
            "sd": np.array(self.sd),
            "beta": self.beta,
            "own": self.own * [_DAY, 1, 1],
            "total": np.sqrt(_DAY * np.diag(self.total)),
        }


def volatility(covariance: Float64[np.ndarray, "asset asset"]) -> dict[str, np.ndarray]:
    """Daily volatility and correlation of an hourly covariance, by the names of the config."""
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    return {"daily_volatility": np.sqrt(_DAY) * sd, "correlation": covariance / np.outer(sd, sd)}


def truncated_sd(values: Float64[np.ndarray, " n"]) -> float:
    """Standard deviation about zero of the values within `THRESHOLD` times itself."""
    last, sd = np.inf, float(np.sqrt(np.mean(values**2)))
    while sd < last:
        last, sd = sd, float(np.sqrt(np.mean(values[np.abs(values) <= THRESHOLD * sd] ** 2)))
    return sd


def fit_tail(values: Float64[np.ndarray, " n"], threshold: float) -> tuple[float, float, float]:
    """A normal seen only beyond +-threshold, by maximum likelihood: (chance of it, mean, sd)."""
    seen = values[np.abs(values) > threshold] / threshold
    first, second = float(np.mean(seen)), float(np.mean(seen**2))

    def beyond(mean: float, sd: float) -> float:
        return float(ndtr((-1 - mean) / sd) + ndtr((mean - 1) / sd))

    def loss(at: np.ndarray) -> float:
        mean, sd = float(at[0]), float(np.exp(at[1]))
        return (second - 2 * mean * first + mean**2) / (2 * sd**2) + at[1] + np.log(beyond(mean, sd))

    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=((-1, 1), (-1.6, 1.6))).x
    mean, sd = float(best[0]), float(np.exp(best[1]))
    return len(seen) / len(values) / beyond(mean, sd), mean * threshold, sd * threshold


def estimate(returns: Float64[np.ndarray, "hour asset"], own: np.ndarray | None = None) -> Estimate:
    """The fit to one sample, as the head of this module says; `own` marks assets with own jumps, None finds them."""
    leader = returns[:, 0]
    total = returns.T @ returns / len(returns)
    threshold = THRESHOLD * truncated_sd(leader)
    big = np.abs(leader) > threshold
    chance, mean, spread = fit_tail(leader, threshold)
    seen = spread**2 + mean**2  # second moment of an hour with a jump, diffusion included
    jump = (seen - total[0, 0]) / (1 - chance)  # the same without the diffusion
    slope = leader[big] @ returns[big] / (leader[big] @ leader[big])
    beta = (slope * seen - total[0]) / (seen - total[0, 0])
    rest = (returns - np.outer(leader, leader[~big] @ returns[~big] / (leader[~big] @ leader[~big])))[~big]
    jumps = np.zeros((returns.shape[1], 3))
    for a in range(1, returns.shape[1]):
        bound = THRESHOLD * truncated_sd(rest[:, a])
        count = int((np.abs(rest[:, a]) > bound).sum())
        if count >= FEWEST if own is None else own[a] and count > 0:
            p, m, s = fit_tail(rest[:, a], bound)
            square = (s**2 + m**2 - np.mean(rest[:, a] ** 2)) / (1 - p)
            jumps[a] = p, m, np.sqrt(max(square - m**2, 0.0))
    extra = np.diag(jumps[:, 0] * (jumps[:, 1] ** 2 + jumps[:, 2] ** 2))
    sd = float(np.sqrt(max(jump - mean**2, 0.0)))
    covariance = total - chance * jump * np.outer(beta, beta) - extra
    return Estimate(chance, mean, sd, beta, jumps, covariance, total, threshold, int(big.sum()))


def standard_errors(
    returns: Float64[np.ndarray, "hour asset"], numbers: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Standard deviation of each of the numbers over resampled blocks of ten days; the same on every call."""
    rng = np.random.default_rng(_SEED)
    hours = len(returns)
    draws = []
    for _ in range(_REPLICATES):
        starts = rng.integers(0, hours, -(-hours // _BLOCK_HOURS))
        rows = (starts[:, None] + np.arange(_BLOCK_HOURS)).ravel()[:hours] % hours
        draws.append(numbers(returns[rows]))
    return {name: np.std([draw[name] for draw in draws], axis=0, ddof=1) for name in draws[0]}


def hourly_returns(
    hourly: Mapping[str, Bars], level: float | None = None
) -> tuple[Float64[np.ndarray, "hour asset"], str, float]:
    """Log-returns from close to close over the hours that all assets have, the period, and what they were scaled by."""
    common: Any = None
    for bars in hourly.values():
        if bars.bar_seconds != _HOUR:
            raise InputError(f"{bars.name}: has bars of {bars.bar_seconds} s, expected 3600. Give hourly prices.")
        common = bars.time if common is None else np.intersect1d(common, bars.time)
    logs = np.stack([np.log(bars.close[np.isin(bars.time, common)]) for bars in hourly.values()], axis=1)
    joined = np.diff(common) == _HOUR
    if joined.sum() < 2 * _BLOCK_HOURS:
        names = ", ".join(hourly)
        raise InputError(f"prices of {names}: share {joined.sum()} hours, expected {2 * _BLOCK_HOURS}. Give more.")
    returns = np.diff(logs, axis=0)[joined]
    scale = 1.0 if level is None else level / float(np.sqrt(_DAY * np.mean(returns[:, 0] ** 2)))
    return returns * scale, f"{iso(common[0])} to {iso(common[-1] + _HOUR)}", scale


def jump_minutes(minute: Sequence[Bars], threshold: float) -> Float64[np.ndarray, " jump"]:
    """Length of each large move of an hour [min]: twice the shortest time in which half of it happened.

    Moves: the largest non-overlapping changes over 60 minutes beyond the threshold. For a move that is even in time
    this is its duration; where half comes fast and half slowly it goes with the fast half, which an engine has to take.
    """
    found = []
    for bars in minute:
        if bars.bar_seconds != 60:
            raise InputError(f"{bars.name}: has bars of {bars.bar_seconds} s, expected 60. Give minute prices.")
        logs = np.log(bars.close)
        move = np.where(bars.time[60:] - bars.time[:-60] == _HOUR, np.abs(logs[60:] - logs[:-60]), 0.0)
        while move.size and move.max() > threshold:
            i = int(move.argmax())
            path = (logs[i : i + 61] - logs[i]) * np.sign(logs[i + 60] - logs[i])
            most = np.array([0.0, *(np.max(path[w:] - path[:-w]) for w in range(1, 61))])
            w = int(np.argmax(most >= path[-1] / 2))
            found.append(2 * (w - 1 + (path[-1] / 2 - most[w - 1]) / (most[w] - most[w - 1])))
            move[max(0, i - 60) : i + 61] = 0.0
    return np.array(found)


def spread_range(minutes: Float64[np.ndarray, " jump"]) -> Float64[np.ndarray, " end"]:
    """Ends of the uniform with the same mean and sd, within 1 and 60 minutes [min]."""
    half = np.sqrt(3) * np.std(minutes)
    return np.clip([np.mean(minutes) - half, np.mean(minutes) + half], 1.0, 60.0)


def _spread(minute: Sequence[Bars], threshold: float) -> dict[str, Any]:
    found = jump_minutes(minute, threshold)
    if len(found) < FEWEST:
        why = f"{len(found)} moves in minute prices" if minute else "no minute prices"
        return {"minutes": ASSUMED_MINUTES, "how": f"assumed ({why})", "error": None}
    rng = np.random.default_rng(_SEED)
    draws = [spread_range(rng.choice(found, len(found))) for _ in range(_REPLICATES)]
    how = f"measured on {len(found)} moves of an hour in minute prices"
    return {"minutes": _round(spread_range(found), 2), "how": how, "error": _round(np.std(draws, axis=0), 2)}


def _round(value: Any, digits: int = 4) -> Any:
    """Significant digits; arrays become lists."""
    if np.ndim(value):
        return [_round(part, digits) for part in value]
    return float(f"{float(value):.{digits}g}")


def total_volatility(shock: Gbm | Merton) -> dict[str, float]:
    """Standard deviation of a day's log-return, jumps included, by asset: the `daily_volatility` of [assets]."""
    variance = {asset: sigma**2 for asset, sigma in shock.daily_volatility.items()}
    if isinstance(shock, Merton):
        square = shock.common.per_day * (shock.common.mean**2 + shock.common.sd**2)
        for asset in variance:
            variance[asset] += square * shock.common.beta.get(asset, 0.0) ** 2
        for asset, jumps in shock.own.items():
            variance[asset] += jumps.per_day * (jumps.mean**2 + jumps.sd**2)
    return {asset: float(np.sqrt(value)) for asset, value in variance.items()}


def fit_gbm(hourly: Mapping[str, Bars], level: float | None = None) -> tuple[Gbm, dict[str, Any]]:
    """A Brownian motion with all of the realised variance and correlation, jumps included, and its report."""
    returns, period, scale = hourly_returns(hourly, level)
    numbers = (_second(returns), standard_errors(returns, _second))
    tables = [_diffusion(list(hourly), part) for part in numbers]
    report = {"period": period, "hours": len(returns), "scale": scale, "standard_errors": tables[1]}
    return validate(Gbm, {"kind": "gbm", **tables[0]}, "fit"), report


def _diffusion(assets: Sequence[str], numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    named = dict(zip(assets, _round(numbers["daily_volatility"]), strict=True))
    return {"daily_volatility": named, "correlation": _round(numbers["correlation"], 3)}


def _second(returns: Float64[np.ndarray, "hour asset"]) -> dict[str, np.ndarray]:
    return volatility(returns.T @ returns / len(returns))


def _fit(returns: Float64[np.ndarray, "hour asset"]) -> tuple[Estimate, dict[str, np.ndarray]]:
    """The fit and its standard errors, refused where the sample cannot carry one."""
    big = np.abs(returns[:, 0]) > THRESHOLD * truncated_sd(returns[:, 0])
    if big.sum() < FEWEST:
        raise InputError(f"prices: show {big.sum()} common jumps, expected {FEWEST} or more. Give a longer period.")
    fit = estimate(returns)
    if np.linalg.eigvalsh(fit.covariance)[0] <= 0:
        raise InputError("prices: jumps explain more than the variance there is, expected less. Give a longer period.")
    return fit, standard_errors(returns, lambda sample: estimate(sample, fit.own[:, 0] > 0).numbers())


def fit_merton(
    hourly: Mapping[str, Bars], minute: Sequence[Bars] = (), level: float | None = None
) -> tuple[Merton, dict[str, Any]]:
    """A jump-diffusion and its report.

    Args:
        hourly: Hourly bars by asset; the first asset is the leader, whose jumps are the common ones.
        minute: Minute bars of the leader, for the spread of a jump.
        level: Total daily volatility of the leader to which all returns are scaled first; None leaves them [1].
    """
    assets = list(hourly)
    returns, period, scale = hourly_returns(hourly, level)
    fit, errors = _fit(returns)
    spread = _spread(minute, fit.threshold / scale)
    tables = [_merton(assets, numbers, fit) for numbers in (fit.numbers(), errors)]
    tables[0]["common"]["minutes"] = list(spread["minutes"])
    if spread["error"] is not None:
        tables[1]["common"]["minutes"] = spread["error"]
    shock = validate(Merton, {"kind": "merton", **tables[0]}, "fit")
    facts = {"period": period, "hours": len(returns), "scale": scale, "standard_errors": tables[1]}
    jumps = {"threshold": fit.threshold, "detected": fit.detected, "spread": spread["how"]}
    checks = {"check": _check(assets, returns, shock, errors), "tail": _tail(returns[:, 0], fit)}
    return shock, {**facts, **jumps, **checks}


def _merton(assets: Sequence[str], numbers: Mapping[str, np.ndarray], fit: Estimate) -> dict[str, Any]:
    """The numbers, or their standard errors, in the shape of the spec."""
    common = {name: _round(numbers[name]) for name in ("per_day", "mean", "sd")}
    own = {
        asset: dict(zip(("per_day", "mean", "sd"), _round(numbers["own"][a]), strict=True))
        for a, asset in enumerate(assets)
        if fit.own[a, 0] > 0
    }
    beta = dict(zip(assets, _round(numbers["beta"]), strict=True))
    return {**_diffusion(assets, numbers), "common": {**common, "beta": beta}, "own": own}


def _check(assets: Sequence[str], returns: np.ndarray, shock: Merton, errors: Mapping[str, Any]) -> dict[str, Any]:
    """Daily volatility by asset: of the hours, of the fit, its error, by bipower variation, and from day to day."""
    fitted = total_volatility(shock)
    days = returns[: len(returns) // _DAY * _DAY].reshape(-1, _DAY, len(assets)).sum(axis=1)
    bipower = np.sqrt(_DAY * np.pi / 2 * np.mean(np.abs(returns[1:] * returns[:-1]), axis=0))
    columns = {
        "realised": np.sqrt(_DAY * np.mean(returns**2, axis=0)),
        "fitted": np.array([fitted[asset] for asset in assets]),
        "error": errors["total"],
        "bipower": bipower,
        "day_to_day": np.sqrt(np.mean(days**2, axis=0)),
    }
    return {asset: {name: float(part[a]) for name, part in columns.items()} for a, asset in enumerate(assets)}


def _tail(leader: np.ndarray, fit: Estimate) -> list[tuple[float, int, float]]:
    """Hours in which the leader moved by more than a size: (size, seen, expected by the fit)."""
    rows = []
    for size in fit.threshold * np.array([0.75, 1.0, 1.25, 1.5, 2.0, 2.5]):
        parts = ((1 - fit.chance, 0.0, fit.covariance[0, 0]), (fit.chance, fit.mean, fit.sd**2 + fit.covariance[0, 0]))
        share = sum(p * (ndtr((-size - m) / v**0.5) + ndtr((m - size) / v**0.5)) for p, m, v in parts)
        rows.append((float(size), int((np.abs(leader) > size).sum()), float(len(leader) * share)))
    return rows
