"""The bench times what it says: its still day triggers nothing, its counts are right, its rows are complete."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from stress import bench
from stress.cli import app
from stress.config import Run
from stress.devices import choose
from stress.run import simulate_in_memory


def small(case: str) -> Run:
    """A case with 16 paths, an hour and few positions."""
    config = bench.cases(16, 2)[case]
    assert config.portfolio.population is not None
    population = config.portfolio.population.model_copy(update={"rows": 2000})
    return config.model_copy(update={"portfolio": config.portfolio.model_copy(update={"population": population})})


def test_a_case_is_timed_in_phases_that_add_up() -> None:
    timed = bench._time("crash", small("crash"), choose("cpu"), 1)
    whole = 1e9 * timed.whole.median / timed.path_steps
    parts = [timed.phases[name] for name in ("random numbers", "dense update", "events")]
    assert sum(parts) == pytest.approx(whole)
    assert (
        min(timed.phases["random numbers"], timed.phases["events"], timed.phases["writing"], *timed.floor.values()) > 0
    )
    row = json.loads(bench.to_json([timed]))[0]
    wanted = {"case", "path_steps_per_s", "ratio_to_cpp", "ratio_to_numba", "ratio_to_numpy", "floor_fraction"}
    assert wanted <= set(row)
    assert row["path_steps_per_s"] == pytest.approx(1e9 / whole)
    assert 0 < row["floor_fraction"] < 1


def test_the_still_day_triggers_nothing_and_the_crash_does() -> None:
    crash = small("crash")
    assert float(simulate_in_memory(crash, device="cpu").liquidation_volume.sum()) > 1e6
    assert float(simulate_in_memory(bench.still(crash), device="cpu").liquidation_volume.sum()) == 0


def test_operations_are_counted_once_for_each_number_made() -> None:
    def program(x: jax.Array, y: jax.Array) -> jax.Array:
        z = jax.lax.cond(x[0] > 0, lambda: jnp.exp(y), lambda: y)
        return jax.lax.scan(lambda c, _: (c * y + z, None), x, length=10)[0][::-1]

    ten = np.ones(10, np.float32)
    counted = bench.operations(jax.make_jaxpr(program)(ten, ten).jaxpr)
    assert counted == 10 * 2 * 10 + 1  # the scan's, and one comparison


def test_contestants_take_turns() -> None:
    order: list[str] = []
    spread = bench.in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == list("ab" * 3)
    assert spread["a"].least <= spread["a"].median <= spread["a"].most


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "CONFIGS", tmp_path / "configs")
    shown = CliRunner().invoke(app, ["bench"])
    assert shown.exit_code == 2
    assert "source checkout" in shown.output
