"""How much of a triggered account on cross margin is closed at once."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.account_margin import Look, maintenance, marked, required, weighted_equity, without_equity
from stress_kernels.accounts import Accounts

_HALVINGS = 32
"""Of the share that restores an account's margin."""
_SAME = 1e-5
"""Maintenances that differ by less are equal [1]."""
_FLOOR_TOLERANCE = 1e-3
"""A notional this little above a floor counts as at it [1]."""


def only_a_share(look: Look, accounts: Accounts) -> Bool[Array, "g b"]:
    """Accounts so large that a share of them is closed first."""
    notional = jnp.sum(jnp.abs(look.quantity) * marked(look).unit, axis=1)
    return notional > accounts.share_above[look.venue][:, None]


def coins_to_close(
    look: Look, accounts: Accounts, hit: Bool[Array, "g b"], partly: Bool[Array, "g b"]
) -> Float[Array, "g a b"]:
    """What the venue's staging rule closes of a triggered account at once [contracts, positive].

    `full`, and without equity: everything. `tiers`: every position down to the floor of its tier or of the one below;
    a position in the lowest tiers is left alone while another is above them, and if none is, all are closed. Where the
    riskiest goes first, of these only the one with the largest maintenance; the others wait for the next test.
    `fraction`: a share of it. `restore`: the smallest share after which equity is the target multiple of what is
    required, if the close is at the mark and without a fee: neither the fill nor the fee is known yet.

    Args:
        hit: Whose coins are asked for; of the others anything may be said.
        partly: Whom a venue that closes a fraction closes so.
    """
    at, size, venue = marked(look), jnp.abs(look.quantity), look.venue
    notional, floor = size * at.unit, accounts.floor[venue]
    tier = jnp.maximum(jnp.sum(notional[:, :, None] > floor[..., None] * (1 + _FLOOR_TOLERANCE), axis=2), 1)
    lower = jnp.maximum(tier - accounts.down[venue][:, None, None], 0)
    target = jnp.take_along_axis(floor, lower, axis=2)
    above = (tier > accounts.whole_below[venue][:, None, None]) & (size > 0)
    cut = jnp.where(above, jnp.where(target > 0, size - target / at.unit, size), 0.0)
    cut = jnp.where(jnp.any(above, axis=1, keepdims=True), cut, size)
    cut = jnp.where(accounts.staged[venue][:, None, None], cut, size)
    cut = _where_any(accounts.riskiest_first[venue][:, None] & hit, lambda: _riskiest(look, accounts, cut), cut)
    cut = jnp.where(partly[:, None], accounts.share[venue][:, None, None] * cut, cut)
    cut = _where_any((accounts.target[venue] > 0)[:, None] & hit, lambda: _restoring(look, accounts, cut), cut)
    return jnp.where(without_equity(look, at)[:, None], size, cut)


def _where_any(
    chosen: Bool[Array, "g b"], changed: Callable[[], Float[Array, "g a b"]], of: Float[Array, "g a b"]
) -> Float[Array, "g a b"]:
    """`changed()` of the accounts chosen and `of` the others, worked out only where anyone is chosen."""
    return jax.lax.cond(jnp.any(chosen), lambda: jnp.where(chosen[:, None], changed(), of), lambda: of)


def _riskiest(look: Look, accounts: Accounts, cut: Float[Array, "g a b"]) -> Float[Array, "g a b"]:
    """Of the positions in `cut`, the one with the largest maintenance; of equal ones, such as two that were cut to the
    same floor, the first."""
    kept = maintenance(jnp.abs(look.quantity) * marked(look).unit, look.venue, accounts)
    kept = jnp.where(cut > 0, kept, 0.0)
    largest = kept >= jnp.max(kept, axis=1, keepdims=True) * (1 - _SAME)
    first = jnp.argmax(largest, axis=1, keepdims=True)
    return jnp.where(jnp.arange(cut.shape[1])[None, :, None] == first, cut, 0.0)


def _restoring(look: Look, accounts: Accounts, cut: Float[Array, "g a b"]) -> Float[Array, "g a b"]:
    """The smallest share of `cut` after which equity is the target multiple of what is required; all, if none is."""
    size, at = jnp.abs(look.quantity), marked(look)
    most = weighted_equity(look, at) / jnp.maximum(accounts.target[look.venue], 1.0)[:, None]

    def halved(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = required((size - middle[:, None] * cut) * at.unit, look.venue, accounts) <= most
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    zero = jnp.zeros_like(most)
    share = jax.lax.fori_loop(0, _HALVINGS, halved, (zero, zero + 1))[1]
    return share[:, None] * cut
