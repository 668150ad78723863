"""The command line and the public names: run, show, check, resume, damage, full disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT, Command, Finished, write_small
from test_results import synthetic

import stress
from stress.config import load_config
from stress.reference import Row
from stress.run import default_store
from stress.schema import schema
from stress.store import Store
from stress.variables import VARIABLES


def table(out: str) -> str:
    """The figures, without the paths of store and picture."""
    return out[: out.index("store ")]


def shard(store: Path, chunk: int) -> Path:
    """A shard of the volumes."""
    return store / "liquidation_volume" / "c" / str(chunk) / "0" / "0" / "0" / "0"


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def assert_same_run(one: Path, two: Path) -> None:
    xr.testing.assert_equal(stress.open_run(one).load(), stress.open_run(two).load())


def test_a_run_prints_its_figures_and_says_where_they_are(finished: Finished) -> None:
    assert finished.said.code == 0
    out = finished.said.out
    for words in ("median of hours", "99.9 % of hours", "an hour above 601 M USD", "1 h above 1.57 bn USD", "longs",
                  "drawdown, median", "chance of exhaustion", "socialised loss", "auto-deleveraging", "wall time",
                  "paths/s", "cpu (", str(finished.store)):  # fmt: skip
        assert words in out
    picture = finished.store.with_name("small.png")
    assert str(picture) in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in picture.with_suffix(".svg").read_bytes()
    assert "device auto: cpu" in finished.said.err
    assert "40 of 40 paths" in finished.said.err


def test_the_small_run_goes_through_several_layers(finished: Finished) -> None:
    taken = stress.open_run(finished.store)["absorbed_volume"].sum(["path", "hour", "venue", "asset"])
    assert all(taken.sel(layer=["book", "auction", "takeover", "adl"]) > 0)


def test_a_run_carries_its_provenance(finished: Finished) -> None:
    attrs = stress.open_run(finished.store).attrs
    assert json.loads(attrs["config"])["seed"] == attrs["seed"] == 3
    assert attrs["liqstress_version"] == stress.__version__
    assert attrs["backend"] == "cpu"
    assert attrs["paths_computed"] == 40
    assert len(attrs["config_sha256"]) == 64


def test_a_finished_run_is_shown_again(finished: Finished, liqstress: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.store.parent.rglob("*")}
    again = liqstress("run", finished.config, "--out", finished.store)
    shown = liqstress("show", finished.store)
    assert again.code == shown.code == 0
    assert again.out == shown.out == finished.said.out
    assert "shown again" in again.err
    assert {path: path.stat().st_mtime_ns for path in finished.store.parent.rglob("*")} == before


def test_resuming_a_finished_run_changes_nothing(finished: Finished, liqstress: Command) -> None:
    again = liqstress("run", finished.config, "--out", finished.store, "--resume")
    assert again.code == 0
    assert table(again.out) == table(finished.said.out)


def test_show_makes_a_picture_that_is_missing(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store = finished.copy(tmp_path)
    assert liqstress("show", store).code == 0
    assert (tmp_path / "copy.png").exists()
    assert (tmp_path / "copy.svg").exists()


def test_a_tail_is_printed_and_drawn_beside_the_run(
    liqstress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds, store = synthetic(paths=640, hours=2), tmp_path / "long.zarr"
    monkeypatch.setattr("stress.suite_run.open_sound", lambda path: ds)
    shown = liqstress("tail", store, "--levels", "95,99.97")
    assert shown.code == 0
    for words in ("liquidations in the largest hour of a run", "99.97 % of runs", "fitted tail", "fit, p",
                  "An upper end at 99.97 % takes 12,295 paths; there are 640.", "long-tail-hour.png"):  # fmt: skip
        assert words in shown.out
    assert (tmp_path / "long-tail-hour.svg").exists()
    few = liqstress("tail", store, "--threshold", "1e11")
    assert few.code == 2
    assert few.err.startswith("liqstress: threshold is 1e+11 USD, above which lie 0 of 640 paths")
    assert few.err.count("\n") == 1


def test_funds_and_cover_are_printed(finished: Finished, liqstress: Command) -> None:
    shown = liqstress("funds", finished.store, "--levels", "90")
    assert shown.code == 0
    for words in ("fund here/main of 500 USD, exhausted in", "90 % of runs", "with ADL", "chance of exhaustion"):
        assert words in shown.out
    by_move = liqstress("cover", finished.config, "--move", "BTC=-0.1", "--move", "ETH=0.2", "--n", "3")
    assert by_move.code == 0
    assert "cover-3: BTC -10 %, ETH +20 %" in by_move.out and "here/main" in by_move.out
    assert liqstress("cover", finished.config, "--worst-of", finished.store).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tail", "RUN", "--levels", "99,x"], "levels is '99,x', expected per cents above 50 and below 100"),
        (["funds", "RUN", "--levels", "100"], "levels is '100', expected per cents above 50 and below 100"),
        (["cover", "CONFIG", "--move", "BTC"], "move is 'BTC', expected ASSET=SHARE, such as BTC=-0.2"),
        (["cover", "CONFIG"], "moves are all zero"),
    ],
)
def test_mistakes_about_tails_end_with_one_line(
    words: list[str], message: str, finished: Finished, liqstress: Command
) -> None:
    places = {"RUN": finished.store, "CONFIG": finished.config}
    outcome = liqstress(*(places.get(word, word) for word in words))
    assert outcome.code == 2
    assert outcome.err.startswith(f"liqstress: {message}") and outcome.err.count("\n") == 1


def test_in_python_it_is_the_same(finished: Finished) -> None:
    ds = stress.run(stress.load_config(finished.config), finished.store)
    assert set(ds.data_vars) == set(VARIABLES)
    xr.testing.assert_equal(ds.load(), stress.open_run(finished.store).load())


def test_run_is_a_function_whatever_was_imported() -> None:
    from stress.run import run as function

    assert callable(stress.run)
    assert stress.run.run is function  # pyright: ignore[reportFunctionMemberAccess]


def test_a_run_starts_without_what_is_slow_to_import() -> None:
    code = (
        "import sys, stress.build, stress.run\n"
        "print([name for name in ('xarray', 'pandas', 'scipy.stats', 'scipy.signal') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_importing_stress_and_asking_for_help_load_nothing_heavy() -> None:
    code = (
        "import sys, stress; assert stress.__version__\n"
        "from typer.testing import CliRunner\n"
        "from stress.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([name for name in ('jax', 'xarray', 'matplotlib', 'scipy', 'zarr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_killed_run_goes_on_and_is_the_same(
    finished: Finished, liqstress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "killed.zarr", Store.write

    def interrupted(store: Store, i: int, arrays: dict[str, np.ndarray]) -> None:
        if i == 1:
            raise KeyboardInterrupt
        write(store, i, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", interrupted)
        stopped = liqstress("run", finished.config, "--out", out)
    assert stopped.code == 130
    assert "--resume" in stopped.err
    assert not (tmp_path / "killed.png").exists()
    assert liqstress("show", out).code == 2

    refused = liqstress("run", finished.config, "--out", out)
    assert refused.code == 2
    assert "unfinished. Go on with --resume" in refused.err

    resumed = liqstress("run", finished.config, "--out", out, "--resume")
    assert resumed.code == 0
    assert "the last 24 paths, after --resume" in resumed.out
    assert_same_run(out, finished.store)


def test_a_full_disk_loses_nothing(
    finished: Finished, liqstress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, record = tmp_path / "full.zarr", Store._write_record

    def full(store: Store, i: int) -> None:
        if i == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        record(store, i)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write_record", full)
        stopped = liqstress("run", finished.config, "--out", out)
    assert stopped.code == 3
    assert "the disk is full" in stopped.err
    assert "2 finished chunks are safe" in stopped.err
    assert liqstress("run", finished.config, "--out", out, "--resume").code == 0
    assert_same_run(out, finished.store)


def test_a_full_disk_at_the_picture_leaves_the_run(
    finished: Finished, liqstress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished.copy(tmp_path)

    def full(figure: Any, path: Path) -> NoReturn:
        path.write_bytes(b"half a pict")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("stress.drawing.save", full)
        stopped = liqstress("show", store)
    assert stopped.code == 3
    assert f"The run is safe in {store}" in stopped.err
    assert not (tmp_path / "copy.png").exists()
    assert liqstress("show", store).code == 0


def test_damage_is_noticed_named_and_made_good(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store = finished.copy(tmp_path)
    flip(shard(store, 1))
    for words in (("show", store), ("run", finished.config, "--out", store)):
        outcome = liqstress(*words)
        assert outcome.code == 3
        assert str(shard(store, 1)) in outcome.err
        assert "--resume" in outcome.err
        assert outcome.out == ""
    assert liqstress("run", finished.config, "--out", store, "--resume").code == 0
    assert_same_run(store, finished.store)


def test_a_shard_that_is_gone_is_damage(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    store = finished.copy(tmp_path)
    shard(store, 2).unlink()
    outcome = liqstress("show", store)
    assert outcome.code == 3
    assert str(shard(store, 2)) in outcome.err


@pytest.mark.parametrize("words", [["--seed", "9"], ["--paths", "41"], ["--set", "impact.rho=0.3"]])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_another_run_is_not_overwritten(
    words: list[str], resume: list[str], finished: Finished, liqstress: Command
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.store.rglob("*")}
    outcome = liqstress("run", finished.config, "--out", finished.store, *words, *resume)
    assert outcome.code == 2
    assert str(finished.store) in outcome.err
    assert {path: path.stat().st_mtime_ns for path in finished.store.rglob("*")} == before


def test_the_default_store_is_named_after_all_that_decides_the_numbers(small: Path, tmp_path: Path) -> None:
    first = default_store(load_config(small))
    assert first.parent == Path("runs")
    assert first.name.startswith("small-")
    assert first.suffix == ".zarr"
    assert default_store(load_config(write_small(tmp_path / "elsewhere"))) == first
    others = {default_store(load_config(small, paths=41)), default_store(load_config(small, seed=4))}
    others.add(default_store(load_config(small, overrides={"impact.rho": 0.3})))
    positions = small.parent / "positions.csv"
    positions.write_text(positions.read_text(encoding="utf-8").replace(",12,", ",13,"), encoding="utf-8")
    others.add(default_store(load_config(small)))
    assert len(others | {first}) == 5


def test_check_prints_a_config_that_means_the_same(small: Path, liqstress: Command) -> None:
    outcome = liqstress("check", small, "--paths", "7", "--set", "impact.rho=0.3", "--set", "name=other")
    assert outcome.code == 0
    printed = small.with_name("printed.toml")
    printed.write_text(outcome.out, encoding="utf-8")
    meant = load_config(small, paths=7, overrides={"impact.rho": 0.3, "name": "other"})
    assert load_config(printed) == meant
    assert (meant.paths, meant.impact.rho, meant.name) == (7, 0.3, "other")
    # 50 x 10 + 20 x 10 against 30 x 10 coins of 100 USD; 40 x 100 against 80 x 100 coins of 10 USD; a block of 1,000.
    assert "# accounts: 220, 110 k USD long and 110 k USD short" in outcome.out
    assert "# open interest: 151 k USD one-sided" in outcome.out
    assert "# book: exact" in outcome.out


def test_the_run_on_cross_margin(liqstress: Command, tmp_path: Path) -> None:
    """An hour of 16 of its paths; and its files are what its script writes."""
    config, folder = ROOT / "configs" / "cross_margin.toml", ROOT / "configs" / "portfolios"
    checked = liqstress("check", config)
    assert checked.code == 0, checked.err
    assert "# accounts: 2,732, 1.25 bn USD long and 765 M USD short" in checked.out
    assert "# engines: 540 accounts on ladders, 2,192 on cross margin" in checked.out
    done = liqstress("run", config, "--out", tmp_path / "run.zarr", "--paths", "16", "--set", "chunk=16",
                     "--set", "horizon_hours=1")  # fmt: skip
    assert done.code == 0, done.err
    ds = stress.open_run(tmp_path / "run.zarr").load()
    assert set(np.unique(ds["status"])) == {0}
    assert float(ds["ledger_residual"].max()) < 1e-6
    assert float(ds["liquidation_volume"].sum(["hour", "venue", "asset", "side"]).min()) > 20e6
    assert float(ds["accounts_liquidated"].sum(["hour", "venue"]).max()) <= 2732
    subprocess.run([sys.executable, folder / "cross_margin.py", tmp_path], check=True)
    for name in ("cross_margin-positions.csv", "cross_margin-collateral.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_committed_schema_is_what_the_command_writes(liqstress: Command) -> None:
    assert json.loads(liqstress("schema").out) == schema()
    committed = (ROOT / "configs" / "schema.json").read_text(encoding="utf-8")
    assert json.loads(committed) == schema(), "write it again: liqstress schema > configs/schema.json"


def test_fit_shocks_prints_a_shock_that_a_run_takes(small: Path, liqstress: Command) -> None:
    rng, hours = np.random.default_rng(1), 1500
    jumps = 0.03 * rng.standard_normal(hours) * (rng.random(hours) < 0.05)
    folder = small.parent / "hourly"
    folder.mkdir()
    for asset, beta in (("BTC", 1.0), ("ETH", 1.2)):
        price = 100 * np.exp(np.cumsum(beta * jumps + 0.004 * rng.standard_normal(hours)))
        rows = [f"{1_600_000_200 // 3600 * 3600 + 3600 * i},{p},{p},{p},{p}" for i, p in enumerate(price)]
        (folder / f"{asset}.csv").write_text("\n".join(["time,open,high,low,close", *rows, ""]), encoding="utf-8")
    for kind in ("merton", "gbm"):
        fitted = liqstress("fit-shocks", folder, "--assets", "BTC,ETH", "--kind", kind, "--level", "0.026")
        assert fitted.code == 0, fitted.err
        assert "--level 0.026" in fitted.out
        shock = tomllib.loads(fitted.out)
        assert shock["kind"] == kind
        assert load_config(small, overrides={"shock": shock}).shock.kind == kind
    assert shock["daily_volatility"]["BTC"] == pytest.approx(0.026, rel=1e-3)
    (folder / "BTC-funding.csv").write_text("time,open,high,low,close\n", encoding="utf-8")
    for options, words in (
        (("--level", "-1"), "level is -1, expected a daily volatility above 0"),
        (("--assets", "BTC,BTC"), "assets is 'BTC,BTC', expected different names"),
        (("--assets", "BTC,ETH"), "--file BTC=FILE"),
        (("--file", "BTC"), "--file is 'BTC', expected ASSET=FILE"),
    ):
        refused = liqstress("fit-shocks", folder, *options)
        assert refused.code == 2 and words in refused.err, refused.err
    chosen = liqstress("fit-shocks", folder, "--assets", "BTC,ETH", "--kind", "gbm", "--file", "BTC=BTC.csv")
    assert chosen.code == 0 and "--file BTC=BTC.csv" in chosen.out, chosen.err


def test_validate_prints_published_figures_beside_ours(liqstress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row("a case", "total", "M USD", (100.0, 120.0), 115.5, held=True)]
    monkeypatch.setattr("stress.reference.table", lambda **given: rows)
    outcome = liqstress("validate")
    assert outcome.code == 0
    assert "a case" in outcome.out
    assert "1.05" in outcome.out
