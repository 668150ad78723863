"""Shocks that are drawn: moments and tails in closed form, limits that coincide, and paths of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import write_small
from scipy import integrate, stats
from stress_kernels.shocks.quantiles import from_normal
from stress_kernels.shocks.sizes import ExponentialSizes
from stress_kernels.simulate import path_keys

from stress.config import load_config
from stress.diffusions import Bates, Diffusion, Kou, StudentT, total_volatility
from stress.scenarios import Gbm
from stress.shock import Grid, compile_shock
from stress.spec import InputError, validate

SIGMA = {"BTC": 0.05, "ETH": 0.06}
GBM = {"kind": "gbm", "daily_volatility": SIGMA, "correlation": 0.5}
KOU_JUMPS = {"per_day": 3.0, "up": 0.3, "mean_up": 0.02, "mean_down": 0.04}
KOU = {
    **GBM, "kind": "kou", "own": {"ETH": {"per_day": 1.0, "up": 1.0, "mean_up": 0.03, "mean_down": 0.0}},
    "common": {**KOU_JUMPS, "minutes": [0.5, 1.0], "beta": {"BTC": 1.0, "ETH": 1.5}},
}  # fmt: skip
MERTON = {
    **GBM, "kind": "merton",
    "common": {"per_day": 3.0, "mean": -0.01, "sd": 0.03, "minutes": [0.5, 1.0], "beta": {"BTC": 1.0, "ETH": 1.5}},
}  # fmt: skip
WANDERING = {"half_life_hours": 3.0, "sd": 0.8, "leverage": -0.5}
BATES = {**MERTON, "kind": "bates", "variance": WANDERING}
STUDENT = {**GBM, "kind": "student_t", "degrees_of_freedom": 4.0}
PATHS = 8192

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Log index of paths of a shock, (step a p), with the start in front; where asked, without its jumps."""
    config = write_small(tmp_path_factory.mktemp("shocks"))

    def paths(shock: dict[str, Any], hours: int, step: int, count: int = PATHS, *, jumps: bool = True) -> np.ndarray:
        spec = load_config(config, overrides={"shock": shock}).shock
        compiled = compile_shock(spec, Grid(list(SIGMA), hours, step))
        compiled = compiled if jumps else replace(compiled, jumps=None)
        keys = path_keys(jnp.uint32(5), jnp.int32(0), count)
        log = np.asarray(jax.jit(lambda shock, keys: shock.paths(keys))(compiled, keys), np.float64)
        return np.concatenate([np.zeros_like(log[:1]), log])

    return paths


def _off(values: np.ndarray, expected: float) -> float:
    """Distance of a mean from what it should be, in standard errors."""
    return abs(float(np.mean(values)) - expected) / float(np.std(values) / np.sqrt(values.size))


def test_kou_has_the_cumulants_of_a_compound_poisson(draw: Draw) -> None:
    end = draw(KOU, 4, 3600)[-1]
    p, up, down, days = 0.3, 0.02, 0.04, 4 / 24
    moment = {1: p * up - 0.7 * down, 2: 2 * (p * up**2 + 0.7 * down**2), 4: 24 * (p * up**4 + 0.7 * down**4)}
    mean = np.array([3 * moment[1], 3 * moment[1] * 1.5 + 0.03]) * days
    variance = np.array([0.05**2 + 3 * moment[2], 0.06**2 + 3 * moment[2] * 1.5**2 + 2 * 0.03**2]) * days
    for a in range(2):
        assert _off(end[a], mean[a]) < 4
        assert _off((end[a] - mean[a]) ** 2, variance[a]) < 4
    product = (end[0] - mean[0]) * (end[1] - mean[1])
    assert _off(product, (0.5 * 0.05 * 0.06 + 1.5 * 3 * moment[2]) * days) < 4
    fourth = (end[0] - mean[0]) ** 4 - 3 * variance[0] ** 2
    assert _off(fourth, 3 * moment[4] * days) < 4
    total = total_volatility(validate(Kou, KOU, "kou"))
    assert list(total.values()) == pytest.approx(np.sqrt(variance / days))


def test_jump_sizes_have_a_slope_on_either_side() -> None:
    sizes = ExponentialSizes(jnp.array([0.5, 0.2]), jnp.array([0.03, 0.01]), jnp.array([0.03, 0.05]))
    drawn = np.asarray(sizes.draw(jax.random.key(3), 40_000), np.float64)
    assert stats.kstest(drawn[0], stats.laplace(scale=0.03).cdf).pvalue > 1e-3
    assert _off(drawn[1] > 0, 0.2) < 4
    for values, mean in ((drawn[1][drawn[1] > 0], 0.01), (-drawn[1][drawn[1] < 0], 0.05)):
        assert stats.kstest(values, stats.expon(scale=mean).cdf).pvalue > 1e-3


