"""What was closed in a round, and who took it."""

from __future__ import annotations

import functools
from dataclasses import fields

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.contracts import Worth, settle
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Fills, Settled
from stress_kernels.world import ADL_BANKRUPTCY, World


@pytree
class Claims:
    """What was closed in a round, and how."""

    parts: tuple[tuple[Settled, Fills], ...]
    """Slices that tried all layers; where there are accounts on cross margin, those of them that a vault takes; and
    those that skipped the first ones."""
    at: Worth
    """Of contracts and coins, at the round's opening."""

    def total(self, name: str) -> Float[Array, "v a s p"]:
        """Sum of a field of `Settled` over all slices."""
        return functools.reduce(jnp.add, [getattr(settled, name) for settled, _ in self.parts])


@pytree
class Trades:
    """Contracts and money by counterparty, per market and side of the closed accounts."""

    book: Float[Array, "v a s p"]
    book_cash: Float[Array, "v a s p"]
    """[USD, or coins where the contract is inverse]"""
    auction: Float[Array, "v a s p"]
    auction_cash: Float[Array, "v a s p"]
    takeover: Float[Array, "v a s p"]
    takeover_cash: Float[Array, "v a s p"]
    vault: Float[Array, "v a s p"]
    vault_cash: Float[Array, "v a s p"]
    adl: Float[Array, "v a s p"]
    adl_cash: Float[Array, "v a s p"]
    remainder: Float[Array, "v a s p"]
    remainder_cash: Float[Array, "v a s p"]

    @classmethod
    def in_book(cls, contracts: Float[Array, "v a s p"], cash: Float[Array, "v a s p"]) -> Trades:
        """All of it in the book."""
        others = dict.fromkeys((field.name for field in fields(cls)), jnp.zeros_like(contracts))
        return cls(**others | {"book": contracts, "book_cash": cash})


def trades(claims: Claims, world: World) -> Trades:
    """Split what was closed by who bought it (a short: sold it)."""
    parts, inverse = claims.parts, world.inverse
    how = parts[0][1]

    def taken(layer: str, of: str = "quantity") -> Float[Array, "v a s p"]:
        return functools.reduce(jnp.add, [getattr(settled, of) * getattr(fills, layer) for settled, fills in parts])

    at_bankruptcy = world.rules.adl_close[:, None, None, None] == ADL_BANKRUPTCY
    book, auction, adl, remainder = (taken(layer) for layer in ("book", "auction", "adl", "remainder"))
    return Trades(
        book=book,
        book_cash=book * settle(how.book_move, inverse),
        auction=auction,
        auction_cash=auction * settle(how.auction_move, inverse),
        takeover=taken("takeover"),
        takeover_cash=taken("takeover", "bankruptcy"),
        vault=taken("vault"),
        vault_cash=claims.total("vault"),
        adl=adl,
        adl_cash=jnp.where(at_bankruptcy, taken("adl", "bankruptcy"), adl * settle(how.adl_move, inverse)),
        remainder=remainder,
        remainder_cash=remainder * claims.at.settle[:, :, None],
    )
