"""Generalised-Pareto tails against scipy, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from stress import pareto
from stress.pareto import Pareto, fit

SHAPES = (-0.3, 0.0, 0.2, 0.9)


def sample(shape: float, size: int = 400, seed: int = 1) -> np.ndarray:
    """Values above 3, scale 2."""
    return 3 + np.asarray(stats.genpareto.rvs(shape, scale=2, size=size, random_state=np.random.default_rng(seed)))


@pytest.mark.parametrize("shape", SHAPES)
def test_fits_are_as_likely_as_scipys(shape) -> None:
    values = sample(shape)
    tail = fit(values, 3.0).tail
    theirs = stats.genpareto.fit(values - 3, floc=0)
    likely = stats.genpareto.logpdf(values - 3, *theirs).sum()
    ours = stats.genpareto.logpdf(values - 3, tail.shape, 0, tail.scale).sum()
    assert ours >= likely - 1e-4
    assert (tail.shape, tail.scale) == pytest.approx((theirs[0], theirs[2]), abs=2e-3)


def test_several_samples_are_fitted_as_one_by_one() -> None:
    many = np.sort([sample(0.2, 100, seed) - 3 for seed in range(5)], axis=1)
    weight = np.full(100, 0.01)
    shape, scale = pareto.maximum_likelihood(many, weight)
    for i, one in enumerate(many):
        assert pareto.maximum_likelihood(one, weight) == pytest.approx((shape[i], scale[i]), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_quantile_shortfall_and_exceedance_are_those_of_the_distribution(shape) -> None:
    tail = Pareto(3.0, 0.1, shape, 2.0)
    theirs = stats.genpareto(shape, 3, 2)
    assert tail.quantile(0.99) == pytest.approx(theirs.ppf(0.9), rel=1e-5)
    assert tail.exceedance(5.0) == pytest.approx(0.1 * theirs.sf(5), rel=1e-5)
    assert tail.exceedance(tail.quantile(0.9997)) == pytest.approx(3e-4)
    mean, _ = integrate.quad(lambda t: float(theirs.isf(0.1 * np.exp(-t))) * np.exp(-t), 0, 300, limit=500)
    assert tail.shortfall(0.99) == pytest.approx(mean, rel=1e-4)


def test_a_shape_of_one_has_no_mean() -> None:
    assert Pareto(3.0, 0.1, 1.0, 2.0).shortfall(0.99) == np.inf


def test_intervals_are_of_the_profile_likelihood() -> None:
    """The deviance of the shape, maximised over the scale by brute force, is the limit at both ends."""
    values = np.concatenate([sample(0.2, 200), np.zeros(1800)])
    found = fit(values, 3.0)
    e = found.interval(lambda tail: tail.shape)
    most = found.log_likelihood(found.tail)
    scales = found.tail.scale * np.geomspace(0.5, 2, 2001)
    for end in (e.low, e.high):
        over = found.log_likelihood(Pareto(3.0, found.tail.chance, np.full(2001, end), scales))
        assert 2 * (most - over.max()) == pytest.approx(stats.t.ppf(0.975, 199) ** 2, rel=0.03)


def test_the_interval_of_the_chance_is_that_of_the_binomial_likelihood() -> None:
    found = fit(np.concatenate([sample(0.2, 200), np.zeros(1800)]), 3.0)
    e = found.interval(lambda tail: tail.chance)
    for end in (e.low, e.high):
        deviance = 2 * (stats.binom.logpmf(200, 2000, 0.1) - stats.binom.logpmf(200, 2000, end))
        assert deviance == pytest.approx(stats.t.ppf(0.975, 199) ** 2, rel=0.03)


def test_whole_weights_are_copies_in_the_fit() -> None:
    values = np.concatenate([sample(0.2, 100), np.zeros(300)])
    copies = np.random.default_rng(2).integers(1, 4, 400)
    weighed, repeated = fit(values, 3.0, copies.astype(float)).tail, fit(np.repeat(values, copies), 3.0).tail
    assert (weighed.shape, weighed.scale, weighed.chance) == pytest.approx(
        (repeated.shape, repeated.scale, repeated.chance), abs=1e-4
    )


def test_weights_that_hardly_differ_change_hardly_anything() -> None:
    values = np.concatenate([sample(0.2, 400), np.zeros(1200)])
    even, uneven = fit(values, 3.0), fit(values, 3.0, 1 + 1e-4 * np.random.default_rng(3).random(1600))
    assert even.even and not uneven.even
    for figure in (lambda tail: tail.shape, lambda tail: tail.quantile(0.999)):
        one, two = even.interval(figure), uneven.interval(figure)
        assert (two.value, two.low, two.high) == pytest.approx((one.value, one.low, one.high), rel=0.2)
    assert np.isnan(uneven.test())


def test_the_distance_of_the_test_is_anderson_and_darlings() -> None:
    """For a tail of shape near zero, against scipy's for the exponential."""
    excess = np.sort(np.random.default_rng(4).exponential(size=80))
    fixed = {"loc": 0.0, "scale": excess.mean()}
    theirs = stats.goodness_of_fit(stats.expon, excess, known_params=fixed, statistic="ad", n_mc_samples=1)
    assert pareto._anderson_darling(excess, 0.0, excess.mean()) == pytest.approx(theirs.statistic, rel=1e-4)


def test_fewer_than_fifty_exceedances_are_refused() -> None:
    with pytest.raises(ValueError, match="49 values are above 3, expected at least 50"):
        fit(sample(0.2, 49), 3.0)
