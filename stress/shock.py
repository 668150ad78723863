"""What moves the indices of a run: its processes as tables, and their sum along paths."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtr, pdtrc
from stress_kernels.pytree import host, pytree, static
from stress_kernels.shocks import blocks, brownian, garch, jumps, nets, points, student_t, tilts, variance
from stress_kernels.shocks.quantiles import LIMIT
from stress_kernels.shocks.sizes import ExponentialSizes, NormalSizes

from stress.diffusions import (
    Bates,
    Diffusion,
    ExponentialJumps,
    Gbm,
    Kou,
    Merton,
    NormalJumps,
    StudentT,
    WithNormalJumps,
)
from stress.history import garch_tables, hours_of
from stress.recorded import BlockBootstrap, Garch, Replay
from stress.scenarios import Prescribed
from stress.spec import Spec

_DAY = 86400.0
_HOUR = 3600
_KNOTS = 1025
_LEVELS = ndtr(np.linspace(-LIMIT, LIMIT, _KNOTS))


@pytree
class Shock:
    """What moves the indices: a sum of processes, each of them optional."""

    brownian: brownian.Brownian | None = None
    student_t: student_t.StudentT | None = None
    variance: variance.Variance | None = None
    jumps: jumps.Jumps | None = None
    points: points.Points | None = None
    blocks: blocks.Blocks | None = None
    garch: garch.Garch | None = None
    sampling: tilts.Tilts | nets.Mirrored | nets.Net | None = None
    """How the diffusion and the jumps are drawn, where not path by path from their own laws."""
    steps: int = static(default=0)
    after: Any = None
    """What moves prices after the last hour, where anything follows it (`stress.recovering.Aftershock`)."""

    def paths(self, keys: Array) -> Array:
        """Log index after each step, (step a p), one path a key."""
        return self.drawn(keys)[0]

    def drawn(self, keys: Array) -> tuple[Array, Array | None]:
        """Log index after each step, (step a p), one path a key, and log likelihood ratios, where paths are tilted."""
        if self.sampling is None:
            return self._plain(keys), None
        if isinstance(self.sampling, tilts.Tilts):
            log, log_weight = tilts.paths(self.sampling, self.brownian, keys, self.steps)
        else:
            log = nets.paths(self.sampling, self.brownian, self.jumps, keys, self.steps)
            log_weight = None
        rest = replace(self, brownian=None, jumps=None, sampling=None)
        return (log + rest._plain(keys) if rest.parts() else log), log_weight

    def _plain(self, keys: Array) -> Array:
        drawn = [module.paths(params, keys, self.steps) for module, params in self.parts()]
        return functools.reduce(jnp.add, drawn)

    def parts(self) -> list[tuple[ModuleType, Any]]:
        """The processes that are there, and the module of each."""
        parts = (
            (brownian, self.brownian),
            (student_t, self.student_t),
            (variance, self.variance),
            (jumps, self.jumps),
            (points, self.points),
            (blocks, self.blocks),
            (garch, self.garch),
        )
        return [(module, params) for module, params in parts if params is not None]


@dataclass(frozen=True)
class Grid:
    """Where paths live."""

    assets: Sequence[str]
    """In the order of the tables."""
    hours: int
    """Length of a path [h]."""
    step_seconds: int
    """Length of a step, a divisor of an hour [s]."""
    dtype: str = "float32"

    @property
    def each(self) -> int:
        """Steps in an hour."""
        return _HOUR // self.step_seconds

    @property
    def steps(self) -> int:
        """Steps of a path."""
        return self.hours * self.each

    @property
    def days(self) -> float:
        """Length of a step [day]."""
        return self.step_seconds / _DAY

    def array(self, values: Any) -> Any:
        """A table of the paths' type."""
        return host(values, self.dtype)


def compile_shock(shock: Spec, grid: Grid, recorded: Mapping[str, np.ndarray] | None = None) -> Shock:
    """A shock as tables for the kernels.

    Args:
        shock: Any of `stress.scenarios.Shock`.
        grid: Assets and steps of a path.
        recorded: Log prices of each asset, where the shock takes them from files.
    """
    parts: dict[str, Any]
    match shock:
        case Replay() | BlockBootstrap() | Garch():
            assert recorded is not None
            log = shock.scale * np.stack([recorded[asset] - recorded[asset][0] for asset in grid.assets], axis=1)
            parts = _from_files(shock, log, grid)
        case Prescribed():
            parts = {"points": _prescribed(shock, grid)}
            if shock.noise is not None:
                parts["brownian"] = _brownian(shock.noise, grid)
        case StudentT():
            parts = {"student_t": _student_t(shock, grid)}
        case Bates():
            parts = {"variance": _variance(shock, grid), "jumps": jump_tables(shock, grid)}
        case Merton() | Kou():
            parts = {"brownian": _brownian(shock, grid), "jumps": jump_tables(shock, grid)}
        case Gbm():
            parts = {"brownian": _brownian(shock, grid)}
        case _:
            raise TypeError(f"{type(shock).__name__} has no tables")
    return Shock(**parts, steps=grid.steps)


