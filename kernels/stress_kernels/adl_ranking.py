"""How winners are ranked for auto-deleveraging: the level, or the rate, at which enough coins are closed.

Ladders and accounts on cross margin of a market side are searched together.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_deleveraging import Share
from stress_kernels.account_winners import HIGHEST, LOWEST, Call, Cross, capped, profitable, ranked
from stress_kernels.ladder import CLASSES, Kept, Ladders, coins_at, position, total_row
from stress_kernels.money import add_up
from stress_kernels.policy import TOPS
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_WATER_FILLING, side_sign

_GAINS = -30.0, 40.0
"""Bracket of the log of one account's profit [log USD]."""
_HALVINGS = 30
_RISES = 8

Bracket = tuple[Array, Array]


@pytree
class Others:
    """Winners on cross margin, where there are any."""

    cross: Cross | None
    call: Call
    ranking: Int[Array, " v"]

    def _nothing(self) -> Float[Array, "v a s p"]:
        return jnp.zeros_like(self.call.price)

    def profitable(self) -> tuple[Array, Array, Array, Array]:
        """Their coins, their profit [USD], their number, and the largest profit of one [USD]."""
        if self.cross is None:
            return self._nothing(), self._nothing(), self._nothing(), self._nothing()
        coins, profit, winners, largest = profitable(self.cross, self.call)
        return coins, profit, winners, largest

    def capped(self, rate: Float[Array, "v a s p"]) -> tuple[Array, Array]:
        """Coins of those that close whole at a rate, and the profit of the others [USD]."""
        if self.cross is None:
            return self._nothing(), self._nothing()
        coins, profit = capped(self.cross, self.call, rate)
        return coins, profit

    def ranked(
        self, level_log: Float[Array, "v a s p"], gain_log: Float[Array, "t v a s p"]
    ) -> tuple[Float[Array, "v a s p"], Float[Array, "t v a s p"]]:
        """Coins that they close down to a level, and how many have at least so much profit."""
        if self.cross is None:
            return self._nothing(), jnp.zeros_like(gain_log)
        return ranked(self.cross, self.call, self.ranking, level_log, gain_log)


def rate_by_profit(
    got: Float[Array, "v a s p"],
    offered: Float[Array, "v a s e p"],
    profit: Float[Array, "v a s e p"],
    others_profit: Float[Array, "v a s p"],
    others: Others,
) -> Float[Array, "v a s p"]:
    """Share of a coin that is closed per USD of its profit, at most the whole coin.

    What the cap of some leaves over goes to the others: the rate rises until all is closed.
    """
    weight = add_up(offered * profit, 3) + others_profit
    rate = got / jnp.maximum(weight, 1e-30)

    def rise(_: Array, rate: Float[Array, "v a s p"]) -> Float[Array, "v a s p"]:
        whole = rate[:, :, :, None] * profit >= 1
        coins, free = others.capped(rate)
        coins = coins + add_up(jnp.where(whole, offered, 0.0), 3)
        free = free + add_up(jnp.where(whole, 0.0, offered * profit), 3)
        return jnp.where(free > 0, jnp.maximum(rate, (got - coins) / jnp.where(free > 0, free, 1.0)), rate)

    return jax.lax.fori_loop(0, _RISES, rise, rate)


