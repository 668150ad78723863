"""The store: layout, kills, damage, full disks, resuming."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from test_results import ASSETS, POOLS, VENUES, synthetic
from zarr.storage import LocalStore

from stress.results import COMPLETE, labels, open_run
from stress.spec import InputError, RunError
from stress.store import CONFIG_HASH, Store
from stress.variables import VARIABLES

PATHS, HOURS, CHUNK = 40, 3, 16
ATTRS = {CONFIG_HASH: "ab" * 32, "seed": 1, "config": "{}"}


@pytest.fixture
def run() -> xr.Dataset:
    return synthetic(PATHS, HOURS)


def make(path: Path, **attrs: str) -> Store:
    axes = labels(PATHS, HOURS, VENUES, ASSETS, POOLS)
    return Store.create(path, tuple(VARIABLES.values()), axes, {**ATTRS, **attrs}, CHUNK)


def piece(run: xr.Dataset, store: Store, i: int) -> dict[str, np.ndarray]:
    start, stop = store.bounds(i)
    return {name: run[name].values[start:stop] for name in VARIABLES}


def fill(store: Store, run: xr.Dataset, chunks: tuple[int, ...] = (0, 1, 2)) -> Store:
    for i in chunks:
        store.write(i, piece(run, store, i))
    return store


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a store, but for its attributes."""
    return {
        str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and f != path / "zarr.json"
    }


def test_what_is_written_is_read_back(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run)
    store.finish({"end_time": "2026-01-01T00:00:00Z"})
    read = open_run(tmp_path / "a.zarr")
    xr.testing.assert_equal(read.load().drop_vars(list(read.coords)), run.drop_vars(list(run.coords)))
    assert {name: [str(x) for x in read[name].values] for name in read.coords} == {
        name: [str(x) for x in run[name].values] for name in run.coords
    }
    assert read.attrs["end_time"] == "2026-01-01T00:00:00Z"
    assert read["fund_equity"].attrs["units"] == "USD"
    assert read["fund_equity"].sel(pool="okx/main", path=[1, 39]).shape == (2, HOURS)


def test_common_readers_find_no_fault(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run)
    store.finish({})
    assert xr.open_zarr(store.path, consolidated=False)["status"].shape == (PATHS,)
    assert set(xr.open_datatree(store.path, engine="zarr", consolidated=False).children) == set()  # type: ignore[arg-type]
    group = zarr.open_group(store.path, mode="r")
    assert {name for name, _ in group.members(max_depth=None)} == set(VARIABLES) | set(run.coords)


def test_one_shard_holds_one_chunk_of_paths(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run)
    for name, variable in VARIABLES.items():
        shards = sorted(p for p in (store.path / name / "c").rglob("*") if p.is_file())
        if name != "fund_exhausted_hour" and not name.startswith("adl_top"):
            assert [p.relative_to(store.path / name / "c").parts[0] for p in shards] == ["0", "1", "2"]
        array = zarr.open_array(store.path / name, mode="r")
        assert array.shards == (CHUNK, *array.shape[1:])
        assert array.shape[0] == PATHS
        assert len(array.shape) == len(variable.dims)


@pytest.mark.parametrize("chunk", [16, 17, 1000, 997])
def test_shards_of_any_size_are_split_evenly(tmp_path, chunk) -> None:
    axes = labels(20, 168, VENUES, ASSETS, POOLS)
    store = Store.create(tmp_path / "a.zarr", tuple(VARIABLES.values()), axes, ATTRS, chunk)
    array = zarr.open_array(store.path / "absorbed_volume", mode="r")
    assert chunk % array.chunks[0] == 0
    assert array.chunks[0] >= min(chunk, 16) / 8


def test_a_chunk_of_nothing_but_fill_is_finished(tmp_path, run) -> None:
    never = run.assign(fund_exhausted_hour=np.nan * run["fund_exhausted_hour"])
    store = fill(make(tmp_path / "a.zarr"), never)
    assert store.finished() == {0, 1, 2}
    stray = store.path / "fund_exhausted_hour/c/1/0"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"0")
    assert store.audit().damaged == {1: stray}


def test_padding_of_the_last_chunk_is_left_out(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run, (0, 1))
    padded = {name: np.concatenate([a, np.full_like(a, 77)])[:CHUNK] for name, a in piece(run, store, 2).items()}
    store.write(2, padded)
    store.finish({})
    read = open_run(store.path)
    assert read.sizes["path"] == PATHS
    np.testing.assert_array_equal(read["fund_equity"].values, run["fund_equity"].values)


def test_wrong_arrays_are_refused(tmp_path, run) -> None:
    store = make(tmp_path / "a.zarr")
    arrays = piece(run, store, 0)
    with pytest.raises(ValueError, match="status"):
        store.write(0, {name: array for name, array in arrays.items() if name != "status"})
    with pytest.raises(ValueError, match="status has shape"):
        store.write(0, {**arrays, "status": arrays["status"][:-1]})
    assert store.finished() == set()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import zarr
