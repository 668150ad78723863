"""Multilevel splitting of a run: its paths, and near which others they are simulated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.config import Run
from stress.devices import Devices, Kind, choose
from stress.pilot import Event, Progress, closest, levels
from stress.programs import mesh_of
from stress.risk import percent, usd
from stress.run import laid_out
from stress.spec import InputError
from stress.splitting import Split, climb, find_levels, gathered, refuse

if TYPE_CHECKING:
    from jax import Array

    from stress.shock import Shock

MOST_LEVELS = 60
"""Levels after which a pilot gives up."""
_OTHER_SEED = 0x51ED270B
"""Added to the run's seed, so that no path of the run is one of these."""


def split(
    run: Run,
    event: Event,
    *,
    paths: int = 16384,
    islands: int = 16,
    share: float = 0.2,
    moves: int = 4,
    device: Kind = "auto",
    progress: Progress | None = None,
) -> Split:
    """The chance of a rare event, by multilevel splitting.

    Args:
        run: The run; its own sampling does not count.
        event: What is rare.
        paths: In all islands together.
        islands: Independent repetitions by which the error is told.
        share: Of the paths that are to come from a level to the next [1].
        moves: Of every path from a level.
        device: Where to compute.
        progress: Told of paths done and of those in all.

    Raises:
        InputError: Nothing in the shock is left to chance, or the event is out of reach.
        RunError: The estimate is worth too little.
    """
    _check(run, paths, islands)
    cloud = _Cloud(run.model_copy(update={"sampling": None}), choose(device), event)
    size, report = paths // islands, progress or (lambda done, paths: None)
    cloud.start([0], 2 * size)
    found = find_levels(cloud, share, moves, MOST_LEVELS, np.random.default_rng((run.seed, 0)))
    spent, together = cloud.spent, max(1, cloud.together // size)
    each, parts = size * (1 + moves * (len(found) - 1)), []
    for first in range(1, 1 + islands, together):
        report(spent + (first - 1) * each, spent + islands * each)
        some = list(range(first, min(first + together, 1 + islands)))
        cloud.start(some, size)
        parts.append(climb(cloud, found, moves, [np.random.default_rng((run.seed, island)) for island in some]))
    report(cloud.spent, cloud.spent)
    done = gathered(found, parts, cloud.spent)
    refuse(done, event.text)
    return done


def _check(run: Run, paths: int, islands: int) -> None:
    """`InputError` where there is nothing to split, or too little for an error."""
    if run.shock.kind in ("replay", "prescribed"):
        raise InputError(
            f"{run.name}: shock.kind is '{run.shock.kind}', expected one of which chance makes every path. Choose "
            "another shock, or tilt the noise of a prescribed one (liqstress tilt)."
        )
    if islands < 4 or paths < 32 * islands or paths % islands:
        raise InputError(
            f"--paths is {paths} and --islands {islands}, expected at least 4 islands of at least 32 paths, all alike. "
            f"Choose {1024 * max(4, islands)} paths."
        )


def words(run: Run, event: Event, level: float) -> str:
    """What has happened at a level."""
    if level < -1:
        return f"an index moved by {percent(float(np.expm1(np.arctanh(level + 2))))}"
    if event.pool is None:
        return f"an hour of {usd(level * event.hour_usd)}"
    if level >= 1:
        return event.text
    if level > 0:
        return f"{percent(level)} of it lost"
    return f"nothing lost, an hour of {usd(event.fund_usd(run) * (-1 / level - 1))}"


class _Cloud:
    """Paths of some islands; compiled once for all of them."""

    def __init__(self, run: Run, devices: Devices, event: Event) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self.run, self.event = run, event
        built, world, block = laid_out(run, devices)
        self.shock = built.shock
        everywhere = NamedSharding(mesh_of(devices), PartitionSpec())
        self.tables = jax.device_put((built.ladders, world, built.accounts), everywhere)
        self.together = block * len(devices.all)
        """Paths that are simulated at once."""
        self.simulated = closest(devices)
        self.seed = np.uint32((run.seed + _OTHER_SEED) % 2**32)
        shapes = jax.eval_shape(_numbers, self.shock, self.seed, np.zeros((self.together, 3), np.int32))
        self.arrays = len(jax.tree.leaves(shapes))
        self.nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        self.spent = 0
        """Paths simulated so far."""

    def start(self, islands: list[int], size: int) -> None:
        """Go to other islands, of so many paths each."""
        self.turn = 0
        self.island, self.lane = (x.ravel() for x in np.meshgrid(islands, np.arange(size), indexing="ij"))

    def drawn(self) -> np.ndarray:
        self.given = None
        level = self.near(np.ones((self.arrays, len(self.lane))))
        self.given = self.made
        return level

    def copy(self, parents: np.ndarray) -> None:
        import jax

        self.given = jax.tree.map(lambda x: x[..., parents], self.given)

    def take(self, wanted: np.ndarray) -> None:
        import jax

        self.given = jax.tree.map(lambda new, old: np.where(wanted, new, old), self.made, self.given)

    def near(self, far: np.ndarray) -> np.ndarray:
        import jax

        paths, parts = len(self.lane), []
        for first in range(0, paths, self.together):
            some = np.arange(first, min(first + self.together, paths))
            filled, wanted = np.resize(some, self.together), np.arange(self.together) < some.size
            marks = np.stack([self.island[filled], np.full(self.together, self.turn), self.lane[filled]], axis=1)
            old = self.nothing if self.given is None else jax.tree.map(lambda x, at=filled: x[..., at], self.given)
            b = far[:, filled].astype(self.run.dtype)
            log, moved, made = _program()(self.shock, self.seed, marks.astype(np.int32), wanted, b, old)
            parts.append(jax.device_get((made, self.simulated(log, *self.tables) | {"moved": moved})))
            parts[-1] = jax.tree.map(lambda x, stop=some.size: x[..., :stop], parts[-1])
        self.made, found = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)
        self.turn, self.spent = self.turn + 1, self.spent + paths
        return self._levels(found)

    def _levels(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Levels that go on where the event has not come nearer yet; any rising function would give the same paths.

        Of a fund that has lost nothing they rise from -1 to 0 with the largest hour, and where nothing is liquidated
        from -2 to -1 with the largest move of an index, up or down.
        """
        level, volume = levels(self.run, self.event, found)
        if self.event.pool is not None:
            level = np.where(level > 0, level, -1 / (1 + volume / self.event.fund_usd(self.run)))
        return np.where((volume > 0) | (level > 0), level, -2 + np.tanh(found["moved"].astype(np.float64)))


def _numbers(shock: Shock, seed: Array, marks: Array) -> Any:
    """What paths are made of, by their island, turn, and place in it: [path mark]."""
    from stress_kernels.shocks import nudge

    return nudge.numbers(shock.parts(), _keys(seed, marks), shock.steps)


def _keys(seed: Array, marks: Array) -> Array:
    import jax

    def one(mark: Array) -> Array:
        key = jax.random.key(seed)
        for i in range(3):
            key = jax.random.fold_in(key, mark[i])
        return key

    return jax.vmap(one)(marks)


@cache
def _program() -> Callable[..., Any]:
    """A program of log indices of paths near others, their largest move, and what they are made of; paths last.

    Those that only fill up a block stand still, and cost little.
    """
    import jax
    import jax.numpy as jnp
    from stress_kernels.shocks import nudge

    def near(shock: Shock, seed: Array, marks: Array, wanted: Array, far: Array, old: Any) -> tuple[Array, Array, Any]:
        parts = shock.parts()
        made = nudge.nudged(parts, old, _keys(seed, marks), far, shock.steps)
        log = jnp.where(wanted, nudge.moved(parts, made, shock.steps), 0.0)
        return log, jnp.max(jnp.abs(log), axis=(0, 1)), made

    return jax.jit(near)
