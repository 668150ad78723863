"""Circuit breakers: after an index has moved too far too fast a venue stops liquidating for a while, or asks for more
margin."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.money import any_of
from stress_kernels.pytree import pytree
from stress_kernels.world import Breakers, World


@pytree
class Halts:
    """What breakers remember along a path."""

    index: Float[Array, "window a p"]
    """Log index at the opening of the last steps; that of the start before there were any."""
    until: Int[Array, "v p"]
    """Step before which a venue's breaker is tripped."""
    halted: Float[Array, "v p"]
    """Steps since the hour began in which it did not."""


def open_halts(breakers: Breakers, assets: int, paths: int, dtype: jnp.dtype) -> Halts:
    """Before the first step."""
    venues = breakers.move.shape[0]
    return Halts(
        index=jnp.zeros((breakers.window, assets, paths), dtype),
        until=jnp.zeros((venues, paths), jnp.int32),
        halted=jnp.zeros((venues, paths), dtype),
    )


def judge_halts(
    halts: Halts, index: Float[Array, "a p"], step: Int[Array, ""], breakers: Breakers
) -> tuple[Halts, Bool[Array, "v p"], Bool[Array, "v p"] | None]:
    """Trip the breakers of a step's opening.

    A breaker trips where |S(t) / S(t - window) - 1| of any index that the venue lists is above its move, unless it is
    tripped: meanwhile nothing is judged.

    Args:
        halts: So far.
        index: Log index at the step's opening, what impact of earlier steps is left included.
        step: Number of the step.
        breakers: Rules.

    Returns:
        What is remembered, which venues liquidate in this step, and which have wider margins, where any may.
    """
    # Read before anything is written: else the whole window is copied.
    before, past = jax.lax.optimization_barrier((halts.index[(step - breakers.steps) % breakers.window], halts.index))
    far = jnp.abs(jnp.expm1(index[None] - before)) > breakers.move[:, None, None]
    trips = any_of(far & breakers.listed[..., None], 1) & (halts.until <= step)
    until = jnp.where(trips, step + breakers.pause[:, None], halts.until)
    tripped = until > step
    halted = tripped if breakers.widens is None else tripped & ~breakers.widens[:, None]
    now = Halts(
        index=jax.lax.dynamic_update_index_in_dim(past, index, step % breakers.window, 0),
        until=until,
        halted=halts.halted + halted,
    )
    return now, ~halted, None if breakers.widens is None else tripped & breakers.widens[:, None]


def throughput(liquidates: Bool[Array, "v p"] | None, world: World) -> Float[Array, "v a #p"]:
    """What the engines may take in during a step [USD]; nothing at venues that do not liquidate."""
    whole = world.throughput[..., None]
    return whole if liquidates is None else jnp.where(liquidates[:, None], whole, 0.0)
