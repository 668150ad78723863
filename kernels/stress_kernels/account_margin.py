"""What accounts on cross margin are worth, what they must keep, and how far prices may move before any is reached."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels import contracts
from stress_kernels.account_words import SAFE
from stress_kernels.accounts import Accounts
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree

_NOTHING = 1e-6
"""Equity up to which an account has none [of its notional]."""
_REACH = 0.25
"""Farthest that a block's radius is taken [log]."""


@pytree
class Look:
    """Some blocks on some paths, and the prices that they see."""

    venue: Int[Array, " g"]
    quantity: Float[Array, "g a b"]
    money: Float[Array, "g b"]
    move: Float[Array, "g a"]
    """Mark - 1."""
    paid: Float[Array, "g a"]
    owned: Owned | None
    """Where coins are anybody's money."""

    @property
    def inverse(self) -> Bool[Array, "g a"] | None:
        """Which contracts are."""
        return None if self.owned is None else self.owned.inverse


@pytree
class Owned:
    """Coins of some blocks on some paths."""

    coins: Float[Array, "g a b"]
    entry: Float[Array, "g a b"]
    """Entry price - 1 [USD per coin]."""
    haircut: Float[Array, "g a"]
    inverse: Bool[Array, "g a"]
    spot: Float[Array, "g a"]
    """Spot price - 1."""


@pytree
class Seen:
    """What one contract and one coin are worth to some accounts, at their marks or at others."""

    gain: Float[Array, "g a #b"]
    """Since the start [USD or coins]."""
    money: Float[Array, "g a #b"] | float
    """USD per unit of the settlement currency."""
    unit: Float[Array, "g a #b"]
    """Notional [USD]."""
    coin: Float[Array, "g a #b"] | None
    """[USD]"""

    def of_coins(self, coins: Float[Array, "g a b"]) -> Float[Array, "g b"]:
        """Worth of coins [USD]."""
        assert self.coin is not None
        return add_up(coins * self.coin, 1)


def marked(look: Look, shift: Float[Array, "g a b"] | None = None) -> Seen:
    """Worth at the present prices, or where marks and spot prices of every asset lie by a log shift elsewhere."""

    def moved(move: Float[Array, "g a"]) -> Float[Array, "g a #b"]:
        move = move[..., None]
        return move if shift is None else (1 + move) * jnp.exp(shift) - 1

    move, owned = moved(look.move), look.owned
    if owned is None:
        return Seen(gain=move, money=1.0, unit=1 + move, coin=None)
    inverse = owned.inverse
    return Seen(
        gain=contracts.gain(move, inverse),
        money=contracts.money(move, inverse),
        unit=contracts.unit(move, inverse),
        coin=1 + jnp.where(inverse[..., None], move, moved(owned.spot)),
    )


def untouched(
    accounts: Accounts, move: Float[Array, "k a"], spot: Float[Array, "k a"]
) -> tuple[Look, Bool[Array, "k b"]]:
    """All blocks as they are before the first step, and where there is an account in them.

    Args:
        accounts: The accounts.
        move: Mark - 1.
        spot: Spot price - 1.
    """
    owned, coins = accounts.collateral, None
    if owned is not None:
        haircut, inverse = owned.haircut[accounts.venue], owned.inverse[accounts.venue]
        coins = Owned(owned.coins, accounts.entry, haircut, inverse, spot)
    look = Look(accounts.venue, accounts.quantity, accounts.equity, move, paid=jnp.zeros_like(move), owned=coins)
    return look, (accounts.count > 0) & jnp.any(accounts.quantity != 0, axis=1)


def equity(look: Look, at: Seen) -> Float[Array, "g b"]:
    """Equity, with coins at their whole worth [USD]."""
    have = look.money + add_up(look.quantity * (at.gain - look.paid[..., None]) * at.money, 1)
    return have if look.owned is None else have + at.of_coins(look.owned.coins)


def posted(look: Look) -> Float[Array, "g a b"]:
    """Coins of an account without what its open inverse positions have gained or lost."""
    assert look.owned is not None
    cost = contracts.gain(look.owned.entry, look.owned.inverse) - look.paid[..., None]
    return look.owned.coins + jnp.where(look.owned.inverse[..., None], look.quantity * cost, 0.0)


def without_equity(look: Look, at: Seen) -> Bool[Array, "g b"]:
    """Whether an account has no equity, to a millionth of its notional: rounding must not decide about one that a
    deleveraging, a socialised loss or a fee has left with nothing."""
    return equity(look, at) <= _NOTHING * add_up(jnp.abs(look.quantity) * at.unit, 1)


def weighted_equity(look: Look, at: Seen) -> Float[Array, "g b"]:
    """Equity as it is compared with what is required: coins, but for a debt in them, less their haircuts [USD]."""
    if look.owned is None:
        return equity(look, at)
    return equity(look, at) - at.of_coins(look.owned.haircut[..., None] * jnp.maximum(posted(look), 0.0))


def maintenance(notional: Float[Array, "g a b"], venue: Int[Array, " g"], accounts: Accounts) -> Float[Array, "g a b"]:
    """M(n) = max_j (rate_j n - D_j) of every position: convex, so no tier look-up is needed [USD]."""
    rate, deduction = accounts.rate[venue], accounts.deduction[venue]
    kept = jnp.zeros_like(notional)
    for j in range(rate.shape[-1]):
        kept = jnp.maximum(kept, rate[:, :, j, None] * notional - deduction[:, :, j, None])
    return kept


