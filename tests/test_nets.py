"""Pairs and nets: every path has the shock's law, and means of smooth quantities scatter less."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Finished, write_small
from scipy import stats
from stress_kernels.shocks import nets
from stress_kernels.simulate import path_keys
from test_shocks import GBM, KOU, total_volatility

from stress import console
from stress.comparison import compare
from stress.config import load_config
from stress.diffusions import Kou
from stress.fund_size import fund_sizes
from stress.grouped import group_mean
from stress.results import open_run
from stress.sampled import sampled
from stress.shock import Grid, compile_shock
from stress.spec import InputError, validate
from stress.tail import tail
from stress.twins import compare as amplified

STEPS, DAYS = 30, 1 / 24
QUICK = {"minutes": [1e-3, 1e-3]}
PAIRS, NETS = {"kind": "antithetic"}, {"kind": "sobol", "points": 64}

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Log index of an hour in steps of two minutes, (step a p)."""
    config = write_small(tmp_path_factory.mktemp("nets"))

    def paths(shock: dict[str, Any], sampling: dict[str, Any], count: int = 4096) -> np.ndarray:
        given = {"shock": shock, "sampling": sampling, "paths": count, "chunk": 1024}
        run, grid = load_config(config, overrides=given), Grid(list(GBM["daily_volatility"]), 1, 120)
        tables = sampled(compile_shock(run.shock, grid), run.shock, run.sampling, grid)
        keys = path_keys(jnp.uint32(5), jnp.int32(0), count)
        return np.asarray(jax.jit(lambda tables, keys: tables.paths(keys))(tables, keys), np.float64)

    return paths


def test_pairs_of_a_diffusion_are_mirror_images(draw: Draw) -> None:
    log = draw(GBM, PAIRS)
    assert (log[..., 1::2] == -log[..., ::2]).all()
    assert stats.kstest(log[-1, 1, ::2] / (0.06 * np.sqrt(DAYS)), "norm").pvalue > 1e-3


@pytest.mark.parametrize("sampling", [PAIRS, NETS], ids=lambda sampling: sampling["kind"])
def test_every_path_has_the_shocks_law(draw: Draw, sampling: dict[str, Any]) -> None:
    """Moments over groups, in standard errors; of nets the law of one path each, which are independent."""
    shock = KOU | {"common": KOU["common"] | QUICK}
    log = draw(shock, sampling)
    group = 2 if sampling is PAIRS else 64
    total = list(total_volatility(validate(Kou, shock, "kou")).values())
    mean = np.array([3 * (0.3 * 0.02 - 0.7 * 0.04), 3 * (0.3 * 0.02 - 0.7 * 0.04) * 1.5 + 0.03]) * DAYS
    for a in range(2):
        for values, true in ((log[-1, a], mean[a]), ((log[-1, a] - mean[a]) ** 2, total[a] ** 2 * DAYS)):
            found = group_mean(values, group)
            assert found.low - 0.5 * (found.high - found.low) < true < found.high + 0.5 * (found.high - found.low)


def test_nets_leave_steps_independent_and_normal(draw: Draw) -> None:
    log = draw(GBM, {"kind": "sobol", "points": 16, "waves": 8}, 4096)
    steps = np.diff(np.concatenate([np.zeros_like(log[:1]), log]), axis=0)[:, 0] / (0.05 * np.sqrt(DAYS / STEPS))
    first = steps[:, ::16]  # one path of each net
    covariance = first @ first.T / first.shape[1]
    assert np.abs(covariance - np.eye(STEPS)).max() < 5 / np.sqrt(first.shape[1])
    assert stats.kstest(first.ravel(), "norm").pvalue > 1e-3


def test_points_of_a_net_fall_into_equal_parts() -> None:
    """In each dimension, one into each of as many intervals as there are points, whatever the shift."""
    table = stats.qmc.Sobol(3, scramble=False, bits=32).random(16)
    net = nets.Net(jnp.asarray(np.round(table * 2**32), jnp.uint32), jnp.zeros((1, 1), jnp.float32))
    points = np.asarray(nets.uniform_points(net, path_keys(jnp.uint32(1), jnp.int32(0), 48)))
    assert ((points > 0) & (points < 1)).all()
    for k in range(3):
        for row in points[:, 16 * k : 16 * (k + 1)]:
            assert sorted(np.floor(16 * row)) == list(range(16))
    assert (points[:, :16] != points[:, 16:32]).any()


@pytest.mark.parametrize(("sampling", "least"), [(PAIRS, 1e3), (NETS, 50)], ids=["antithetic", "sobol"])
def test_what_is_smooth_scatters_less(draw: Draw, sampling: dict[str, Any], least: float) -> None:
    """The mean price of a basket at the end: nearly linear in the normals."""
    log = draw(GBM, sampling)
    found = group_mean(np.exp(log[-1]).mean(axis=0), 2 if sampling is PAIRS else 64)
    assert found.draws > least * 4096, found.draws / 4096
    assert found.low < 0.5 * (np.exp(0.5 * 0.05**2 * DAYS) + np.exp(0.5 * 0.06**2 * DAYS)) < found.high


@pytest.mark.parametrize("sampling", [PAIRS, NETS], ids=lambda sampling: sampling["kind"])
def test_a_path_is_the_same_whatever_the_number(draw: Draw, sampling: dict[str, Any]) -> None:
    few, many = (draw(GBM, sampling, count) for count in (64, 128))
    assert (few == many[..., :64]).all()


def test_errors_of_group_means_are_those_of_repetition() -> None:
    rng, means, found = np.random.default_rng(3), [], []
    for _ in range(400):
        common = np.repeat(rng.normal(size=50), 4)
        found.append(group_mean(rng.normal(size=200) - common, 4))
        means.append(found[-1].value)
    assert np.mean([e.low <= 0 <= e.high for e in found]) == pytest.approx(0.95, abs=0.035)
    assert np.median([e.draws for e in found]) == pytest.approx(2 / np.var(means), rel=0.15)


def test_show_gives_means_their_errors_and_other_figures_none(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    ds = open_run(finished.store)
    config = json.loads(ds.attrs["config"]) | {"sampling": PAIRS}
    pairs = ds.assign_attrs(config=json.dumps(config))
    console.show_run(pairs, finished.store, finished.store)
    shown = capsys.readouterr().out
    assert shown.count("as by so many independent paths") >= 5
    assert "Intervals are of means alone" in shown
    (median,) = (line for line in shown.splitlines() if "median of hours" in line)
    assert " to " not in median
    both = (lambda ds: compare({"one": ds, "other": ds}), lambda ds: amplified(ds, ds))
    for read in (tail, fund_sizes, lambda ds: ds.liq.quantile(), *both):
        with pytest.raises(InputError, match="small: paths are drawn in groups of 2, expected independent ones"):
            read(pairs)
    with pytest.raises(InputError, match="sampling is of kind 'antithetic', expected absent as in small"):
        compare({"one": ds, "other": pairs})
