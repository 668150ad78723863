"""What moves the indices of a run: its processes as tables, and their sum along paths."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import pdtrc
from stress_kernels.pytree import host, pytree, static
from stress_kernels.shocks import brownian, jumps, points

from stress.config import Run
from stress.scenarios import Gbm, Merton, Prescribed, Replay

_DAY = 86400.0


@pytree
class Shock:
    """What moves the indices: a sum of processes, each of them optional."""

    brownian: brownian.Brownian | None = None
    jumps: jumps.Jumps | None = None
    points: points.Points | None = None
    steps: int = static(default=0)

    def paths(self, keys: Array) -> Array:
        """Log index after each step, (step a p), one path a key."""
        parts = ((brownian, self.brownian), (jumps, self.jumps), (points, self.points))
        drawn = [module.paths(params, keys, self.steps) for module, params in parts if params is not None]
        return functools.reduce(jnp.add, drawn)


def compile_shock(run: Run, replayed: Mapping[str, np.ndarray]) -> Shock:
    """The run's processes as tables for the kernels.

    Args:
        run: The config.
        replayed: Recorded log prices of each asset, where the shock is a replay.
    """
    steps = run.horizon_hours * 3600 // run.step_seconds
    days, assets, shock = run.step_seconds / _DAY, list(run.assets), run.shock
    if isinstance(shock, Replay):
        log = np.stack([shock.scale * (replayed[asset][1:] - replayed[asset][0]) for asset in assets], axis=1)
        zero = host(0.0, run.dtype)
        return Shock(points=points.Points(host(log, run.dtype), zero, zero), steps=steps)
    if isinstance(shock, Prescribed):
        minutes = (np.arange(steps) + 1) * run.step_seconds / 60
        log = np.stack([shock.log_path(asset, minutes) for asset in assets], axis=1)
        given = points.Points(
            log=host(log, run.dtype),
            size_sd=host(shock.jitter_size, run.dtype),
            delay=host(shock.jitter_minutes * 60 / run.step_seconds, run.dtype),
        )
        return Shock(brownian=_brownian(shock.noise, assets, days, run.dtype), points=given, steps=steps)
    return Shock(
        brownian=_brownian(shock, assets, days, run.dtype),
        jumps=_jumps(shock, assets, days, steps, run) if isinstance(shock, Merton) else None,
        steps=steps,
    )


def _brownian(spec: Gbm | Merton | None, assets: list[str], days: float, dtype: str) -> brownian.Brownian | None:
    return None if spec is None else brownian.Brownian(factor=host(spec.factor(assets, days), dtype))


def _jumps(spec: Merton, assets: list[str], days: float, steps: int, run: Run) -> jumps.Jumps:
    """Common jumps first, then each asset's own."""
    sources = [(spec.common.per_day, spec.common.mean, spec.common.sd)]
    loading = [[spec.common.beta.get(asset, 0.0) for asset in assets]]
    for name, own in spec.own.items():
        sources.append((own.per_day, own.mean, own.sd))
        loading.append([float(asset == name) for asset in assets])
    per_day, mean, sd = (np.array(column) for column in zip(*sources, strict=True))
    expected = float(per_day.max()) * days * steps
    shortest, longest = (60 * minutes / run.step_seconds for minutes in spec.common.minutes)
    return jumps.Jumps(
        per_step=host(per_day * days, run.dtype),
        mean=host(mean, run.dtype),
        sd=host(sd, run.dtype),
        loading=host(loading, run.dtype),
        shortest=host(shortest, run.dtype),
        longest=host(longest, run.dtype),
        most=_most_jumps(expected),
    )


def _most_jumps(expected: float) -> int:
    """A number of jumps that a Poisson variable exceeds with a chance below 1e-9."""
    return next(most for most in itertools.count(1) if pdtrc(most, expected) < 1e-9)
