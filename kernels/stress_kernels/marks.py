"""What forced orders do to prices: flows into imbalances, new marks, and the triggers that these reach."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.funds import pool_equity
from stress_kernels.ladder import Ladders, depth_of, position
from stress_kernels.money import add_up
from stress_kernels.price import quotes
from stress_kernels.pytree import pytree
from stress_kernels.state import Extremes, State, worth_of
from stress_kernels.world import World, along


@pytree
class Held:
    """What does not move during the rounds of a step."""

    exogenous: Float[Array, "a p"]
    """Log index without impact."""
    depth: Float[Array, "a p"]
    """Depth divisor."""
    basis_average: Float[Array, "v a p"]
    deviation: Float[Array, "v a p"] | None
    """Log price of a token at a venue against its index, where one leaves it."""
    liquidates: Bool[Array, "v p"] | None
    """Venues that no circuit breaker has stopped, where any has one."""
    seen: Float[Array, "v a p"] | None
    """Log index that a venue still sees, and NaN where it sees the present one."""
    widened: Bool[Array, "v p"] | None
    """Venues whose breaker asks for wider margins, where any may."""
    absent: Float[Array, "a p"] | None = None
    """Share of the makers that has left, where any may [1]."""
    nearer: Float[Array, "a p"] | None = None
    """By how much nearer triggers are for what a path does between its steps; `World.barrier_shift` if absent [log]."""


def triggered(state: State, held: Held, ladders: Ladders, world: World) -> Float[Array, "v a s e p"]:
    """Place on each ladder that the present marks reach, never falling back."""
    depth = depth_of(state.quotes.mark, state.kept, ladders)
    if held.widened is not None and ladders.widened is not None:
        depth = depth + jnp.where(held.widened[:, None, None, None], ladders.widened, 0.0)
    nearer = along(1, world.barrier_shift, depth) if held.nearer is None else held.nearer[None, :, None, None]
    place = position(ladders, depth + nearer)
    return jax.lax.optimization_barrier(jnp.maximum(state.reach, place))


def reached(state: State, held: Held, ladders: Ladders, world: World) -> Float[Array, "v a s e p"]:
    """Place on each ladder that is triggered; at a venue that does not liquidate no account, and no stop order where
    nothing works: they are looked at again when it does."""
    reach, stops = triggered(state, held, ladders, world), ladders.stops
    if held.liquidates is not None:
        tested = held.liquidates[:, None, None, None]
        reach = jnp.where(tested if stops is None else tested | stops, reach, state.reach)
    if stops is not None and world.conditions.working is not None:
        reach = jnp.where(stops & (world.throughput <= 0)[:, :, None, None, None], state.reach, reach)
    return reach


def press(
    state: State,
    flow: Float[Array, "v a p"],
    held: Held,
    world: World,
    spot: Float[Array, "v a p"] | None = None,
) -> State:
    """Add signed flows [USD] to the imbalances, all markets at once, and quote anew.

    Args:
        state: Whose imbalances change.
        flow: In the books of the perpetuals.
        held: What does not move during the rounds.
        world: Rules and parameters.
        spot: In the spot market, which press the index alone.
    """
    pressure = flow * held.depth[None]
    everywhere = pressure if spot is None else pressure + spot * held.depth[None]
    u_local = state.u_local + pressure / world.adv[..., None]
    u_global = state.u_global + add_up(everywhere, 0) / world.adv_global[:, None]
    now = quotes(held.exogenous, u_local, u_global, held.basis_average, world, held.deviation, held.seen)
    return replace(state, u_local=u_local, u_global=u_global, quotes=now)


def observe(state: State, world: World) -> State:
    """Value the funds at the present quotes, and take the extremes; doing it twice changes nothing."""
    past, funds, now = state.extremes, state.funds, state.quotes
    equity = pool_equity(funds, worth_of(now, world), world)
    peak = jnp.maximum(funds.peak, equity)
    return replace(
        state,
        extremes=Extremes(
            fund_low=jnp.minimum(past.fund_low, equity),
            index_low=jnp.minimum(past.index_low, now.index),
            index_high=jnp.maximum(past.index_high, now.index),
            basis_low=jnp.minimum(past.basis_low, now.basis),
            basis_high=jnp.maximum(past.basis_high, now.basis),
        ),
        funds=replace(funds, equity=equity, peak=peak, drawdown=jnp.maximum(funds.drawdown, peak - equity)),
    )