from test_results import synthetic
from test_store import HOURS, PATHS, make, piece
run, store = synthetic(PATHS, HOURS), make(Path({path!r}))
store.write(0, piece(run, store, 0))
written, real = 0, zarr.Array.__setitem__
def count(self, where, what):
    global written
    written += 1
    if written > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, where, what)
zarr.Array.__setitem__ = count
store.write(2, piece(run, store, 2))
"""


def test_kill_inside_a_chunk_loses_only_that_chunk(tmp_path, run) -> None:
    path = tmp_path / "killed.zarr"
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(InputError, match=r"killed\.zarr: the run is not finished.*--resume"):
        open_run(path)
    store = Store.resume(path, ATTRS)
    assert store.finished() == {0}
    assert np.isnan(xr.open_zarr(path, consolidated=False)["fund_equity"].values[CHUNK : 2 * CHUNK]).all()
    with pytest.raises(RunError, match=r"chunk 1 is missing, 1 of 3 chunks are safe.*--resume"):
        store.finish({})
    fill(store, run, (2, 1)).finish({})
    whole = fill(make(tmp_path / "whole.zarr"), run)
    assert contents(path) == contents(whole.path)


def test_kill_before_the_store_is_whole_leaves_no_store(tmp_path, run, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stress.store._add_coordinate", stop)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    fill(make(tmp_path / "a.zarr"), run).finish({})
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_each_flipped_byte_is_found_named_and_made_anew(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run)
    store.finish({})
    sound = contents(store.path)
    for name, where in (("fund_equity/c/1/0/0", 5), ("status/c/2", -1), ("absorbed_volume/c/0/0/0/0/0", 100)):
        shard = store.path / name
        raw = bytearray(shard.read_bytes())
        raw[where] ^= 1
        shard.write_bytes(bytes(raw))
        chunk = int(name.split("/")[2])
        again = Store.resume(store.path, ATTRS)
        assert again.audit().damaged == {chunk: shard}
        assert again.finished() == {0, 1, 2} - {chunk}
        with pytest.raises(RunError, match=rf"{name}: does not match its checksum \(chunk {chunk}; 1 of 3.*--resume"):
            again.finish({})
        again.write(chunk, piece(run, again, chunk))
        with pytest.raises(InputError, match="not finished"):
            open_run(store.path)
        again.finish({})
        assert contents(store.path) == sound
        assert open_run(store.path).attrs[COMPLETE] is True


def test_a_missing_shard_or_spoilt_record_is_damage(tmp_path, run) -> None:
    store = fill(make(tmp_path / "a.zarr"), run)
    (store.path / "surplus/c/1/0/0").unlink()
    record = store.path / "path/.chunks/0002.json"
    record.write_text("{")
    assert store.audit().damaged == {1: store.path / "surplus/c/1/0/0", 2: record}
    assert store.finished() == {0}


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EIO, "cannot be written")],
)
def test_refused_write_says_what_is_safe(tmp_path, run, monkeypatch, code, said) -> None:
    store = fill(make(tmp_path / "a.zarr"), run, (0,))

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", refuse)
        with pytest.raises(RunError, match=rf"a\.zarr: {said}.*chunk 1 of 3\)\. 1 finished chunks are safe.*--resume"):
            store.write(1, piece(run, store, 1))
    again = Store.resume(store.path, ATTRS)
    assert again.finished() == {0}
    fill(again, run, (1, 2)).finish({})
    np.testing.assert_array_equal(open_run(store.path)["surplus"].values, run["surplus"].values)


def test_file_size_limit_of_the_system_is_reported(tmp_path, run) -> None:
    """A real refusal by the kernel, through the whole of zarr."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are a Unix matter")
    store = fill(make(tmp_path / "a.zarr"), run, (0,))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(RunError, match=r"File too large.*1 finished chunks are safe"):
            store.write(1, piece(run, store, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Store.resume(store.path, ATTRS).finished() == {0}


def test_create_refuses_what_is_there(tmp_path, run) -> None:
    path = tmp_path / "a.zarr"
    store = make(path)
    with pytest.raises(InputError, match=r"holds this run, unfinished. Go on with --resume"):
        make(path)
    with pytest.raises(InputError, match="holds another run"):
        make(path, **{CONFIG_HASH: "cd" * 32})
    fill(store, run).finish({})
    with pytest.raises(InputError, match="holds this run already, finished"):
        make(path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("mine")
    with pytest.raises(InputError, match="notes: exists and is not a run"):
        make(tmp_path / "notes")
    assert (tmp_path / "notes/todo.txt").read_text() == "mine"


def test_resume_refuses_another_config_and_absent_runs(tmp_path) -> None:
    make(tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"a\.zarr: config_sha256 is abab.*expected this config's cdcd"):
        Store.resume(tmp_path / "a.zarr", {CONFIG_HASH: "cd" * 32})
    with pytest.raises(InputError, match="no run to resume"):
        Store.resume(tmp_path / "b.zarr", ATTRS)
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(InputError, match="not a run of liqstress"):
        Store.resume(tmp_path / "c.zarr", ATTRS)
