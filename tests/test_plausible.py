"""Densities of shock models against scipy, sums written out, a Fourier inversion, and draws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm, poisson, t

from stress.diffusions import Gbm, Kou, Merton, StudentT
from stress.plausible import Law, law_of, return_period_years, standard_deviations
from stress.scenarios import Prescribed
from stress.spec import InputError

ASSETS = ["A", "B"]
BASE = {"daily_volatility": {"A": 0.03, "B": 0.05}, "correlation": 0.6}
DAY = 1440.0
NORMAL: Any = stats.multivariate_normal
STUDENT: Any = stats.multivariate_t
MOVES = np.array([[0.01, -0.04, -0.1], [0.0, -0.05, -0.13]])


def covariance(days: float) -> np.ndarray:
    return days * np.array([[0.03**2, 0.6 * 0.03 * 0.05], [0.6 * 0.03 * 0.05, 0.05**2]])


def merton(**own: dict) -> Merton:
    common = {"per_day": 3.0, "mean": -0.004, "sd": 0.02, "minutes": [1, 5], "beta": {"A": 1.0, "B": 1.4}}
    return Merton.model_validate({"kind": "merton", **BASE, "common": common, "own": own})


def kou(common: float = 2.0, own: float = 0.0) -> Kou:
    sizes = {"up": 0.4, "mean_up": 0.02, "mean_down": 0.03}
    return Kou.model_validate(
        {
            "kind": "kou",
            **BASE,
            "common": {"per_day": common, **sizes, "minutes": [1, 5], "beta": {"A": 1.0, "B": 1.4}},
            "own": {"A": {"per_day": own, **sizes}} if own else {},
        }
    )


def test_gbm_is_the_normal_of_the_window():
    law = law_of(Gbm(kind="gbm", **BASE), ASSETS, 15)
    expected = NORMAL(np.zeros(2), covariance(15 / DAY)).logpdf(MOVES.T)
    assert law.density(MOVES).log == pytest.approx(expected)
    direction = np.array([1.0, -0.5])
    sd = np.sqrt(direction @ covariance(15 / DAY) @ direction)
    assert law.log_tail(direction, 0.02) == pytest.approx(norm.logsf(0.02 / sd))
    assert standard_deviations(law, np.array([0.01, 0.0])) == pytest.approx(
        np.sqrt(0.01**2 * np.linalg.inv(covariance(15 / DAY))[0, 0])
    )


def test_merton_is_the_sum_over_numbers_of_jumps():
    law = law_of(merton(B={"per_day": 1.5, "mean": 0.01, "sd": 0.03}), ASSETS, 240)
    beta, days, total = np.array([1.0, 1.4]), 240 / DAY, np.zeros(3)
    for n, m in itertools.product(range(13), range(13)):
        mean = -0.004 * n * beta + 0.01 * m * np.array([0.0, 1.0])
        spread = covariance(days) + n * 0.02**2 * np.outer(beta, beta) + m * 0.03**2 * np.diag([0.0, 1.0])
        weight = poisson.pmf(n, 3 * days) * poisson.pmf(m, 1.5 * days)
        total += weight * NORMAL(mean, spread).pdf(MOVES.T)
    assert law.density(MOVES).log == pytest.approx(np.log(total), abs=1e-5)


def test_a_far_move_is_due_to_several_jumps():
    law = law_of(merton(), ASSETS, 15)
    assert law.density(np.array([[-0.02, -0.15], [-0.028, -0.21]])).jumps == pytest.approx([1, 3], abs=0.6)


@pytest.mark.parametrize(("common", "own"), [(2.0, 0.0), (0.0, 0.1), (2.0, 0.1)])
def test_kou_is_what_its_characteristic_function_says(common: float, own: float):
    """Of one asset alone: inverted by Fourier; both kinds of jumps have the same law here."""
    minutes = 60
    law = law_of(kou(common, own), ["A"], minutes)
    u = np.linspace(-4000, 4000, 400_001)
    jump = 0.4 / (1 - 0.02j * u) + 0.6 / (1 + 0.03j * u)
    days = minutes / DAY
    cumulant = -0.5 * 0.03**2 * days * u**2 + (common + own) * days * (jump - 1)
    x = np.array([-0.3, -0.15, -0.08, 0.0, 0.06, 0.12])
    wave = np.real(np.exp(cumulant[None] - 1j * u[None] * x[:, None]))
    density = np.trapezoid(wave, u, axis=1) / (2 * np.pi)
    assert law.density(x[None]).log == pytest.approx(np.log(density), abs=0.03)


def test_student_t_is_that_of_scipy():
    spec = StudentT(kind="student_t", degrees_of_freedom=3.5, **BASE)
    law, scale = law_of(spec, ASSETS, 30), covariance(30 / DAY) * 1.5 / 3.5
    assert law.density(MOVES).log == pytest.approx(STUDENT.logpdf(MOVES.T, np.zeros(2), scale, 3.5))
    assert law.log_tail(np.array([0.0, -1.0]), 0.1) == pytest.approx(t(3.5).logsf(0.1 / np.sqrt(scale[1, 1])))
    assert law.covariance() == pytest.approx(covariance(30 / DAY))
    with pytest.raises(InputError, match="at most 60"):
        law_of(spec, ASSETS, 90)


@pytest.mark.parametrize("spec", [merton(A={"per_day": 1.0, "mean": 0.01, "sd": 0.03}), kou(2.0, 0.5)])
def test_gradients_are_those_of_differences(spec: Merton | Kou):
    law, step = law_of(spec, ASSETS, 30), 1e-6
    found = law.density(MOVES).gradient
    for a in range(2):
        moved = step * np.eye(2)[:, [a]]
        slope = (law.density(MOVES + moved).log - law.density(MOVES - moved).log) / (2 * step)
        assert found[a] == pytest.approx(slope, rel=1e-5, abs=1e-4)


def drawn(spec: Kou | Merton, days: float, count: int) -> np.ndarray:
    """Moves of a window, drawn from the description."""
    rng = np.random.default_rng(5)
    moves = rng.multivariate_normal(np.zeros(2), covariance(days), count)

    def sizes(source) -> np.ndarray:
        jumps = np.zeros(count)
        for i, many in enumerate(rng.poisson(source.per_day * days, count)):
            if isinstance(spec, Merton):
                jumps[i] = rng.normal(source.mean, source.sd, many).sum()
            else:
                mean = np.where(rng.random(many) < source.up, source.mean_up, -source.mean_down)
                jumps[i] = np.sum(mean * rng.exponential(1, many))
        return jumps

    moves += sizes(spec.common)[:, None] * [1.0, 1.4]
    for name, source in spec.own.items():
        moves[:, ASSETS.index(name)] += sizes(source)
    return moves


@pytest.mark.parametrize("spec", [merton(A={"per_day": 1.0, "mean": 0.01, "sd": 0.03}), kou(2.0, 0.5)])
@pytest.mark.parametrize("direction", [(1.0, 0.3), (-0.5, -1.0), (-1.0, 0.8)])
def test_tails_are_those_of_draws(spec: Merton | Kou, direction: tuple[float, float]):
    count = 40_000
    law, moves = law_of(spec, ASSETS, 60), drawn(spec, 60 / DAY, count)
    for level in (0.02, 0.05):
        hits = np.sum(moves @ direction >= level)
        expected = count * np.exp(law.log_tail(np.array(direction), level))
        assert abs(hits - expected) < 4 * np.sqrt(expected) + 0.01 * expected


def test_covariance_is_that_of_the_parts():
    spec, days = merton(A={"per_day": 1.0, "mean": 0.01, "sd": 0.03}), 60 / DAY
    beta = np.array([1.0, 1.4])
    expected = covariance(days) + 3 * days * (0.004**2 + 0.02**2) * np.outer(beta, beta)
    expected[0, 0] += days * (0.01**2 + 0.03**2)
    assert law_of(spec, ASSETS, 60).covariance() == pytest.approx(expected, rel=1e-3)


def test_a_window_of_a_tenth_of_a_percent_comes_every_ten_days_or_so():
    assert return_period_years(np.log(1e-3), 15) == pytest.approx(15 * 1000 / DAY / 365.25)


def test_shocks_without_a_density_are_refused():
    still = Prescribed(kind="prescribed", minutes=(1,), moves={"A": (0.0,), "B": (0.0,)})
    with pytest.raises(InputError, match=r"kind 'prescribed'.*--under"):
        law_of(still, ASSETS, 15)


def test_weights_are_chances():
    law: Law = law_of(merton(), ASSETS, 60)
    assert np.exp(law.log_weight).sum() == pytest.approx(1)
