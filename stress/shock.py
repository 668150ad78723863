"""What moves the indices of a run: its processes as tables, and their sum along paths."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtr, pdtrc
from scipy.stats import chi2
from scipy.stats import gamma as gamma_law
from stress_kernels.pytree import host, pytree, static
from stress_kernels.shocks import blocks, brownian, garch, jumps, points, student_t, variance
from stress_kernels.shocks.quantiles import LIMIT
from stress_kernels.shocks.sizes import ExponentialSizes, NormalSizes

from stress.config import Run
from stress.diffusions import Bates, Diffusion, ExponentialJumps, Kou, NormalJumps, StudentT, WithNormalJumps
from stress.history import garch_tables, hours_of
from stress.recorded import BlockBootstrap, Garch, Replay
from stress.scenarios import Prescribed

_DAY = 86400.0
_HOUR = 3600
_KNOTS = 1025


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
    steps: int = static(default=0)

    def paths(self, keys: Array) -> Array:
        """Log index after each step, (step a p), one path a key."""
        parts = (
            (brownian, self.brownian),
            (student_t, self.student_t),
            (variance, self.variance),
            (jumps, self.jumps),
            (points, self.points),
            (blocks, self.blocks),
            (garch, self.garch),
        )
        drawn = [module.paths(params, keys, self.steps) for module, params in parts if params is not None]
        return functools.reduce(jnp.add, drawn)


def compile_shock(run: Run, recorded: Mapping[str, np.ndarray]) -> Shock:
    """The run's processes as tables for the kernels.

    Args:
        run: The config.
        recorded: Log prices of each asset, where the shock takes them from files.
    """
    steps = run.horizon_hours * _HOUR // run.step_seconds
    days, assets, shock = run.step_seconds / _DAY, list(run.assets), run.shock
    match shock:
        case Replay() | BlockBootstrap() | Garch():
            log = shock.scale * np.stack([recorded[asset] - recorded[asset][0] for asset in assets], axis=1)
            return _from_files(shock, log, assets, steps, run)
        case Prescribed():
            minutes = (np.arange(steps) + 1) * run.step_seconds / 60
            log = np.stack([shock.log_path(asset, minutes) for asset in assets], axis=1)
            given = points.Points(
                log=host(log, run.dtype),
                size_sd=host(shock.jitter_size, run.dtype),
                delay=host(shock.jitter_minutes * 60 / run.step_seconds, run.dtype),
            )
            noise = None if shock.noise is None else _brownian(shock.noise, assets, days, run.dtype)
            return Shock(brownian=noise, points=given, steps=steps)
        case StudentT():
            return Shock(student_t=_student_t(shock, assets, days, run), steps=steps)
    jump = _jumps(shock, assets, days, steps, run) if isinstance(shock, WithNormalJumps | Kou) else None
    if isinstance(shock, Bates):
        return Shock(variance=_variance(shock, assets, days, run.dtype), jumps=jump, steps=steps)
    return Shock(brownian=_brownian(shock, assets, days, run.dtype), jumps=jump, steps=steps)


def _from_files(
    shock: Replay | BlockBootstrap | Garch, log: np.ndarray, assets: Sequence[str], steps: int, run: Run
) -> Shock:
    dtype = run.dtype
    if isinstance(shock, Replay):
        zero = host(0.0, dtype)
        return Shock(points=points.Points(host(log[1:], dtype), zero, zero), steps=steps)
    hours = hours_of(log, _HOUR // run.step_seconds)
    if isinstance(shock, BlockBootstrap):
        return Shock(blocks=blocks.Blocks(host(hours, dtype), host(1 / shock.block_hours, dtype)), steps=steps)
    residuals, start = garch_tables(shock, hours, assets)
    alpha, gamma, beta, sd = (
        np.array([table[asset] for asset in assets])
        for table in (shock.alpha, shock.gamma, shock.beta, shock.daily_volatility)
    )
    omega = sd**2 * _HOUR / _DAY * (1 - alpha - gamma / 2 - beta)
    numbers = {"omega": omega, "alpha": alpha, "gamma": gamma, "beta": beta, "start": start}
    redrawn = blocks.Blocks(host(residuals, dtype), host(1.0, dtype))
    return Shock(garch=garch.Garch(redrawn, **{name: host(x, dtype) for name, x in numbers.items()}), steps=steps)


def _brownian(spec: Diffusion, assets: Sequence[str], days: float, dtype: str) -> brownian.Brownian:
    return brownian.Brownian(factor=host(spec.factor(assets, days), dtype))


def _student_t(spec: StudentT, assets: Sequence[str], days: float, run: Run) -> student_t.StudentT:
    """An hour's volatility is small where chi2 is large: its quantile at Phi(z) comes from the other end."""
    nu = spec.degrees_of_freedom
    return student_t.StudentT(
        factor=host(spec.factor(assets, days), run.dtype),
        log_scale=host(0.5 * np.log((nu - 2) / chi2.isf(_LEVELS, nu)), run.dtype),
        held=_HOUR // run.step_seconds,
    )


def _variance(spec: Bates, assets: Sequence[str], days: float, dtype: str) -> variance.Variance:
    wander, leader = spec.variance, spec.assets()[0]
    shape = wander.sd**-2 if wander.sd > 0 else np.inf
    if wander.start is not None or wander.sd == 0:
        log_start = np.full(_KNOTS, np.log(wander.start or 1.0))
    else:
        log_start = np.log(np.maximum(gamma_law.ppf(_LEVELS, shape, scale=1 / shape), 1e-30))
    with_leader = np.array([spec.matrix([leader, asset])[0, 1] for asset in assets])
    return variance.Variance(
        factor=host(spec.factor(assets, days), dtype),
        pull=host(wander.pull() * days, dtype),
        wobble=host(wander.wobble() * np.sqrt(days), dtype),
        leverage=host(wander.leverage * np.linalg.solve(np.linalg.cholesky(spec.matrix(assets)), with_leader), dtype),
        log_start=host(log_start, dtype),
    )


_LEVELS = ndtr(np.linspace(-LIMIT, LIMIT, _KNOTS))


def _jumps(spec: WithNormalJumps | Kou, assets: Sequence[str], days: float, steps: int, run: Run) -> jumps.Jumps:
    """Common jumps first, then each asset's own."""
    sources: list[NormalJumps | ExponentialJumps] = [spec.common, *spec.own.values()]
    loading = [[spec.common.beta.get(asset, 0.0) for asset in assets]]
    loading += [[float(asset == name) for asset in assets] for name in spec.own]
    per_step = days * np.array([source.per_day for source in sources])
    law, names = (
        (ExponentialSizes, ("up", "mean_up", "mean_down")) if isinstance(spec, Kou) else (NormalSizes, ("mean", "sd"))
    )
    sizes = {name: host([getattr(source, name) for source in sources], run.dtype) for name in names}
    shortest, longest = (60 * minutes / run.step_seconds for minutes in spec.common.minutes)
    return jumps.Jumps(
        per_step=host(per_step, run.dtype),
        sizes=law(**sizes),
        loading=host(loading, run.dtype),
        shortest=host(shortest, run.dtype),
        longest=host(longest, run.dtype),
        most=_most_jumps(float(per_step.max()) * steps),
    )


def _most_jumps(expected: float) -> int:
    """A number of jumps that a Poisson variable exceeds with a chance below 1e-9."""
    return next(most for most in itertools.count(1) if pdtrc(most, expected) < 1e-9)
