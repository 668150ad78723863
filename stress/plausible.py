"""How plausible a move is under a shock model: the density of the log-returns over a window.

A jump counts whole in the window in which it begins, however many minutes it takes. With S the covariance of the
diffusion a day, and numbers of jumps Poisson:

    gbm         N(0, S t)
    merton      sum over the numbers n of common and n_i of own jumps of
                N(n m beta + n_i m_i e_i, S t + n s^2 beta beta' + n_i s_i^2 e_i e_i')
    kou         common jumps: their sum by narrow normals a regular distance apart, weighted by the exponential laws;
                own jumps: at most one in a window, a normal convolved with an exponential in closed form
    student_t   the t of an hour, of which the window is a part

Logs are computed throughout, as densities of far moves underflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from stress.diffusions import Diffusion, ExponentialJumps, Gbm, Kou, Merton, StudentT
from stress.spec import InputError, Spec

Array = NDArray[np.float64]

MOST_JUMPS = 10
"""Jumps in a window that are counted, common and own together, where sizes are normal."""
MOST_COMMON = 4
"""The same of common jumps where sizes are exponential."""
FARTHEST = 1.5
"""Sum of exponential sizes up to which the mixture reaches [log]."""
_APART, _BLUR = 0.75, 0.6
"""Distance of the normals over the smaller mean, and their standard deviation over the distance: the mixture then waves
by 0.2 % about the exponential law, but for the innermost mean."""
_MINUTES = 1440.0


@dataclass(frozen=True)
class Own:
    """An exponential jump of one asset that may come on top of any component."""

    asset: int
    log_odds: float
    """Log of the chance of one over that of none."""
    size: float
    """Mean log size, negative downwards."""


@dataclass(frozen=True)
class Density:
    """Of a law at moves."""

    log: Array
    """(p)"""
    gradient: Array
    """Of the log, (a p)."""
    local: Array
    """Covariance of the components to which the moves are due, (p a a)."""
    jumps: Array
    """Expected number of jumps, given the move (p)."""


@dataclass(frozen=True)
class Law:
    """A mixture of multivariate normals, or a single multivariate t; `k` components over assets `a`."""

    log_weight: Array
    """(k)"""
    mean: Array
    """(k a)"""
    kind: NDArray[np.int64]
    """Which covariance each component has, (k)."""
    scale: Array
    """Covariances; of a t, its scale matrix, (c a a)."""
    jumps: Array
    """Number of jumps of each component, (k)."""
    freedom: float = np.inf
    """Degrees of freedom; infinite for normals."""
    own: tuple[Own, ...] = ()

    @cached_property
    def _precision(self) -> tuple[Array, Array]:
        return np.linalg.inv(self.scale)[self.kind], np.linalg.slogdet(self.scale)[1][self.kind]

    def density(self, moves: Array) -> Density:
        """The density at log moves (a p)."""
        assets, nu = len(moves), self.freedom
        precision, determinant = self._precision
        gap = moves[None] - self.mean[:, :, None]
        pull = np.matmul(precision, gap)
        square = np.sum(gap * pull, axis=1)
        if np.isfinite(nu):
            constant = lgamma((nu + assets) / 2) - lgamma(nu / 2) - assets / 2 * log(nu * pi)
            plain = constant - determinant[:, None] / 2 - (nu + assets) / 2 * np.log1p(square / nu)
            slope = -pull * ((nu + assets) / (nu + square))[:, None]
        else:
            plain = -0.5 * (square + assets * log(2 * pi) + determinant[:, None])
            slope = -pull
        terms, slopes = [plain + self.log_weight[:, None]], [slope]
        for own in self.own:
            more, steeper = self._with(own, pull)
            terms.append(terms[0] + own.log_odds + more)
            slopes.append(slope + steeper)
        stacked = np.stack(terms)
        total = np.asarray(logsumexp(stacked, axis=(0, 1)))
        share = np.exp(stacked - total)
        gradient = sum(np.sum(s[:, None] * g, axis=0) for s, g in zip(share, slopes, strict=True))
        local = np.tensordot(share.sum(axis=0).T, self.scale[self.kind], 1)
        for own, part in zip(self.own, share[1:].sum(axis=1), strict=True):
            local[:, own.asset, own.asset] += part * own.size**2
        jumps = self.jumps @ share.sum(axis=0) + share[1:].sum(axis=(0, 1))
        return Density(total, np.asarray(gradient), local, jumps)

    def _with(self, own: Own, pull: Array) -> tuple[Array, Array]:
        """What an exponential y of mean m in one asset's move adds to the log of each component, and its gradient:
        log of the integral of exp(y b - a y^2 / 2) / m over y > 0, (k p) and (k a p)."""
        row = np.sign(own.size) * self._precision[0][:, own.asset]
        a = np.abs(row[:, own.asset])[:, None]
        b = np.sign(own.size) * pull[:, own.asset] - 1 / abs(own.size)
        z = b / np.sqrt(a)
        inside = log_ndtr(z)
        value = 0.5 * z**2 + inside + 0.5 * np.log(2 * pi / a) - log(abs(own.size))
        mills = np.exp(-0.5 * z**2 - 0.5 * log(2 * pi) - inside)
        return value, row[:, :, None] * ((z + mills) / np.sqrt(a))[:, None]

    def covariance(self) -> Array:
        """Of the moves, (a a)."""
        if np.isfinite(self.freedom):
            return self.scale[0] * self.freedom / (self.freedom - 2)
        weight = np.exp(self.log_weight - np.asarray(logsumexp(self.log_weight)))
        gap = self.mean - weight @ self.mean
        total = np.tensordot(weight, self.scale[self.kind], 1) + (weight[:, None] * gap).T @ gap
        odds = np.exp([own.log_odds for own in self.own])
        for own, chance in zip(self.own, odds / (1 + odds.sum()), strict=True):
            total[own.asset, own.asset] += 2 * chance * own.size**2
        return total

    def log_tail(self, direction: Array, level: float) -> float:
        """Log of the chance that direction . move is at least so much."""
        sd = np.sqrt(np.einsum("a,cab,b->c", direction, self.scale, direction))[self.kind]
        z = (level - self.mean @ direction) / sd
        if np.isfinite(self.freedom):
            from scipy.stats import t  # Slow to import, and seldom needed.

            return float(t.logsf(z[0], self.freedom))
        terms = [log_ndtr(-z)]
        for own in self.own:
            reach = own.size * direction[own.asset] / sd
            ahead = np.abs(reach) > 1e-6
            k = np.where(ahead, reach, 1.0)
            beyond = 0.5 / k**2 - z / k + log_ndtr(np.sign(k) * (z - 1 / k))
            # A jump the right way adds to the tail, one the wrong way takes from it.
            least = np.minimum(beyond - terms[0], -1e-12)
            moved = np.where(k > 0, np.logaddexp(terms[0], beyond), terms[0] + np.log1p(-np.exp(least)))
            terms.append(own.log_odds + np.where(ahead, moved, terms[0]))
        return float(np.asarray(logsumexp(self.log_weight[None] + np.stack(terms))))


def law_of(shock: Spec, assets: Sequence[str], minutes: float) -> Law:
    """The law of the log moves of all assets within a window that begins with a run.

    Raises:
        InputError: The shock has no density that is known.
    """
    days = minutes / _MINUTES
    match shock:
        case Gbm():
            return _single(_diffusion(shock, assets, days))
        case StudentT():
            if minutes > 60:
                raise InputError(
                    f"--minutes is {minutes:g}, expected at most 60 under a shock of kind 'student_t', whose "
                    "volatility is drawn for every hour. Give fewer, or another law with --under."
                )
            nu = shock.degrees_of_freedom
            return _single(_diffusion(shock, assets, days) * (nu - 2) / nu, nu)
        case Merton():
            return _with_normal_jumps(shock, assets, days)
        case Kou():
            return _with_exponential_jumps(shock, assets, days)
        case _:
            raise InputError(
                f"shock is of kind '{getattr(shock, 'kind', '?')}', for whose moves no density is known, expected gbm, "
                "merton, kou or student_t. Say by which one shocks are judged: --under configs/scenarios/merton.toml, "
                "or a fit of your own prices by liqstress fit-shocks."
            )


def _diffusion(shock: Diffusion, assets: Sequence[str], days: float) -> Array:
    factor = shock.factor(assets, days)
    return factor @ factor.T


def _single(scale: Array, freedom: float = np.inf) -> Law:
    nothing = np.zeros(1)
    return Law(nothing, np.zeros((1, len(scale))), np.zeros(1, np.int64), scale[None], nothing, freedom)


def _poisson(rate: float, count: int) -> float:
    """Log of the chance of so many."""
    if rate == 0:
        return 0.0 if count == 0 else -np.inf
    return count * log(rate) - rate - lgamma(count + 1)


def _loadings(shock: Merton | Kou, assets: Sequence[str]) -> tuple[list[str], Array]:
    """Assets with own jumps, and the move of each asset per log size of each source's jump, common ones first."""
    own = [name for name in shock.own if name in assets]
    common = [shock.common.beta.get(asset, 0.0) for asset in assets]
    return own, np.array([common, *([float(asset == name) for asset in assets] for name in own)])


