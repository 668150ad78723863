"""What a shock has in common with recorded hours: features of known returns, and simulated against real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import DATA, ROOT, Command
from scipy import stats

from stress import likeness
from stress.fits.sample import hourly_returns
from stress.fitted import read_prices
from stress.likeness import FEATURES, Interval, features, recorded_features, recorded_from_json, simulated_returns
from stress.scenarios import read_shock

ASSETS = ["BTC", "ETH", "SOL", "XRP", "DOGE"]
HOURLY = DATA / "prices_1h_perp_2020_2024"
SHIPPED = ROOT / "configs" / "scenarios"
NOTED = ROOT / "notebooks" / "11_recorded_hours.json"

SHAPE = ("fall_99.9", "falls_together")
INSIDE = {
    "merton": (*SHAPE, "rise_99.9", "rises_together"),
    "kou": (*SHAPE, "rise_99.9", "rises_together"),
    "bates": (*SHAPE, "rise_99.9", "fall_99"),
    "student_t": ("falls_together",),
    "garch": (*SHAPE, "fall_99", "rise_99", "rises_together"),
    "block_bootstrap": tuple(FEATURES),
}
"""Features that each shipped fit shares with the hours that it was fitted to, in all assets."""


def test_features_of_returns_that_are_known() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(0, 0.01, (2, 500, 240))
    found = features(np.stack([one, 0.6 * one + 0.8 * two, two, -one], axis=2))
    assert found["volatility"] == pytest.approx([100 * 0.01 * np.sqrt(24)] * 4, rel=0.02)
    assert found["day_to_day"] == pytest.approx([100 * 0.01 * np.sqrt(24)] * 4, rel=0.04)
    assert found["kurtosis"] == pytest.approx([3] * 4, abs=0.08)
    for name, level in (("fall_99", 0.99), ("fall_99.9", 0.999), ("rise_99", 0.99), ("rise_99.9", 0.999)):
        assert found[name] == pytest.approx([stats.norm.ppf(level)] * 4, rel=0.05)
    joint = 100 * stats.multivariate_normal.cdf([stats.norm.ppf(0.01)] * 2, [0, 0], [[1, 0.6], [0.6, 1]])  # pyright: ignore
    for name in ("falls_together", "rises_together"):
        assert found[name] == pytest.approx([100, 100 * joint, 1, 0], abs=4)
    assert found["memory_1h"] == pytest.approx([0] * 4, abs=1.5)


def test_memory_is_that_of_the_hours_of_a_segment() -> None:
    rng = np.random.default_rng(2)
    rough = np.repeat(np.exp(rng.normal(0, 0.7, (4_000, 2))), 24, axis=1)[:, :, None]  # a day is rough or calm
    found = features(rough * rng.normal(0, 0.01, rough.shape))
    squared = np.exp(0.7**2)
    expected = 100 * (squared - 1) * (2 / np.pi) / (squared - 2 / np.pi)
    assert found["memory_1h"] == pytest.approx([expected * 46 / 47], rel=0.1)  # one of 47 pairs has midnight between
    assert found["memory_24h"] == pytest.approx([0], abs=1.5)


def test_intervals_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "_RESAMPLES", 60)
    held, truth = [], {"kurtosis": 3.0, "volatility": np.sqrt(24), "fall_99": stats.norm.ppf(0.99), "memory_1h": 0.0}
    for seed in range(16):
        found = recorded_features(np.random.default_rng(seed).normal(0, 0.01, (4_800, 1)))
        held += [found[name].low[0] <= value <= found[name].high[0] for name, value in truth.items()]
    assert 0.8 < np.mean(held) < 1


def test_compare_shock_prints_and_keeps_both(tmp_path: Path, liqstress: Command) -> None:
    rng = np.random.default_rng(3)
    for a, asset in enumerate(("BTC", "ETH")):
        close = 100 * np.exp(np.cumsum(rng.standard_t(4, 2_000) * 0.004 * (a + 1)))
        time = 1603440000 + 3600 * np.arange(2_000, dtype=np.int64)
        columns = dict.fromkeys(("open", "high", "low", "close"), close) | {"time": time}
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"{asset}.parquet")
    shock, kept = tmp_path / "gbm.toml", tmp_path / "both.json"
    shock.write_text('kind = "gbm"\ncorrelation = 0.1\ndaily_volatility = { BTC = 0.028, ETH = 0.056 }\n')
    done = liqstress("compare-shock", shock, tmp_path, "--assets", "BTC,ETH", "--paths", 256, "--json", kept)
    assert done.code == 0
    for words in FEATURES.values():
        assert words in done.out
    assert "below" in done.out  # a normal has no such tails
    loaded = recorded_from_json(kept.read_text())
    assert set(loaded) == set(FEATURES) and (loaded["kurtosis"].low < loaded["kurtosis"].high).all()
    assert json.loads(kept.read_text())["features"]["kurtosis"]["simulated"] == pytest.approx([3, 3], abs=0.4)
    shock.write_text('kind = "replay"\nstart = 2021-01-01\n')
    refused = liqstress("compare-shock", shock, tmp_path, "--assets", "BTC,ETH")
    assert refused.code == 2 and "shock.kind is 'replay', expected one that is drawn" in refused.err
    shock.write_text('kind = "gbm"\ncorrelation = 2\ndaily_volatility = { BTC = 0.028, ETH = 0.056 }\n')
    wrong = liqstress("compare-shock", shock, tmp_path, "--assets", "BTC,ETH")
    assert wrong.code == 2 and f"{shock}: shock.correlation is 2" in wrong.err
    shock.write_text('kind = "gbm"\ncorrelation = 0.1\ndaily_volatility = { BTC = 0.028 }\n')
    other = liqstress("compare-shock", shock, tmp_path, "--assets", "BTC,ETH")
    assert other.code == 2 and "shock: does not move ETH" in other.err


@pytest.fixture(scope="module")
def recorded() -> dict[str, Interval]:
    """Of the hours that the shipped shocks were fitted to."""
    if not HOURLY.is_dir():
        pytest.skip("needs real prices in ../shared/data")
    return recorded_features(hourly_returns(read_prices([HOURLY], ASSETS, "2022-07-31")[0])[0])


def test_figures_of_the_notebook_are_those_of_the_data(recorded: dict[str, Interval]) -> None:
    for name, noted in recorded_from_json(NOTED.read_text()).items():
        for part in ("value", "low", "high"):
            assert getattr(noted, part) == pytest.approx(getattr(recorded[name], part), rel=1e-6), (name, part)


@pytest.mark.parametrize("kind", list(INSIDE))
def test_simulated_hours_are_like_recorded_ones(recorded: dict[str, Interval], kind: str) -> None:
    shock = read_shock(SHIPPED / f"{kind}.toml")
    drawn = features(simulated_returns(shock, ASSETS, (HOURLY, {})))
    for name in ("volatility", "day_to_day", *INSIDE[kind]):
        slack = 0.1 * (recorded[name].high - recorded[name].low)  # of resampling and simulation
        low, high = recorded[name].low - slack, recorded[name].high + slack
        assert ((low <= drawn[name]) & (drawn[name] <= high)).all(), (name, low, drawn[name], high)


def test_a_brownian_motion_is_not_like_them(recorded: dict[str, Interval]) -> None:
    drawn = features(simulated_returns(read_shock(SHIPPED / "gbm.toml"), ASSETS))
    for name in ("kurtosis", "fall_99.9", "rise_99.9", "memory_1h", "memory_24h"):
        assert (drawn[name] < recorded[name].low).all(), name
    assert drawn["falls_together"][1] < recorded["falls_together"].low[1]
    assert likeness.FEATURES.keys() == drawn.keys()
