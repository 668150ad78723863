"""Auto-deleveraging and socialised losses: what the winners' side pays.

On ladders winners are known by market, side and entry class. `queue` ranks them by profit / entry notional x
notional / equity: inside a class the profit rate is common and the equity falls towards the trigger, so the
best-ranked are the rungs nearest to it, and closing them moves the ladder's position past them. `pro_rata` closes
the same share of every account in profit, which scales the ladder. `water_filling` lowers the highest leverage first;
a ladder cannot follow accounts that are closed in part to one level, so there they close whole, from the highest
leverage down, and beside accounts on cross margin down to the level at which those stop. A ladder with slices waiting
in the engine's queue takes no part, as accounts that are closing do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_rounds import Cross
from stress_kernels.account_winners import (
    HIGHEST,
    LOWEST,
    Call,
    Share,
    bearable,
    capped,
    profitable,
    ranked,
)
from stress_kernels.ladder import (
    ACCOUNTS,
    CLASSES,
    ENTRY,
    TOP,
    TOP_10,
    Kept,
    Ladders,
    coins_at,
    position,
    quantity,
    row_at,
    total_row,
)
from stress_kernels.money import add_up
from stress_kernels.policy import TOPS, Borne, nobody
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_PRO_RATA, ADL_WATER_FILLING, World, side_sign

_GAINS = -30.0, 40.0
"""Bracket of the log of one account's profit [log USD]."""
_HALVINGS = 30
_RISES = 8


@pytree
class Alive:
    """Accounts that are neither closed nor closing, by ladder."""

    row: Float[Array, "v a s e column p"]
    """Cumulative sums where they begin."""
    quantity: Float[Array, "v a s e p"]
    """Coins."""
    profit: Float[Array, "v a s e p"]
    """Mean unrealised profit, less what was taken before; 0 where there is none [USD per coin]."""
    equity: Float[Array, "v a s e p"]
    """Mean equity, at least 0 [USD per coin]."""
    rate: Float[Array, "v a s e p"]
    """Profit over entry notional [1]."""


@pytree
class Deleveraged:
    """Winners closed in a round."""

    coins: Float[Array, "v a s p"]
    """By side of the LOSERS."""
    needed: Float[Array, "v a s p"]
    """What those lacked at the mark whose coins these are, by side of the LOSERS [USD]."""
    reach: Float[Array, "v a s e p"]
    scale: Float[Array, "v a s e p"]
    accounts: Float[Array, "v a s e p"]
    """Winners touched, by their own ladder."""
    borne: Borne
    """Who they were; of those on cross margin only the largest profit is known before they close."""
    share: Share
    """How much of each winner on cross margin is closed."""
    call: Call


def alive(
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    taken: Float[Array, "v a s e p"],
    mark_move: Float[Array, "v a p"],
    idle: Bool[Array, "v a s e p"],
) -> Alive:
    """What is left on each ladder, and how it stands at the mark.

    Args:
        reach: Place up to which accounts have been triggered.
        kept: What earlier rounds have left of them.
        taken: USD per coin that earlier socialisation took.
        mark_move: Mark - 1.
        idle: False where slices wait in the queue; nothing is alive there.
    """
    row = row_at(ladders, reach)
    rest = total_row(ladders)[..., None] - row
    coins = quantity(rest)
    safe = jnp.where(coins > 0, coins, 1.0)
    sign, move = side_sign(kept.shift), mark_move[:, :, None, None]
    value = add_up(rest[..., 1 : 2 * CLASSES : 2, :], -2)
    entry = rest[..., ENTRY, :] / safe
    profit = jnp.maximum(sign * (move - entry) - taken, 0.0)
    return Alive(
        row=row,
        quantity=jnp.where(idle & (coins > 0), coins * kept.scale, 0.0),
        profit=profit,
        equity=jnp.maximum(sign * (kept.level(move) - value / safe), 0.0) / jnp.maximum(kept.scale, 1e-9),
        rate=profit / (1 + entry),
    )


