"""The bench times what it says: its still day triggers nothing, its counts are right, its rows are complete."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stress_kernels.day_report import report_of
from stress_kernels.day_tables import sizes_of
from typer.testing import CliRunner

from stress import bench, bench_chip, bench_floor, bench_peer, bench_turns, console
from stress.bench_given import given, leaves_out_nothing
from stress.bench_twin import NAMES, NEEDS, Twin, twins
from stress.build import build
from stress.cli import app
from stress.config import Run
from stress.devices import choose
from stress.fast import missing
from stress.run import Simulation, simulate_in_memory
from stress.scenarios import Prescribed
from stress.spec import RunError


def small(case: str) -> Run:
    """A case with 16 paths, two hours and few positions, yet too many for a rung each."""
    config = bench.cases(16, 2)[case]
    assert config.portfolio.population is not None
    population = config.portfolio.population.model_copy(update={"rows": 200_000})
    return config.model_copy(update={"portfolio": config.portfolio.model_copy(update={"population": population})})


def test_a_case_is_timed_in_phases_that_add_up() -> None:
    timed = bench._time("crash", small("crash"), choose("cpu"), 1)
    whole = 1e9 * timed.whole.median / timed.path_steps
    parts = [timed.phases[name] for name in ("random", "dense", "events")]
    assert sum(parts) == pytest.approx(whole)
    assert min(timed.phases["random"], timed.phases["writing"], *timed.floor.values()) > 0
    row = json.loads(bench.to_json([timed]))[0]
    wanted = {"case", "path_steps_per_s", "ratio_to_cpp", "ratio_to_numba", "ratio_to_numpy", "floor_fraction"}
    assert wanted <= set(row)
    assert row["path_steps_per_s"] == pytest.approx(1e9 / whole)
    assert row["floor_fraction"] == pytest.approx(max(timed.floor.values()) / whole)


def test_the_still_day_triggers_nothing_and_the_crash_does() -> None:
    crash = small("crash")
    assert float(simulate_in_memory(crash, device="cpu").liquidation_volume.sum()) > 1e6
    assert float(simulate_in_memory(bench.still(crash), device="cpu").liquidation_volume.sum()) == 0


def test_operations_are_counted_once_for_each_number_made() -> None:
    def program(x: jax.Array, y: jax.Array) -> jax.Array:
        z = jax.lax.cond(x[0] > 0, lambda: jnp.exp(y), lambda: y)
        return jax.lax.scan(lambda c, _: (c * y + z, None), x, length=10)[0][::-1]

    ten = np.ones(10, np.float32)
    counted = bench_floor.operations(jax.make_jaxpr(program)(ten, ten).jaxpr)
    assert counted == 10 * 2 * 10 + 1  # the scan's, and one comparison


def test_contestants_take_turns() -> None:
    order: list[str] = []
    seconds = bench_turns.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b") or 5.0}, 2)
    assert order == list("ab" * 3)
    assert seconds["a"].shape == (2,)
    assert seconds["b"].tolist() == [5.0, 5.0]


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "CONFIGS", tmp_path / "configs")
    shown = CliRunner().invoke(app, ["bench"])
    assert shown.exit_code == 2
    assert "source checkout" in shown.output


def test_rows_that_cannot_be_written_are_refused_before_anything_is_timed(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["bench", "--json", str(tmp_path / "nowhere" / "rows.json")])
    assert shown.exit_code == 3
    assert "rows.json" in shown.output


@functools.cache
def compared(case: str) -> tuple[dict[str, np.ndarray], dict[str, Twin]]:
    """What our program says of a small case, and the twins, given the same. In the jump whole classes are bankrupt."""
    config = small(case.replace("jump", "crash"))
    if case.startswith("jump"):
        assert isinstance(config.shock, Prescribed)
        jump = {"moves": {"BTC": (0.0, -0.35)}, "minutes": (60, 61)}
        config = config.model_copy(update={"shock": config.shock.model_copy(update=jump)})
    devices = choose("cpu")
    ours = Simulation.of(config, devices).chunk(0)
    return ours, twins(given(config, devices), len(devices.all))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["calm, book alone", "crash, book alone", "jump, book alone"])
def test_a_twin_closes_what_our_program_closes(case: str, name: str) -> None:
    """Of the jump, deficits and surpluses too."""
    ours, others = compared(case)
    if name not in others:
        pytest.skip(f"the twin in {NAMES[name]} needs {NEEDS[name]}")
    off = others[name].check(ours)
    assert off["volume"] < 1e-4
    if case.startswith("jump"):
        assert float(np.sum(ours["deficit"])) > 1e6
        assert max(off["deficit"], off["surplus"]) < 1e-3
    assert others[name].seconds() > 0


def test_a_world_that_the_twins_do_not_know_is_not_given_to_them() -> None:
    assert not leaves_out_nothing(small("calm"))
    assert leaves_out_nothing(small("calm, book alone"))
    with pytest.raises(ValueError, match="auction"):
        given(small("calm"), choose("cpu"))


def test_a_twin_that_differs_is_not_timed() -> None:
    ours, others = compared("crash, book alone")
    for twin in others.values():
        with pytest.raises(RunError, match=f"{re.escape(NAMES[twin.name])}.* differs"):
            twin.check(ours | {"liquidation_volume": 1.002 * ours["liquidation_volume"]})


def test_a_twin_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    config, devices = small("calm, book alone"), choose("cpu")
    assert list(twins(given(config, devices), 1)) == ["numpy"]
    timed = bench._time("calm, book alone", config, devices, 1)
    bench.print_table([timed], console.console())
    shown = capsys.readouterr().out
    assert timed.row()["ratio_to_numpy"] > 0
    assert timed.row()["ratio_to_numba"] is None
    assert "pip install 'liqstress[bench]'" in shown
    assert "g++" in shown


@pytest.mark.skipif(importlib.util.find_spec("lrvx") is None, reason="lrvx is not installed")
def test_the_peer_liquidates_what_our_program_liquidates(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = bench_peer._time(1_000, 16, 2, 1)
    assert timed.liquidated > 10
    assert timed.row()["ratio_to_lrvx"] > 0
    run = bench_peer._lrvx

    def one_more(levels: list[tuple[float, float, int]], marks: np.ndarray) -> tuple[float, np.ndarray]:
        seconds, liquidated = run(levels, marks)
        return seconds, liquidated + (np.arange(len(liquidated)) == 0)

    monkeypatch.setattr(bench_peer, "_lrvx", one_more)
    with pytest.raises(RunError, match="nothing was timed"):
        bench_peer._time(1_000, 16, 2, 1)


def test_the_cases_of_the_chip_have_18_markets_that_its_kernel_knows() -> None:
    run = bench_chip.wide_cases()["crash"]
    built = build(run)
    assert built.world.adv.shape == (3, 6)
    assert missing(built) == []
    held = np.asarray(built.held).sum(axis=(0, 2))
    np.testing.assert_allclose(held[4], held[5], rtol=0.05)
    assert run.paths == 100_000
    assert 2 * run.chunk >= run.paths


def test_what_a_step_on_the_chip_moves_is_counted() -> None:
    """The index of six assets twice, two samples of 18 bases, and a report whose hour is 60 steps."""
    run = bench_chip.wide_cases()["calm"]
    built = build(run)
    sizes = sizes_of(built.ladders, built.world, 32, interpret=False)
    reported = sum(x.size for x in jax.tree.leaves(report_of(sizes, 1, "float32")))
    assert bench_chip.traffic(run) == pytest.approx(12 + 36 + reported / 1440)
    assert 300 < reported / 24 < 500


def test_the_chip_is_not_timed_without_a_gpu() -> None:
    said = CliRunner().invoke(app, ["bench", "--chip", "--device", "cpu"])
    assert said.exit_code == 2
    assert "expected an NVIDIA GPU" in said.output
