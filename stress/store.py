"""The store of a run or a suite: one sharded zarr v3 group, filled by chunks of paths, safe against kills.

Layout of `RUN.zarr`: a zarr group with one array a variable and one a coordinate; attributes in its `zarr.json`. A
shard holds one chunk of paths of one variable. The file `path/.chunks/0007.json` says that chunk 7 is finished and
gives the sha256 of each of its shards; it lies inside the array of path numbers, where readers of zarr do not look
for arrays. In a suite every variable has further dims before `path`, and its cells follow one another in the numbers
of chunks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from stress.results import COMPLETE
from stress.seal import SEAL, seal_of
from stress.spec import InputError, RunError
from stress.variables import COORDINATES, OF_SUITES, Variable

CONFIG_HASH = "config_sha256"
"""Attribute that says which config a store belongs to."""
KERNEL = "kernel"
"""Attribute with the names of the programs that paths come from (`stress.fast.NAMES`)."""
_RECORDS = Path("path") / ".chunks"
_READ_BYTES = 1 << 20
_CELLS = "cells"
"""Attribute with the lengths of the dims before `path`; a run has none."""


@dataclass(frozen=True)
class Audit:
    """State of the chunks of a store."""

    finished: frozenset[int]
    """Recorded, and every shard as it was written."""
    damaged: Mapping[int, Path]
    """Recorded, with the first shard that is not as it was written."""


class Store:
    """A run's store while it is being written. Processes may share the work, but not one chunk of paths."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        """Wrap an open group; use `create` or `resume`."""
        self.path = path
        self._group = group
        self._arrays: dict[str, zarr.Array] = {}
        self.paths = int(group.attrs["paths"])  # type: ignore[arg-type]
        self.chunk = int(group.attrs["chunk"])  # type: ignore[arg-type]
        self.variables: tuple[str, ...] = tuple(group.attrs["variables"])  # type: ignore[arg-type]
        self.cells: tuple[int, ...] = tuple(group.attrs.get(_CELLS, ()))  # type: ignore[arg-type]

    @classmethod
    def create(
        cls,
        path: str | Path,
        variables: Sequence[Variable],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
        chunk: int,
    ) -> Self:
        """Make an empty store.

        Args:
            path: Folder to make; by custom its name ends in `.zarr`.
            variables: What the run puts out; each has `path` as its first dim, or after the same others.
            coords: Labels along every dim, and other arrays that are whole from the start.
            attrs: Attributes, `config_sha256` among them.
            chunk: Paths in one shard.

        Raises:
            InputError: Something lies at `path` already.
        """
        path = Path(path)
        _refuse_existing(path, attrs)
        draft = path.with_name(f".{path.name}.new")
        counts = {"paths": len(coords["path"]), "chunk": chunk, "variables": [variable.name for variable in variables]}
        cells = [len(coords[dim]) for dim in variables[0].dims[: variables[0].dims.index("path")]]
        try:
            shutil.rmtree(draft, ignore_errors=True)
            given = {**attrs, **counts, **({_CELLS: cells} if cells else {}), COMPLETE: False}
            group = zarr.create_group(draft, attributes=given, zarr_format=3)
            for variable in variables:
                _add_variable(group, variable, coords, chunk)
            for name, values in coords.items():
                _add_coordinate(group, name, values)
            (draft / _RECORDS).mkdir()
            draft.rename(path)
        except OSError as error:
            raise RunError(
                f"{path}: cannot be made: {error.strerror}. Give another place, or mend this one."
            ) from error
        return cls(path, zarr.open_group(path, mode="r+"))

    @classmethod
    def resume(cls, path: str | Path, attrs: Mapping[str, Any]) -> Self:
        """Open a store to go on writing to it.

        Raises:
            InputError: There is no run at `path`, or it was made from a config other than the one that `attrs` names.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path}: there is no run to resume. Leave out --resume to start it.")
        stored = read_attributes(path)
        if stored is None:
            raise InputError(f"{path}: is not a run of liqstress. Give the run's own store to --resume.")
        if stored.get(CONFIG_HASH) != attrs[CONFIG_HASH]:
            raise InputError(
                f"{path}: {CONFIG_HASH} is {_short(stored.get(CONFIG_HASH))}, expected this config's "
                f"{_short(attrs[CONFIG_HASH])}. Resume with the config it was started with, or give another store."
            )
        return cls(path, zarr.open_group(path, mode="r+"))

    @property
    def chunks(self) -> int:
        """How many chunks of paths there are."""
        return self._each * math.prod(self.cells)

    @property
    def all_paths(self) -> int:
        """Paths of all cells."""
        return self.paths * math.prod(self.cells)

    @property
    def _each(self) -> int:
        """Chunks of a cell."""
        return -(-self.paths // self.chunk)

    @property
    def is_complete(self) -> bool:
        """Whether `finish` was reached."""
        return bool(self._group.attrs[COMPLETE])

    def bounds(self, i: int) -> tuple[int, int]:
        """First path of chunk `i` in its cell, and the one after its last."""
        first = i % self._each * self.chunk
        return first, min(first + self.chunk, self.paths)

    def _cell(self, i: int) -> tuple[int, ...]:
        """Place of the cell of chunk `i`."""
        return tuple(int(k) for k in np.unravel_index(i // self._each, self.cells)) if self.cells else ()

    def made_by(self, kernel: str) -> None:
        """Say which program some of the paths come from, beside those that others come from."""
        names = {name for name in str(self._group.attrs.get(KERNEL, "")).split(", ") if name} | {kernel}
        self._group.attrs.update({KERNEL: ", ".join(sorted(names))})

    def write(self, i: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write chunk `i` of every variable, then record it as finished.

        Args:
            i: Number of the chunk.
            arrays: Each variable, [path, ...]; padding past the last path of the run is left out.

        Raises:
            RunError: The disk is full or the system refused; what was finished before is safe.
        """
        if set(arrays) != set(self.variables):
            odd = sorted(set(arrays) ^ set(self.variables))
            raise ValueError(f"chunk {i}: {odd} missing or not of this store, which holds {list(self.variables)}.")
        (start, stop), cell = self.bounds(i), self._cell(i)
        for name, array in arrays.items():
            expected = self._array(name).shape[len(cell) + 1 :]
            if array.shape[0] not in (stop - start, self.chunk) or array.shape[1:] != expected:
                raise ValueError(f"chunk {i}: {name} has shape {array.shape}, expected {(stop - start, *expected)}.")
        try:
            if self.is_complete:
                self._group.attrs.update({COMPLETE: False})
            self._record(i).unlink(missing_ok=True)
            for name, array in arrays.items():
                shard = self._shard(name, i)
                for leftover in (shard, *shard.parent.glob(f"{shard.name}.*.partial")):
                    leftover.unlink(missing_ok=True)
                self._array(name)[(*cell, slice(start, stop))] = array[: stop - start]
                if shard.exists():
                    _flush(shard)
            self._write_record(i)
        except OSError as error:
            raise self._refused(i, error) from error

    def audit(self) -> Audit:
        """Compare every recorded chunk with its checksums; reads the whole store."""
        finished, damaged = set(), {}
        for i in range(self.chunks):
            if not self._record(i).is_file():
                continue
            wrong = self._first_damaged(i)
            if wrong is None:
                finished.add(i)
            else:
                damaged[i] = wrong
        return Audit(frozenset(finished), damaged)

    def finished(self) -> set[int]:
        """Chunks that need not be made anew: recorded, and every shard as it was written."""
        return set(self.audit().finished)

    def finish(self, attrs: Mapping[str, Any]) -> None:
        """Check that every chunk is there and sound, add `attrs`, and mark the run as complete.

        Raises:
            RunError: A shard is damaged or missing; it is named.
        """
        audit = self.audit()
        if audit.damaged:
            i, shard = next(iter(audit.damaged.items()))
            raise RunError(
                f"{shard}: does not match its checksum (chunk {i}; {len(audit.damaged)} of {self.chunks} chunks are "
                "damaged). The other chunks are safe. Run again with --resume to make it anew."
            )
        if len(audit.finished) < self.chunks:
            missing = min(set(range(self.chunks)) - audit.finished)
            raise RunError(
                f"{self.path}: chunk {missing} is missing, {len(audit.finished)} of {self.chunks} chunks are safe. "
                "Run again with --resume."
            )
        try:
            self._group.attrs.update(dict(attrs))
            self._group.attrs.update({SEAL: seal_of(self.path), COMPLETE: True})
            _flush(self.path / "zarr.json")
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be marked as finished: {error.strerror}. All chunks are safe. "
                "Mend that and use --resume."
            ) from error

    def _array(self, name: str) -> zarr.Array:
        """Opened once: opening reads its metadata, and every shard asks for it."""
        if name not in self._arrays:
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]

    def _shard(self, name: str, i: int) -> Path:
        place = *self._cell(i), i % self._each
        return self.path.joinpath(name, "c", *map(str, place), *["0"] * (self._array(name).ndim - len(place)))

    def _record(self, i: int) -> Path:
        return self.path / _RECORDS / f"{i:04d}.json"

    def _write_record(self, i: int) -> None:
        record = {"paths": self.bounds(i), "sha256": {name: _sha256(self._shard(name, i)) for name in self.variables}}
        draft = self._record(i).with_suffix(".partial")
        draft.write_text(json.dumps(record, indent=1), encoding="utf-8")
        _flush(draft)
        draft.replace(self._record(i))
        _flush(self.path / _RECORDS)

    def _first_damaged(self, i: int) -> Path | None:
        """The first file of chunk `i` that is not as it was written: a shard, or the record itself."""
        try:
            sums = json.loads(self._record(i).read_text(encoding="utf-8"))["sha256"]
            pairs = [(self._shard(name, i), sums[name]) for name in self.variables]
        except (ValueError, KeyError, TypeError):
            return self._record(i)
        return next((shard for shard, expected in pairs if _sha256(shard) != expected), None)

    def _refused(self, i: int, error: OSError) -> RunError:
        safe = len(list((self.path / _RECORDS).glob("*.json")))
        what, advice = f"cannot be written: {error.strerror}", "Mend that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, advice = "the disk is full", "Free space"
        return RunError(
            f"{self.path}: {what} (chunk {i} of {self.chunks}). {safe} finished chunks are safe. "
            f"{advice} and go on with --resume."
        )