def best_ranked(
    got: Float[Array, "v a s p"],
    winners: Float[Array, "v a s p"],
    taking: Bool[Array, "v a s e p"],
    rate: Float[Array, "v a s e p"],
    begun: Float[Array, "v a s e p"],
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    mark_move: Float[Array, "v a p"],
    others: Others,
) -> tuple[Float[Array, "v a s e p"], Share]:
    """Places up to which winners are closed, such that all of higher rank and none of lower are.

    Bisection on the rank or the level of leverage; the last bracket is shared linearly, so that the coins come out
    exact. In the same passes the profits are found above which the largest winners on cross margin lie.

    Args:
        got: Coins to be closed, by the winners' side.
        winners: Number of those on cross margin.
        taking: Ladders that take part.
        rate: Profit over entry notional on each [1].
        begun: Coins up to where each ladder's accounts begin.
    """
    places, coins = _on_ladders(taking, rate, begun, ladders, reach, kept, mark_move, others.ranking)
    wanted = jnp.stack([top * winners for top in TOPS])

    def bisect(_: Array, brackets: tuple[Bracket, Bracket]) -> tuple[Bracket, Bracket]:
        level, gain = brackets
        closed, larger = others.ranked(_middle(level), _middle(gain))
        enough = coins(places(_middle(level))) + closed >= got
        return _narrowed(level, enough), _narrowed(gain, larger >= wanted)

    level = jnp.full_like(got, LOWEST), jnp.full_like(got, HIGHEST)
    gain = jnp.full_like(wanted, _GAINS[0]), jnp.full_like(wanted, _GAINS[1])
    (low, high), (below, above) = jax.lax.fori_loop(0, _HALVINGS, bisect, (level, gain))
    far, near = places(low), places(high)
    end = jnp.asarray(ladders.rows.shape[-2] - 2, reach.dtype)
    far = jnp.where(taking & (low == LOWEST)[:, :, :, None], end, far)
    (closed, many), (closed_before, few) = others.ranked(low, below), others.ranked(high, above)
    part = _part(got, coins(near) + closed_before, coins(far) + closed)
    share = Share(
        rate=jnp.zeros_like(part),
        above=high,
        below=low,
        part=part,
        top_above=above,
        top_below=below,
        top_part=_part(wanted, few, many),
    )
    return near + part[:, :, :, None] * (far - near), share


def _middle(bracket: Bracket) -> Array:
    return 0.5 * (bracket[0] + bracket[1])


def _narrowed(bracket: Bracket, enough: Array) -> Bracket:
    """The half at whose lower end there is enough and at whose upper end there is not."""
    middle = _middle(bracket)
    return jnp.where(enough, middle, bracket[0]), jnp.where(enough, bracket[1], middle)


def _part(wanted: Array, few: Array, many: Array) -> Array:
    """Share of what lies between that makes up for what is wanted."""
    return jnp.clip(jnp.where(many > few, (wanted - few) / jnp.where(many > few, many - few, 1.0), 0.0), 0.0, 1.0)


def _on_ladders(
    taking: Bool[Array, "v a s e p"],
    rate: Float[Array, "v a s e p"],
    begun: Float[Array, "v a s e p"],
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    mark_move: Float[Array, "v a p"],
    ranking: Int[Array, " v"],
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Places up to which accounts are at or above a rank [log], and coins up to a place.

    Inside a class the rank is a number common to all times the leverage; by water filling it is the leverage itself.
    """
    sign = side_sign(kept.shift)
    mark = 1 + mark_move[:, :, None, None]
    rate = jnp.where((ranking == ADL_WATER_FILLING)[:, None, None, None, None], 1.0, rate)
    weights = total_row(ladders)[..., 0 : 2 * CLASSES : 2, :]
    margin = add_up(weights * ladders.log_margin, -2) / jnp.maximum(add_up(weights, -2), 1e-30)
    end = jnp.asarray(ladders.rows.shape[-2] - 2, reach.dtype)

    def places(rank_log: Float[Array, "v a s p"]) -> Float[Array, "v a s e p"]:
        bankruptcy = mark * (1 - sign * rate * jnp.exp(-rank_log)[:, :, :, None])
        price_log = jnp.log(jnp.maximum(1 + kept.level(bankruptcy - 1), 1e-6)) - margin
        found = jnp.clip(position(ladders, -sign * price_log), reach, end)
        return jnp.where(taking, found, reach)

    def coins(place: Float[Array, "v a s e p"]) -> Float[Array, "v a s p"]:
        closed = kept.scale * (coins_at(ladders, place) - begun)
        return add_up(jnp.where(taking, closed, 0.0), 3)

    return places, coins
