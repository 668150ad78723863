"""A suite: cells equal to single runs, one store, one program, resuming; and its comparison on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from conftest import Command, Outcome, write_small
from test_refusals import edit

import stress
from stress import programs
from stress.results import open_run
from stress.store import Store, read_attributes
from stress.suite import Plan, read_suite
from stress.suite_run import cell, run_suite
from stress.variables import VARIABLES

SUITE = """
kind = "suite"
name = "tiny"
base = { file = "run.toml", paths = 24 }
seeds = [3, 8]
policies = ["present.toml", "slow.toml", "split.toml"]

[scenarios]
wild = {}
still = { impact = { i_ref = 0.0 }, shock = "calm.toml" }
"""
POLICIES = {
    "present": "",
    "slow": '[scale.venues."*".markets."*"]\nthroughput_usd_per_minute = 0.02\n',
    "split": "[subpools]\nETH = 0.5\n",
}
CALM = 'kind = "gbm"\ncorrelation = 0.5\ndaily_volatility = { BTC = 0.04, ETH = 0.05 }\n'


class Done(NamedTuple):
    """A suite that is done."""

    config: Path
    store: Path
    said: Outcome
    programs: list[str]
    """Those that it needed and no other test had."""


def write_suite(folder: Path) -> Path:
    write_small(folder)
    (folder / "suite.toml").write_text(SUITE, encoding="utf-8")
    (folder / "calm.toml").write_text(CALM, encoding="utf-8")
    for name, text in POLICIES.items():
        (folder / f"{name}.toml").write_text(f'name = "{name}"\nsource = "made up for tests"\n{text}', encoding="utf-8")
    return folder / "suite.toml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, liqstress: Command) -> Done:
    folder, found, whole = tmp_path_factory.mktemp("suite"), [], programs._exported

    def counted(program, structure, leaves, file):
        found.append(file.name)
        return whole(program, structure, leaves, file)

    config, store = write_suite(folder), folder / "tiny.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "_exported", counted)
        return Done(config, store, liqstress("run", config, "--out", store), found)


@pytest.fixture(scope="module")
def plan(done: Done) -> Plan:
    return read_suite(done.config)


def same(got: xr.Dataset, expected: xr.Dataset) -> None:
    for name in VARIABLES:
        assert got[name].dims == expected[name].dims
        np.testing.assert_array_equal(got[name].values, expected[name].values, err_msg=name)


def test_the_store_has_the_cells_as_dims(done: Done) -> None:
    assert done.said.code == 0, done.said.err
    ds = open_run(done.store)
    assert ds["liquidation_volume"].dims == ("scenario", "policy", "seed", "path", "hour", "venue", "asset", "side")
    assert ds.sizes["path"] == 24
    assert {dim: [str(x) for x in ds[dim].values] for dim in ("scenario", "policy", "seed", "pool")} == {
        "scenario": ["wild", "still"],
        "policy": ["present", "slow", "split"],
        "seed": ["3", "8"],
        "pool": ["here/main", "here/main-ETH"],
    }


@pytest.mark.parametrize("key", [("wild", "present", 3), ("wild", "split", 8), ("still", "slow", 8)])
def test_a_cell_is_the_run_of_its_config_to_the_last_bit(key, done: Done, plan: Plan, tmp_path: Path) -> None:
    alone = stress.run(plan.cell(*key), tmp_path / "alone.zarr")
    got = cell(open_run(done.store), *key)
    same(got, alone)
    assert got.attrs["config"] == alone.attrs["config"]
    assert got.attrs["seed"] == alone.attrs["seed"] == key[2]


def test_policies_meet_the_same_prices_and_seeds_do_not(done: Done) -> None:
    """Without impact prices owe nothing to what is liquidated."""
    ds = open_run(done.store).load()
    index = ds["index_close"].sel(scenario="still").values
    np.testing.assert_array_equal(index[0], index[1])
    np.testing.assert_array_equal(index[0], index[2])
    assert not np.any(index[0, 0] == index[0, 1])
    volume = ds["liquidation_volume"].sum(["path", "hour", "venue", "asset", "side"])
    assert float(volume.min()) > 0
    assert np.all(volume.sel(policy="slow") < volume.sel(policy="present"))


def test_seeds_are_pooled_one_after_another(done: Done) -> None:
    ds = open_run(done.store)
    both = cell(ds, "wild", "split")
    assert both.sizes["path"] == 48
    same(both.isel(path=slice(24, 48)), cell(ds, "wild", "split", 8))
    assert both.attrs["seed"] == "3, 8"


def test_cells_of_one_shape_share_a_program(done: Done) -> None:
    """Two shapes: one fund and two. Neither scenario nor seed is a shape; the first may be there from another test."""
    assert 1 <= len(done.programs) == len(set(done.programs)) <= 2


def test_a_suite_goes_on_where_it_stopped(done: Done, plan: Plan, tmp_path: Path, liqstress: Command) -> None:
    class Stop(Exception):
        pass

    def stop(paths: int, total: int) -> None:
        assert total == 12 * 24
        if paths > 90:
            raise Stop

    store = tmp_path / "tiny.zarr"
    with pytest.raises(Stop):
        run_suite(plan, store, progress=stop)
    half = Store.resume(store, read_attributes(store) or {})
    assert half.finished() == set(range(8))  # 16 and 8 paths in a cell: 96 after the eighth.
    refused = liqstress("run", done.config, "--out", store)
    assert refused.code == 2 and "unfinished. Go on with --resume" in refused.err
    before = {shard: shard.stat().st_mtime_ns for i in range(8) for shard in [half._shard("status", i)]}
    assert liqstress("run", done.config, "--out", store, "--resume").code == 0
    assert {shard: shard.stat().st_mtime_ns for shard in before} == before
    same(open_run(store), open_run(done.store))


def test_show_prints_a_line_a_cell_and_notices_damage(done: Done, liqstress: Command) -> None:
    shown = liqstress("show", done.store)
    assert shown.code == 0
    assert "48 paths of 1 h over 2 seeds in each cell" in shown.out
    assert [line.split()[0] for line in shown.out.splitlines() if " k USD" in line][:3] == ["wild", "slow", "split"]
    again = liqstress("run", done.config, "--out", done.store)
    assert again.out == shown.out


def test_a_path_of_a_cell_is_explained(done: Done) -> None:
    """Of the second seed, in a scenario that is not the first; its hours are the cell's."""
    steps = stress.explain(f"{done.store}#still/split/8", 5, device="cpu")
    kept = cell(open_run(done.store), "still", "split", 8)
    assert steps.attrs["seed"] == 8 and "kind" not in kept.attrs
    np.testing.assert_array_equal(steps["pool"], kept["pool"])
    closed = steps["liquidation_volume"].sum(["step", "side"], dtype=float)
    np.testing.assert_allclose(closed, kept["liquidation_volume"].sel(path=5, hour=0).sum("side"), rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "tiny.zarr"], "is a suite: give one of its cells as"),
        (["tail", "tiny.zarr"], "is a suite: give one of its cells as"),
        (["funds", "tiny.zarr"], "is a suite: give one of its cells as"),
        (["explain", "tiny.zarr#wild/slow"], "has the paths of seeds 3, 8, expected those of one. Give "),
        (["explain", "tiny.zarr#wild/slow/x"], "its seed is 'x', expected a whole number"),
        (["explain", "tiny.zarr#wild/slow/4"], "has no seed '4', expected one of 3, 8"),
    ],
)
def test_a_suite_is_not_one_run(words: list[str], said: str, done: Done, liqstress: Command) -> None:
    outcome = liqstress(words[0], f"{done.store.parent}/{words[1]}")
    assert outcome.code == 2
    assert said in outcome.err and outcome.err.count("\n") == 1


