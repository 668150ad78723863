"""What an account has left, or lacks, when its forced order has gone through the layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.ladder import Sweep, equity, split
from stress_kernels.ladder_lanes import Lanes
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_BANKRUPTCY, ADL_INDEX, World


@pytree
class Fills:
    """Where a market side's slices went, as shares that add up to 1 (or all 0), and at what price move."""

    book: Float[Array, "v a s p"]
    auction: Float[Array, "v a s p"]
    takeover: Float[Array, "v a s p"]
    vault: Float[Array, "v a s p"]
    """Of accounts on cross margin only."""
    adl: Float[Array, "v a s p"]
    remainder: Float[Array, "v a s p"]
    book_move: Float[Array, "v a s p"]
    auction_move: Float[Array, "v a s p"]
    adl_move: Float[Array, "v a s p"]
    """Where winners close at mark or index."""
    mark_move: Float[Array, "v a s p"]


@pytree
class Settled:
    """Sums over the accounts of a market side. What follows the trades of accounts on cross margin is not in them."""

    quantity: Float[Array, "v a s p"]
    """Contracts closed."""
    bankruptcy: Float[Array, "v a s p"]
    """Quantity x bankruptcy price, in the settlement currency."""
    proceeds: Float[Array, "v a s p"]
    """Quantity x average price over the layers, in the settlement currency."""
    vault: Float[Array, "v a s p"]
    """The part of it that a vault pays."""
    deficit: Float[Array, "v a s p"]
    """What accounts without equity lack, >= 0 [USD]."""
    fee: Float[Array, "v a s p"]
    """[USD]"""
    surplus: Float[Array, "v a s p"]
    """Equity left after the fee where nothing of the account stays open [USD]."""


def bankruptcy_value(part: Sweep, lanes: Lanes) -> Float[Array, "v a s p"]:
    """Quantity x bankruptcy price of a sweep [USD]."""
    return lanes.sum(add_up(part.quantity * (1 + lanes.kept.shift)[..., None, :] + part.value, -2))


def lacking(part: Sweep, mark_move: Float[Array, "v a p"], lanes: Lanes) -> Float[Array, "v a s p"]:
    """What those accounts of a sweep lack that are bankrupt at the mark [USD]; a partial close has equity."""
    at_mark = lanes.of_markets(mark_move)
    bankrupt, _ = split(lanes.ladders, part, at_mark, lanes.kept)
    lack = jnp.maximum(-equity(lanes.ladders, bankrupt, at_mark, lanes.kept), 0.0)
    return lanes.sum(add_up(jnp.where(lanes.ladders.partial, 0.0, lack), -2))


@pytree
class Earned:
    """What a slice gets for a coin, on lanes."""

    fixed: Float[Array, "1 1 1 1 k"]
    """Share that is closed at the same price for all accounts [1]."""
    moves: Float[Array, "1 1 1 1 k"]
    """That price - 1, times the share [USD per coin]."""
    fee: Float[Array, "1 1 1 1 k"]
    """[USD per coin]"""


@pytree
class Remains:
    """What the accounts of a sweep have left or lack, on lanes [USD]."""

    deficit: Float[Array, "1 1 1 1 k"]
    fee: Float[Array, "1 1 1 1 k"]
    surplus: Float[Array, "1 1 1 1 k"]


def left_of(part: Sweep, earned: Earned, lanes: Lanes) -> Remains:
    """What is left of a sweep's accounts when it is closed, account by account.

    A slice's average price is A + B p_b: takeover, and deleveraging at the bankruptcy price, leave no equity and
    make up B. So an account has (1 - B) dir q (A / (1 - B) - p_b) left: the sign changes at one price, and the fee,
    at most what is left, is paid in full from another.

    Args:
        part: What is closed, on lanes.
        earned: What for.
        lanes: The ladders swept.
    """
    ladders, kept, fixed, fee = lanes.ladders, lanes.kept, earned.fixed, earned.fee
    safe = jnp.where(fixed > 0, fixed, 1.0)
    at_zero = jnp.where(fixed > 0, earned.moves / safe, 0.0)
    fee_paid_from = at_zero - ladders.sign * fee / safe

    bankrupt, solvent = split(ladders, part, at_zero, kept)
    short_of_fee, whole = split(ladders, solvent, fee_paid_from, kept)

    def left(of: Sweep) -> Float[Array, "1 1 1 1 c k"]:
        return fixed[..., None, :] * equity(ladders, of, at_zero, kept)

    charged = jnp.where(ladders.partial, solvent.quantity, whole.quantity)
    fees = (fee * kept.scale)[..., None, :] * charged
    low_fees = jnp.where(ladders.partial, 0.0, left(short_of_fee))
    surplus = jnp.where(ladders.partial, 0.0, jnp.maximum(left(whole) - fees, 0.0))

    def total(x: Float[Array, "1 1 1 1 c k"]) -> Float[Array, "1 1 1 1 k"]:
        return jax.lax.optimization_barrier(add_up(x, -2))

    return Remains(
        deficit=total(jnp.maximum(-left(bankrupt), 0.0)),
        fee=total(fees + jnp.maximum(low_fees, 0.0)),
        surplus=total(surplus),
    )


def settle(part: Sweep, fills: Fills, lanes: Lanes, world: World) -> Settled:
    """Close a sweep at the layers' prices.

    Args:
        part: What is closed, on lanes.
        fills: Where it went.
        lanes: The ladders swept.
        world: Rules and parameters.
    """
    known = _known_prices(fills, world)
    left = left_of(part, Earned(*(lanes.of_sides(x) for x in known)), lanes)
    coins = add_up(part.quantity * lanes.kept.scale[..., None, :], -2)
    quantity, bankruptcy = lanes.sum(jax.lax.optimization_barrier(coins)), bankruptcy_value(part, lanes)
    share, moves, _ = known
    return Settled(
        quantity=quantity,
        bankruptcy=bankruptcy,
        proceeds=quantity * (share + moves) + (1 - share) * bankruptcy,
        vault=jnp.zeros_like(quantity),
        deficit=lanes.sum(left.deficit),
        fee=lanes.sum(left.fee),
        surplus=lanes.sum(left.surplus),
    )


def _known_prices(
    fills: Fills, world: World
) -> tuple[Float[Array, "v a s p"], Float[Array, "v a s p"], Float[Array, "v a s p"]]:
    """The share 1 - B of a slice that is closed at the same price for all accounts, the move A - (1 - B) that it earns,
    and the fee [USD per coin of the slice]."""
    close = world.rules.adl_close[:, None, None, None]
    adl_fixed = jnp.where(close == ADL_BANKRUPTCY, 0.0, fills.adl)
    fixed = fills.book + fills.auction + fills.remainder + adl_fixed
    earned = (
        fills.book * fills.book_move
        + fills.auction * fills.auction_move
        + fills.remainder * fills.mark_move
        + adl_fixed * fills.adl_move
    )
    in_market = fills.book * (1 + fills.book_move) + fills.auction * (1 + fills.auction_move)
    return fixed, earned, world.rules.fee[:, None, None, None] * in_market


def adl_move(
    index_move: Float[Array, "a p"], mark_move: Float[Array, "v a p"], world: World
) -> Float[Array, "v a s p"]:
    """Price move at which winners close at venues that use mark or index."""
    close = world.rules.adl_close[:, None, None]
    move = jnp.where(close == ADL_INDEX, index_move[None], mark_move)
    return jnp.broadcast_to(move[:, :, None], (*move.shape[:2], 2, move.shape[-1]))