def _with_normal_jumps(shock: Merton, assets: Sequence[str], days: float) -> Law:
    own, loading = _loadings(shock, assets)
    sources = [shock.common, *(shock.own[name] for name in own)]
    counts = np.array(list(_up_to(MOST_JUMPS, len(sources))))
    logs = [sum(_poisson(source.per_day * days, int(many)) for source, many in zip(sources, n, strict=True))
            for n in counts]  # fmt: skip
    possible = np.isfinite(logs)
    number = counts[possible].astype(np.float64)
    outer = loading[:, :, None] * loading[:, None, :]
    spread = np.tensordot(number * [source.sd**2 for source in sources], outer, 1)
    return Law(
        log_weight=np.array(logs)[possible],
        mean=(number * [source.mean for source in sources]) @ loading,
        kind=np.arange(len(number)),
        scale=_diffusion(shock, assets, days) + spread,
        jumps=number.sum(axis=1),
    )


def _up_to(most: int, places: int) -> Iterator[tuple[int, ...]]:
    """All numbers in so many places whose sum is at most `most`."""
    if places == 0:
        yield ()
        return
    for first in range(most + 1):
        for rest in _up_to(most - first, places - 1):
            yield (first, *rest)


def _with_exponential_jumps(shock: Kou, assets: Sequence[str], days: float) -> Law:
    own, loading = _loadings(shock, assets)
    size, weight, number, blur = _sums(shock.common, days)
    singles = []
    for name in own:
        source = shock.own[name]
        weight = weight + _poisson(source.per_day * days, 0)
        for share, mean in ((source.up, source.mean_up), (1 - source.up, -source.mean_down)):
            if share * source.per_day * mean != 0:
                singles.append(Own(list(assets).index(name), log(share * source.per_day * days), mean))
    spread = np.arange(int(number.max()) + 1)[:, None, None] * blur * np.outer(loading[0], loading[0])
    return Law(
        log_weight=weight,
        mean=size[:, None] * loading[0],
        kind=number.astype(np.int64),
        scale=_diffusion(shock, assets, days) + spread,
        jumps=number,
        own=tuple(singles),
    )


