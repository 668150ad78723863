"""Accounts of several positions on one margin: what they own, what they must keep, and when a price can reach them.

    E = cash + sum_a w_a c_a S_a + sum_a q_a (f(m_a) - f(entry_a)) money_a,    M = sum_a max_j (rate_j n_a - D_j)

An account is liquidated where E <= M. Its coins of collateral c_a count with a weight w_a = 1 - haircut where equity is
compared with maintenance, and with 1 everywhere else and where they are owed; f, money and the notional n are those of
linear or of inverse contracts (`contracts.py`).

Every account is looked at by itself, but only where it may have to be: accounts lie in blocks, in the order of the
smallest price move that can reach them, and a block that was found safe is left alone until a price has moved against
anybody in it, from where it then stood, by more than its radius times that price's pace. No account inside the radius
can be at its trigger, so nothing is missed.

Axes: `k` block, `b` account of a block, `w` word of blocks and `bit` block of a word, `g` pair of a block and a path
that is looked at, `v a` market, `s` side, `p` path, `n` path of a round. Money and coins are of one copy of an account.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_words import LOOK, SAFE, Watched, Words, open_words
from stress_kernels.pytree import pytree, static


@pytree
class Collateral:
    """Coins that are somebody's money."""

    coins: Float[Array, "k a b"]
    """Owned at the start [coins], less q (f(entry) - f(1)) of an inverse position: with every mark at the start, what
    the account owns in each coin."""
    haircut: Float[Array, "v a"]
    """What a coin counts less in the trigger [1]."""
    inverse: Bool[Array, "v a"]
    """Markets whose contracts are settled in coins."""


@pytree
class Losses:
    """What single accounts lose elsewhere, one element each."""

    block: Int[Array, " d"]
    member: Int[Array, " d"]
    """Of the block."""
    step: Int[Array, " d"]
    """In which it is lost."""
    usd: Float[Array, " d"]


@pytree
class Accounts:
    """All accounts on cross margin, as they are at the start."""

    venue: Int[Array, " k"]
    quantity: Float[Array, "k a b"]
    """Signed [contracts]."""
    entry: Float[Array, "k a b"]
    """Entry price - 1 [USD per coin]."""
    equity: Float[Array, "k b"]
    """With every mark at the start, but for coins [USD]."""
    collateral: Collateral | None
    """Where anyone has coins or inverse contracts."""
    count: Float[Array, "k b"]
    """Identical copies; 0 where a block is not full."""
    floor: Float[Array, "v a j"]
    """Notional from which a tier holds; infinite in unused tiers [USD]."""
    rate: Float[Array, "v a j"]
    deduction: Float[Array, "v a j"]
    counted_fee: Float[Array, " v"]
    """Liquidation fee where the trigger counts it, else 0 [1]."""
    staged: Bool[Array, " v"]
    """Positions are cut to the floor of a lower tier; otherwise closed whole."""
    down: Int[Array, " v"]
    whole_below: Int[Array, " v"]
    riskiest_first: Bool[Array, " v"]
    """Of several positions only the one that requires most is closed."""
    share: Float[Array, " v"]
    """Share that is closed at first of an account of more than `share_above` [1]."""
    share_above: Float[Array, " v"]
    """[USD]; infinite where no account is closed so."""
    target: Float[Array, " v"]
    """Equity after a close, in multiples of what is required; 0 where the rule is another [1]."""
    pause: Int[Array, " v"]
    """Steps until an account that was closed in part is tested again."""
    barrier: Float[Array, "a a"] | None
    """Covariance of the log moves by which triggers are moved for what a path does between its steps; none where they
    are not."""
    pace: Float[Array, " a"]
    """How fast each price moves against the fastest; in (0, 1]."""
    words: Words
    """All blocks, up to 32 a word."""
    losses: Losses | None
    """Where any account loses anything."""
    pairs: int = static()
    """Pairs of a block and a path that are looked at together."""
    memory: bool = static()
    """Whether any venue has to know later that it has closed an account in part: a fraction of it, or with a pause."""


@pytree
class Rests:
    """Accounts between two closes."""

    begun: Bool[Array, "k p b"]
    """Whether a fraction was closed and no test has been passed since."""
    until: Int[Array, "k p b"]
    """Step from which an account is tested again."""
    someone: Bool[Array, "w p bit"]
    """Whether anyone in a block rests."""
    step: Int[Array, ""]
    """The present one."""


@pytree
class Holdings:
    """What has become of the accounts on every path."""

    quantity: Float[Array, "k p a b"]
    waiting: Float[Array, "k p a b"]
    """Contracts of triggered positions that the engine has not taken in, positive."""
    money: Float[Array, "k p b"]
    """Equity less sum q (gain - paid) of linear contracts and less coins [USD]."""
    coins: Float[Array, "k p a b"] | None
    """What an account owns in each coin less q (gain - paid) of an inverse position, as `Collateral.coins`."""
    due: Float[Array, "k p a b"]
    """Fees owed on what was closed since the trigger [USD, or coins where the contract is inverse]."""
    closed: Float[Array, "k p a b"]
    """Closed in the present round, forced or by deleveraging [USD]."""
    settling: Bool[Array, "k p"]
    """Whether anyone in a block has to be settled in the present round."""
    taken: Float[Array, "k p a b"]
    """Socialised so far [USD per contract held]."""
    number: Int[Array, "k p b"]
    """Round of the run in which what waits was triggered."""
    hit: Bool[Array, "k p b"]
    """Whether an account was ever triggered."""
    closing: Bool[Array, "k p b"]
    """Whether anything of an account waited when the round opened: it is no winner, closed in part or not."""
    deleveraged: Bool[Array, "k p b"]
    """Whether an account was closed as a winner in this hour."""
    paid: Float[Array, "v a p"]
    """Funding paid so far by one long contract [USD or coins]."""
    watched: Watched
    """How far prices may move before anybody in a block can be reached."""
    alert: Bool[Array, "k p"]
    """Whether anybody in a block was seen at the trigger, and no round has dealt with it."""
    busy: Bool[Array, "k p"]
    """Whether anything waits in a block."""
    rests: Rests | None
    """Where any venue needs them."""


