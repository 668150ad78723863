"""A lowered program is kept between starts: what it gives, when it is made, and what makes it anew."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from stress_kernels import simulate as kernel

from stress import bench, programs
from stress.config import load_config
from stress.devices import choose
from stress.run import Simulation


def start_anew() -> dict[str, np.ndarray]:
    """What a fresh process would compute."""
    programs.program_of.cache_clear()
    shape = {"paths": 16, "chunk": 16, "horizon_hours": 1, "portfolio.population.rows": 100_000}
    config = load_config(bench.CONFIGS / "crash.toml", overrides=shape)
    return Simulation.of(config, choose("cpu")).chunk(0)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Grows when the step is traced; programs are kept in a folder of their own."""
    monkeypatch.setattr(programs, "cache_folder", lambda: tmp_path / "jax")
    traced, simulate = [], kernel.simulate

    def seen(*given: Any) -> Any:
        traced.append(1)
        return simulate(*given)

    monkeypatch.setattr(kernel, "simulate", seen)
    return traced


def test_a_second_start_traces_nothing_and_gives_the_same(traces: list[int], tmp_path: Path) -> None:
    first, again = start_anew(), start_anew()
    assert len(traces) == 1
    (file,) = (tmp_path / "lowered").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    damaged = start_anew()
    assert len(traces) == 2
    assert first["liquidation_volume"].sum() > 0
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
        np.testing.assert_array_equal(damaged[name], value, err_msg=name)


def test_what_a_program_depends_on_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = "(a, b)", [((16,), np.dtype("f4"))], "cpu", 2, 512
    key = programs._key(*parts)
    assert programs._key(*parts) == key
    assert programs._key(*parts[:-1], 1024) != key
    assert programs._key(parts[0], [((16,), np.dtype("f8"))], *parts[2:]) != key
    with jax.enable_x64(True):
        assert programs._key(*parts) != key
    monkeypatch.setattr(programs, "_code", lambda: "another")
    assert programs._key(*parts) != key


def test_a_cache_that_cannot_be_written_is_done_without(traces: list[int], tmp_path: Path) -> None:
    (tmp_path / "lowered").write_text("in the way")
    assert start_anew()["liquidation_volume"].sum() > 0
    assert len(traces) == 1
