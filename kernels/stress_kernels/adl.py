"""Auto-deleveraging and socialised losses: what the winners' side pays.

On ladders winners are known by market, side and entry class. `queue` ranks them by profit / entry notional x
notional / equity: inside a class the profit rate is common and the equity falls towards the trigger, so the
best-ranked are the rungs nearest to it, and closing them moves the ladder's position past them. `pro_rata` closes
the same share of every account in profit, which scales the ladder. A ladder with slices waiting in the engine's
queue takes no part in either, as accounts that are closing do not.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.account_rounds import Cross
from stress_kernels.account_winners import Call, Share, bearable, capped, profitable, ranked
from stress_kernels.ladder import (
    ACCOUNTS,
    CLASSES,
    ENTRY,
    TOP,
    Kept,
    Ladders,
    coins_at,
    position,
    quantity,
    row_at,
    total_row,
)
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import World, side_sign

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
    reach: Float[Array, "v a s e p"]
    scale: Float[Array, "v a s e p"]
    accounts: Float[Array, "v a s e p"]
    """Winners touched, by their own ladder."""
    top: Float[Array, "v a s p"]
    """Coins of the largest 1 % of accounts among those closed, by the winners' side."""
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
    cross: Cross | None = None,
) -> Deleveraged:
    """Close winners against what the other layers left.

    Args:
        need: Coins to be closed, by side of the losers.
        price: At which winners close on average, by side of the losers [USD per coin]. An account on cross margin does
            not pay more than it has; what a ladder's accounts can pay is not looked at.
        cross: Accounts on cross margin, where there are any.

    Returns:
        What was closed, at most the profitable open interest of the other side.
    """
    asked = need[:, :, ::-1]
    in_profit = (left.profit > 0) & (left.quantity > 0)
    offered = jnp.where(in_profit, left.quantity, 0.0)
    call = Call(asked > 0, price[:, :, ::-1])
    others = Others(cross, call)
    coins, profit = others.profitable()
    got = jnp.minimum(asked, add_up(offered, 3) + coins)
    queue = world.rules.adl_queue[:, None, None, None, None]
    taking = in_profit & (got > 0)[:, :, :, None]

    place, share = _best_ranked(got, taking, left, ladders, reach, kept, mark_move, others)
    rate = _by_profit(got, offered, left.profit, profit, others)
    stays, scale = 1 - jnp.minimum(rate[:, :, :, None] * jnp.where(in_profit, left.profit, 0.0), 1.0), kept.scale

    row = row_at(ladders, place)
    total = total_row(ladders)[..., None]

    def touched(column: int) -> Float[Array, "v a s e p"]:
        by_rank = scale * (row[..., column, :] - left.row[..., column, :])
        by_profit = scale * (1 - stays) * (total[..., column, :] - left.row[..., column, :])
        return jnp.where(taking, jnp.where(queue, by_rank, by_profit), 0.0)

    everyone = total[..., ACCOUNTS, :] - left.row[..., ACCOUNTS, :]
    counted = jnp.where(queue, touched(ACCOUNTS), jnp.where(taking, everyone, 0.0))
    return Deleveraged(
        coins=got[:, :, ::-1],
        reach=jnp.where(taking & queue, place, reach),
        scale=jnp.where(taking & ~queue, scale * stays, scale),
        accounts=counted,
        top=add_up(touched(TOP), 3),
        share=replace(share, rate=rate),
        call=call,
    )


@pytree
class Others:
    """Winners on cross margin, where there are any."""

    cross: Cross | None
    call: Call

    def _nothing(self) -> Float[Array, "v a s p"]:
        return jnp.zeros_like(self.call.price)

    def profitable(self) -> tuple[Array, Array]:
        """Their coins, and their profit [USD]."""
        if self.cross is None:
            return self._nothing(), self._nothing()
        coins, profit = profitable(self.cross, self.call)
        return coins, profit

    def capped(self, rate: Float[Array, "v a s p"]) -> tuple[Array, Array]:
        """Coins of those that close whole at a rate, and the profit of the others [USD]."""
        if self.cross is None:
            return self._nothing(), self._nothing()
        coins, profit = capped(self.cross, self.call, rate)
        return coins, profit

    def ranked(self, rank_log: Float[Array, "v a s p"]) -> Float[Array, "v a s p"]:
        """Coins at or above a rank."""
        return self._nothing() if self.cross is None else ranked(self.cross, self.call, rank_log)


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
    taking: Bool[Array, "v a s e p"],
    left: Alive,
    ladders: Ladders,
    reach: Float[Array, "v a s e p"],
    kept: Kept,
    mark_move: Float[Array, "v a p"],
    others: Others,
) -> tuple[Float[Array, "v a s e p"], Share]:
    """Places up to which winners are closed, such that all of higher rank and none of lower are.

    Bisection on the rank; the last bracket is shared linearly, so that the coins come out exact.
    """
    sign = side_sign(kept.shift)
    mark = 1 + mark_move[:, :, None, None]
    total = total_row(ladders)[..., None]
    weights = total[..., 0 : 2 * CLASSES : 2, :]
    margin = add_up(weights * ladders.log_margin[..., None], -2) / jnp.maximum(add_up(weights, -2), 1e-30)
    end = jnp.asarray(ladders.rows.shape[-2] - 2, reach.dtype)

    begun = quantity(left.row)

    def places(rank_log: Float[Array, "v a s p"]) -> Float[Array, "v a s e p"]:
        bankruptcy = mark * (1 - sign * left.rate * jnp.exp(-rank_log)[:, :, :, None])
        price_log = jnp.log(jnp.maximum(1 + kept.level(bankruptcy - 1), 1e-6)) - margin
        found = jnp.clip(position(ladders, -sign * price_log), reach, end)
        return jnp.where(taking, found, reach)

    def coins(place: Float[Array, "v a s e p"]) -> Float[Array, "v a s p"]:
        closed = kept.scale * (coins_at(ladders, place) - begun)
        return add_up(jnp.where(taking, closed, 0.0), 3)

    def bisect(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = coins(places(middle)) + others.ranked(middle) >= got
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    lowest, highest = jnp.full_like(got, -30.0), jnp.full_like(got, 12.0)
    low, high = jax.lax.fori_loop(0, _HALVINGS, bisect, (lowest, highest))
    far, near = places(low), places(high)
    far = jnp.where(taking & (low == lowest)[:, :, :, None], end, far)
    many, few = coins(far) + others.ranked(low), coins(near) + others.ranked(high)
    part = jnp.where(many > few, (got - few) / jnp.where(many > few, many - few, 1.0), 0.0)
    part = jnp.clip(part, 0.0, 1.0)
    share = Share(rate=jnp.zeros_like(part), above=high, below=low, part=part)
    return near + part[:, :, :, None] * (far - near), share


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
