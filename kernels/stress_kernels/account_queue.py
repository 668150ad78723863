"""Accounts on cross margin in the engine's queue: first in, first out by the round of their trigger."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_rounds import Cross, Waiting, look_at, sums_of_waiting
from stress_kernels.layers import share
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import World


@pytree
class Turn:
    """Whose turn it is in each market."""

    number: Int[Array, "v a n"]
    """Round of the run whose accounts are taken in in part; those triggered before it whole, those after it not."""
    part: Float[Array, "v a n"]

    def admitted(
        self, number: Int[Array, "g b"], venue: Int[Array, " g"], lane: Int[Array, " g"]
    ) -> Float[Array, "g a b"]:
        """Share of what waits of each account that is taken in.

        Args:
            number: Rounds in which they were triggered.
            venue: Of each pair.
            lane: Of each pair.
        """
        here, part = self.number[venue, :, lane][..., None], self.part[venue, :, lane][..., None]
        return jnp.where(number[:, None] < here, 1.0, jnp.where(number[:, None] == here, part, 0.0))


def take_turns(
    cross: Cross, waiting: Waiting, budget: Float[Array, "v a n"], world: World
) -> tuple[Turn, Float[Array, "kind v a s n"], Float[Array, "kind v a s n"]]:
    """Whom the engine takes in.

    Args:
        cross: The accounts.
        waiting: All that waits.
        budget: What is taken in of it [USD].
        world: Rules and parameters.

    Returns:
        Whose turn it is, and what is taken in, as `Waiting.usd` and `Waiting.value`.
    """
    total = add_up(waiting.usd, 0, 3)
    binding = total > budget
    last = jnp.broadcast_to(cross.number, total.shape)

    def everyone() -> tuple[Turn, Array, Array]:
        return Turn(last + 1, jnp.ones_like(total)), waiting.usd, waiting.value

    def some() -> tuple[Turn, Array, Array]:
        # The first round with which more than the budget is asked for: all before `low` fit, all up to `high` do not.
        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) // 2
            fits = _asked(cross, Turn(middle + 1, jnp.zeros_like(total)), binding, world) <= budget
            return jnp.where(fits, middle + 1, low), jnp.where(fits, high, middle)

        rounds = (world.hours * world.steps_per_hour * world.rounds).bit_length()
        low, _ = jax.lax.fori_loop(0, rounds, halve, (jnp.zeros_like(last), last))
        number = jnp.where(binding, low, last + 1)
        before = _asked(cross, Turn(number, jnp.zeros_like(total)), binding, world)
        with_it = _asked(cross, Turn(number + 1, jnp.zeros_like(total)), binding, world)
        part = share(jnp.maximum(budget - before, 0.0), with_it - before)
        turn = Turn(number, jnp.where(binding, part, 1.0))
        return turn, *_taken(cross, turn, world)

    return jax.lax.cond(jnp.any(binding), some, everyone)


def _asked(cross: Cross, turn: Turn, where: Bool[Array, "v a n"], world: World) -> Float[Array, "v a n"]:
    """What a turn would take in, in markets where it matters [USD]."""
    usd, _ = _taken(cross, turn, world, where)
    return add_up(usd, 0, 3)


def _taken(
    cross: Cross, turn: Turn, world: World, where: Bool[Array, "v a n"] | None = None
) -> tuple[Float[Array, "kind v a s n"], Float[Array, "kind v a s n"]]:
    """What a turn takes in, at the marks [USD] and at bankruptcy prices [USD or coins]."""
    now = cross.holdings
    wanted = cross.at_open_venues(now.busy)
    if where is not None:
        wanted = wanted & cross.at_venues(jnp.any(where, axis=1))
    zero = jnp.zeros((3, *turn.part.shape[:2], 2, turn.part.shape[-1]), turn.part.dtype)

    def visit(block: Array, lane: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        path = cross.chosen[lane]
        look = look_at(cross, block, path, lane)
        waits = now.waiting[block, path] * turn.admitted(now.number[block, path], look.venue, lane)
        here = slice(None), look.venue, slice(None), slice(None), lane
        found = sums_of_waiting(cross, look, block, waits, world)
        return sums[0].at[here].add(found[0]), sums[1].at[here].add(found[1])

    return cross.pairs(wanted, visit, (zero, zero))