def open_holdings(accounts: Accounts, paths: int) -> Holdings:
    """All accounts before the first step; nobody has looked at any block yet."""
    blocks, assets, size = accounts.quantity.shape
    venues, dtype, owned = accounts.rate.shape[0], accounts.quantity.dtype, accounts.collateral
    legs = jnp.broadcast_to(accounts.quantity[:, None], (blocks, paths, assets, size))
    money = jnp.broadcast_to(accounts.equity[:, None], (blocks, paths, size))
    watched = open_words(accounts.words, jnp.full(blocks, LOOK, dtype), paths)
    return Holdings(
        quantity=legs,
        waiting=jnp.zeros_like(legs),
        money=money,
        coins=None if owned is None else jnp.broadcast_to(owned.coins[:, None], legs.shape),
        due=jnp.zeros_like(legs),
        closed=jnp.zeros_like(legs),
        settling=jnp.zeros((blocks, paths), bool),
        taken=jnp.zeros_like(legs),
        number=jnp.zeros(money.shape, jnp.int32),
        hit=jnp.zeros(money.shape, bool),
        closing=jnp.zeros(money.shape, bool),
        deleveraged=jnp.zeros(money.shape, bool),
        paid=jnp.zeros((venues, assets, paths), dtype),
        watched=watched,
        alert=jnp.zeros((blocks, paths), bool),
        busy=jnp.zeros((blocks, paths), bool),
        rests=Rests(
            begun=jnp.zeros(money.shape, bool),
            until=jnp.zeros(money.shape, jnp.int32),
            someone=jnp.zeros(watched.radius.shape, bool),
            step=jnp.asarray(0),
        )
        if accounts.memory
        else None,
    )


def wake(holdings: Holdings, step: Int[Array, ""]) -> Holdings:
    """Open a step: a block in which someone rests is looked at in it, wherever the marks are."""
    if holdings.rests is None:
        return holdings
    rests, watched = replace(holdings.rests, step=step), holdings.watched
    watched = replace(
        watched,
        radius=jnp.where(rests.someone, LOOK, watched.radius),
        slack=jnp.where(jnp.any(rests.someone, axis=-1), LOOK, watched.slack),
    )
    return replace(holdings, rests=rests, watched=watched)


def bereave(
    holdings: Holdings, accounts: Accounts, losses: Losses, step: Int[Array, ""]
) -> tuple[Float[Array, "k p b"], Watched, Float[Array, "v p"]]:
    """Accounts that lose money elsewhere in a step, where they hold any position then, are looked at again.

    Returns:
        Money and radii of all accounts, and what left each venue [USD].
    """
    block, member, watched = losses.block, losses.member, holdings.watched
    holds = jnp.any(holdings.quantity[block, :, :, member] != 0, axis=-1)
    lost = jnp.where(holds & (losses.step == step)[:, None], losses.usd[:, None], 0.0)
    word, bit = accounts.words.place(block)
    again = jnp.where(lost > 0, LOOK, SAFE)
    watched = replace(
        watched,
        radius=watched.radius.at[word, :, bit].min(again),
        slack=watched.slack.at[word].min(again),
    )
    gone = jnp.zeros((accounts.rate.shape[0], lost.shape[1]), lost.dtype)
    copies = accounts.count[block, member][:, None]
    return (
        holdings.money.at[block, :, member].add(-lost),
        watched,
        gone.at[accounts.venue[block]].add(lost * copies),
    )


def positions(accounts: Accounts) -> Float[Array, "v a s"]:
    """Contracts of all accounts at the start: longs, and shorts as negative numbers."""
    held = accounts.quantity * accounts.count[:, None]
    sides = jnp.stack([jnp.sum(jnp.maximum(held, 0.0), axis=-1), jnp.sum(jnp.minimum(held, 0.0), axis=-1)], axis=-1)
    venues, assets, _ = accounts.rate.shape
    return jnp.zeros((venues, assets, 2), held.dtype).at[accounts.venue].add(sides)


def coins_posted(accounts: Accounts) -> Float[Array, " a"]:
    """Coins of all accounts at the start, and what their inverse positions cost, for the scale of the ledger."""
    if accounts.collateral is None:
        return jnp.zeros(accounts.quantity.shape[1], accounts.quantity.dtype)
    size = jnp.abs(accounts.collateral.coins) + jnp.abs(accounts.quantity)
    return jnp.sum(size * accounts.count[:, None], axis=(0, 2))
