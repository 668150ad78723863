"""Who pays for auto-deleveraging: the shares of those with the largest profits, and what the first of them keeps.

All winners of a market side close at one price, so that what one of them loses against the mark is its coins times a
number common to all; gains are no losses and are not netted. Accounts on cross margin are ranked by the profit of
their position in the market, as it stands at the round's opening. Those on ladders are ranked by size at the start
among all accounts of their market side, which is by profit where entry prices are equal and none has been closed; what
the largest one keeps, a table does not know. Where both are winners, each group's own largest ones are counted.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_MARK

TOPS = (0.01, 0.1)
"""Shares of the winners, by number, whose burden is reported."""


@pytree
class Single:
    """Single winners on cross margin, by the winners' side."""

    profit: Float[Array, "v a s p"]
    """Largest profit of one [USD]."""
    first: Float[Array, "v a s p"]
    """Coins that this one closed; the mean, if they are several."""
    most: Float[Array, "v a s p"]
    """Most coins that one closed."""
    accounts: Float[Array, "v p"]
    """Those that were not closed before in this hour."""


@pytree
class Borne:
    """Who the winners were that a round closed, by the winners' side."""

    top: Float[Array, "t v a s p"]
    """Coins of the largest, which make up `TOPS` of the winners."""
    laddered: Bool[Array, "v a s p"]
    """Whether any of them was on a ladder."""
    single: Single | None
    """Where there are accounts on cross margin."""


@pytree
class Burden:
    """Sums over an hour's deleveraging [USD]."""

    needed: Float[Array, "v a p"]
    """What the losers lacked at the mark. An account that is closed over several rounds at another price than that of
    its bankruptcy carries its lack from round to round, and is counted with it in each."""
    loss: Float[Array, "v p"]
    """Of the winners against the mark."""
    of_top: Float[Array, "t v p"]
    """The part of the largest of them."""
    largest: Float[Array, "v p"]
    """Loss in the largest deleveraging of a market side."""
    of_total: Float[Array, "v p"]
    """What the winner with the largest profit keeps in that one, over all losses in it [1]."""
    of_largest: Float[Array, "v p"]
    """The same over the largest loss of one account [1]."""


def no_burden(venues: int, assets: int, paths: int, dtype: jnp.dtype) -> Burden:
    """An hour without deleveraging."""
    nothing = jnp.zeros((venues, paths), dtype)
    return Burden(
        needed=jnp.zeros((venues, assets, paths), dtype),
        loss=nothing,
        of_top=jnp.zeros((len(TOPS), venues, paths), dtype),
        largest=nothing,
        of_total=nothing,
        of_largest=nothing,
    )


def nobody(like: Float[Array, "v a s p"], profit: Float[Array, "v a s p"] | None) -> Borne:
    """Nobody closed yet, and the largest profit of an account on cross margin, where there are any."""
    nothing = jnp.zeros_like(like)
    return Borne(
        top=jnp.zeros((len(TOPS), *like.shape), like.dtype),
        laddered=nothing > 0,
        single=None if profit is None else Single(profit, nothing, nothing, nothing[:, 0, 0]),
    )


def bear(
    past: Burden,
    borne: Borne,
    coins: Float[Array, "v a s p"],
    haircut: Float[Array, "v a s p"],
    needed: Float[Array, "v a s p"],
    close_at: Int[Array, " v"],
) -> Burden:
    """Add a round.

    Args:
        past: The hour so far.
        borne: By the winners' side, as all that follows.
        coins: Closed.
        haircut: What winners lost against the mark, negative for a gain [USD].
        needed: What the losers lacked at the mark [USD].
        close_at: Price at which each venue closes winners; at the mark none loses.
    """
    at_mark = (close_at == ADL_MARK)[:, None, None, None]
    loss = jnp.where(at_mark, 0.0, jnp.maximum(haircut, 0.0))
    per_coin = loss / jnp.where(coins > 0, coins, 1.0)
    keeps, most, single = jnp.full_like(loss, jnp.nan), jnp.zeros_like(loss), borne.single
    if single is not None:
        keeps = jnp.where(borne.laddered, jnp.nan, single.profit - per_coin * single.first)
        most = per_coin * single.most

    def flat(x: Float[Array, "v a s p"]) -> Float[Array, "v m p"]:
        return x.reshape(x.shape[0], -1, x.shape[-1])

    which = jnp.argmax(flat(loss), axis=1, keepdims=True)

    def there(x: Float[Array, "v a s p"]) -> Float[Array, "v p"]:
        return jnp.take_along_axis(flat(x), which, axis=1)[:, 0]

    largest = there(loss)
    larger = largest > past.largest
    return replace(
        past,
        needed=past.needed + add_up(needed, 2),
        loss=past.loss + add_up(loss, 1, 2),
        of_top=past.of_top + add_up(per_coin[None] * borne.top, 2, 3),
        largest=jnp.maximum(past.largest, largest),
        of_total=jnp.where(larger, there(keeps / jnp.where(loss > 0, loss, 1.0)), past.of_total),
        of_largest=jnp.where(larger, there(keeps / jnp.where(most > 0, most, 1.0)), past.of_largest),
    )


def judge(
    hour: Burden,
    volume: Float[Array, "v a p"],
    haircut: Float[Array, "v a p"],
    opening: Float[Array, "v a p"],
) -> dict[str, Array]:
    """What an hour reports of its deleveraging; shares are NaN where winners lost nothing.

    Args:
        volume: Closed of winners [USD].
        haircut: What they lost against the mark [USD].
        opening: Open interest when the hour began [USD].
    """

    def where_lost(x: Array) -> Array:
        return jnp.where(hour.loss > 0, x, jnp.nan)

    top, top_10 = hour.of_top / jnp.where(hour.loss > 0, hour.loss, 1.0)[None]
    return {
        "adl_top_share": where_lost(top),
        "adl_top_10_share": where_lost(top_10),
        "adl_top_keeps_of_total": where_lost(hour.of_total),
        "adl_top_keeps_of_largest": where_lost(hour.of_largest),
        "adl_overshoot": haircut - hour.needed,
        "adl_open_interest": jnp.where(opening > 0, volume / jnp.where(opening > 0, opening, 1.0), 0.0),
    }
