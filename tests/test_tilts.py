"""Paths drawn from tilted laws: chances in closed form, weights that average to one, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import write_small
from scipy import stats
from stress_kernels.shocks import tilts
from stress_kernels.simulate import path_keys
from test_shocks import GBM, KOU, MERTON, STUDENT

from stress.config import load_config
from stress.digests import config_json, digest
from stress.intervals import Weighed, probability
from stress.sampled import sampled
from stress.shock import Grid, compile_shock
from stress.spec import InputError

PATHS, STEPS, DAYS = 4096, 30, 1 / 24
QUICK = {"minutes": [1e-3, 1e-3]}
"""Jumps that are over within a step."""


class Drawn(NamedTuple):
    """Where paths end, (a p), what they weigh, and their jumps' times and sizes."""

    ends: np.ndarray
    weight: np.ndarray
    times: np.ndarray
    sizes: np.ndarray


Draw = Callable[..., Drawn]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Paths of an hour in steps of two minutes."""
    config = write_small(tmp_path_factory.mktemp("tilts"))

    def paths(shock: dict[str, Any], *tilted: dict[str, Any], count: int = PATHS) -> Drawn:
        run = load_config(config, overrides={"shock": shock, "sampling": {"kind": "importance", "tilts": [*tilted]}})
        grid = Grid(list(run.assets), 1, 120)
        tables = sampled(compile_shock(run.shock, grid), run.shock, run.sampling, grid)

        def drawn(tables: Any, keys: Any) -> Any:
            log, weight = tables.drawn(keys)
            jumped = None if tables.sampling.jumps is None else tilts.draw(tables.sampling, keys)
            return log[-1], jnp.exp(weight), jumped

        ends, weight, jumped = jax.jit(drawn)(tables, path_keys(jnp.uint32(5), jnp.int32(0), count))
        several = (np.full((0, 0, count), np.nan),) * 2 if jumped is None else (jumped.times, jumped.sizes)
        return Drawn(*(np.asarray(x, np.float64) for x in (ends, weight, *several)))

    return paths


def agrees(hit: np.ndarray, weight: np.ndarray, chance: float, relative: float) -> None:
    """The estimate is within four standard errors of a chance, and these are small."""
    found = probability(hit, weight)
    assert isinstance(found, Weighed)
    error = np.sqrt(chance * (1 - chance) / found.draws)
    assert abs(found.value - chance) < 4 * error, (found.value, chance, error)
    assert error < relative * chance


def sound(weight: np.ndarray, nominal: float) -> None:
    """Weights average to one, and none is above one over the share of the shock itself."""
    assert abs(weight.mean() - 1) < 4 * weight.std() / np.sqrt(PATHS)
    assert weight.max() <= (1 + 1e-4) / nominal


def test_a_drift_finds_the_far_end_of_a_diffusion(draw: Draw) -> None:
    far = 5 * 0.05 * np.sqrt(DAYS)
    found = draw(GBM, {"share": 0.8, "drift_per_day": {"BTC": -far / DAYS, "ETH": -0.5 * 1.2 * far / DAYS}})
    sound(found.weight, 0.2)
    agrees(found.ends[0] < -far, found.weight, float(stats.norm.cdf(-5)), 0.05)  # 2.9e-7
    many: Any = stats  # its types are not those of scipy's stubs
    both = float(many.multivariate_normal.cdf([-4, -4], [0, 0], np.array([[1, 0.5], [0.5, 1]])))
    scaled = found.ends / (np.array([[0.05], [0.06]]) * np.sqrt(DAYS))
    agrees((scaled < -4).all(axis=0), found.weight, both, 0.4)


def merton_tail(limit: float, per_day: float, mean: float, sd: float, sigma: float) -> float:
    """Chance that a jump-diffusion ends below a limit: over the number of jumps."""
    n = np.arange(40)
    spread = np.sqrt(sigma**2 * DAYS + n * sd**2)
    return float(stats.poisson.pmf(n, per_day * DAYS) @ stats.norm.cdf((limit - n * mean) / spread))


def test_jumps_find_the_far_end_of_a_jump_diffusion(draw: Draw) -> None:
    shock = MERTON | {"common": MERTON["common"] | QUICK}
    down = {"common": {"per_day": 30.0, "mean": -0.12, "sd": 0.03}, "drift_per_day": {"BTC": -0.2}}
    up = {"common": {"per_day": 30.0, "mean": 0.08, "sd": 0.04}}
    found = draw(shock, {"share": 0.6, **down}, {"share": 0.3, **up})
    sound(found.weight, 0.1)
    agrees(found.ends[0] < -0.15, found.weight, merton_tail(-0.15, 3, -0.01, 0.03, 0.05), 0.25)
    agrees(found.ends[1] > 0.15, found.weight, merton_tail(-0.15, 3, 0.015, 0.045, 0.06), 0.3)


def test_jumps_with_slopes_and_of_one_asset_alone(draw: Draw) -> None:
    own = {"per_day": 1.0, "up": 0.3, "mean_up": 0.02, "mean_down": 0.04}
    shock = KOU | {"common": KOU["common"] | QUICK, "own": {"ETH": own}}
    common = {"per_day": 20.0, "up": 0.1, "mean_up": 0.02, "mean_down": 0.3}
    rather = {"ETH": {"per_day": 20.0, "up": 0.9, "mean_up": 0.2, "mean_down": 0.04}}
    found = draw(shock, {"share": 0.45, "common": common}, {"share": 0.45, "own": rather})
    sound(found.weight, 0.1)
    there = found.times <= STEPS
    some = [(there[s] & (sign * found.sizes[s] > limit)).any(axis=0) for s, sign, limit in ((0, -1, 0.4), (1, 1, 0.2))]
    rates = 3.0 * 0.7 * np.exp(-0.4 / 0.04) * DAYS, 1.0 * 0.3 * np.exp(-0.2 / 0.02) * DAYS
    for hit, rate in zip(some, rates, strict=True):
        agrees(hit, found.weight, -np.expm1(-rate), 0.2)


def test_what_comes_after_the_end_does_not_count(draw: Draw) -> None:
    """Weights of paths without a jump until the end depend on the number of jumps alone."""
    shock = MERTON | {"common": MERTON["common"] | {"per_day": 6.0}}
    found = draw(shock, {"share": 0.5, "common": {"per_day": 18.0, "mean": -0.05, "sd": 0.02}})
    none = ~(found.times <= STEPS).any(axis=(0, 1))
    assert found.weight[none] == pytest.approx(1 / (0.5 + 0.5 * np.exp(-12 * DAYS)), rel=1e-5)
    agrees(none, found.weight, float(np.exp(-6 * DAYS)), 0.1)


def test_a_path_is_the_same_beside_any_others(draw: Draw) -> None:
    few, many = (draw(GBM, {"share": 0.5, "drift_per_day": {"BTC": -0.3}}, count=count) for count in (64, 128))
    assert (few.ends == many.ends[:, :64]).all()
    assert (few.weight == many.weight[:64]).all()


def test_a_config_without_sampling_is_the_run_that_it_was(small: Path) -> None:
    run, tilted = load_config(small), load_config(small, overrides={"sampling": TILT})
    assert '"sampling"' not in config_json(run)
    assert digest(tilted) != digest(run)
    assert digest(tilted.model_copy(update={"sampling": None})) == digest(run)


TILT = {"kind": "importance", "tilts": [{"share": 0.5, "drift_per_day": {"BTC": -0.1}}]}
OF_JUMPS = {"per_day": 9.0, "mean": 0.0, "sd": 0.05}


def importance(*tilted: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "importance", "tilts": [{"share": 0.5} | tilt for tilt in tilted]}


STILL = {"kind": "prescribed", "minutes": [0, 30], "moves": {"BTC": [0, -0.1], "ETH": [0, -0.1]}}
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"sampling": importance({"share": 1.0})}, r"share is 1\.0, expected less than 1"),
    ({"sampling": importance({}, {})}, r"tilts have shares that sum to 1, expected at most 0\.99.* Lower them"),
    ({"sampling": {"kind": "importance", "tilts": []}}, r"tilts is .*expected"),
    ({"sampling": importance({"drift_per_day": {"SOL": 1.0}})}, r"names 'SOL', expected an asset of the run"),
    ({"sampling": importance({"common": OF_JUMPS})}, r"tilts jumps, expected none with a shock of kind 'gbm'"),
    ({"sampling": TILT, "shock": STILL}, r"with a shock without noise, expected none. Leave it out"),
    ({"sampling": importance({}), "shock": STILL}, r"prescribed shock without noise, .* Add shock\.noise"),
    ({"sampling": TILT, "shock": STUDENT}, r"'importance' with a shock of kind 'student_t', expected a shock among"),
    ({"sampling": importance({"own": {"BTC": OF_JUMPS}}), "shock": MERTON}, r"own names 'BTC', expected an asset with"),
    ({"sampling": importance({"common": OF_JUMPS}), "shock": KOU}, r"another law .* expected per_day, up, mean_up"),
    ({"sampling": importance({"common": OF_JUMPS | {"sd": 0.0}}), "shock": MERTON}, r"sd is 0, expected more than 0"),
    ({"sampling": importance({"common": OF_JUMPS | {"per_day": 0.0}}), "shock": MERTON}, r"per_day is 0, expected"),
    ({"sampling": importance({"own": {"ETH": KOU["own"]["ETH"] | {"up": 0.5}}}), "shock": KOU},
     r"own\.ETH\.up is 0\.5, expected 1 as in the shock, whose jumps all go one way"),
    ({"sampling": {"kind": "antithetic"}, "paths": 41}, r"paths is 41, expected a multiple of 2, .* Choose 42"),
    ({"sampling": {"kind": "antithetic"}, "chunk": 17}, r"chunk is 17, expected a multiple of 2, .* Choose 18"),
    ({"sampling": {"kind": "antithetic"}, "shock": STILL}, r"'antithetic' with a shock of kind 'prescribed'"),
    ({"sampling": {"kind": "sobol", "points": 48}}, r"points is 48, expected a power of two"),
    ({"sampling": {"kind": "sobol", "points": 32}, "paths": 64}, r"chunk is 16, expected a multiple of 32"),
    ({"sampling": {"kind": "tilted"}}, r"sampling\.kind is 'tilted', expected one of 'importance', 'antithetic'"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "says"), REFUSALS)
def test_refusals_are_of_one_line(small: Path, overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        load_config(small, overrides=overrides)
    assert "\n" not in str(error.value)
