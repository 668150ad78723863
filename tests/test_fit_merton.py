"""Fits of merton and gbm: known parameters come back within the stated errors; shipped tables are what data say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import stats

from stress.diffusions import Gbm, Merton, total_volatility
from stress.fits import sample
from stress.fits.gbm import fit_gbm
from stress.fits.merton import estimate, fit_estimate, fit_merton, fit_tail
from stress.fits.spread import jump_minutes, spread_range
from stress.fitted import fit_shocks, to_toml
from stress.prices import Bars
from stress.spec import InputError, read_toml, validate

ASSETS = ("BTC", "ETH", "SOL")
START = 1603440000  # 2020-10-23T08:00:00Z
SIGMA, CORRELATION = np.array([0.022, 0.028, 0.045]), 0.72
PER_DAY, MEAN, SD, BETA = 0.25, -0.002, 0.028, np.array([1.0, 1.15, 1.6])
OWN = (0.5, 0.01, 0.05)  # of SOL
TRUTH = {
    "daily_volatility": SIGMA,
    "per_day": PER_DAY,
    "mean": MEAN,
    "sd": SD,
    "beta": BETA[1:],
    "own": np.array(OWN),
}
DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("prices_1h_perp_2020_2024", "prices_1m_spot_2021-05", "prices_1m_spot_2021-12")
CONFIGS = Path(__file__).parents[1] / "configs" / "scenarios"


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 20)


def _simulate(hours: int, seed: int, minutes: tuple[float, float] | None = None) -> np.ndarray:
    """Hourly log-returns of the model; with `minutes`, a jump may reach into the next hour."""
    rng = np.random.default_rng(seed)
    covariance = np.outer(SIGMA, SIGMA) * (CORRELATION + (1 - CORRELATION) * np.eye(3)) / 24
    returns = rng.multivariate_normal(np.zeros(3), covariance, hours)
    for per_day, mean, sd, weights in ((PER_DAY, MEAN, SD, BETA), (*OWN, np.array([0.0, 0.0, 1.0]))):
        count = rng.poisson(per_day * hours / 24)
        hour, size = rng.integers(0, hours - 1, count), rng.normal(mean, sd, count)
        later = np.zeros(count)
        if minutes:
            length = rng.uniform(*minutes, count)
            later = np.clip((rng.uniform(0, 60, count) + length - 60) / length, 0, 1)
        np.add.at(returns, hour, np.outer(size * (1 - later), weights))
        np.add.at(returns, hour + 1, np.outer(size * later, weights))
    return returns


def _bars(returns: np.ndarray, seconds: int, name: str = "simulated") -> Bars:
    close = 100 * np.exp(np.cumsum(np.concatenate([[0.0], returns])))
    time = START + seconds * np.arange(len(close), dtype=np.int64)
    return Bars(name, time, close, close, close, close, None, seconds)


def _hourly(returns: np.ndarray) -> dict[str, Bars]:
    return {asset: _bars(returns[:, a], 3600, asset) for a, asset in enumerate(ASSETS)}


def _flat(numbers: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers of a fit in the order of TRUTH."""
    part = {**numbers, "beta": numbers["beta"][1:], "own": numbers["own"][2]}
    return np.concatenate([np.ravel(part[name]) for name in TRUTH])


def test_a_truncated_normal_is_found_from_its_tails() -> None:
    rng = np.random.default_rng(3)
    mean, sd, share = 0.004, 0.03, 0.05
    fits = []
    for _ in range(30):
        jump = rng.random(40_000) < share
        values = np.where(jump, rng.normal(mean, sd, 40_000), 0.0)
        fits.append(fit_tail(values, 0.025))
    error = (np.mean(fits, axis=0) - [share, mean, sd]) / (np.std(fits, axis=0, ddof=1) / np.sqrt(30))
    assert np.abs(error).max() < 3.5
    best = np.array(fits[-1])
    seen = values[np.abs(values) > 0.025]

    def loss(m: float, s: float) -> float:
        beyond = stats.norm.sf(0.025, m, s) + stats.norm.cdf(-0.025, m, s)
        return -float(np.sum(stats.norm.logpdf(seen, m, s) - np.log(beyond)))

    here = loss(best[1], best[2])
    for m, s in ((1.05, 1), (0.95, 1), (1, 1.02), (1, 0.98)):
        assert loss(best[1] * m, best[2] * s) > here


