"""How often 95 % intervals of differences and ratios between two runs hold the truth: 93 to 97 %, as far as 600 samples
tell, from ten exceedances on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from statistical.samples import error
from stress import paired

TIMES = 600
CORRELATION = 0.9
MORE = 1.3


def runs(paths: int, log_sd: float, tilt: float = 0.0):
    """Lognormal results of paths in two runs, the second 1.3 times the first in law, and weights of the paths."""
    rng = np.random.default_rng(11)
    own = np.sqrt(1 - CORRELATION**2)
    for _ in range(TIMES):
        common = rng.normal(tilt, 1, paths)
        other = CORRELATION * common + own * rng.normal(size=paths)
        weight = np.exp(tilt**2 / 2 - tilt * common)
        yield np.exp(log_sd * common), MORE * np.exp(log_sd * other), weight


def check(held: int, least: float = 0.93, most: float = 0.97) -> None:
    assert least - error(TIMES) <= held / TIMES <= most + error(TIMES), held / TIMES


@pytest.mark.parametrize(("paths", "log_sd", "tilt"), [(64, 0.5, 0), (256, 1.2, 0), (1024, 1.2, 0), (256, 0.5, 0.5)])
def test_intervals_of_means_and_their_ratios(paths: int, log_sd: float, tilt: float) -> None:
    change, found = (MORE - 1) * np.exp(log_sd**2 / 2), []
    for first, second, weight in runs(paths, log_sd, tilt):
        mean, ratio = paired.paired_mean(second - first, weight), paired.mean_ratio(second, first, weight)
        found.append([mean.low <= change <= mean.high, ratio.low <= MORE <= ratio.high])
    for held in np.sum(found, axis=0):
        check(held)


@pytest.mark.parametrize(("paths", "level"), [(64, 0.5), (256, 0.9), (1024, 0.99)])
def test_intervals_of_differences_of_quantiles(paths: int, level: float) -> None:
    """A bootstrap of a quantile is on the safe side where few values lie beyond it."""
    change = (MORE - 1) * np.exp(ndtri(level))
    found = (paired.paired_quantile(first, second, level, weight) for first, second, weight in runs(paths, 1.0))
    check(sum(e.low <= change <= e.high for e in found), most=0.98)


def test_a_quantile_beyond_the_paths_has_no_interval() -> None:
    first, second, _ = next(runs(64, 1.0))
    few = paired.paired_quantile(first[:32], second[:32], 0.95)
    assert np.isinf([few.low, few.high]).all() and np.isfinite(few.value)
    assert np.isfinite(paired.paired_quantile(first, second, 0.95).high)
    assert paired.paired_quantile(first, first, 0.99).high == 0


def test_one_path_says_nothing_about_others() -> None:
    found = paired.paired_mean(np.ones(1))
    assert found.value == 1 and np.isinf([found.low, found.high]).all()


def test_paths_without_weight_do_not_count() -> None:
    change, weight = np.array([1.0, 2.0, 4.0, 99.0]), np.array([1.0, 1.0, 1.0, 0.0])
    assert paired.paired_mean(change, weight) == paired.paired_mean(change[:3])
    assert paired.mean_ratio(change, change + 1, weight) == paired.mean_ratio(change[:3], change[:3] + 1)
