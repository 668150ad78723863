"""Carry out a run: chunks of paths over devices into a store, from the start or from where it stopped."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.behaviour import NO_INFLOW
from stress.config import Run
from stress.devices import Devices, Kind, choose, precise
from stress.digests import config_json, digest, input_digests
from stress.fast import NAMES, block_of
from stress.policies import POLICIES
from stress.programs import GIVEN_UP, Block, mesh_of, program_of, simulated
from stress.results import coords, dataset, kept_of, open_run
from stress.sampling import group_of
from stress.spec import RunError
from stress.store import Store, read_attributes
from stress.variables import Variable

if TYPE_CHECKING:
    import xarray as xr
    from stress_kernels.world import World

    from stress.build import Built

Progress = Callable[[int, int], None]
"""Called with paths done and paths in all."""
Start = Callable[[np.ndarray, np.ndarray, np.uint32], Any]
"""Given the numbers of some paths, which of them are wanted, and the seed, returns their arrays while they are still
being made."""
_AGAIN = 256
"""Paths of a block that is done again, at least: mostly there are few, and a block has its price."""
_NOBODY = -1
"""In place of a path's number: nobody wants it, it fills up a block."""
_WAITING = 8192
"""Paths that wait at most for one another."""


def default_store(run: Run, folder: Path = Path("runs")) -> Path:
    """Where a run is kept if nobody says otherwise: runs/NAME-HASH.zarr."""
    return folder / f"{run.name}-{digest(run)[:10]}.zarr"


