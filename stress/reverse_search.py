"""The search of a reverse stress test: the likeliest move on the edge of the moves that reach a target.

A direction leads to the edge: the first of ever larger moves along it whose simulation reaches the target, found by
sections in the engine itself. The edge has a likelihood, and optax turns the direction until that is largest. How the
edge moves as the direction turns follows from the slopes of what the target measures, taken in the engine with smooth
triggers (`stress_kernels.smooth`), whose width shrinks as the search goes on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from stress_kernels.smooth import measures, slopes, soften

from stress.config import Run
from stress.devices import Devices
from stress.plausible import Law
from stress.reverse_target import Levers, Target
from stress.run import laid_out
from stress.spec import RunError

Array = NDArray[np.float64]

_MEASURES, _SLOPES, _SOFTEN = jax.jit(measures), jax.jit(slopes), jax.jit(soften)
TOGETHER = 6
"""Directions that are turned at once."""
_RADII = 16
"""Moves along each that are simulated at once."""
WIDTHS = (0.01, 0.003, 0.001)
"""Of the smooth triggers, one after the other [log]."""
_TURNS = 10
"""Of the directions, at each width."""
_RATES = (0.2, 0.07, 0.02)
"""Largest turn at first, at each width [radian]."""
_AROUND = 0.05
"""How far from the last edge the next one is looked for first [1]."""
_INSIDE = 1.003
_NEAR, EDGE = 3e-4, 1e-6
"""How well the edge is known during the search, and at its end: largest log move between not reached and reached."""


class Engine:
    """The tables of a run under levers, and what moves of all assets do to it."""

    def __init__(self, run: Run, devices: Devices, levers: Levers, shares: Array) -> None:
        """Build the run's tables.

        Args:
            run: Its shock prescribed, its length that of the test.
            devices: The first one computes.
            levers: As concentration is part of the run's tables, it is taken from the run.
            shares: Share of the move that has come after each step [1].
        """
        self._device, self._shares, self._dtype = devices.all[0], shares, np.dtype(run.dtype)
        built, world, most = laid_out(run, replace(devices, all=devices.all[:1]))
        self.cash = np.asarray(world.pool_cash, np.float64) * levers.fund
        thin = world.conditions.thinness
        thin = np.ones((len(shares), len(run.assets)), run.dtype) if thin is None else np.asarray(thin)
        world = replace(
            world,
            pool_cash=self.cash.astype(run.dtype),
            conditions=replace(world.conditions, thinness=(thin * levers.depth).astype(run.dtype)),
        )
        self._tables = jax.device_put((built.ladders, world, built.accounts), self._device)
        self.smooth = built.accounts is None
        self.assets = len(run.assets)
        self.radii = max(2, min(_RADII, most // TOGETHER)) if not self.smooth else _RADII
        self._soft: dict[float, Any] = {}

    def prepare(self) -> None:
        """Compile both programs, side by side; those of another run of the same shapes are there already."""
        nowhere = np.zeros((self.assets, 1))
        with ThreadPoolExecutor(2) as pool:
            work = [pool.submit(self.measured, nowhere), pool.submit(self.smoothed, nowhere)]
        for done in work:
            done.result()

    def _paths(self, moves: Array) -> Any:
        return jax.device_put((self._shares[:, None, None] * moves).astype(self._dtype), self._device)

    def _softened(self, width: float) -> Any:
        if width not in self._soft:
            self._soft = {width: _SOFTEN(self._tables[0], jnp.asarray(width, self._dtype))}
        return self._soft[width]

    def measured(self, moves: Array) -> dict[str, Array]:
        """What log moves (a n) bring about, in the engine as it is."""
        size, count, parts = TOGETHER * self.radii, moves.shape[1], []
        ladders, world, accounts = self._tables
        for first in range(0, count, size):
            some = moves[:, first : first + size]
            padded = np.pad(some, ((0, 0), (0, size - some.shape[1])))
            parts.append(jax.device_get(_MEASURES(self._paths(padded), ladders, world, accounts)))
        whole = {name: np.concatenate([part[name] for part in parts], axis=-1)[..., :count] for name in parts[0]}
        return {name: _finite(values.astype(np.float64)) for name, values in whole.items()}

    def sloping(self, moves: Array, directions: Array, width: float) -> tuple[dict[str, Array], dict[str, Array]]:
        """The measures of log moves (a p), and their slopes in every direction, the columns of (a a): (... p a).

        With accounts on cross margin, whose triggers stay steps, slopes are differences over twice the width.
        """
        paths, each = moves.shape[1], directions.shape[1]
        tiled, along = np.repeat(moves, each, axis=1), np.tile(directions, paths)
        if not self.smooth:
            up, down = (self.measured(tiled + sign * width * along / _size(along)) for sign in (1, -1))
            steep = {k: (up[k] - down[k]) / 2 / width * _size(along) for k in up}
            return self.measured(moves), {k: v.reshape(*v.shape[:-1], paths, each) for k, v in steep.items()}
        _, world, _ = self._tables
        given = self._paths(tiled), self._paths(along), self._softened(width), world, None
        found, steep = (
            {k: v.astype(np.float64).reshape(*v.shape[:-1], paths, each) for k, v in part.items()}
            for part in jax.device_get(_SLOPES(*given))
        )
        return {k: v[..., 0] for k, v in found.items()}, steep

    def smoothed(self, move: Array) -> dict[str, Array]:
        """What a log move (a 1) brings about with the narrowest smooth triggers."""
        if not self.smooth:
            return self.measured(move)
        found, _ = self.sloping(np.repeat(move, TOGETHER, axis=1), np.eye(self.assets), WIDTHS[-1])
        return {name: values[..., :1] for name, values in found.items()}


def _size(directions: Array) -> Array:
    return np.sqrt(np.sum(directions**2, axis=0))


def _finite(values: Array) -> Array:
    if not np.all(np.isfinite(values)):
        raise RunError("a simulated shock gave figures that are not finite. Try --set dtype=float64.")
    return values


@dataclass(frozen=True)
class Edges:
    """Where directions (a p) first reach a target, in multiples of them."""

    below: Array
    """The largest that is known not to."""
    at: Array
    """Infinite where none does."""


def edges(
    engine: Engine, target: Target, directions: Array, most: float, guess: Array | None = None, near: float = EDGE
) -> Edges:
    """Find the edge along each direction by sections.

    Args:
        engine: What simulates.
        target: What is to be reached.
        directions: Log moves (a p).
        most: Largest log move of an asset.
        guess: Where edges may be.
        near: Largest log move between `below` and `at`.
    """
    reach, every = np.max(np.abs(directions), axis=0), np.arange(directions.shape[1])
    low, high, known = np.zeros(len(reach)), most / reach, np.zeros(len(reach), bool)
    if guess is not None:
        middle = np.where(np.isfinite(guess), guess, high / 2)
        grid = np.minimum(middle * np.linspace(1 - _AROUND, 1 + _AROUND, engine.radii)[:, None], high)
        first = _first(engine, target, directions, grid)
        known = first < len(grid)
        low = np.where(first > 0, grid[np.maximum(first, 1) - 1, every], 0.0)
        high = np.where(known, grid[np.minimum(first, len(grid) - 1), every], high)
    while np.any(np.isfinite(high) & (~known | ((high - low) * reach > near))):
        there = np.isfinite(high)
        steps = np.arange(1, engine.radii + 1)[:, None] / engine.radii
        grid = np.where(steps < 1, low + np.where(there, high - low, 0.0) * steps, np.where(there, high, 0.0))
        first = _first(engine, target, directions, grid)
        high = np.where(known | (first < len(grid)), high, np.inf)
        first = np.minimum(first, len(grid) - 1)
        low = np.where(first > 0, grid[first - 1, every], low)
        high = np.where(np.isfinite(high), grid[first, every], np.inf)
        known = known | np.isfinite(high)
    return Edges(low, high)


def _first(engine: Engine, target: Target, directions: Array, grid: Array) -> NDArray[np.int64]:
    """Place of the first multiple in each column of a grid that reaches the target; its length where none does."""
    moves = (directions[:, None] * grid[None]).reshape(len(directions), -1)
    margin, _ = target.margins(engine.measured(moves), engine.cash)
    reached = margin.max(axis=0).reshape(grid.shape) >= 0
    return np.where(reached.any(axis=0), reached.argmax(axis=0), len(grid))


@dataclass(frozen=True)
class Likeliest:
    """The likeliest move on an edge that was found."""

    move: Array
    """Log move of every asset (a); it reaches the target."""
    below: float
    """Multiple of it that does not."""
    directions: Array
    """All directions at the end, the best one first, for the next search (a p)."""
    alignment: float
    """Cosine between the slopes of likelihood and target, in standard deviations of the components to which the move is
    due: -1 where no turn is better."""


def search(
    engine: Engine, target: Target, law: Law, starts: Array, most: float, turns: int = _TURNS
) -> Likeliest | None:
    """Turn directions until the likelihood where they reach the target is largest; None where none reaches it.

    Args:
        engine: What simulates.
        target: What is to be reached.
        law: By which likelihood is judged.
        starts: Directions to begin with, any number (a s).
        most: Largest log move of an asset.
        turns: Of the directions, at each width.
    """
    import optax

    chosen, radius = _best_of(engine, target, law, starts, most)
    if not np.isfinite(radius).any():
        return None
    best = _Best(chosen * radius, np.full(len(radius), -np.inf))
    for width, rate in zip(WIDTHS, _RATES, strict=True) if len(starts) > 1 else ():
        factor = np.linalg.cholesky(law.density(best.moves).local)
        whitened = _unit(_solved(factor, best.moves))
        radius = _size(best.moves) / _size(_times(factor, whitened))
        method = optax.adam(optax.cosine_decay_schedule(rate, turns))
        memory = method.init(jnp.asarray(whitened))
        for _ in range(turns):
            directions = _times(factor, whitened)
            found = edges(engine, target, directions, most, radius, _NEAR).at
            there = np.isfinite(found)
            radius = np.where(there, found, radius)
            best, gradient = _turn(engine, target, law, factor, whitened, radius, there, best, width)
            updates, memory = method.update(jnp.asarray(gradient), memory)
            back = _unit(_solved(factor, best.moves))
            whitened = _unit(np.where(there, whitened + np.asarray(updates, np.float64), back))
    return _finished(engine, target, law, best, most)


@dataclass(frozen=True)
class _Best:
    """The likeliest moves on the edge so far, by start."""

    moves: Array
    log_density: Array


def _unit(directions: Array) -> Array:
    return directions / _size(directions)


def _times(factor: Array, columns: Array) -> Array:
    """Each column by its own matrix, (p a a) and (a p)."""
    return np.einsum("pab,bp->ap", factor, columns)


def _solved(factor: Array, columns: Array) -> Array:
    return np.linalg.solve(factor, columns.T[..., None])[..., 0].T


def _best_of(engine: Engine, target: Target, law: Law, starts: Array, most: float) -> tuple[Array, Array]:
    """The likeliest of some directions, as many as are turned at once, and their edges."""
    count = starts.shape[1]
    padded = starts[:, np.arange(-(-count // TOGETHER) * TOGETHER) % count]
    parts = [
        edges(engine, target, padded[:, i : i + TOGETHER], most, near=1e-2).at
        for i in range(0, padded.shape[1], TOGETHER)
    ]
    radius = np.concatenate(parts)[:count]
    there = np.isfinite(radius)
    likely = np.where(there, law.density(starts * np.where(there, radius, 0.0)).log, -np.inf)
    order = np.argsort(-likely, kind="stable")
    order = order[: max(1, int(there.sum()))]
    order = order[np.arange(TOGETHER) % len(order)]
    return starts[:, order], radius[order]


def _turn(
    engine: Engine,
    target: Target,
    law: Law,
    factor: Array,
    whitened: Array,
    radius: Array,
    there: NDArray[np.bool_],
    best: _Best,
    width: float,
) -> tuple[_Best, Array]:
    """The best moves with those at the edges of directions, and the slope of minus the log density there as directions
    of unit length turn and edges with them.

    With f = -log p and m what the target measures, both in units of `factor`, and the edge at r y: m stays as it is
    where r changes by -r (m' . dy) / (m' . y), so that f changes by r (f' - (f' . y) / (m' . y) m') . dy.
    """
    moves = radius * _times(factor, whitened)
    density = law.density(moves)
    better = there & (density.log > best.log_density)
    best = _Best(np.where(better, moves, best.moves), np.where(better, density.log, best.log_density))
    away = -np.einsum("pab,ap->bp", factor, density.gradient)
    normal = np.einsum("pab,ap->bp", factor, _normal(engine, target, moves, width))
    along = np.sum(normal * whitened, axis=0)
    use = there & np.isfinite(along) & (along > 0)
    ratio = np.sum(away * whitened, axis=0) / np.where(use, along, 1.0)
    return best, np.where(use, radius * (away - ratio * np.where(use, normal, 0.0)), 0.0)


def _normal(engine: Engine, target: Target, moves: Array, width: float) -> Array:
    """By how much what brings the target about grows with every asset's log move (a p), a little inside the edge: ADL
    that has not begun has no slope."""
    _, steep = engine.sloping(_INSIDE * moves, np.eye(len(moves)), width)
    flat = {name: values.reshape(len(values), -1) for name, values in steep.items()}
    growth = target.margins(flat, engine.cash)[1]
    growth = growth.reshape(len(growth), *moves.shape[::-1])
    cause = np.zeros(moves.shape[1], np.int64)
    if len(growth) > 1:
        cause = np.argmax(target.margins(engine.measured(moves), engine.cash)[0] >= 0, axis=0)
    return growth[cause, np.arange(len(cause))].T


def _finished(engine: Engine, target: Target, law: Law, best: _Best, most: float) -> Likeliest:
    """The best move, with its edge to the last digit that is asked for."""
    found = edges(engine, target, best.moves, most, np.ones(len(best.log_density)))
    there = np.isfinite(found.at)
    moves = best.moves * np.where(there, found.at, 1.0)
    density = law.density(moves)
    order = np.argsort(np.where(there, -density.log, np.inf), kind="stable")
    first = int(order[0])
    normal = _normal(engine, target, moves[:, [first] * TOGETHER], WIDTHS[-1])[:, 0]
    toward, of_target = (np.linalg.cholesky(density.local[first]).T @ x for x in (density.gradient[:, first], normal))
    lengths = float(np.linalg.norm(toward) * np.linalg.norm(of_target))
    return Likeliest(
        move=moves[:, first],
        below=float(found.below[first] / found.at[first]),
        directions=moves[:, order],
        alignment=float(toward @ of_target) / lengths if lengths > 0 else np.nan,
    )


def starting_directions(law: Law, together: Array) -> Array:
    """Directions to begin with, up and down: all assets together, and the likeliest where one moves so far (a s)."""
    covariance = law.covariance()
    columns = np.column_stack([together, covariance / np.sqrt(np.diag(covariance))])
    columns = columns / np.max(np.abs(columns), axis=0)
    return np.concatenate([-columns, columns], axis=1)
