"""Resampling of pairs against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from test_intervals import draw

from stress import intervals, paired


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cells", [1 << 21, 2000])
def test_bootstrap_equals_brute_force(monkeypatch, weighted, cells) -> None:
    monkeypatch.setattr(paired, "_CELLS", cells)
    values, weight = draw()
    weight = weight if weighted else np.ones(len(values))
    drawn = paired._resamples(len(values))
    quantiles, shortfalls = paired._bootstrap(intervals.sort(values, weight), intervals.LEVELS)
    for b in (0, 7, 199):
        again = drawn[b] * weight
        np.testing.assert_array_equal(quantiles[b], intervals.quantile(values, intervals.LEVELS, again))
        expected = [intervals.expected_shortfall(values, level, again) for level in intervals.LEVELS]
        np.testing.assert_allclose(shortfalls[b], expected, rtol=1e-9)


@pytest.mark.parametrize("reach", [slice(500, 510), slice(0, 3), slice(1190, 1200)])
def test_bootstrap_does_not_depend_on_its_window(monkeypatch, reach) -> None:
    values, weight = draw()
    sample = intervals.sort(values, weight)
    plain = paired._bootstrap(sample, intervals.LEVELS)
    monkeypatch.setattr(paired, "_window", lambda *_: reach)
    for narrow, wide in zip(paired._bootstrap(sample, intervals.LEVELS), plain, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-9)