def test_known_parameters_come_back_within_the_stated_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 40)
    truth = np.concatenate([np.ravel(value) for value in TRUTH.values()])
    z = []
    for seed in range(4):
        fit, errors = fit_estimate(_simulate(15_519, seed))
        z.append((_flat(fit.numbers()) - truth) / _flat(errors))
        assert (fit.own[:2] == 0).all()
        assert fit.numbers()["correlation"][0, 1] == pytest.approx(CORRELATION, abs=4 * errors["correlation"][0, 1])
    scores = np.array(z)
    assert np.abs(scores).max() < 4.5
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.5


@pytest.mark.parametrize("minutes", [(1.0, 15.0), (1.0, 27.0)])
def test_jumps_that_straddle_hours_bend_the_fit_by_less_than_a_tenth(minutes: tuple[float, float]) -> None:
    fits = [_flat(estimate(_simulate(15_519, seed, minutes)).numbers()) for seed in range(24)]
    truth = np.concatenate([np.ravel(value) for value in TRUTH.values()])
    error = np.std(fits, axis=0, ddof=1) / np.sqrt(len(fits))
    allowed = np.where(np.arange(len(truth)) == 4, 0.001, 0.1 * np.abs(truth))  # the mean is near zero: in plain units
    assert (np.abs(np.mean(fits, axis=0) - truth) < allowed + 3 * error).all()


def test_total_variance_is_met_exactly_and_scales() -> None:
    hourly = _hourly(_simulate(6_000, 5))
    shock, report = fit_merton(hourly)
    returns = np.stack([np.diff(np.log(bars.close)) for bars in hourly.values()], axis=1)
    for a, asset in enumerate(ASSETS):
        realised = np.sqrt(24 * np.mean(returns[:, a] ** 2))
        assert total_volatility(shock)[asset] == pytest.approx(realised, rel=5e-4)  # the spec holds four digits
        assert report["check"][asset]["fitted"] == total_volatility(shock)[asset]
        assert shock.daily_volatility[asset] < report["check"][asset]["bipower"] * 1.03 < realised * 1.03
    assert shock.common.minutes == (1.0, 15.0) and report["spread"].startswith("assumed")
    halved, _ = fit_merton(hourly, level=report["check"]["BTC"]["realised"] / 2)
    assert halved.common.sd == pytest.approx(shock.common.sd / 2, rel=1e-3)
    assert halved.daily_volatility["SOL"] == pytest.approx(shock.daily_volatility["SOL"] / 2, rel=1e-3)
    assert halved.common.per_day == pytest.approx(shock.common.per_day, rel=1e-3)
    assert halved.common.beta == pytest.approx(shock.common.beta, rel=1e-3)


def test_gbm_has_the_realised_volatility_and_correlation() -> None:
    returns = _simulate(3_000, 6)
    shock, report = fit_gbm(_hourly(returns))
    moments = returns.T @ returns / len(returns)
    expected = moments / np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    assert list(shock.daily_volatility.values()) == pytest.approx(np.sqrt(24 * np.diag(moments)), rel=5e-4)
    assert np.array(shock.correlation) == pytest.approx(expected, abs=6e-4)
    assert total_volatility(shock) == pytest.approx(shock.daily_volatility)
    calm = np.random.default_rng(1).normal(0, 0.005, (4_000, 3))
    _, report = fit_gbm(_hourly(calm))
    expected = 0.005 * np.sqrt(24) / np.sqrt(2 * len(calm))
    assert report["standard_errors"]["daily_volatility"]["BTC"] == pytest.approx(expected, rel=0.35)


def test_minutes_of_jumps_are_measured() -> None:
    rng = np.random.default_rng(7)
    lengths = rng.uniform(3, 25, 150)
    minute = rng.normal(0, 0.022 / np.sqrt(1440), 150 * 720)
    edges = np.arange(len(minute) + 1.0)
    for i, length in enumerate(lengths):
        begin = 720 * i + 300 + rng.random()
        minute += rng.choice([-0.05, 0.05]) * np.diff(np.clip((edges - begin) / length, 0, 1))
    found = jump_minutes([_bars(minute, 60)], 0.035)
    assert len(found) == len(lengths)
    low, high = spread_range(found)
    assert (low, high) == pytest.approx((3, 25), abs=2.0)
    gap = _bars(minute, 60)
    gap = replace(gap, time=gap.time + 3600 * (np.arange(len(gap.time)) > 310))
    assert len(jump_minutes([gap], 0.035)) == len(lengths) - 1


