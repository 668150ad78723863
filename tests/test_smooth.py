"""Smooth triggers against their formula, and against the engine's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.small import crowd, market, positions_of, run_of, venue, write_positions
from scipy.special import expit
from stress_kernels.ladder import position, quantity, row_at
from stress_kernels.smooth import soften

from stress.build import build, on_device


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def ladders(tmp_path_factory):
    """Those of some accounts in two assets."""
    file = tmp_path_factory.mktemp("smooth") / "positions.parquet"
    write_positions(file, positions_of(crowd(np.random.default_rng(4), [(0, 0), (0, 1)])), ["one"], ["A", "B"])
    run = run_of([venue("one", {a: market() for a in "AB"})], {"A": 0.03, "B": 0.04}, file)
    return on_device(build(run))[1]


def test_an_account_is_spread_by_a_logistic_law_about_its_trigger(ladders):
    width, side = 0.01, (0, 0, 0, 0)
    soft = soften(ladders, jnp.asarray(width))
    held = np.diff(np.asarray(ladders.coins[side]))[: ladders.depth.shape[-1]]
    depth = np.asarray(ladders.depth[side])
    there = np.isfinite(depth)
    place = position(soft, jnp.full((1, 2, 2, 1, 1), 0.123))
    part = (expit((0.123 - depth[there]) / width) - expit(-depth[there] / width)) / expit(depth[there] / width)
    found = quantity(row_at(soft, place))[side][0]
    assert found == pytest.approx(np.sum(held[there] * part), rel=1e-3)


def test_narrow_triggers_are_those_of_the_engine(ladders):
    soft = soften(ladders, jnp.asarray(1e-6))
    for depth in (0.0, 0.05, 0.2, 1.0):
        at = jnp.full((1, 2, 2, 1, 1), depth)
        exact, smooth = (quantity(row_at(of, position(of, at))) for of in (ladders, soft))
        assert np.asarray(smooth) == pytest.approx(np.asarray(exact), rel=0.02)
    assert np.asarray(soft.rows[..., -1, :]) == pytest.approx(np.asarray(ladders.rows[..., -1, :]))
