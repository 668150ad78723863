"""A run that keeps some of its variables: what is in the store, and what can still be read off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import Command, Finished

import stress
from stress.digests import digest
from stress.variables import ALWAYS, VARIABLES

KEPT = ("liquidation_volume", "fund_drawdown")


@pytest.fixture(scope="module")
def part(finished: Finished, liqstress: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run again, of which little is kept."""
    store = tmp_path_factory.mktemp("part") / "part.zarr"
    done = liqstress("run", finished.config, "--out", store, "--set", f"keep={list(KEPT)}")
    assert done.code == 0, done.err
    return store


def test_the_store_holds_what_the_config_says(part: Path, finished: Finished) -> None:
    some, everything = stress.open_run(part), stress.open_run(finished.store)
    assert set(some.data_vars) == {*KEPT, *ALWAYS}
    for name in some.data_vars:
        xr.testing.assert_equal(some[name].load(), everything[name].load())
    size, whole = (sum(f.stat().st_size for f in path.rglob("*")) for path in (part, finished.store))
    assert size < whole / 3, (size, whole)
    assert stress.load_config(finished.config).keep == ()
    assert set(everything.data_vars) == set(VARIABLES)


def test_what_is_kept_is_shown_and_the_rest_left_out(part: Path, finished: Finished, liqstress: Command) -> None:
    shown = liqstress("show", part)
    assert shown.code == 0
    assert "99 % of hours" in shown.out
    assert "insurance funds" in finished.said.out and "insurance funds" not in shown.out
    lines = {line for line in shown.out.splitlines() if "of hours" in line or "largest" in line}
    assert lines and lines <= set(finished.said.out.splitlines())
    assert part.with_suffix(".png").exists()
    assert liqstress("explain", part).code == 0


@pytest.mark.parametrize(("words", "missing"), [(["funds"], "socialised_loss"), (["compare"], "fund_equity")])
def test_what_needs_more_says_so(words: list[str], missing: str, part: Path, finished: Finished, liqstress: Command):
    stores = [finished.store, part] if words == ["compare"] else [part]
    said = liqstress(*words, *stores)
    assert said.code == 2
    assert said.err.count("\n") == 1 and f"small: keeps no {missing}" in said.err and "`keep`" in said.err


def test_a_config_that_keeps_everything_is_named_as_before(small: Path) -> None:
    whole = stress.load_config(small)
    assert digest(whole) == digest(whole.model_copy(update={"keep": ()}))
    assert digest(whole) != digest(whole.model_copy(update={"keep": KEPT}))


def test_unknown_variables_are_refused(small: Path, liqstress: Command) -> None:
    said = liqstress("check", small, "--set", 'keep=["liquidation_volumes"]')
    assert said.code == 2
    assert "keep: 'liquidation_volumes' is not a variable of a run" in said.err
    assert "Did you mean 'liquidation_volume'?" in said.err


def test_in_memory_it_is_the_same(part: Path, finished: Finished) -> None:
    from stress.run import simulate_in_memory

    config = stress.load_config(finished.config, overrides={"keep": list(KEPT)})
    made = simulate_in_memory(config)
    assert set(made.data_vars) == {*KEPT, *ALWAYS}
    for name in made.data_vars:
        np.testing.assert_array_equal(made[name], stress.open_run(part)[name])