def bankruptcy_gain(look: Look, accounts: Accounts) -> Float[Array, "g a b"]:
    """Gain of a contract at the bankruptcy price of every position: f(m) - E (M_a / M) / (q_a money) - f(1)."""
    at, size = marked(look), jnp.abs(look.quantity)
    kept = maintenance(size * at.unit, look.venue, accounts)
    share = kept / jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1e-30)
    per_contract = share * jnp.sign(look.quantity) / (jnp.where(size > 0, size, 1.0) * at.money)
    return at.gain - equity(look, at)[:, None] * per_contract


def required(notional: Float[Array, "g a b"], venue: Int[Array, " g"], accounts: Accounts) -> Float[Array, "g b"]:
    """What equity is compared with: maintenance, and the fee where the venue counts it [USD]."""
    fee = accounts.counted_fee[venue][:, None, None] * notional
    return add_up(maintenance(notional, venue, accounts) + fee, 1)


def exposure(look: Look) -> tuple[Float[Array, "g a b"], Float[Array, "g a b"] | None]:
    """dE / dlog price, with the haircuts: in each mark, and in each spot price where coins are anybody's money [USD].

    What a contract has gained counts as collateral at the mark where it is inverse: N m / entry in all.
    """
    mark, owned = 1 + look.move[..., None], look.owned
    if owned is None:
        return look.quantity * mark, None
    inverse = owned.inverse[..., None]
    held = posted(look)
    held = held - owned.haircut[..., None] * jnp.maximum(held, 0.0)
    of_mark = jnp.where(inverse, held + look.quantity / (1 + owned.entry), look.quantity) * mark
    return of_mark, jnp.where(inverse, 0.0, held * (1 + owned.spot[..., None]))


def short_of_margin(look: Look, accounts: Accounts) -> Bool[Array, "g b"]:
    """Whether equity is at or below what is required, at prices moved for what happens between steps."""
    at = marked(look, None if accounts.barrier is None else _likeliest_fall(look, accounts.barrier))
    return weighted_equity(look, at) <= required(jnp.abs(look.quantity) * at.unit, look.venue, accounts)


def _likeliest_fall(look: Look, barrier: Float[Array, "a a"]) -> Float[Array, "g a b"]:
    """Log moves of prices between steps that are against an account.

    With C the covariance of these moves and g = dE / dlog price, the likeliest fall of one standard deviation of E is
    -C g / sqrt(g C g): the full move against an account of one position, next to nothing for a hedged one.
    """
    of_mark, of_spot = exposure(look)
    slope = of_mark if of_spot is None else of_mark + of_spot
    moves = jnp.einsum("xa,gab->gxb", barrier, slope)
    size = jnp.sqrt(jnp.sum(slope * moves, axis=1, keepdims=True))
    return jnp.where(size > 0, -moves / jnp.where(size > 0, size, 1.0), 0.0)


def radius(look: Look, tested: Bool[Array, "g b"], accounts: Accounts) -> Float[Array, " g"]:
    """Log move of prices, each in its pace, up to which no tested account of a block can reach its trigger.

    Where the price of a pace w moves against an account by at most r w, E falls by at most |exposure| (e^(r w) - 1)
    <= |exposure| w (e^r - 1). Maintenance, being convex, rises by at most its slope at the far end times what the
    notional does: of a linear short; that of a linear long falls with E, and slower, and that of an inverse contract
    does not move. Below 0 where nothing can be said.
    """
    at = marked(look)
    notional = jnp.abs(look.quantity) * at.unit
    spare = weighted_equity(look, at) - required(notional, look.venue, accounts)
    far = notional * math.exp(_REACH)
    rate, floor = accounts.rate[look.venue], accounts.floor[look.venue]
    slope = jnp.broadcast_to(rate[:, :, 0, None], far.shape)
    for j in range(1, rate.shape[-1]):
        slope = jnp.where(far > floor[:, :, j, None], rate[:, :, j, None], slope)
    slope = slope + accounts.counted_fee[look.venue][:, None, None]
    rising = look.quantity < 0 if look.inverse is None else (look.quantity < 0) & ~look.inverse[..., None]
    of_mark, of_spot = exposure(look)
    against = jnp.abs(of_mark) + jnp.where(rising, slope * notional, 0.0)
    against = against if of_spot is None else against + jnp.abs(of_spot)
    speed = add_up(accounts.pace[None, :, None] * against, 1)
    safe = jnp.log1p(jnp.maximum(spare, 0.0) / jnp.where(speed > 0, speed, 1.0))
    least = jnp.min(jnp.where(tested, jnp.minimum(safe, _REACH), SAFE), axis=1)
    return least - between_steps(accounts)


def between_steps(accounts: Accounts) -> Float[Array, ""] | float:
    """What a radius is less for the move by which triggers are moved: the most of any price, in its pace."""
    if accounts.barrier is None:
        return 0.0
    return jnp.max(jnp.sqrt(jnp.diagonal(accounts.barrier)) / accounts.pace)
