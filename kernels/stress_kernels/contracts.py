"""Linear and inverse contracts: what one is settled in, and what it is worth.

A linear contract of one coin is settled in USD, an inverse contract of one USD in coins of the asset. The profit of q
contracts is q (f(m) - f(entry)) units of the settlement currency, with f(m) = m or -1/m. As index prices start at 1,
what matters of f is its *gain* since the start, f(m) - f(1): the move of the price, or move / (1 + move).

Where nothing is inverse, `inverse` is None and all of this is plain arithmetic on moves.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.pytree import pytree

Inverse = Bool[Array, "..."] | None
"""Which contracts are inverse, of as many axes as the prices, or the leading ones of them."""


def _like(inverse: Bool[Array, ...], move: Array) -> Bool[Array, ...]:
    return inverse.reshape(inverse.shape + (1,) * (move.ndim - inverse.ndim))


def gain(move: Float[Array, "*b"], inverse: Inverse) -> Float[Array, "*b"]:
    """What a contract has gained since the start at a price of 1 + move [USD or coins]."""
    return move if inverse is None else jnp.where(_like(inverse, move), move / (1 + move), move)


def settle(move: Float[Array, "*b"], inverse: Inverse) -> Float[Array, "*b"]:
    """f(1 + move): what the other side pays for a contract [USD or coins]; negative for an inverse one."""
    return 1 + move if inverse is None else jnp.where(_like(inverse, move), -1 / (1 + move), 1 + move)


def money(move: Float[Array, "*b"], inverse: Inverse) -> Float[Array, "*b"]:
    """USD per unit of the settlement currency at a mark of 1 + move."""
    return jnp.ones_like(move) if inverse is None else jnp.where(_like(inverse, move), 1 + move, 1.0)


def unit(move: Float[Array, "*b"], inverse: Inverse) -> Float[Array, "*b"]:
    """Notional of a contract at a mark of 1 + move [USD]."""
    return 1 + move if inverse is None else jnp.where(_like(inverse, move), 1.0, 1 + move)


@pytree
class Worth:
    """What a contract and a coin are worth at the marks, by market."""

    unit: Float[Array, "v a p"]
    """Notional of a contract [USD]."""
    settle: Float[Array, "v a p"]
    """Of a contract, in the settlement currency."""
    money: Float[Array, "v a p"]
    """USD per unit of the settlement currency."""
    coin: Float[Array, "v a p"] | None
    """USD per coin of collateral: the spot price at the venue, or the mark where the contract is inverse; only where
    coins are anybody's money."""


def worth(mark_log: Float[Array, "v a p"], spot_log: Float[Array, "v a p"] | None, inverse: Inverse) -> Worth:
    """What contracts and coins are worth.

    Args:
        mark_log: Log marks.
        spot_log: Log spot prices at each venue, where coins are anybody's money.
        inverse: By market.
    """
    move = jnp.expm1(mark_log)
    coin = None
    if spot_log is not None and inverse is not None:
        coin = jnp.exp(jnp.where(_like(inverse, mark_log), mark_log, spot_log))
    return Worth(unit=unit(move, inverse), settle=settle(move, inverse), money=money(move, inverse), coin=coin)