def test_hours_of_student_t_are_jointly_student_t(draw: Draw) -> None:
    log = draw(STUDENT, 2, 1800)
    hours = np.diff(log[::2], axis=0)
    for a, sigma in enumerate(SIGMA.values()):
        law = stats.t(4, scale=sigma / np.sqrt(24) * np.sqrt(2 / 4))
        for hour in hours:
            assert stats.kstest(hour[a], law.cdf).pvalue > 1e-3
    pooled = hours.transpose(1, 0, 2).reshape(2, -1) / (np.array(list(SIGMA.values()))[:, None] / np.sqrt(24))
    many: Any = stats  # its types are not those of scipy's stubs
    joint = many.multivariate_t(shape=np.array([[1, 0.5], [0.5, 1]]) / 2, df=4)
    level = stats.t.ppf(0.01, 4) / np.sqrt(2)
    chance = float(joint.cdf([level, level], random_state=1))
    normal = float(many.multivariate_normal.cdf([stats.norm.ppf(0.01)] * 2, [0, 0], np.array([[1, 0.5], [0.5, 1]])))
    assert _off((pooled < level).all(axis=0), chance) < 4
    assert chance > 2 * normal  # far moves of two assets coincide as those of a diffusion do not
    one, two = (np.abs(hours[h, 0]) for h in range(2))
    assert abs(many.spearmanr(one, two)[0]) < 4 / np.sqrt(PATHS)  # and the next hour forgets
    within = np.abs(np.diff(log[:3, 0], axis=0))
    assert many.spearmanr(*within)[0] > 0.1


def test_student_t_with_many_degrees_of_freedom_is_gbm(draw: Draw) -> None:
    heavy, normal = (draw(shock, 2, 1800, 64) for shock in ({**STUDENT, "degrees_of_freedom": 1e7}, GBM))
    assert heavy == pytest.approx(normal, rel=5e-3, abs=2e-5)
    assert np.abs(draw(STUDENT, 2, 1800, 64) - normal).max() > 0.01


def test_any_positive_law_comes_from_normals() -> None:
    knots = stats.norm.cdf(np.linspace(-6, 6, 1025))
    z = np.linspace(-5.5, 5.5, 2001)
    for law in (stats.chi2(3), stats.gamma(0.7)):
        drawn = np.asarray(from_normal(jnp.asarray(np.log(law.ppf(knots)), jnp.float32), jnp.asarray(z, jnp.float32)))
        assert drawn == pytest.approx(law.ppf(stats.norm.cdf(z)), rel=2e-3)
    ends = from_normal(jnp.arange(5.0), jnp.array([-9.0, -6.0, 0.0, 6.0, 9.0]))
    assert np.log(np.asarray(ends)) == pytest.approx([0, 0, 2, 4, 4], abs=1e-6)


def test_bates_whose_variance_stands_still_is_merton_to_the_last_bit(draw: Draw, tmp_path: Path) -> None:
    config = write_small(tmp_path)
    still = {**BATES, "variance": {**WANDERING, "sd": 0.0}}
    diffusions = [draw(shock, 2, 600, 64, jumps=False) for shock in (still, BATES, MERTON)]
    assert (diffusions[0] == diffusions[2]).all()
    assert (diffusions[1][1:] != diffusions[2][1:]).any()
    specs = [load_config(config, overrides={"shock": shock}).shock for shock in (still, MERTON)]
    tables = [compile_shock(spec, Grid(list(SIGMA), 2, 600)).jumps for spec in specs]
    assert jax.tree.map(np.array_equal, *tables) == jax.tree.map(lambda _: True, tables[0])