def test_what_cannot_carry_a_fit_is_refused() -> None:
    normal = np.random.default_rng(2).normal(0, 0.005, (2_000, 3))
    with pytest.raises(InputError, match="show 0 common jumps, expected 20 or more"):
        fit_merton(_hourly(normal))
    with pytest.raises(InputError, match="share 99 hours, expected 480"):
        fit_merton(_hourly(normal[:100]) | {"ETH": _bars(normal[:99, 1], 3600)})
    with pytest.raises(InputError, match=r"has bars of 60 s, expected 3600"):
        fit_gbm({"BTC": _bars(normal[:, 0], 60)})
    with pytest.raises(InputError, match=r"has bars of 3600 s, expected 60"):
        jump_minutes([_bars(normal[:, 0], 3600)], 0.03)


def _store(folder: Path, hourly: dict[str, Bars]) -> Path:
    folder.mkdir()
    for asset, bars in hourly.items():
        columns = {name: getattr(bars, name) for name in ("time", "open", "high", "low", "close")}
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{asset}USDT.parquet")
    return folder


def test_fit_shocks_reads_folders_and_writes_toml_that_loads(tmp_path: Path) -> None:
    returns = _simulate(8_000, 8)
    folder = _store(tmp_path / "hours", _hourly(returns))
    shock, report = fit_shocks([folder], ASSETS, until="2021-08-31")
    assert report["period"] == "2020-10-23T08:00:00Z to 2021-09-01T00:00:00Z"
    assert report["hours"] == 313 * 24 - 8 - 1  # between closes, the first at 09:00 on 23 October
    text = to_toml(shock, "liqstress fit-shocks hours", report)
    path = tmp_path / "merton.toml"
    path.write_text(text)
    again = validate(Merton, read_toml(path), str(path))
    assert again.model_copy(update={"source": ""}) == shock
    assert "liqstress fit-shocks hours" in again.source and report["period"] in again.source
    assert isinstance(shock, Merton)
    error = report["standard_errors"]["common"]["per_day"]
    assert f"per_day = {shock.common.per_day}  # +- {error:.2g}" in text
    gbm, of_gbm = fit_shocks([folder], ASSETS, "gbm", until="2021-08-31")
    assert isinstance(gbm, Gbm)
    path.write_text(to_toml(gbm, "x", of_gbm))
    assert validate(Gbm, read_toml(path), str(path)).daily_volatility == gbm.daily_volatility
    with pytest.raises(InputError, match="expected one folder of 3600 s"):
        fit_shocks([folder, folder], ASSETS)
    with pytest.raises(InputError, match="there are no hourly bars"):
        fit_shocks([_store(tmp_path / "minutes", {"BTC": _bars(returns[:, 0], 60)})], ASSETS)


@pytest.mark.parametrize(("name", "kind"), [("merton", Merton), ("gbm", Gbm)])
def test_shipped_tables_load(name: str, kind: type[Merton] | type[Gbm]) -> None:
    shock = validate(kind, read_toml(CONFIGS / f"{name}.toml"), name)
    assert set(shock.daily_volatility) == {"BTC", "ETH", "SOL", "XRP", "DOGE"}
    assert (np.linalg.eigvalsh(np.array(shock.correlation)) > 0).all()
    assert "2022-08-01T00:00:00Z" in shock.source


@pytest.mark.skipif(not (DATA / FOLDERS[0]).is_dir(), reason="needs real prices in ../shared/data")
def test_shipped_tables_are_the_fit_to_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 2)
    assets = ("BTC", "ETH", "SOL", "XRP", "DOGE")
    folders = [DATA / folder for folder in FOLDERS]
    shock, report = fit_shocks(folders, assets, until="2022-07-31")
    shipped = validate(Merton, read_toml(CONFIGS / "merton.toml"), "merton")
    plain = shock.model_dump(exclude={"source"})
    assert shipped.model_dump(exclude={"source"}) == plain
    gbm = validate(Gbm, read_toml(CONFIGS / "gbm.toml"), "gbm")
    again, _ = fit_shocks(folders, assets, "gbm", until="2022-07-31")
    assert gbm.model_dump(exclude={"source"}) == again.model_dump(exclude={"source"})
    for size, seen, expected in report["tail"][1:4]:
        assert abs(seen - expected) < 2.5 * np.sqrt(expected), size