def _refuse_existing(path: Path, attrs: Mapping[str, Any]) -> None:
    """`InputError` where something lies at `path`, saying what it is and what to do."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    stored = read_attributes(path)
    if stored is None:
        raise InputError(f"{path}: exists and is not a run of liqstress. Give another name.")
    if stored.get(CONFIG_HASH) != attrs[CONFIG_HASH]:
        raise InputError(f"{path}: holds another run, made from another config. Give another name, or remove it.")
    if stored[COMPLETE]:
        raise InputError(f"{path}: holds this run already, finished. Use it, give another name, or remove it.")
    raise InputError(f"{path}: holds this run, unfinished. Go on with --resume, give another name, or remove it.")


def read_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of the run at `path`; None if there is none."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return attributes if isinstance(attributes, dict) and COMPLETE in attributes else None


def _add_variable(group: zarr.Group, variable: Variable, coords: Mapping[str, np.ndarray], chunk: int) -> None:
    shape = tuple(len(coords[dim]) for dim in variable.dims)
    cells = variable.dims.index("path")
    row = shape[cells + 1 :]
    together = _paths_together(chunk, math.prod(row) * np.dtype(variable.dtype).itemsize)
    group.create_array(
        variable.name,
        shape=shape,
        dtype=variable.dtype,
        chunks=(*[1] * cells, together, *row),
        shards=(*[1] * cells, chunk, *row),
        fill_value=variable.fill,
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
        dimension_names=variable.dims,
        attributes=variable.attrs,
    )


def _add_coordinate(group: zarr.Group, name: str, values: np.ndarray) -> None:
    variable = {**COORDINATES, **OF_SUITES}[name]
    kind: Any = str if variable.dtype == "str" else variable.dtype
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=kind,
        chunks=values.shape,
        dimension_names=variable.dims,
        attributes=variable.attrs,
    )
    array[:] = values.astype(object) if kind is str else values


def _paths_together(chunk: int, row_bytes: int) -> int:
    """Paths read together: the largest divisor of `chunk` within 1 MiB; all, where that would be far less."""
    most = max(1, _READ_BYTES // max(row_bytes, 1))
    divisor = max(d for d in range(1, min(chunk, most) + 1) if chunk % d == 0)
    return divisor if 8 * divisor >= min(chunk, most) else chunk


def _sha256(path: Path) -> str | None:
    """Checksum of a file; None where there is none, as zarr leaves out a shard that holds the fill value alone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _flush(path: Path) -> None:
    """Have the system put a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(digest: object) -> str:
    return str(digest)[:12]
