"""Quantiles, shortfalls, exceedance and chances against numpy, scipy, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stress import intervals

RNG_SEED = 11


def draw(paths: int = 200, hours: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed volumes, dependent within a path, and uneven weights."""
    rng = np.random.default_rng(RNG_SEED)
    values = rng.lognormal(0, 1.5, (paths, hours)) * rng.lognormal(0, 1, (paths, 1))
    return np.round(values, 1), rng.exponential(size=paths)


@pytest.mark.parametrize("weighted", [False, True])
def test_quantiles_equal_numpys(weighted) -> None:
    values, weight = draw()
    weight = weight if weighted else np.ones(len(values))
    spread = np.repeat(weight, values.shape[1])
    expected = np.quantile(values.ravel(), intervals.LEVELS, weights=spread, method="inverted_cdf")
    np.testing.assert_array_equal(intervals.quantile(values, intervals.LEVELS, weight), expected)


def test_quantile_at_a_level_that_is_just_reached() -> None:
    values = np.arange(1.0, 11)
    np.testing.assert_array_equal(intervals.quantile(values, [0.0, 0.1, 0.3, 0.7, 1.0]), [1, 1, 3, 7, 10])


def test_whole_weights_equal_copies() -> None:
    values, _ = draw(50)
    copies = np.random.default_rng(1).integers(0, 4, 50)
    repeated = np.repeat(values, copies, axis=0)
    np.testing.assert_array_equal(
        intervals.quantile(values, intervals.LEVELS, copies.astype(float)),
        intervals.quantile(repeated, intervals.LEVELS),
    )
    shortfall = intervals.expected_shortfall(values, 0.9, copies.astype(float))
    assert shortfall == pytest.approx(intervals.expected_shortfall(repeated, 0.9))
    limits = np.array([0.5, 2.0, 10.0])
    over = intervals.exceedance(values, limits, copies.astype(float))[0]
    np.testing.assert_allclose(over, intervals.exceedance(repeated, limits)[0])


def test_expected_shortfall_counts_the_edge_in_part() -> None:
    assert intervals.expected_shortfall(np.arange(1.0, 11), 0.75) == pytest.approx((10 + 9 + 0.5 * 8) / 2.5)


def test_expected_shortfall_of_an_exponential() -> None:
    values = stats.expon.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert intervals.expected_shortfall(values, 0.99) == pytest.approx(1 + np.log(100), rel=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cells", [1 << 21, 2000])
def test_bootstrap_equals_brute_force(monkeypatch, weighted, cells) -> None:
    monkeypatch.setattr(intervals, "_CELLS", cells)
    values, weight = draw()
    weight = weight if weighted else np.ones(len(values))
    drawn = intervals._resamples(len(values))
    quantiles, shortfalls = intervals._bootstrap(intervals._sort(values, weight), intervals.LEVELS)
    for b in (0, 7, 199):
        again = drawn[b] * weight
        np.testing.assert_array_equal(quantiles[b], intervals.quantile(values, intervals.LEVELS, again))
        expected = [intervals.expected_shortfall(values, level, again) for level in intervals.LEVELS]
        np.testing.assert_allclose(shortfalls[b], expected, rtol=1e-9)


@pytest.mark.parametrize("reach", [slice(500, 510), slice(0, 3), slice(1190, 1200)])
def test_bootstrap_does_not_depend_on_its_window(monkeypatch, reach) -> None:
    values, weight = draw()
    sample = intervals._sort(values, weight)
    plain = intervals._bootstrap(sample, intervals.LEVELS)
    monkeypatch.setattr(intervals, "_window", lambda *_: reach)
    for narrow, wide in zip(intervals._bootstrap(sample, intervals.LEVELS), plain, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-9)


def test_intervals_cover_and_respect_dependence() -> None:
    """95 % intervals of the median hour hold the truth in 95 % of samples although the hours of a path are equal."""
    rng, held, widths = np.random.default_rng(3), 0, []
    for _ in range(200):
        values = np.repeat(rng.normal(size=(300, 1)), 12, axis=1)
        estimate = intervals.quantile_intervals(values, [0.5])[0.5]
        held += estimate.low <= 0 <= estimate.high
        widths.append(estimate.high - estimate.low)
    error = np.sqrt(0.95 * 0.05 / 200)
    assert abs(held / 200 - 0.95) < 3 * error
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 2 / 300), rel=0.1)


def test_exceedance_equals_counting_and_its_band_brute_force() -> None:
    values, weight = draw()
    limits = np.array([0.0, 0.1, 1.0, 5.0, 1e9])
    got = intervals.exceedance(values, limits, weight)
    over = (values[:, :, None] > limits).mean(axis=1)
    np.testing.assert_allclose(got[0], weight @ over / weight.sum(), atol=1e-15)
    drawn = intervals._resamples(len(values)) * weight
    draws = drawn @ over / drawn.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got[1:], np.quantile(draws, intervals.TAILS, axis=0), atol=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 37, 399, 400])
def test_chances_equal_scipys_exact_interval(hits) -> None:
    estimate = intervals.probability(np.arange(400) < hits)
    exact = stats.binomtest(hits, 400).proportion_ci(0.95, method="exact")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((hits / 400, exact.low, exact.high))


def test_uneven_weights_widen_the_interval_of_a_chance() -> None:
    hit = np.arange(400) < 40
    weight = np.where(np.arange(400) % 2 == 0, 1.0, 0.0)
    even, half = intervals.probability(hit), intervals.probability(hit, weight)
    alone = intervals.probability(hit[::2])
    assert half.value == pytest.approx(even.value)
    assert (half.low, half.high) == pytest.approx((alone.low, alone.high))