def test_funds_and_tails_of_a_cell(done: Done, liqstress: Command) -> None:
    outcome = liqstress("funds", f"{done.store}#wild/slow", "--levels", "90")
    assert outcome.code == 0, outcome.err
    assert "tiny-wild-slow: fund here/main of 500 USD" in outcome.out
    tail = liqstress("tail", f"{done.store}#wild/slow")
    assert "of 48 paths" in tail.err


def test_compare_sets_the_policies_of_every_scenario_beside_the_first(done: Done, liqstress: Command) -> None:
    outcome = liqstress("compare", done.store)
    assert outcome.code == 0, outcome.err
    assert "wild: differences from present" in outcome.out
    assert "the same 48 paths of 1 h" in outcome.out
    assert "slow: venues.here.markets.*.throughput_usd_per_minute" in outcome.out
    assert "split: venues.here.pools" in outcome.out
    for scenario in ("wild", "still"):
        assert (done.store.parent / f"tiny-compare-{scenario}.png").exists()
    cells = liqstress("compare", f"{done.store}#wild/present", f"{done.store}#wild/slow")
    assert cells.code == 0, cells.err


def test_runs_without_a_common_base_are_not_compared(done: Done, liqstress: Command) -> None:
    def refused(*words: str) -> str:
        outcome = liqstress("compare", *(f"{done.store}{word}" for word in words))
        assert outcome.code == 2
        return outcome.err

    line = refused("#wild/present", "#still/present")
    assert "shock.daily_volatility.BTC is 0.04, expected 0.05 as in" in line
    assert "share no common base" in line
    assert "has no policy 'fast', expected one of present, slow, split" in refused("#wild/present", "#wild/fast")
    assert "is a suite: give one of its cells as" in refused("#wild/present", "")
    assert "names one run twice" in refused("#wild/slow", "#wild/slow")


