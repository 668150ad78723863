"""One program serves all chunks, and all runs of the same shape: what a scenario or a policy changes is data."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from stress import bench
from stress.config import Run, load_config
from stress.devices import cache_folder, choose
from stress.programs import simulated
from stress.run import Simulation

CHUNK = 16
CHANGES: list[dict[str, Any]] = [
    {"seed": 7},
    {"shock.daily_volatility.BTC": 0.08},
    {"impact.i_ref": 0.005},
    {"venues.okx.liquidation_fee_bps": 10},
    {"venues.okx.markets.BTC.take_bound_bps": 1},
    {"venues.bybit.markets.ETH.throughput_usd_per_minute": 1e6},
    {"portfolio.population.rows": 150_000},
]


def configured(**changes: Any) -> Run:
    shape = {"paths": 2 * CHUNK, "chunk": CHUNK, "horizon_hours": 1, "portfolio.population.rows": 100_000}
    return load_config(bench.CONFIGS / "reference.toml", overrides=shape | changes)


@pytest.fixture(scope="module")
def traced() -> dict[str, Any]:
    """How often the block of a run was traced, and the volumes of the runs."""
    traces, volumes, devices = 0, [], choose("cpu")

    def block(*given: Any) -> Any:
        nonlocal traces
        traces += 1
        return simulated(*given)

    for changes in ({}, *CHANGES):
        simulation = Simulation.of(configured(**changes), devices, block)
        chunks = [simulation.chunk(i) for i in range(2)]
        volumes.append(float(sum(np.sum(chunk["liquidation_volume"]) for chunk in chunks)))
    return {"traces": traces, "volumes": volumes}


def test_chunks_and_runs_of_one_shape_are_traced_once(traced):
    assert traced["traces"] == 1


def test_each_change_is_felt(traced):
    base, *others = traced["volumes"]
    assert base > 0
    assert all(volume != base for volume in others)


def test_compiled_programs_are_kept_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LIQSTRESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "liqstress" / "jax"
    choose("cpu")
    assert jax.config.jax_compilation_cache_dir is not None