def deleverage(
    need: Float[Array, "v a s p"],
    left: Alive,
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    mark_move: Float[Array, "v a p"],
    world: World,
    price: Float[Array, "v a s p"],
    lack: Float[Array, "v a s p"],
    cross: Cross | None = None,
) -> Deleveraged:
    """Close winners against what the other layers left.

    Args:
        need: Coins to be closed, by side of the losers.
        price: At which winners close on average, by side of the losers [USD per coin]. An account on cross margin does
            not pay more than it has; what a ladder's accounts can pay is not looked at.
        lack: What the losers lack at the mark, were all of it closed, by their side [USD].
        cross: Accounts on cross margin, where there are any.

    Returns:
        What was closed, at most the profitable open interest of the other side.
    """
    asked = need[:, :, ::-1]
    in_profit = (left.profit > 0) & (left.quantity > 0)
    offered = jnp.where(in_profit, left.quantity, 0.0)
    call = Call(asked > 0, price[:, :, ::-1])
    others = Others(cross, call, world.rules.adl_ranking)
    coins, profit, winners, largest = others.profitable()
    got = jnp.minimum(asked, add_up(offered, 3) + coins)
    by_profit = (world.rules.adl_ranking == ADL_PRO_RATA)[:, None, None, None, None]
    taking = in_profit & (got > 0)[:, :, :, None]

    place, share = _best_ranked(got, winners, taking, left, ladders, reach, kept, mark_move, others)
    rate = _by_profit(got, offered, left.profit, profit, others)
    stays, scale = 1 - jnp.minimum(rate[:, :, :, None] * jnp.where(in_profit, left.profit, 0.0), 1.0), kept.scale

    row = row_at(ladders, place)
    total = total_row(ladders)[..., None]

    def touched(column: int) -> Float[Array, "v a s e p"]:
        of_ranked = scale * (row[..., column, :] - left.row[..., column, :])
        of_all = scale * (1 - stays) * (total[..., column, :] - left.row[..., column, :])
        return jnp.where(taking, jnp.where(by_profit, of_all, of_ranked), 0.0)

    everyone = total[..., ACCOUNTS, :] - left.row[..., ACCOUNTS, :]
    counted = jnp.where(by_profit, jnp.where(taking, everyone, 0.0), touched(ACCOUNTS))
    return Deleveraged(
        coins=got[:, :, ::-1],
        needed=lack * (got / jnp.where(asked > 0, asked, 1.0))[:, :, ::-1],
        reach=jnp.where(taking & ~by_profit, place, reach),
        scale=jnp.where(taking & by_profit, scale * stays, scale),
        accounts=counted,
        borne=replace(
            nobody(got),
            top=jnp.stack([add_up(touched(column), 3) for column in (TOP, TOP_10)]),
            laddered=jnp.any(taking & (by_profit | (place > reach)), axis=3),
            profit=largest,
        ),
        share=replace(share, rate=rate),
        call=call,
    )


def no_winners(need: Float[Array, "v a s p"], reach: Float[Array, "v a s e p"], kept: Kept) -> Deleveraged:
    """Nothing closed."""
    nothing = jnp.zeros_like(need)
    tops = jnp.zeros((len(TOPS), *need.shape), need.dtype)
    return Deleveraged(
        coins=nothing,
        needed=nothing,
        reach=reach,
        scale=kept.scale,
        accounts=jnp.zeros_like(reach),
        borne=nobody(need),
        share=Share(nothing, nothing, nothing, nothing, tops, tops, tops),
        call=Call(nothing > 0, nothing),
    )


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


def _by_profit(
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


def _best_ranked(
    got: Float[Array, "v a s p"],
    winners: Float[Array, "v a s p"],
    taking: Bool[Array, "v a s e p"],
    left: Alive,
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    mark_move: Float[Array, "v a p"],
    others: Others,
) -> tuple[Float[Array, "v a s e p"], Share]:
    """Places up to which winners are closed, such that all of higher rank and none of lower are.

    Bisection on the rank or the level of leverage; the last bracket is shared linearly, so that the coins come out
    exact. In the same passes the profits are found above which the largest of `winners` lie, their number on cross
    margin.
    """
    places, coins = _on_ladders(taking, left, ladders, reach, kept, mark_move, others.ranking)
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


Bracket = tuple[Array, Array]


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
    left: Alive,
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
    rate = jnp.where((ranking == ADL_WATER_FILLING)[:, None, None, None, None], 1.0, left.rate)
    weights = total_row(ladders)[..., 0 : 2 * CLASSES : 2, None]
    margin = add_up(weights * ladders.log_margin[..., None], -2) / jnp.maximum(add_up(weights, -2), 1e-30)
    end = jnp.asarray(ladders.rows.shape[-2] - 2, reach.dtype)
    begun = quantity(left.row)

    def places(rank_log: Float[Array, "v a s p"]) -> Float[Array, "v a s e p"]:
        bankruptcy = mark * (1 - sign * rate * jnp.exp(-rank_log)[:, :, :, None])
        price_log = jnp.log(jnp.maximum(1 + kept.level(bankruptcy - 1), 1e-6)) - margin
        found = jnp.clip(position(ladders, -sign * price_log), reach, end)
        return jnp.where(taking, found, reach)

    def coins(place: Float[Array, "v a s e p"]) -> Float[Array, "v a s p"]:
        closed = kept.scale * (coins_at(ladders, place) - begun)
        return add_up(jnp.where(taking, closed, 0.0), 3)

    return places, coins


def socialise(
    short: Float[Array, "f p"], left: Alive, world: World, cross: Cross | None = None
) -> tuple[Float[Array, "f p"], Float[Array, "v a s e p"], Float[Array, "v a p"], Float[Array, "v a p"]]:
    """Take what a pool cannot pay from the unrealised profit in its markets.

    Args:
        short: What is missing [USD].
        cross: Accounts on cross margin, where there are any.

    Returns:
        What was taken [USD], at most the sum of min(profit, equity); that in USD per coin of each ladder; as a share of
        what the winners in each market could bear; and from accounts on cross margin in each market [USD].
    """
    per_coin = jnp.minimum(left.profit, left.equity)
    worth = add_up(left.quantity * per_coin, 2, 3)
    others = jnp.zeros_like(worth) if cross is None else bearable(cross, world.to_markets(short) > 0)
    available = world.to_pools(worth + others)
    kappa = jnp.where(available > 0, jnp.minimum(short / jnp.where(available > 0, available, 1.0), 1.0), 0.0)
    share = world.to_markets(kappa)
    return kappa * available, share[:, :, None, None] * per_coin, share, share * others