def _from_files(shock: Replay | BlockBootstrap | Garch, log: np.ndarray, grid: Grid) -> dict[str, Any]:
    """From log prices against the first one, (step asset) with the start in front."""
    if isinstance(shock, Replay):
        zero = grid.array(0.0)
        return {"points": points.Points(grid.array(log[1:]), zero, zero)}
    hours = hours_of(log, grid.each)
    if isinstance(shock, BlockBootstrap):
        return {"blocks": blocks.Blocks(grid.array(hours), grid.array(1 / shock.block_hours))}
    residuals, start = garch_tables(shock, hours, grid.assets)
    alpha, gamma, beta, sd = (
        np.array([table[asset] for asset in grid.assets])
        for table in (shock.alpha, shock.gamma, shock.beta, shock.daily_volatility)
    )
    omega = sd**2 * _HOUR / _DAY * (1 - alpha - gamma / 2 - beta)
    numbers = (grid.array(x) for x in (omega, alpha, gamma, beta, start))
    return {"garch": garch.Garch(blocks.Blocks(grid.array(residuals), grid.array(1.0)), *numbers)}


def _prescribed(spec: Prescribed, grid: Grid) -> points.Points:
    minutes = (np.arange(grid.steps) + 1) * grid.step_seconds / 60
    return points.Points(
        log=grid.array(np.stack([spec.log_path(asset, minutes) for asset in grid.assets], axis=1)),
        size_sd=grid.array(spec.jitter_size),
        delay=grid.array(spec.jitter_minutes * 60 / grid.step_seconds),
    )


def _brownian(spec: Diffusion, grid: Grid) -> brownian.Brownian:
    return brownian.Brownian(factor=grid.array(spec.factor(grid.assets, grid.days)))


def _student_t(spec: StudentT, grid: Grid) -> student_t.StudentT:
    """An hour's volatility is small where chi2 is large: its quantile at Phi(z) comes from the other end."""
    from scipy.stats import chi2  # Slow to import, and seldom needed.

    nu = spec.degrees_of_freedom
    return student_t.StudentT(
        factor=grid.array(spec.factor(grid.assets, grid.days)),
        log_scale=grid.array(0.5 * np.log((nu - 2) / chi2.isf(_LEVELS, nu))),
        held=grid.each,
    )


def _variance(spec: Bates, grid: Grid) -> variance.Variance:
    wander, leader = spec.variance, spec.assets()[0]
    if wander.start is not None or wander.sd == 0:
        log_start = np.full(_KNOTS, np.log(wander.start or 1.0))
    else:
        from scipy.stats import gamma

        law = gamma(wander.sd**-2, scale=wander.sd**2)
        log_start = np.log(np.maximum(law.ppf(_LEVELS), 1e-30))
    with_leader = np.array([spec.matrix([leader, asset])[0, 1] for asset in grid.assets])
    normals = np.linalg.solve(np.linalg.cholesky(spec.matrix(grid.assets)), with_leader)
    return variance.Variance(
        factor=grid.array(spec.factor(grid.assets, grid.days)),
        pull=grid.array(wander.pull() * grid.days),
        wobble=grid.array(wander.wobble() * np.sqrt(grid.days)),
        leverage=grid.array(wander.leverage * normals),
        log_start=grid.array(log_start),
    )


def jump_tables(spec: WithNormalJumps | Kou, grid: Grid) -> jumps.Jumps:
    """Common jumps first, then each asset's own."""
    sources: list[NormalJumps | ExponentialJumps] = [spec.common, *spec.own.values()]
    loading = [[spec.common.beta.get(asset, 0.0) for asset in grid.assets]]
    loading += [[float(asset == name) for asset in grid.assets] for name in spec.own]
    per_step = grid.days * np.array([source.per_day for source in sources])
    if isinstance(spec, Kou):
        law, names = ExponentialSizes, ("up", "mean_up", "mean_down")
    else:
        law, names = NormalSizes, ("mean", "sd")
    shortest, longest = (60 * minutes / grid.step_seconds for minutes in spec.common.minutes)
    return jumps.Jumps(
        per_step=grid.array(per_step),
        sizes=law(*(grid.array([getattr(source, name) for source in sources]) for name in names)),
        loading=grid.array(loading),
        shortest=grid.array(shortest),
        longest=grid.array(longest),
        most=most_jumps(float(per_step.max()) * grid.steps),
    )


def most_jumps(expected: float) -> int:
    """A number of jumps that a Poisson variable exceeds with a chance below 1e-9."""
    return next(most for most in itertools.count(1) if pdtrc(most, expected) < 1e-9)
