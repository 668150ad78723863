"""The watch over accounts on cross margin: in which blocks may anybody be at the trigger, and in which is somebody.

Most blocks are told by their radius alone, in one pass over all of them. Those that a price has left are looked at:
where nobody is at the trigger a block gets a new radius; the others are on alert, and their paths go through a round.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.account_margin import Look, Owned, between_steps, radius, short_of_margin
from stress_kernels.account_rounds import Cross, exists, look_at, noted, prices, who_is_tested
from stress_kernels.accounts import LOOK, SAFE, Accounts, Holdings, open_holdings

_TOGETHER = 4
"""Times as many pairs as in a round: there are more, and less is done to each."""


def open_watched(accounts: Accounts, paths: int) -> Holdings:
    """All accounts before the first step, every block with its radius: at the start all paths are alike."""
    holdings, owned = open_holdings(accounts, paths), accounts.collateral
    still = jnp.zeros(accounts.quantity.shape[:2], accounts.quantity.dtype)
    coins = None
    if owned is not None:
        haircut, inverse = owned.haircut[accounts.venue], owned.inverse[accounts.venue]
        coins = Owned(owned.coins, accounts.entry, haircut, inverse, spot=still)
    look = Look(accounts.venue, accounts.quantity, accounts.equity, move=still, paid=still, owned=coins)
    there = (accounts.count > 0) & jnp.any(accounts.quantity != 0, axis=1)
    return replace(holdings, radius=jnp.broadcast_to(radius(look, there, accounts)[:, None], holdings.radius.shape))


def watch(cross: Cross) -> Cross:
    """Look at the blocks that a price has left; on alert is who needs a round."""
    accounts, log = cross.accounts, prices(cross.quotes)

    def visit(block: Array, lane: Array, now: Holdings) -> Holdings:
        path = cross.chosen[lane]
        look = look_at(replace(cross, holdings=now), block, path, lane)
        waiting = jnp.any(now.waiting[block, path] > 0, axis=1)
        alive = ~waiting & (accounts.count[block] > 0) & jnp.any(look.quantity != 0, axis=1)
        tested, begun = who_is_tested(now, alive, block, path)
        free = radius(look, tested, accounts)
        alert = jax.lax.cond(
            jnp.any((free <= 0) & exists(cross, block)),
            lambda: jnp.any(tested & short_of_margin(look, accounts), axis=1),
            lambda: jnp.zeros_like(free, bool),
        )
        # Of a block on alert nothing is written but that: the round that it asks for finds the rest as it was.
        safe = jnp.where(alert, len(accounts.venue), block)
        return replace(
            now,
            closing=now.closing.at[safe, path].set(waiting, mode="drop"),
            anchor=now.anchor.at[:, safe, path].set(log[look.venue, :, lane].T, mode="drop"),
            radius=now.radius.at[safe, path].set(free, mode="drop"),
            alert=now.alert.at[block, path].set(alert, mode="drop"),
            rests=noted(now.rests, safe, path, alive & ~tested, begun & ~tested),
        )

    # Gathered by itself: else again for every block.
    of_paths = jax.lax.optimization_barrier(log[..., cross.lane])
    reached = cross.listed(*_reached(cross.holdings, accounts, of_paths))
    return replace(cross, holdings=cross.pairs(reached, visit, cross.holdings, _TOGETHER))


def funded(
    holdings: Holdings, accounts: Accounts, per_contract: Float[Array, "v a p"]
) -> tuple[Float[Array, "v a p"], Float[Array, "k p"]]:
    """Funding paid so far and radii, when longs have paid so much for each contract [USD or coins].

    With s the spare margin of an account and v what it loses by a move r, v (e^r - 1), a radius says that s / v is at
    least e^r - 1 for all. Funding takes q f from s; v is at least q m w for each position: s / v falls by at most the
    largest f / (m w) of those who pay.
    """
    paid = holdings.paid + per_contract
    if accounts.collateral is not None:
        return paid, jnp.full_like(holdings.radius, LOOK)
    here = per_contract[accounts.venue]
    share = jnp.zeros_like(holdings.radius)
    for x, anchor in enumerate(holdings.anchor):
        pays = jnp.maximum(accounts.falls[x][:, None] * here[:, x], -accounts.rises[x][:, None] * here[:, x])
        share = jnp.maximum(share, pays * jnp.exp(-anchor))
    known = (holdings.radius >= 0) & (holdings.radius < SAFE / 2)
    between = between_steps(accounts)
    left = jnp.expm1(jnp.where(known, holdings.radius, 0.0) + between) - share
    shrunk = jnp.where(left > 0, jnp.log1p(jnp.maximum(left, 0.0)) - between, LOOK)
    return paid, jnp.where(known, shrunk, holdings.radius)


def restless(cross: Cross, budget: Float[Array, "v a #n"]) -> Bool[Array, " n"]:
    """Whether a round would do anything to an account, by the last watch.

    Args:
        cross: The accounts.
        budget: What the engine can still take in [USD].
    """
    served = jnp.broadcast_to(jnp.any(budget > 1.0, axis=1), (budget.shape[0], len(cross.chosen)))
    waits = cross.holdings.busy & cross.at_venues(served)
    return jnp.any(cross.holdings.alert | waits, axis=0)[cross.chosen]


def _reached(holdings: Holdings, accounts: Accounts, log: Float[Array, "v x p"]) -> list[Bool[Array, "_ p"]]:
    """Blocks that a price has left: it has moved against them by more than the radius since they were looked at.

    A part for each group.
    """
    parts, start = [], 0
    for group in accounts.groups:
        here = slice(start, start + group.blocks)
        moved = jnp.zeros_like(holdings.radius[here])
        # Price by price: one pass over the blocks, along the paths.
        for x, anchor in enumerate(holdings.anchor[:, here]):
            up = log[group.venue, x][None] - anchor
            if group.falls:
                moved = jnp.maximum(moved, -accounts.falls[x, here, None] * up)
            if group.rises:
                moved = jnp.maximum(moved, accounts.rises[x, here, None] * up)
        parts.append(moved > holdings.radius[here])
        start += group.blocks
    return parts
