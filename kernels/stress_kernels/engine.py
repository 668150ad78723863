"""The liquidation engine's queue: what is admitted in a round, at most its throughput.

First in, first out by round, and in proportion inside a round. What waits lies on a ladder in two blocks: an older
one, of which a share still waits everywhere, and behind it all that was triggered later. When the older is finished,
the other takes its place. So the order of rounds is kept between the two blocks; inside the second it is not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.ladder import ACCOUNTS, Ladders, Sweep, quantity, row_at, sweep
from stress_kernels.layers import share
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree


@pytree
class Queue:
    """What waits in the engine, by ladder; nothing where the three places are one."""

    done: Float[Array, "v a s e p"]
    """Place up to which everything has been admitted."""
    seam: Float[Array, "v a s e p"]
    """Place up to which the older block goes; the later one goes on to what has been triggered."""
    part: Float[Array, "v a s e p"]
    """Share of the older block that still waits."""


@pytree
class Admitted:
    """What a round takes in, by ladder."""

    swept: Sweep
    queue: Queue
    """What waits now."""
    queued: Float[Array, "v a s e p"]
    """Coins that wait now."""
    triggered: Float[Array, "v a s e p"]
    """Coins that waited before, those newly triggered among them."""
    accounts: Float[Array, "v a s e p"]
    """Accounts taken in."""


def admit(
    ladders: Ladders,
    queue: Queue,
    reach: Float[Array, "v a s e p"],
    scale: Float[Array, "v a s e p"],
    budget: Float[Array, "v a p"],
    mark: Float[Array, "v a p"],
) -> Admitted:
    """Admit what waits, older block first, in proportion over the ladders of a market.

    Args:
        reach: Place up to which accounts have been triggered.
        scale: Share of every rung that earlier deleveraging left.
        budget: What the engine can still take in [USD].
        mark: Mark price [USD per coin].
    """
    row_done, row_reach = row_at(ladders, queue.done), row_at(ladders, reach)
    row_seam = jax.lax.cond(jnp.any(queue.seam > queue.done), lambda: row_at(ladders, queue.seam), lambda: row_done)
    older = queue.part * (quantity(row_seam) - quantity(row_done)) * scale
    later = (quantity(row_reach) - quantity(row_seam)) * scale

    def usd(coins: Float[Array, "v a s e p"]) -> Float[Array, "v a p"]:
        return add_up(coins, 2, 3) * mark

    of_older = share(budget, usd(older))
    of_later = share(jnp.maximum(budget - usd(older), 0.0), usd(later))
    of_older, of_later = (jnp.broadcast_to(x[:, :, None, None], reach.shape) for x in (of_older, of_later))
    weight_older = jnp.where(queue.seam > queue.done, of_older * queue.part, 1.0)
    weights = jax.lax.optimization_barrier((weight_older, of_later))

    counted = (row[..., ACCOUNTS, :] for row in (row_done, row_seam, row_reach))
    at_done, at_seam, at_reach = counted
    finished = of_older >= 1
    return Admitted(
        swept=sweep(queue.done, queue.seam, reach, row_done, row_seam, row_reach, *weights),
        queue=Queue(
            done=jnp.where(finished, jnp.where(of_later >= 1, reach, queue.seam), queue.done),
            seam=jnp.where(finished, reach, queue.seam),
            part=jnp.where(finished, 1 - of_later, queue.part * (1 - of_older)),
        ),
        queued=jnp.maximum(older * (1 - of_older), 0.0) + jnp.maximum(later * (1 - of_later), 0.0),
        triggered=older + later,
        accounts=scale * (weight_older * (at_seam - at_done) + of_later * (at_reach - at_seam)),
    )