WRONG = {
    "no such base": ('"run.toml"', '"gone.toml"', ["gone.toml", "there is no such file"]),
    "no file of a base": ('file = "run.toml", ', "", ["base.file is None", "expected the name of a run's TOML file"]),
    "no policies": ('["present.toml", "slow.toml", "split.toml"]', "[]", ["policies is", "at least 1 item"]),
    "one policy twice": ('"slow.toml"', '"present.toml"', ["present, present, split", "expected different names"]),
    "one seed twice": ("[3, 8]", "[3, 3]", ["seeds is [3, 3]", "expected different seeds"]),
    "another length": ("i_ref = 0.0 }", "i_ref = 0.0 }, horizon_hours = 2", ["horizon_hours is 2 in scenario 'still'"]),
    "a seed of its own": ("i_ref = 0.0 }", "i_ref = 0.0 }, seed = 9", ["scenarios.still.seed is 9", "suite's seeds"]),
    "a wrong cell": ("i_ref = 0.0", "i_ref = -1", ["scenario 'still', policy 'present'", "impact.i_ref is -1"]),
    "a name of a folder": ("wild =", '"wild/1" =', ["scenarios has 'wild/1'", "expected letters"]),
    "unknown key": ("seeds =", "seed =", ["seed is not a known key", "Did you mean 'seeds'?"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_suites_are_refused(name: str, tmp_path: Path, liqstress: Command) -> None:
    config = write_suite(tmp_path)
    old, new, words = WRONG[name]
    edit(config, old, new)
    outcome = liqstress("run", config, "--out", tmp_path / "out.zarr")
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("liqstress: ")]
    assert all(word in lines[0] for word in words), lines
    assert not (tmp_path / "out.zarr").exists()


def test_check_names_every_cell(done: Done, liqstress: Command) -> None:
    outcome = liqstress("check", done.config)
    assert outcome.code == 0
    assert [line.split(":")[0] for line in outcome.out.splitlines()][:2] == ["tiny-wild-present", "tiny-wild-slow"]
    assert len(outcome.out.splitlines()) == 6


def test_a_seed_put_over_all_cells_is_refused(tmp_path: Path, liqstress: Command) -> None:
    outcome = liqstress("run", write_suite(tmp_path), "--set", "seed=4", "--out", tmp_path / "out.zarr")
    assert outcome.code == 2
    assert "--set.seed is 4, expected none" in outcome.err and "give --seed" in outcome.err