def _sums(source: ExponentialJumps, days: float) -> tuple[Array, Array, Array, float]:
    """Normals that stand for the sum of 0, 1, ... jumps: their centres, the logs of their weights, the number of jumps
    of each, and the variance that each jump adds."""
    means = [mean for mean in (source.mean_up, source.mean_down) if mean > 0]
    if source.per_day == 0 or not means:
        return np.zeros(1), np.zeros(1), np.zeros(1), 0.0
    apart = _APART * min(means)
    blur = (_BLUR * apart) ** 2
    far = apart * (np.arange(int(np.ceil(FARTHEST / apart))) + 0.5)

    def one_side(share: float, mean: float) -> Array:
        if mean == 0:
            return np.where(far == far[0], share, 0.0)
        weight = share * 2 * np.sinh(apart / (2 * mean)) * np.exp(-far / mean - blur / (2 * mean**2))
        weight[0] += share - weight.sum()  # What the blur would carry into the tail stays near the start.
        return weight

    single = np.concatenate([one_side(1 - source.up, source.mean_down)[::-1], one_side(source.up, source.mean_up)])
    sizes: list[Array] = [np.zeros(1)]
    logs: list[Array] = [np.array([_poisson(source.per_day * days, 0)])]
    numbers: list[Array] = [np.zeros(1)]
    total: Array = np.asarray(single, np.float64)
    for count in range(1, MOST_COMMON + 1):
        centre = np.asarray(apart * (np.arange(len(total)) - (len(total) - 1) / 2), np.float64)
        there = (np.abs(centre) <= FARTHEST) & (total > 0)
        sizes.append(centre[there])
        logs.append(np.asarray(_poisson(source.per_day * days, count) + np.log(total[there]), np.float64))
        numbers.append(np.full(there.sum(), float(count)))
        total = np.convolve(total, single)
    return np.concatenate(sizes), np.concatenate(logs), np.concatenate(numbers), blur


def return_period_years(log_chance: float, minutes: float) -> float:
    """Mean time between windows of so many minutes, side by side, with an event of this chance in each."""
    return float(np.exp(min(-log_chance, 600.0)) * minutes / _MINUTES / 365.25)


def standard_deviations(law: Law, moves: Array) -> float:
    """Mahalanobis distance of a log move (a) from none [1]."""
    return sqrt(float(moves @ np.linalg.solve(law.covariance(), moves)))
