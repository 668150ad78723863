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

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.account_deleveraging import Share
from stress_kernels.account_rounds import Cross
from stress_kernels.account_winners import LOWEST, Call, bearable
from stress_kernels.adl_ranking import Others, best_ranked, rate_by_profit
from stress_kernels.ladder import ACCOUNTS, CLASSES, ENTRY, TOP, TOP_10, Kept, Ladders, quantity, row_at, total_row
from stress_kernels.money import add_up
from stress_kernels.policy import TOPS, Borne, nobody
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_PRO_RATA, World, side_sign

_WHOLE = 1e20
"""Rate at which every winner closes whole [contracts per USD of profit]."""


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
    share: Share | None
    """How much of each winner on cross margin is closed, where there are any."""
    call: Call | None


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
    rest = total_row(ladders) - row
    coins = quantity(rest)
    safe = jnp.where(coins > 0, coins, 1.0)
    sign, move = side_sign(kept.shift), mark_move[:, :, None, None]
    value = add_up(rest[..., 1 : 2 * CLASSES : 2, :], -2)
    entry = kept.entry(rest[..., ENTRY, :] / safe)
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
    available = add_up(offered, 3) + coins
    got = jnp.minimum(asked, available)
    by_profit = (world.rules.adl_ranking == ADL_PRO_RATA)[:, None, None, None, None]
    taking = in_profit & (got > 0)[:, :, :, None]

    begun = quantity(left.row)
    place, share = best_ranked(got, winners, taking, left.rate, begun, ladders, reach, kept, mark_move, others)
    rate = rate_by_profit(got, offered, left.profit, profit, others)
    # Where everybody closes whole, rounding in the search for a rate or a level must leave nobody a dust of a position.
    everyone = asked >= available
    rate = jnp.where(everyone, _WHOLE, rate)
    share = replace(share, rate=rate, above=jnp.where(everyone, LOWEST, share.above))
    part = jnp.minimum(rate[:, :, :, None] * jnp.where(in_profit, left.profit, 0.0), 1.0)
    touched = _Touched(taking, by_profit, part, row_at(ladders, place), left.row, ladders, kept)
    return Deleveraged(
        coins=got[:, :, ::-1],
        needed=lack * (got / jnp.where(asked > 0, asked, 1.0))[:, :, ::-1],
        reach=jnp.where(taking & ~by_profit, place, reach),
        scale=jnp.where(taking & by_profit, kept.scale * (1 - part), kept.scale),
        accounts=touched.accounts(),
        borne=replace(
            nobody(got, largest if cross is not None else None),
            top=jnp.stack([add_up(touched.sum(column), 3) for column in (TOP, TOP_10)]),
            laddered=jnp.any(taking & (by_profit | (place > reach)), axis=3),
        ),
        share=None if cross is None else share,
        call=None if cross is None else call,
    )


@pytree
class _Touched:
    """Winners that are closed on ladders."""

    taking: Bool[Array, "v a s e p"]
    by_profit: Bool[Array, "v 1 1 1 1"]
    part: Float[Array, "v a s e p"]
    """Of each account, where they close by profit [1]."""
    end: Float[Array, "v a s e column p"]
    """Cumulative sums up to where they close by rank."""
    begin: Float[Array, "v a s e column p"]
    ladders: Ladders
    kept: Kept

    def _all(self, column: int) -> Float[Array, "v a s e p"]:
        return total_row(self.ladders)[..., column, :] - self.begin[..., column, :]

    def sum(self, column: int) -> Float[Array, "v a s e p"]:
        """What is closed of a column's sums."""
        of_ranked = self.end[..., column, :] - self.begin[..., column, :]
        closed = jnp.where(self.by_profit, self.part * self._all(column), of_ranked)
        share = self.kept.share if column == ACCOUNTS else self.kept.scale
        return jnp.where(self.taking, share * closed, 0.0)

    def accounts(self) -> Float[Array, "v a s e p"]:
        """How many accounts are touched."""
        everyone = jnp.where(self.taking, self._all(ACCOUNTS), 0.0)
        return jnp.where(self.by_profit, everyone, self.sum(ACCOUNTS))


def no_winners(
    need: Float[Array, "v a s p"], reach: Float[Array, "v a s e p"], kept: Kept, cross: Cross | None
) -> Deleveraged:
    """Nothing closed."""
    nothing = jnp.zeros_like(need)
    tops = jnp.zeros((len(TOPS), *need.shape), need.dtype)
    return Deleveraged(
        coins=nothing,
        needed=nothing,
        reach=reach,
        scale=kept.scale,
        accounts=jnp.zeros_like(reach),
        borne=nobody(need, nothing if cross is not None else None),
        share=None if cross is None else Share(nothing, nothing, nothing, nothing, tops, tops, tops),
        call=None if cross is None else Call(nothing > 0, nothing),
    )


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
