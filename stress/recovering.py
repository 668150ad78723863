"""The days after a run's last hour as tables for the kernels: a coarser world, what comes back, what moves prices."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from stress_kernels.comeback import Comeback
from stress_kernels.ladder import Ladders
from stress_kernels.pytree import host, pytree, static
from stress_kernels.recovery import HOURS, Later, Recovery

from stress.collateral import AllAccounts
from stress.config import Run
from stress.cross import Currencies
from stress.diffusions import total_volatility
from stress.recovery import Recovery as Rules
from stress.rules import world_of
from stress.shock import Grid, Shock, compile_shock
from stress.spec import InputError

_STREAM = 106
"""As in `stress_kernels.shocks.student_t`: what is drawn after the last hour leaves the hours as they are."""


@pytree
class Aftershock:
    """What moves the indices after the last hour: a shock on the coarser clock, its variance coming down.

    The variance of an asset at time t is v (1 + (x - 1) 2^(-t / h)), v that of the shock in the long run; of a step its
    mean over the step.
    """

    shock: Shock
    hourly: Array
    """Variance of an hour's log-return in the long run, by asset (a)."""
    weight: Array
    """Of the squared return of each hour of the run in x, (hour)."""
    before: Array
    """Weight in x of what was before the run."""
    left: Array
    """Mean of 2^(-t / h) over each step, (step)."""
    nearer: Array
    """By how much nearer triggers are at the variance of the long run, by asset (a) [log]."""
    each: int = static()
    """Steps in an hour of the run."""

    def drawn(self, keys: Array, log: Array) -> Later:
        """What moves the indices of some paths.

        Args:
            keys: One a path, the run's own.
            log: Log index without impact after each step of the run, (step a p).
        """
        own = jax.vmap(lambda key: jax.random.fold_in(key, _STREAM))(keys)
        after = self.shock.paths(own)
        excess = self.excess(log)
        root = jnp.sqrt(1 + (excess - 1)[None] * self.left[:, None, None])

        def move(level: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            moved, root = at
            level = level + moved * root
            return level, level

        moves = jnp.diff(after, axis=0, prepend=jnp.zeros_like(after[:1]))
        _, scaled = jax.lax.scan(move, jnp.zeros_like(after[0]), (moves, root))
        return Later(
            log=scaled,
            nearer=self.nearer[None, :, None] * root,
            volatility=jnp.sqrt(HOURS * self.hourly[:, None] * excess),
        )

    def excess(self, log: Array) -> Array:
        """x of each asset and path (a p)."""
        hours = jnp.concatenate([jnp.zeros_like(log[:1]), log[self.each - 1 :: self.each]])
        squares = jnp.diff(hours, axis=0) ** 2 / self.hourly[None, :, None]

        def add(sum: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            square, weight = at
            return sum + weight * square, None

        return jax.lax.scan(add, jnp.full_like(squares[0], self.before), (squares, self.weight))[0]


def refuse_unless_on_ladders(run: Run, everyone: AllAccounts) -> None:
    """`InputError` where there are days after the last hour and accounts that are followed one by one."""
    if run.recovery_days and everyone.cross is not None:
        raise InputError(
            "behaviour.recovery is of accounts with one linear position backed by USD, expected no others: those on "
            "cross margin, all at venues with a vault and those that overlays bring are followed to the last hour "
            "only. Leave out either."
        )


def recovering(
    run: Run, held: np.ndarray, money: Currencies | None, lanes: int, fresh: Ladders | None, back: Ladders | None
) -> Recovery | None:
    """World and rules of the days after the last hour, where there are any.

    Args:
        run: The config.
        held: Coins of all accounts at the start, (v a s).
        money: As in `world_of`.
        lanes: Paths that go through a round together.
        fresh: Ladders of a cohort, where there is an inflow.
        back: Ladders of accounts that come back, where any do.
    """
    rule = rules_of(run)
    if rule is None:
        return None
    shock = rule.moves(run.shock)
    coarse = run.model_copy(update={"step_seconds": rule.step_seconds, "shock": shock, "overlays": ()})
    world = replace(world_of(coarse, held, money, lanes, fresh), breakers=None)
    comeback = None
    if rule.open_interest is not None and back is not None:
        share = 1 - 2 ** (-1 / rule.open_interest.half_life_days)
        comeback = Comeback(back, host(rule.open_interest.level, run.dtype), host(share, run.dtype), cohorts=rule.days)
    return Recovery(world, comeback, days=rule.days)


def aftershock(run: Run, recovery: Recovery | None) -> Aftershock | None:
    """What moves prices in these days, where there are any."""
    rule = rules_of(run)
    if rule is None or recovery is None:
        return None
    moves = rule.moves(run.shock)
    assert moves is not None
    grid = Grid(list(run.assets), rule.hours, rule.step_seconds, run.dtype)
    daily = total_volatility(moves)
    half_life = 24 * rule.volatility_half_life_days
    hour = 0.5 ** (1 / half_life)
    age = np.arange(run.horizon_hours)[::-1]
    ends = np.arange(grid.steps + 1) * rule.step_seconds / 3600 / half_life
    left = -np.diff(0.5**ends) / (np.log(2) * np.diff(ends))
    return Aftershock(
        shock=compile_shock(moves, grid),
        hourly=grid.array([daily[asset] ** 2 / 24 for asset in run.assets]),
        weight=grid.array((1 - hour) * hour**age),
        before=grid.array(hour**run.horizon_hours),
        left=grid.array(left),
        nearer=recovery.world.barrier_shift,
        each=3600 // run.step_seconds,
    )


def rules_of(run: Run) -> Rules | None:
    """What a config says of these days."""
    return None if run.behaviour is None else run.behaviour.recovery