def test_variance_of_bates_wanders_as_a_square_root_process(draw: Draw) -> None:
    log = draw(BATES, 6, 300, jumps=False)
    hours = np.diff(log[::12], axis=0)[:, 0] / (0.05 / np.sqrt(24))
    kappa, sd, rho = np.log(2) / 3, 0.8, -0.5  # an hour is the unit
    squares = hours**2
    assert max(_off(square, 1.0) for square in squares) < 4
    smooth = 2 * (kappa - 1 + np.exp(-kappa)) / kappa**2  # of the variance of an hour's mean of v
    assert max(_off(square**2, 3 * (1 + sd**2 * smooth)) for square in squares) < 4
    for lag in (1, 3, 5):
        product = np.mean([squares[h] * squares[h + lag] for h in range(6 - lag)], axis=0)
        expected = 1 + sd**2 * (2 * np.sinh(kappa / 2) / kappa) ** 2 * np.exp(-kappa * lag)
        assert _off(product, expected) < 4
    leverage = np.mean([hours[h] * squares[h + 1] for h in range(5)], axis=0)
    assert _off(leverage, rho * sd * np.sqrt(2 * kappa) * ((1 - np.exp(-kappa)) / kappa) ** 2) < 4


def test_bates_starts_where_it_is_told(draw: Draw) -> None:
    log = draw({**BATES, "variance": {**WANDERING, "start": 3.0}}, 6, 300, jumps=False)
    hours = np.diff(log[::12], axis=0)
    kappa = np.log(2) / 3
    for h, hour in enumerate(hours[:, 1] / (0.06 / np.sqrt(24))):
        expected = 1 + 2 * np.exp(-kappa * h) * (1 - np.exp(-kappa)) / kappa
        assert _off(hour**2, expected) < 4


@pytest.mark.parametrize("shock", [BATES, STUDENT], ids=lambda shock: shock["kind"])
def test_a_path_does_not_know_how_many_there_are(draw: Draw, shock: dict[str, Any]) -> None:
    few, many = (draw(shock, 2, 600, count, jumps=False) for count in (64, 128))
    assert (few == many[:, :, :64]).all()


def test_a_path_has_the_leader_behind_its_variance_in_any_order(tmp_path: Path) -> None:
    config = write_small(tmp_path)
    correlation = [[1.0, 0.3, 0.6], [0.3, 1.0, 0.2], [0.6, 0.2, 1.0]]
    three = {**BATES, "daily_volatility": {"ETH": 0.06, "BTC": 0.05, "SOL": 0.1}, "correlation": correlation}
    shock = compile_shock(load_config(config, overrides={"shock": three}).shock, Grid(list(SIGMA), 1, 60))
    assert shock.variance is not None
    factor = np.linalg.cholesky(np.array([[1, 0.3], [0.3, 1]]))  # of BTC and ETH, as the run has them
    assert factor @ shock.variance.leverage == pytest.approx(-0.5 * np.array([0.3, 1.0]), abs=1e-6)


def test_typical_volatility_is_the_mean_of_its_root() -> None:
    nu, shape = 4.0, 0.8**-2
    expected = {
        "student_t": integrate.quad(lambda c: np.sqrt((nu - 2) / c) * stats.chi2.pdf(c, nu), 0, np.inf)[0],
        "bates": integrate.quad(lambda v: np.sqrt(v) * stats.gamma.pdf(v, shape, scale=1 / shape), 0, np.inf)[0],
        "gbm": 1.0,
    }
    tables: tuple[tuple[type[Diffusion], dict[str, Any]], ...] = ((StudentT, STUDENT), (Bates, BATES), (Gbm, GBM))
    for kind, table in tables:
        shock = validate(kind, table, "shock")
        assert shock.typical() == pytest.approx(expected[table["kind"]], rel=1e-6)
        assert shock.diffusion("ETH") == pytest.approx(0.06 * expected[table["kind"]])


@pytest.mark.parametrize(
    ("shock", "message"),
    [
        ({**STUDENT, "degrees_of_freedom": 2}, "shock.degrees_of_freedom is 2, expected greater than 2"),
        ({**KOU, "common": {**KOU["common"], "up": 1.2}}, "shock.common.up is 1.2, expected less than or equal to 1"),
        ({**KOU, "own": {"LTC": KOU_JUMPS}}, "shock.own names 'LTC', expected an asset of shock.daily_volatility"),
        ({**BATES, "common": {**BATES["common"], "minutes": [2, 1]}}, "shock.common.minutes is \\[2.0, 1.0\\]"),
        ({**BATES, "variance": {**WANDERING, "leverage": 2}}, "shock.variance.leverage is 2, expected less"),
        ({**BATES, "variance": {**WANDERING, "half_life": 2}}, "variance.half_life is not a known key. Did you mean"),
        ({**STUDENT, "daily_volatility": {"BTC": 0.05}}, "shock says nothing about ETH"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(tmp_path: Path, shock: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(write_small(tmp_path), overrides={"shock": shock})
