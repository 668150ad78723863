"""The watch over accounts on cross margin: in which blocks may anybody be at the trigger, and in which is somebody.

Most blocks are told by their radius alone, in one pass over all of them. Those that a price has left are looked at:
where nobody is at the trigger a block gets a new radius; the others are on alert, and their paths go through a round.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt

from stress_kernels.account_margin import between_steps, radius, short_of_margin, untouched
from stress_kernels.account_pairs import for_pairs, listed_bits
from stress_kernels.account_rounds import Cross, exists, look_at, noted, prices, who_is_tested
from stress_kernels.account_words import LOOK, SAFE, WORD, Watched, open_words
from stress_kernels.accounts import Accounts, Holdings, open_holdings

_WORDS = 32
"""Words that are compared block by block together."""
_ROUNDING = 1e-5
"""What moves of a word are taken as more, so that rounding never hides a block that is left."""
ALL_PATHS = 4
"""Times as many pairs as in a round that are looked at together when a step opens: there are more, and less is done to
each."""


def open_watched(accounts: Accounts, paths: int) -> Holdings:
    """All accounts before the first step, every block with its radius: at the start all paths are alike."""
    holdings, still = open_holdings(accounts, paths), jnp.zeros(accounts.quantity.shape[:2], accounts.quantity.dtype)
    look, there = untouched(accounts, still, still)
    return replace(holdings, watched=open_words(accounts.words, radius(look, there, accounts), paths))


def watch(cross: Cross, times: int = 1) -> Cross:
    """Look at the blocks that a price has left, `times` as many together as usual; on alert is who needs a round."""
    accounts, words, log = cross.accounts, cross.accounts.words, prices(cross.quotes)

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
        watched = now.watched.looked_at(words, safe, path, log[look.venue, :, lane], free)
        return replace(
            now,
            closing=now.closing.at[safe, path].set(waiting, mode="drop"),
            watched=watched.bounded(words, block, path, jnp.where(alert, LOOK, free)),
            alert=now.alert.at[block, path].set(alert, mode="drop"),
            rests=noted(now.rests, words, safe, path, alive & ~tested, begun & ~tested),
        )

    watched, left = _left(cross, log)
    reached = listed_bits(left, words.first)
    return replace(cross, holdings=cross.pairs(reached, visit, replace(cross.holdings, watched=watched), times))


def _left(cross: Cross, log: Float[Array, "v x n"]) -> tuple[Watched, UInt[Array, "w p"]]:
    """Blocks that a price has left, a bit for each: it has moved against them by more than their radius.

    Compared block by block are words of which prices have moved by more than their slack.
    """
    words, watched = cross.accounts.words, cross.holdings.watched
    # Gathered by themselves: else again for every word.
    of_paths = jax.lax.optimization_barrier(log[..., cross.lane])
    of_words = jax.lax.optimization_barrier(of_paths[words.venue])
    moved = jnp.zeros_like(watched.slack)
    for x, seen in enumerate(watched.seen):
        moved = jnp.maximum(
            moved, _against(of_words[:, x] - seen, words.any_falls[:, x, None], words.any_rises[:, x, None])
        )
    doubtful = moved + _ROUNDING > watched.slack
    if cross.liquidates is not None:
        # Nothing is noted of them: when the venue liquidates again they are as doubtful, or more.
        doubtful = doubtful & cross.liquidates[:, cross.lane][words.venue]
    doubtful = jax.lax.optimization_barrier(doubtful)
    bit = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)

    def visit(word: Array, path: Array, carry: tuple[Watched, Array]) -> tuple[Watched, Array]:
        now, bits = carry
        log, anchor = of_paths[words.venue[word], :, path], now.anchor[word, path]
        falls, rises = words.falls[word], words.rises[word]
        radius, moved = now.radius[word, path], jnp.zeros_like(anchor[:, 0])
        # Price by price: a maximum along an axis in the middle is what the CPU does slowest.
        for x in range(anchor.shape[1]):
            moved = jnp.maximum(moved, _against(log[:, x, None] - anchor[:, x], falls[:, x], rises[:, x]))
        left = moved > radius
        now = replace(
            now,
            seen=now.seen.at[:, word, path].set(log.T, mode="drop"),
            # Those that are left are looked at now, and take part in the slack with what is then found.
            slack=now.slack.at[word, path].set(jnp.min(jnp.where(left, SAFE, radius - moved), axis=1), mode="drop"),
        )
        return now, bits.at[word, path].set(jnp.sum(jnp.where(left, bit, 0), axis=1, dtype=bit.dtype), mode="drop")

    none = jnp.zeros(watched.slack.shape, bit.dtype)
    return for_pairs(cross.listed(doubtful), len(words.first), _WORDS, visit, (watched, none))


def _against(
    up: Float[Array, "#g #n"], falls: Float[Array, "#g #n"], rises: Float[Array, "#g #n"]
) -> Float[Array, "g n"]:
    """Move against those whom falls and rises hurt, in the pace of the price."""
    return jnp.maximum(-falls * up, rises * up)


def funded(
    holdings: Holdings, accounts: Accounts, per_contract: Float[Array, "v a p"]
) -> tuple[Float[Array, "v a p"], Watched]:
    """Funding paid so far and radii, when longs have paid so much for each contract [USD or coins].

    With s the spare margin of an account and v what it loses by a move r, v (e^r - 1), a radius says that s / v is at
    least e^r - 1 for all. Funding takes q f from s; v is at least q m w for each position: s / v falls by at most the
    largest f / (m w) of those who pay.
    """
    paid, watched, words = holdings.paid + per_contract, holdings.watched, accounts.words
    known, between = (watched.radius >= 0) & (watched.radius < SAFE / 2), between_steps(accounts)
    if accounts.collateral is None:
        here = jnp.swapaxes(per_contract[words.venue], 1, 2)[..., None]
        pays = jnp.maximum(words.falls[:, None] * here, -words.rises[:, None] * here)
        share = jnp.max(jnp.maximum(pays, 0.0) * jnp.exp(-watched.anchor), axis=2)
        left = jnp.expm1(jnp.where(known, watched.radius, 0.0) + between) - share
        shrunk = jnp.where(left > 0, jnp.log1p(jnp.maximum(left, 0.0)) - between, LOOK)
    else:
        shrunk = LOOK
    radius = jnp.where(known, shrunk, watched.radius)
    return paid, replace(watched, radius=radius, slack=jnp.full_like(watched.slack, LOOK))


def restless(cross: Cross, budget: Float[Array, "v a #n"]) -> Bool[Array, " n"]:
    """Whether a round would do anything to an account, by the last watch.

    Args:
        cross: The accounts.
        budget: What the engine can still take in [USD].
    """
    served = jnp.broadcast_to(jnp.any(budget > 1.0, axis=1), (budget.shape[0], len(cross.chosen)))
    waits = cross.holdings.busy & cross.at_venues(served)
    return jnp.any(cross.at_open_venues(cross.holdings.alert) | waits, axis=0)[cross.chosen]