def run(
    config: Run,
    out: str | Path | None = None,
    *,
    device: Kind = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Simulate all paths and keep them in a store.

    A finished run of the same config, seed and input files is checked and opened again instead.

    Args:
        config: What to run.
        out: Store to write; `default_store` if absent.
        device: `cpu`, `gpu`, or `auto`: a GPU where there is one.
        resume: Go on with an unfinished store; finished chunks are kept, damaged ones made anew.
        progress: Told of every chunk that is done.

    Raises:
        InputError: The config or a file it names is wrong, or `out` holds something else.
        RunError: The run failed, or a finished one is damaged; what is finished is safe.
    """
    path = default_store(config) if out is None else Path(out)
    key = digest(config)
    if is_finished(path, key) and not (resume and damaged(path)):
        return open_sound(path)
    devices = choose(device)
    began = time.perf_counter()
    simulation = Simulation.of(config, devices)
    attrs = provenance(config, key, simulation.devices)
    store = open_store(path, kept_of(config), coords(config), attrs, config.chunk, resume=resume)
    wanted = sorted(set(range(store.chunks)) - store.finished())
    simulated = time.perf_counter()
    if wanted:
        store.made_by(simulation.kernel)
    todo = fill(store, simulation.chunks(wanted), wanted, progress)
    store.finish(finished(began, simulated, todo))
    return open_run(path)


def finished(began: float, simulated: float, todo: int) -> dict[str, Any]:
    """What a store says of how it was made: when it began, and began to simulate `todo` paths, by `perf_counter`."""
    ended = time.perf_counter()
    return {
        "end_time": _now(),
        "wall_seconds": round(ended - began, 3),
        "paths_computed": todo,
        "paths_per_second": round(todo / (ended - simulated), 1),
    }


def fill(
    store: Store, chunks: Iterable[tuple[int, Any]], wanted: Sequence[int], progress: Progress | None = None
) -> int:
    """Write the chunks `wanted` into a store as they come; the number of paths in them."""
    from jax.errors import JaxRuntimeError

    report = progress or (lambda done, paths: None)
    sizes = {i: stop - start for i, (start, stop) in ((i, store.bounds(i)) for i in wanted)}
    done = store.all_paths - sum(sizes.values())
    report(done, store.all_paths)
    try:
        for i, arrays in chunks:
            store.write(i, {name: arrays[name] for name in store.variables})
            done += sizes[i]
            report(done, store.all_paths)
    except JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{store.path}: the device failed: {reason}. {done} of {store.all_paths} paths are safe: go on with "
            "--resume; if memory was short, start again with a smaller chunk."
        ) from error
    return sum(sizes.values())


def open_store(
    path: Path,
    variables: Sequence[Variable],
    coords: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
    chunk: int,
    *,
    resume: bool,
) -> Store:
    """The store to write to: made, or opened to go on with."""
    if resume and path.exists():
        return Store.resume(path, attrs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path.parent}: cannot be made: {error.strerror}. Give another place, or mend this one."
        ) from error
    return Store.create(path, variables, coords, attrs, chunk)


def is_finished(path: Path, key: str) -> bool:
    """Whether `path` holds the finished run with this hash."""
    stored = read_attributes(path)
    return stored is not None and bool(stored.get("complete")) and stored.get("config_sha256") == key


def open_sound(path: str | Path) -> xr.Dataset:
    """Open a finished run after comparing all of it with its checksums.

    Raises:
        InputError: There is no run at `path`, or it is not finished.
        RunError: A shard is not as it was written; it is named.
    """
    opened, wrong = open_run(path), damaged(Path(path))
    if wrong:
        i, shard = next(iter(wrong.items()))
        raise RunError(
            f"{shard}: does not match its checksum (chunk {i}; {len(wrong)} chunks are damaged). "
            "The others are safe. Run the same config with --resume to make it anew."
        )
    return opened


def damaged(path: Path) -> dict[int, Path]:
    """Chunks of a finished run that are not as they were written, with the file that shows it."""
    store = Store.resume(path, read_attributes(path) or {})
    audit = store.audit()
    return {i: audit.damaged.get(i, path) for i in range(store.chunks) if i not in audit.finished}


def laid_out(config: Run, devices: Devices) -> tuple[Built, World, int]:
    """Tables of a run, its world as these devices have it, and how many paths are a block, of which each has one."""
    from stress.build import build

    precise(config.dtype)
    built = build(config)
    if devices.kind == "gpu" and built.accounts is None:
        # A GPU is filled by paths, not by cores: the whole chunk at once, in its rounds too. Not measured.
        return built, replace(built.world, lanes=config.chunk), config.chunk
    return built, built.world, min(config.chunk, built.together)


@dataclass(frozen=True)
class Simulation:
    """A compiled run: gives the arrays of any chunk of paths."""

    config: Run
    devices: Devices
    kernel: str
    """Which program computes the paths, by its name in `fast.NAMES`; others have none."""
    size: int
    """Paths in a block, of which every device computes one at a time."""
    start: Start
    again: Start
    """The same by the plain program, of blocks of `again_size` paths: what a fast kernel has given up."""
    again_size: int

    @classmethod
    def of(cls, config: Run, devices: Devices, block: Block | None = None) -> Simulation:
        """Build world, ladders, accounts and shock, and put them on the devices.

        Args:
            config: The run.
            devices: Those to use.
            block: What is computed; by default everything of a run, by a fast kernel where one knows the run.
        """
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        built, world, size = laid_out(config, devices)
        block = block or block_of(built, devices)
        arrays = world, built.ladders, built.shock, built.accounts
        fixed = jax.device_put(arrays, NamedSharding(mesh_of(devices), PartitionSpec()))

        def starts(block: Block, size: int) -> Start:
            program = program_of(block, devices, size)
            return lambda numbers, wanted, seed: program(numbers, wanted, seed, *fixed)

        again = max(_AGAIN, group_of(config.sampling))
        starting = starts(block, size), starts(simulated, again)
        return cls(config, devices, NAMES.get(block, ""), size, *starting, again)

    def seeded(self, seed: int) -> Simulation:
        """The same run with another seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def compute(self, wanted: Sequence[int]) -> Iterator[Any]:
        """Arrays of the blocks of some chunks, in their order, a block for each device at a time, while they are still
        being made; the last may hold some that nobody wants. What a fast kernel has given up is named, and not done."""
        firsts = np.concatenate([self._firsts(i) for i in wanted])
        numbers = (firsts[:, None] + np.arange(self.size)).ravel()
        numbers = np.pad(numbers, (0, -len(numbers) % (self.size * len(self.devices.all))), constant_values=_NOBODY)
        wanted_paths = (numbers != _NOBODY) & (numbers < self.config.paths)
        return self._compute(self.start, self.size, numbers, wanted_paths)

    def _compute(self, start: Start, size: int, numbers: np.ndarray, wanted: np.ndarray) -> Iterator[Any]:
        """Arrays of paths by their numbers, a block of so many for each device at a time."""
        together, seed = size * len(self.devices.all), np.uint32(self.config.seed)
        for k in range(0, len(numbers), together):
            some = slice(k, k + together)
            yield start(numbers[some].astype(np.int32), wanted[some], seed)

    def chunks(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Arrays of each chunk, paths first; the next ones are computed while one is being written.

        Chunks wait for one another where a fast kernel has given up some of their paths, so that these are done again
        together.
        """
        waiting: list[tuple[int, Any, np.ndarray]] = []
        for i, arrays in self._chunks(wanted):
            given_up = arrays.pop(GIVEN_UP, ()) if isinstance(arrays, dict) else ()
            lost = i * self.config.chunk + np.flatnonzero(given_up)
            waiting.append((i, arrays, lost))
            many, full = sum(len(lost) for _, _, lost in waiting), self.again_size * len(self.devices.all)
            if many == 0 or many >= full or len(waiting) * self.config.chunk >= _WAITING:
                yield from self._mended(waiting)
                waiting = []
        yield from self._mended(waiting)

    def chunk(self, i: int) -> Any:
        """Arrays of one chunk, paths first."""
        return next(self.chunks([i]))[1]

    def do_again(self, lost: np.ndarray) -> tuple[np.ndarray, Iterator[Any]]:
        """Some paths by the plain program, dealt out to the devices; those that depend on one another stay together.

        Args:
            lost: Their numbers, each once, ascending.

        Returns:
            Where each of them lies in what comes, and arrays as from `compute`.
        """
        group, devices = group_of(self.config.sampling), len(self.devices.all)
        groups = np.unique(lost // group)
        blocks = -(-len(groups[::devices]) * group // self.again_size)
        numbers = np.full((devices, blocks * self.again_size), _NOBODY)
        for k in range(devices):
            mine = (groups[k::devices, None] * group + np.arange(group)).ravel()
            numbers[k, : len(mine)] = mine
        numbers = numbers.reshape(devices, blocks, self.again_size).swapaxes(0, 1).ravel()
        wanted = np.isin(numbers, lost)
        places = np.flatnonzero(wanted)
        done = self._compute(self.again, self.again_size, numbers, wanted)
        return places[np.argsort(numbers[places])], done

    def _mended(self, waiting: Sequence[tuple[int, Any, np.ndarray]]) -> Iterator[tuple[int, Any]]:
        """Chunks, with what was lost of them done again from the start: paths are keyed, so they are the same paths."""
        import jax

        lost = np.sort(np.concatenate([np.zeros(0, int), *(mine for _, _, mine in waiting)]))
        places, done = self.do_again(lost)
        parts = list(map(jax.device_get, done))
        anew = jax.tree.map(lambda *x: np.concatenate(x)[places], *parts) if parts else {}
        for i, arrays, mine in waiting:
            for name, values in anew.items():
                arrays[name][mine - i * self.config.chunk] = values[np.searchsorted(lost, mine)]
            yield i, arrays

    def _chunks(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Arrays of each chunk, paths first, and which of these are given up, where any may be."""
        import jax

        if not wanted:
            return
        started, blocks = self.compute(wanted), deque()
        ahead = next(started)
        for i in wanted:
            stop = min(self.config.chunk, self.config.paths - i * self.config.chunk)
            while len(blocks) < len(self._firsts(i)):
                running = jax.block_until_ready(ahead)
                ahead = next(started, None)
                got = jax.device_get(running)
                for k in range(len(self.devices.all)):
                    mine = slice(k * self.size, (k + 1) * self.size)
                    blocks.append(jax.tree.map(lambda x, mine=mine: x[mine], got))
            parts = [blocks.popleft() for _ in self._firsts(i)]
            yield i, jax.tree.map(lambda *x, stop=stop: np.concatenate(x)[:stop], *parts)

    def _firsts(self, i: int) -> np.ndarray:
        """First path of each block of chunk `i`."""
        first, stop = i * self.config.chunk, min((i + 1) * self.config.chunk, self.config.paths)
        return np.arange(first, stop, self.size)


def simulate_in_memory(config: Run, *, device: Kind = "auto") -> xr.Dataset:
    """Simulate all paths of a run and keep no store: for small runs; everything lies in memory.

    Raises:
        InputError: The config or a file it names is wrong.
    """
    simulation = Simulation.of(config, choose(device))
    parts = [arrays for _, arrays in simulation.chunks(range(-(-config.paths // config.chunk)))]
    arrays = {v.name: np.concatenate([part[v.name] for part in parts]) for v in kept_of(config)}
    return dataset(arrays, coords(config), {"config": config_json(config), "name": config.name, "complete": True})


def provenance(config: Run, key: str, devices: Devices) -> dict[str, Any]:
    """What is needed to trace a number and to run it again."""
    import jax

    return {
        "config": config_json(config),
        "config_sha256": key,
        "inputs_sha256": {name: value for name, value in input_digests(config).items() if value is not None},
        "name": config.name,
        POLICIES: [policy.said for policy in config.policies],
        "seed": config.seed,
        "liqstress_version": version("liqstress"),
        "git_commit": _commit(),
        "jax_version": jax.__version__,
        "backend": devices.kind,
        "device": devices.name,
        "dtype": config.dtype,
        "population": NO_INFLOW if config.behaviour is None else config.behaviour.population,
        "start_time": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> str:
    """Commit of the source tree that runs, if it is a git checkout."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


class _Callable(ModuleType):
    """This module is also the function: `stress.run(config)` runs, whoever imported what before."""

    __call__ = staticmethod(run)
    __signature__ = inspect.signature(run)


sys.modules[__name__].__class__ = _Callable
