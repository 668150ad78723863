"""How paths of a shock are drawn, as tables for the kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from stress_kernels.pytree import host
from stress_kernels.shocks import brownian, jumps, nets, tilts
from stress_kernels.shocks.sizes import NormalSizes

from stress.diffusions import Kou, WithNormalJumps
from stress.sampling import Importance, Sampling, Sobol, Tilt
from stress.shock import Grid, Shock, jump_tables, most_jumps

_SCRAMBLE = 601
"""Seed of the scrambled Sobol sequence; what makes one net differ from another are shifts drawn from paths' keys."""


def sampled(tables: Shock, shock: Any, sampling: Sampling | None, grid: Grid) -> Shock:
    """The tables of a shock, drawn as a config says.

    Args:
        tables: From `compile_shock`.
        shock: What they were made of.
        sampling: None for path by path from the shock itself.
        grid: As for `compile_shock`.
    """
    if sampling is None:
        return tables
    if isinstance(sampling, Importance):
        return replace(tables, jumps=None, sampling=_tilts(sampling, shock, tables.brownian, grid))
    if isinstance(sampling, Sobol):
        return replace(tables, sampling=_net(sampling, tables.jumps, grid))
    return replace(tables, sampling=nets.Mirrored())


def _tilts(spec: Importance, shock: Any, diffusion: brownian.Brownian | None, grid: Grid) -> tilts.Tilts:
    """The shock itself, and under it its tilts."""
    drift = np.zeros((1 + len(spec.tilts), len(grid.assets)))
    for i, tilt in enumerate(spec.tilts):
        drift[1 + i] = [tilt.drift_per_day.get(asset, 0.0) * grid.days for asset in grid.assets]
    pull = np.zeros_like(drift)
    if diffusion is not None:
        factor = np.asarray(diffusion.factor, np.float64)
        pull = drift @ np.linalg.pinv(factor @ factor.T, hermitian=True)
    leaps = None
    if isinstance(shock, WithNormalJumps | Kou):
        tables = [jump_tables(law, grid) for law in (shock, *(_tilted(shock, tilt) for tilt in spec.tilts))]
        most = max(table.most for table in tables)
        leaps = jax.tree.map(lambda *x: np.stack(x), *(replace(table, most=most) for table in tables))
    return tilts.Tilts(
        log_share=grid.array(np.log([spec.nominal, *(tilt.share for tilt in spec.tilts)])),
        drift=grid.array(drift),
        pull=grid.array(pull),
        half=grid.array(0.5 * np.sum(pull * drift, axis=1)),
        jumps=leaps,
    )


def with_room(tables: Shock, laws: int, expected: float) -> Shock:
    """Tilts with room for so many laws, and for jumps of so many a path in the mean: one shape, compiled once.

    Laws that are not there have no share.
    """
    spec = tables.sampling
    assert isinstance(spec, tilts.Tilts)
    more = laws - len(spec.log_share)

    def padded(x: Any) -> Any:
        return np.concatenate([x, np.repeat(x[:1], more, axis=0)])

    leaps = spec.jumps
    if leaps is not None:
        leaps = replace(jax.tree.map(padded, leaps), most=most_jumps(expected))
    shares: Any = np.concatenate([spec.log_share, np.full(more, -np.inf, spec.log_share.dtype)])
    spec = tilts.Tilts(shares, padded(spec.drift), padded(spec.pull), padded(spec.half), leaps)
    return replace(tables, sampling=spec)


def _tilted(shock: Any, tilt: Tilt) -> Any:
    """A shock with the jumps of a tilt in the place of its own."""
    common = shock.common if tilt.common is None else shock.common.model_copy(update=dict(tilt.common))
    return shock.model_copy(update={"common": common, "own": shock.own | tilt.own})


def _net(spec: Sobol, leaps: jumps.Jumps | None, grid: Grid) -> nets.Net:
    from scipy.stats import qmc  # Slow to import, and seldom needed.

    waves = min(spec.waves, grid.steps)
    dims = waves * len(grid.assets)
    if leaps is not None:
        dims += len(leaps.per_step) * (3 if isinstance(leaps.sizes, NormalSizes) else 4)
    points = qmc.Sobol(dims, scramble=True, bits=32, rng=_SCRAMBLE).random(spec.points)
    k, t = np.arange(waves)[:, None], np.arange(grid.steps) + 0.5
    along = np.sqrt(np.where(k > 0, 2, 1) / grid.steps) * np.cos(np.pi / grid.steps * k * t)
    return nets.Net(points=host(np.round(points * 2**32), np.uint32), waves=grid.array(along))
