"""Fits of kou, bates, student_t, garch and block_bootstrap: known parameters come back within the stated errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from stress.diffusions import Bates, Kou, StudentT, total_volatility
from stress.fits import bates, blocks, garch, kou, sample, student_t
from stress.fits.wandering import gamma_nodes
from stress.fitted import FITS, fit_shocks, to_toml
from stress.prices import Bars
from stress.recorded import BlockBootstrap, Garch
from stress.scenarios import read_shock
from stress.spec import InputError

HOURS = 15_519
SIGMA = np.array([0.03, 0.04])
BETA = np.array([1.0, 1.3])
DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("prices_1h_perp_2020_2024", "prices_1m_spot_2021-05", "prices_1m_spot_2021-12")
SHIPPED = Path(__file__).parents[1] / "configs" / "scenarios"


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 40)


def _diffusion(rng: np.random.Generator, hours: int = HOURS) -> np.ndarray:
    """Hours of two assets of correlation 0.6."""
    return rng.multivariate_normal([0, 0], np.outer(SIGMA, SIGMA) * [[1, 0.6], [0.6, 1]] / 24, hours)


def _add_jumps(returns: np.ndarray, sizes: np.ndarray, betas: np.ndarray, rng: np.random.Generator) -> None:
    np.add.at(returns, rng.integers(0, len(returns), len(sizes)), np.outer(sizes, betas))


def _kou(seed: int) -> np.ndarray:
    """0.6 jumps a day, 40 % of them up, of means 3 and 3.5 %; 0.5 of the second asset alone, 70 % up, 4 and 3 %."""
    rng, returns = np.random.default_rng(seed), np.zeros((HOURS, 2))
    for per_day, share, up, down, betas in ((0.6, 0.4, 0.03, 0.035, BETA), (0.5, 0.7, 0.04, 0.03, np.array([0, 1]))):
        count = rng.poisson(per_day * HOURS / 24)
        sizes = np.where(rng.random(count) < share, rng.exponential(up, count), -rng.exponential(down, count))
        _add_jumps(returns, sizes, betas, rng)
    return returns + _diffusion(rng)


def _bates(seed: int) -> np.ndarray:
    """A variance of half-life 48 h and sd 0.7 with leverage -0.5; 0.5 jumps a day of mean -0.5 % and sd 4 %."""
    rng, each, kappa = np.random.default_rng(seed), 4, np.log(2) / 48
    normal = rng.normal(size=(HOURS * each, 3))
    noise = -0.5 * normal[:, 0] + np.sqrt(0.75) * normal[:, 2]
    v, path = 1.0, np.empty(HOURS * each)
    for i, dw in enumerate((0.7 * np.sqrt(2 * kappa / each) * noise).tolist()):
        alive = max(v, 0.0)
        path[i] = alive
        v += kappa / each * (1 - alive) + alive**0.5 * dw
    second = 0.6 * normal[:, 0] + 0.8 * normal[:, 1]
    moves = np.sqrt(path[:, None] / 24 / each) * np.column_stack([normal[:, 0], second]) * SIGMA
    returns = moves.reshape(HOURS, each, 2).sum(axis=1)
    _add_jumps(returns, rng.normal(-0.005, 0.04, rng.poisson(0.5 * HOURS / 24)), BETA, rng)
    return returns


def _gjr(seed: int, alpha: float, gamma: float, beta: float) -> np.ndarray:
    """Hours of a GJR-GARCH(1, 1) with t(6) residuals and a long-run variance of 1e-4, by its definition."""
    rng = np.random.default_rng(seed)
    z = stats.t.rvs(6, size=HOURS, random_state=rng) / np.sqrt(1.5)
    returns, h = np.empty(HOURS), 1e-4
    for i in range(HOURS):
        returns[i] = np.sqrt(h) * z[i]
        h = 1e-4 * (1 - alpha - gamma / 2 - beta) + (alpha + gamma * (z[i] < 0)) * returns[i] ** 2 + beta * h
    return returns


def _scores(found: Any, errors: Any, truth: Any) -> np.ndarray:
    return np.concatenate([np.ravel((f - t) / e) for f, e, t in zip(found, errors, truth, strict=True)])


def _bars(returns: np.ndarray) -> dict[str, Bars]:
    time = 1603440000 + 3600 * np.arange(len(returns) + 1, dtype=np.int64)
    close = 100 * np.exp(np.cumsum(np.concatenate([np.zeros((1, returns.shape[1])), returns]), axis=0))
    names = ("BTC", "ETH")[: returns.shape[1]]
    return {n: Bars(n, time, c, c, c, c, None, 3600) for n, c in zip(names, close.T, strict=True)}


def test_kou_comes_back() -> None:
    truth = [SIGMA, [0.6, 0.4, 0.03, 0.035], BETA[1:], [0.5, 0.7, 0.04, 0.03]]
    scores = []
    for seed in range(4):
        fit, errors = kou.fit_estimate(_kou(seed))
        found, error = (
            [n["daily_volatility"], n["common"], n["beta"][1:], n["own"][1]] for n in (fit.numbers(), errors)
        )
        scores.append(_scores(found, error, truth))
    assert np.abs(scores).max() < 4
    assert 0.5 < np.sqrt(np.mean(np.square(scores))) < 1.5


def test_exponential_tails_are_freed_of_the_diffusion() -> None:
    rng, hours = np.random.default_rng(9), 2_000_000
    kinds = rng.choice(3, hours, p=[0.03, 0.04, 0.93])
    jumps = np.where(kinds == 0, rng.exponential(0.014, hours), -rng.exponential(0.012, hours)) * (kinds < 2)
    found, calm = kou.fit_tails(jumps + rng.normal(0, 0.008, hours), 0.04)
    error = np.sqrt(1 / (2_000_000 * found.chance * np.exp(-0.04 / found.mean)))  # of a mean excess, relative
    assert (np.abs(found.mean / [0.014, 0.012] - 1) < 3 * error).all()
    assert (np.abs(found.chance / [0.03, 0.04] - 1) < 3 * 4 * error).all()  # e^(u / eta) makes four of one
    assert calm == pytest.approx(0.008**2, rel=0.03)


def test_bates_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 24)
    truth = [SIGMA, [0.5, -0.005, 0.04], BETA[1:], [48, 0.7, -0.5]]
    scores = []
    for seed in range(2):
        fit, errors = bates.fit_estimate(_bates(seed))
        found, error = (
            [n["daily_volatility"], n["common"], n["beta"][1:], n["variance"]] for n in (fit.numbers(), errors)
        )
        scores.append(_scores(found, error, truth))
    assert np.abs(scores).max() < 4
    assert 0.5 < np.sqrt(np.mean(np.square(scores))) < 1.6


def test_bates_knows_its_gamma() -> None:
    nodes = gamma_nodes(0.9)
    assert nodes.mean() == pytest.approx(1.0) and nodes.var() == pytest.approx(0.81, rel=0.04)
    assert gamma_nodes(0.0) == pytest.approx(np.ones(64), abs=0.01)


@pytest.mark.parametrize("kind", ["kou", "bates"])
def test_what_is_expected_beyond_a_size_is_what_is_drawn(kind: str) -> None:
    rng, sizes = np.random.default_rng(5), np.array([0.02, 0.03, 0.05])
    if kind == "kou":
        common = kou.Jumps(np.array([0.03, 0.02]), np.array([0.02, 0.03]))
        fit: Any = kou.Estimate(common, np.ones(1), (), np.array([[1e-4]]), np.zeros((1, 1)), 0.0, 0)
        kinds = rng.choice(3, 400_000, p=[0.03, 0.02, 0.95])
        drawn = np.where(kinds == 0, rng.exponential(0.02, 400_000), -rng.exponential(0.03, 400_000)) * (kinds < 2)
        drawn += rng.normal(0, 0.01, 400_000)
    else:
        common = np.array([0.03, -0.01, 0.03])
        own = np.zeros((1, 3))
        fit = bates.Estimate(common, np.ones(1), own, np.array([[1e-4]]), own[:, :1], np.array([9, 0.8, 0]), 0.0, 0)
        v = rng.gamma(0.8**-2, 0.8**2, 400_000)
        drawn = np.where(rng.random(400_000) < 0.03, rng.normal(-0.01, 0.03, 400_000), 0.0)
        drawn += np.sqrt(v) * rng.normal(0, 0.01, 400_000)
    expected = fit.beyond(sizes)
    seen = (np.abs(drawn)[:, None] > sizes).mean(axis=0)
    # the nodes of a gamma leave a per cent of its far tail out
    assert np.abs(seen - expected) == pytest.approx(
        np.zeros(3), abs=0.02 * expected[-1] + 4 * np.sqrt(expected[0] / 4e5)
    )


def test_degrees_of_freedom_come_back_and_are_the_likeliest() -> None:
    law: Any = stats.multivariate_t
    scores = []
    for seed in range(4):
        returns = law.rvs(shape=[[1e-4, 5e-5], [5e-5, 2e-4]], df=4, size=8_000, random_state=seed)
        nu = student_t.degrees_of_freedom(returns)
        errors = sample.standard_errors(returns, lambda s: {"nu": np.array(student_t.degrees_of_freedom(s))})
        scores.append((nu - 4) / errors["nu"])
    assert np.abs(scores).max() < 3
    covariance = returns.T @ returns / len(returns)

    def likelihood(at: float) -> float:
        return float(law.logpdf(returns, shape=covariance * (at - 2) / at, df=at).sum())

    assert likelihood(nu) > max(likelihood(nu * 1.01), likelihood(nu * 0.99))
    normal = np.random.default_rng(1).normal(size=(4_000, 2))
    assert student_t.degrees_of_freedom(normal) > 40


def test_garch_comes_back_and_is_the_likeliest() -> None:
    truth, scores = np.array([0.06, 0.04, 0.88]), []
    for seed in range(2):
        returns = _gjr(seed, *truth)
        found = garch.weights(returns)
        errors = sample.standard_errors(returns[:, None], lambda s: {"w": garch.weights(s[:, 0], found)})["w"]  # noqa: B023
        scores.append((found - truth) / errors)
    assert np.abs(scores).max() < 3.5

    def likelihood(alpha: float, gamma: float, beta: float) -> float:
        long_run = h = float(np.mean(returns**2))
        total = 0.0
        for r in returns.tolist():
            total -= np.log(h) + r**2 / h
            h = long_run * (1 - alpha - gamma / 2 - beta) + (alpha + gamma * (r < 0)) * r**2 + beta * h
        return total

    best = likelihood(*found)
    for step in 0.004 * np.concatenate([np.eye(3), -np.eye(3)]):
        assert likelihood(*(found + step)) < best


def test_block_length_is_that_of_an_autoregression() -> None:
    rng, n = np.random.default_rng(4), 40_000
    for rho in (0.5, 0.8):
        noise, values, last = rng.normal(size=n), np.empty(n), 0.0
        for i in range(n):
            values[i] = last = rho * last + noise[i]
        best = (2 * rho / (1 - rho**2)) ** (2 / 3) * n ** (1 / 3)
        assert blocks.block_length(values) == pytest.approx(best, rel=0.25)
    assert blocks.block_length(rng.normal(size=n)) < 6


def test_others_find_the_same() -> None:
    """Figures that `arch` 8.0.0 gives: `optimal_block_length`, and a GJR-GARCH(1, 1) of zero mean with free omega."""
    noise = np.random.default_rng(11).normal(size=3_000)
    values, last = np.empty(3_000), 0.0
    for i in range(3_000):
        values[i] = last = 0.6 * last + noise[i]
    assert blocks.block_length(values) == pytest.approx(
        21.8813, rel=0.03
    )  # theirs takes in one lag more than the paper
    theirs, errors = np.array([0.04748, 0.04923, 0.89124]), np.array([0.00689, 0.00932, 0.01038])
    assert (np.abs(garch.weights(_gjr(0, 0.06, 0.04, 0.88)) - theirs) < 0.5 * errors).all()


@pytest.mark.parametrize("kind", list(FITS))
def test_a_fit_is_a_table_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 4)
    returns = _kou(3)[:6_000]
    shock, report = FITS[kind](_bars(returns), (), 0.026)
    path = tmp_path / f"{kind}.toml"
    path.write_text(to_toml(shock, "liqstress fit-shocks", report))
    again: Any = read_shock(path)
    assert again.model_dump(exclude={"source"}) == shock.model_dump(exclude={"source"})
    assert again.source == f"liqstress fit-shocks; {report['period']}" and "+- " in path.read_text()
    scale = 0.026 / np.sqrt(24 * np.mean(returns[:, 0] ** 2))
    assert report["scale"] == pytest.approx(scale, rel=1e-3)
    realised = scale * np.sqrt(24 * np.mean(returns**2, axis=0))
    if isinstance(shock, BlockBootstrap | Garch):
        assert (shock.start, shock.until) == tuple(report["period"].split(" to ")) and shock.scale == pytest.approx(
            scale, rel=1e-3
        )
    if not isinstance(shock, BlockBootstrap):
        total = shock.daily_volatility if isinstance(shock, Garch) else total_volatility(shock)
        assert list(total.values()) == pytest.approx(realised, rel=2e-3)


def test_what_cannot_carry_a_fit_is_refused() -> None:
    calm = _diffusion(np.random.default_rng(1), 2_000)
    for kind in ("kou", "bates"):
        with pytest.raises(InputError, match="show 0 common jumps, expected 20 or more"):
            FITS[kind](_bars(calm), (), None)
    with pytest.raises(InputError, match="two assets move as one"):
        FITS["student_t"](_bars(calm[:, [0, 0]]), (), None)
    with pytest.raises(InputError, match="an asset does not move"):
        FITS["garch"](_bars(calm * [1, 0]), (), None)


@pytest.mark.skipif(not (DATA / FOLDERS[0]).is_dir(), reason="needs real prices in ../shared/data")
@pytest.mark.parametrize("kind", ["kou", "bates", "student_t", "garch", "block_bootstrap"])
def test_shipped_tables_are_the_fit_to_the_data(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sample, "REPLICATES", 2)
    assets = ("BTC", "ETH", "SOL", "XRP", "DOGE")
    shock, report = fit_shocks([DATA / folder for folder in FOLDERS], assets, kind, until="2022-07-31")
    assert read_shock(SHIPPED / f"{kind}.toml").model_dump(exclude={"source"}) == shock.model_dump(exclude={"source"})
    if isinstance(shock, Kou | Bates):  # what merton cannot: the far tail too
        for size, seen, expected in report["tail"][1:]:
            assert abs(seen - expected) < 2.5 * np.sqrt(expected), size
    if isinstance(shock, StudentT):  # one tail for all assets is too heavy for the calmest of them
        assert report["tail"][-1][1] < report["tail"][-1][2]
