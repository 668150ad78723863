"""Samples whose true quantiles and shortfalls are known, and how often an interval holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

from stress.intervals import Estimate

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray | None]]
"""Values, [path] or [path hour], and the weight of each path."""

MARGINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda s: -ndtri(s),
    "lognormal": lambda s: np.exp(-1.5 * ndtri(s)),
    "pareto": lambda s: s ** (-1 / 3),
    "mostly zero": lambda s: np.where(s > 0.1, 0.0, np.exp(-ndtri(np.minimum(10 * s, 1)))),
}
"""Value that is passed with a given chance."""


class Truth(NamedTuple):
    """What intervals at a level should hold."""

    quantile: float
    shortfall: float


def truth(margin: str, level: float) -> Truth:
    """Of a margin; the shortfall by quadrature over the log of the chance."""
    of = MARGINS[margin]
    beyond, _ = quad(lambda t: float(of(np.asarray((1 - level) * np.exp(-t)))) * np.exp(-t), 0, 60, limit=200)
    return Truth(float(of(np.asarray(1 - level))), beyond)


def independent(margin: str, paths: int) -> Draw:
    """One value a path."""
    return lambda rng: (MARGINS[margin](1 - rng.random(paths)), None)


def clustered(margin: str, paths: int, correlation: float, hours: int = 24) -> Draw:
    """Hours that share a normal factor of their path."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, None]:
        common, own = rng.normal(size=(paths, 1)), rng.normal(size=(paths, hours))
        return MARGINS[margin](ndtr(-np.sqrt(correlation) * common - np.sqrt(1 - correlation) * own)), None

    return draw


def tilted(margin: str, paths: int, tilt: float) -> Draw:
    """Normal scores drawn around `tilt` instead of zero, with their likelihood ratios."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        score = rng.normal(tilt, 1, paths)
        return MARGINS[margin](ndtr(-score)), np.exp(tilt**2 / 2 - tilt * score)

    return draw


def coverage(
    draw: Draw, intervals: Sequence[Callable[..., Estimate]], truths: Sequence[float], times: int, seed: int
) -> np.ndarray:
    """Share of samples in which each interval holds its truth: [interval]."""
    rng, held = np.random.default_rng(seed), np.zeros(len(truths))
    for _ in range(times):
        sample = draw(rng)
        found = [interval(*sample) for interval in intervals]
        held += [e.low <= true <= e.high for e, true in zip(found, truths, strict=True)]
    return held / times


def error(times: int) -> float:
    """Three standard errors of a coverage of 95 %."""
    return 3 * float(np.sqrt(0.95 * 0.05 / times))
