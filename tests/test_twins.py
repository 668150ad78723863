"""Amplification: figures and intervals against plain resampling of pairs, and a run against its twin."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import Command
from test_results import synthetic

import stress
from stress import intervals
from stress.amplify import twin_of
from stress.config import load_config
from stress.plots_twins import amplification_picture
from stress.run import default_store
from stress.twins import compare


def pair(seed: int = 3) -> tuple[xr.Dataset, xr.Dataset]:
    """A run, and a twin in which every path has less, more or less so."""
    ds, rng = synthetic(paths=200, hours=6), np.random.default_rng(seed)
    twin = ds.copy(deep=True)
    twin["liquidation_volume"] *= xr.DataArray(rng.uniform(0.6, 0.9, 200), dims="path")
    return ds, twin


def resampled(statistic, over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
    """Ends of a plain bootstrap interval of statistic(over) / statistic(under), over pairs of paths."""
    rng = np.random.default_rng(8)
    draws = []
    for _ in range(2000):
        chosen = rng.integers(0, len(over), len(over))
        draws.append(statistic(over[chosen]) / statistic(under[chosen]))
    return tuple(np.quantile(draws, [0.025, 0.975]))


def test_figures_are_those_of_pairs() -> None:
    ds, twin = pair()
    found = compare(ds, twin)
    one, two = (x["liquidation_volume"].sum(["venue", "asset", "side"], dtype=float).values for x in (ds, twin))
    assert (found.paths, found.hours) == (200, 6)
    assert found.run.impact == pytest.approx(one.sum() / 200)
    assert found.run.ratio.value == pytest.approx(one.sum() / two.sum())
    assert found.added.value == pytest.approx((one - two).sum() / 200)
    for q, of in found.hourly.items():
        expected = [np.quantile(x, q, method="inverted_cdf") for x in (one, two)]
        assert [of.impact, of.without] == pytest.approx(expected)
    btc = [float(x["liquidation_volume"].sel(asset="BTC").sum(dtype=float)) for x in (ds, twin)]
    assert found.assets["BTC"].ratio.value == pytest.approx(btc[0] / btc[1])
    ratio = one.sum(axis=1) / two.sum(axis=1)
    assert found.of_paths[0.5].value == pytest.approx(np.quantile(ratio, 0.5, method="inverted_cdf"))


def test_intervals_are_those_of_plain_resampling_of_pairs() -> None:
    """200 replicates against 2,000: ends are good to a fifth of the width. Unpaired ones would be far wider."""
    ds, twin = pair()
    found = compare(ds, twin)
    one, two = (x["liquidation_volume"].sum(["venue", "asset", "side"], dtype=float).values for x in (ds, twin))
    rare = found.hourly[0.95].ratio
    for e, statistic in (
        (found.run.ratio, np.sum),
        (rare, lambda x: np.quantile(x, 0.95, method="inverted_cdf")),
        (found.shortfall.ratio, lambda x: intervals.expected_shortfall(x, 0.99)),
    ):
        low, high = resampled(statistic, one, two)
        assert [e.low, e.high] == pytest.approx([low, high], abs=0.2 * (high - low))
    low, high = resampled(np.sum, one, two[::-1])
    assert high - low > 4 * (found.run.ratio.high - found.run.ratio.low)


def test_twins_that_differ_by_a_factor_have_no_interval() -> None:
    ds = synthetic(paths=1000, hours=3)
    twin = ds.copy(deep=True)
    twin["liquidation_volume"] *= 0.5
    found = compare(ds, twin)
    for of in (found.run, found.shortfall, *found.assets.values(), *found.hourly.values()):
        assert astuple(of.ratio)[:3] == pytest.approx((2, 2, 2), rel=1e-6)
    assert astuple(found.of_paths[0.5])[:3] == pytest.approx((2, 2, 2), rel=1e-6)


def test_a_quantile_that_few_hours_exceed_has_a_ratio_and_no_interval() -> None:
    ds = synthetic(paths=100, hours=3)
    twin = ds.copy(deep=True)
    twin["liquidation_volume"] *= 0.5
    hourly = compare(ds, twin).hourly
    assert astuple(hourly[0.99].ratio)[:3] == pytest.approx((2, 2, 2), rel=1e-6)
    assert astuple(hourly[0.999].ratio)[:3] == (pytest.approx(2, rel=1e-6), -np.inf, np.inf)


def test_paths_without_a_sound_twin_or_volume_are_left_out() -> None:
    ds, twin = pair()
    ds["status"][:5], twin["status"][3:8] = 1, 1
    assert compare(ds, twin).paths == 192
    twin["liquidation_volume"][:] = 0
    found = compare(ds, twin)
    assert np.isnan(found.run.ratio.value) and found.added.value == found.run.impact
    assert found.of_paths == {}
    fig = amplification_picture(ds.assign_attrs(seed=1), twin)
    assert "Without impact nothing is liquidated" in fig.get_suptitle()


def test_the_twin_is_the_run_without_impact(small: Path) -> None:
    run = load_config(small)
    twin = twin_of(run)
    assert twin.impact.i_ref == 0
    assert twin.model_copy(update={"impact": run.impact, "name": run.name}) == run
    assert default_store(twin).name.startswith("small-no-impact-")


def test_the_command_runs_both_and_shows_them(small: Path, liqstress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same prices on both as far as nothing is pushed; with impact other accounts are closed."""
    monkeypatch.chdir(small.parent)
    outcome = liqstress("amplify", small)
    assert outcome.code == 0, outcome.err
    for words in ("40 pairs of paths of 1 h", "a run, mean", "an hour, 99.9 %", "a path to its twin, median",
                  "impact adds", "-amplification.png"):  # fmt: skip
        assert words in outcome.out
    run = load_config(small)
    ds, twin = (stress.open_run(default_store(one)).load() for one in (run, twin_of(run)))
    assert float(np.abs(twin["basis_low"]).max()) == 0 < float(np.abs(ds["basis_low"]).max())
    volumes = [float(x["liquidation_volume"].sum(dtype=float)) for x in (ds, twin)]
    assert compare(ds, twin).run.ratio.value == pytest.approx(volumes[0] / volumes[1])
    assert volumes[0] > volumes[1]
    png = next(Path("runs").glob("*-amplification.png"))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert liqstress("amplify", small).out == outcome.out  # Both are there: shown again.


def test_without_impact_there_is_nothing_to_compare(small: Path, liqstress: Command) -> None:
    outcome = liqstress("amplify", small, "--set", "impact.i_ref=0")
    assert outcome.code == 2
    assert "impact.i_ref is 0, expected more" in outcome.err
    assert outcome.err.count("\n") == 1
