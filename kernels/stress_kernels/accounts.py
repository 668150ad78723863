"""Accounts of several positions on one cash: what they own, what they must keep, and when a price can reach them.

    E = cash + sum_a q_a (m_a - entry_a),    M = sum_a max_j (rate_j |q_a| m_a - D_j),    liquidated where E <= M

Every account is looked at by itself, but only where it may have to be: accounts lie in blocks, in the order of the
smallest price move that can reach them, and a block that was found safe is left alone until a price has moved, from
where it then stood, by more than its radius. No account inside the radius can be at its trigger, so nothing is missed.

Axes: `k` block, `b` account of a block, `g` pair of a block and a path that is looked at, `v a` market, `s` side, `p`
path, `n` path of a round. Money and coins are of one copy of an account.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.pytree import pytree, static

_HALVINGS = 32
"""Of the share that restores an account's margin."""
_REACH = 0.25
"""Farthest that a block's radius is taken [log]."""
_FLOOR_TOLERANCE = 1e-3
"""A notional this little above a floor counts as at it [1]."""
SAFE, LOOK = 1e3, -1.0
"""Radius of a block without open positions, and of one to be looked at again."""


@pytree
class Accounts:
    """All accounts on cross margin, as they are at the start."""

    venue: Int[Array, " k"]
    quantity: Float[Array, "k a b"]
    """Signed [coins]."""
    entry: Float[Array, "k a b"]
    """Entry price - 1 [USD per coin]."""
    equity: Float[Array, "k b"]
    """With every mark at the start [USD]."""
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
    barrier: Float[Array, "a a"]
    """Covariance of the log moves by which triggers are moved for what a path does between its steps."""
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
    someone: Bool[Array, "k p"]
    """Whether anyone in a block rests."""
    step: Int[Array, ""]
    """The present one."""


@pytree
class Holdings:
    """What has become of the accounts on every path."""

    quantity: Float[Array, "k p a b"]
    waiting: Float[Array, "k p a b"]
    """Coins of triggered positions that the engine has not taken in, positive."""
    money: Float[Array, "k p b"]
    """Equity less sum q (mark - 1 - paid) [USD]."""
    fee: Float[Array, "k p b"]
    """Owed on what was closed since the trigger [USD]."""
    taken: Float[Array, "k p a b"]
    """Socialised so far [USD per coin held]."""
    hit: Bool[Array, "k p b"]
    """Whether an account was ever triggered."""
    closing: Bool[Array, "k p b"]
    """Whether anything of an account waited when the round opened: it is no winner, closed in part or not."""
    deleveraged: Bool[Array, "k p b"]
    """Whether an account was closed as a winner in this hour."""
    paid: Float[Array, "v a p"]
    """Funding paid so far by one long coin [USD]."""
    anchor: Float[Array, "k a p"]
    """Log marks at which a block was looked at last."""
    radius: Float[Array, "k p"]
    """Log move of any mark from there up to which nobody in the block can be reached."""
    busy: Bool[Array, "k p"]
    """Whether anything waits in a block."""
    rests: Rests | None
    """Where any venue needs them."""


def open_holdings(accounts: Accounts, paths: int) -> Holdings:
    """All accounts before the first step; every block is looked at in it."""
    blocks, assets, size = accounts.quantity.shape
    venues, dtype = accounts.rate.shape[0], accounts.quantity.dtype
    legs = jnp.broadcast_to(accounts.quantity[:, None], (blocks, paths, assets, size))
    money = jnp.broadcast_to(accounts.equity[:, None], (blocks, paths, size))
    return Holdings(
        quantity=legs,
        waiting=jnp.zeros_like(legs),
        money=money,
        fee=jnp.zeros_like(money),
        taken=jnp.zeros_like(legs),
        hit=jnp.zeros(money.shape, bool),
        closing=jnp.zeros(money.shape, bool),
        deleveraged=jnp.zeros(money.shape, bool),
        paid=jnp.zeros((venues, assets, paths), dtype),
        anchor=jnp.zeros((blocks, assets, paths), dtype),
        radius=jnp.full((blocks, paths), LOOK, dtype),
        busy=jnp.zeros((blocks, paths), bool),
        rests=Rests(
            begun=jnp.zeros(money.shape, bool),
            until=jnp.zeros(money.shape, jnp.int32),
            someone=jnp.zeros((blocks, paths), bool),
            step=jnp.asarray(0),
        )
        if accounts.memory
        else None,
    )


def wake(holdings: Holdings, step: Int[Array, ""]) -> Holdings:
    """Open a step: a block in which someone rests is looked at in it, wherever the marks are."""
    if holdings.rests is None:
        return holdings
    rests = replace(holdings.rests, step=step)
    return replace(holdings, rests=rests, radius=jnp.where(rests.someone, LOOK, holdings.radius))


def positions(accounts: Accounts) -> Float[Array, "v a s"]:
    """Coins of all accounts at the start: longs, and shorts as negative numbers."""
    held = accounts.quantity * accounts.count[:, None]
    sides = jnp.stack([jnp.sum(jnp.maximum(held, 0.0), axis=-1), jnp.sum(jnp.minimum(held, 0.0), axis=-1)], axis=-1)
    venues, assets, _ = accounts.rate.shape
    return jnp.zeros((venues, assets, 2), held.dtype).at[accounts.venue].add(sides)


@pytree
class Look:
    """Some blocks on some paths, and the prices that they see."""

    venue: Int[Array, " g"]
    quantity: Float[Array, "g a b"]
    money: Float[Array, "g b"]
    move: Float[Array, "g a"]
    """Mark - 1."""
    paid: Float[Array, "g a"]


def equity(look: Look, move: Float[Array, "g a #b"]) -> Float[Array, "g b"]:
    """Equity at these moves of the marks [USD]."""
    return look.money + jnp.sum(look.quantity * (move - look.paid[..., None]), axis=1)


def maintenance(notional: Float[Array, "g a b"], venue: Int[Array, " g"], accounts: Accounts) -> Float[Array, "g a b"]:
    """M(n) = max_j (rate_j n - D_j) of every position: convex, so no tier look-up is needed [USD]."""
    rate, deduction = accounts.rate[venue], accounts.deduction[venue]
    kept = jnp.zeros_like(notional)
    for j in range(rate.shape[-1]):
        kept = jnp.maximum(kept, rate[:, :, j, None] * notional - deduction[:, :, j, None])
    return kept


def bankruptcy_move(look: Look, accounts: Accounts) -> Float[Array, "g a b"]:
    """Bankruptcy price of every position less 1, m - E (M_a / M) / q_a - 1, at the marks [USD per coin]."""
    move = look.move[..., None]
    size = jnp.abs(look.quantity)
    kept = maintenance(size * (1 + move), look.venue, accounts)
    share = kept / jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1e-30)
    return move - equity(look, move)[:, None] * share * jnp.sign(look.quantity) / jnp.where(size > 0, size, 1.0)


def required(notional: Float[Array, "g a b"], venue: Int[Array, " g"], accounts: Accounts) -> Float[Array, "g b"]:
    """What equity is compared with: maintenance, and the fee where the venue counts it [USD]."""
    fee = accounts.counted_fee[venue][:, None, None] * notional
    return jnp.sum(maintenance(notional, venue, accounts) + fee, axis=1)


def short_of_margin(look: Look, accounts: Accounts) -> Bool[Array, "g b"]:
    """Whether equity is at or below what is required, at marks moved for what happens between steps.

    With C the covariance of these moves and g = dE / dlog m, the likeliest fall of one standard deviation of E is
    -C g / sqrt(g C g): the full move against an account of one position, next to nothing for a hedged one.
    """
    move = look.move[..., None]
    slope = look.quantity * (1 + move)
    moves = jnp.einsum("xa,gab->gxb", accounts.barrier, slope)
    size = jnp.sqrt(jnp.sum(slope * moves, axis=1, keepdims=True))
    moved = (1 + move) * jnp.exp(jnp.where(size > 0, -moves / jnp.where(size > 0, size, 1.0), 0.0)) - 1
    needed = required(jnp.abs(look.quantity) * (1 + moved), look.venue, accounts)
    return equity(look, moved) <= needed


def radius(look: Look, tested: Bool[Array, "g b"], accounts: Accounts) -> Float[Array, " g"]:
    """Log move of any mark up to which no tested account of a block can reach its trigger.

    In a move by at most r equity falls by at most sum |q| m (e^r - 1), and maintenance, being convex, rises by at most
    its slope at the far end times as much.
    """
    notional = jnp.abs(look.quantity) * (1 + look.move[..., None])
    spare = equity(look, look.move[..., None]) - required(notional, look.venue, accounts)
    far = notional * math.exp(_REACH)
    rate, floor = accounts.rate[look.venue], accounts.floor[look.venue]
    slope = jnp.broadcast_to(rate[:, :, 0, None], far.shape)
    for j in range(1, rate.shape[-1]):
        slope = jnp.where(far > floor[:, :, j, None], rate[:, :, j, None], slope)
    slope = slope + accounts.counted_fee[look.venue][:, None, None]
    speed = jnp.sum(notional * (1 + slope), axis=1)
    safe = jnp.log1p(jnp.maximum(spare, 0.0) / jnp.where(speed > 0, speed, 1.0))
    least = jnp.min(jnp.where(tested, jnp.minimum(safe, _REACH), SAFE), axis=1)
    return jnp.maximum(least - jnp.sqrt(jnp.max(jnp.diagonal(accounts.barrier))), 0.0)


def only_a_share(look: Look, accounts: Accounts) -> Bool[Array, "g b"]:
    """Accounts so large that a share of them is closed first."""
    notional = jnp.sum(jnp.abs(look.quantity) * (1 + look.move[..., None]), axis=1)
    return notional > accounts.share_above[look.venue][:, None]


def coins_to_close(
    look: Look, accounts: Accounts, hit: Bool[Array, "g b"], partly: Bool[Array, "g b"]
) -> Float[Array, "g a b"]:
    """What the venue's staging rule closes of a triggered account at once [coins, positive].

    `full`, and without equity: everything. `tiers`: every position down to the floor of its tier or of the one below;
    a position in the lowest tiers is left alone while another is above them, and if none is, all are closed. Where the
    riskiest goes first, of these only the one with the largest maintenance; the others wait for the next test.
    `fraction`: a share of it. `restore`: the smallest share after which equity is the target multiple of what is
    required, if the close is at the mark and without a fee: neither the fill nor the fee is known yet.

    Args:
        hit: Whose coins are asked for; of the others anything may be said.
        partly: Whom a venue that closes a fraction closes so.
    """
    size, mark, venue = jnp.abs(look.quantity), 1 + look.move[..., None], look.venue
    notional, floor = size * mark, accounts.floor[venue]
    tier = jnp.maximum(jnp.sum(notional[:, :, None] > floor[..., None] * (1 + _FLOOR_TOLERANCE), axis=2), 1)
    lower = jnp.maximum(tier - accounts.down[venue][:, None, None], 0)
    target = jnp.take_along_axis(floor, lower, axis=2)
    above = (tier > accounts.whole_below[venue][:, None, None]) & (size > 0)
    cut = jnp.where(above, jnp.where(target > 0, size - target / mark, size), 0.0)
    cut = jnp.where(jnp.any(above, axis=1, keepdims=True), cut, size)
    cut = jnp.where(accounts.staged[venue][:, None, None], cut, size)
    cut = _where_any(accounts.riskiest_first[venue][:, None] & hit, lambda: _riskiest(look, accounts, cut), cut)
    cut = jnp.where(partly[:, None], accounts.share[venue][:, None, None] * cut, cut)
    cut = _where_any((accounts.target[venue] > 0)[:, None] & hit, lambda: _restoring(look, accounts, cut), cut)
    return jnp.where((equity(look, look.move[..., None]) <= 0)[:, None], size, cut)


def _where_any(
    chosen: Bool[Array, "g b"], changed: Callable[[], Float[Array, "g a b"]], of: Float[Array, "g a b"]
) -> Float[Array, "g a b"]:
    """`changed()` of the accounts chosen and `of` the others, worked out only where anyone is chosen."""
    return jax.lax.cond(jnp.any(chosen), lambda: jnp.where(chosen[:, None], changed(), of), lambda: of)


def _riskiest(look: Look, accounts: Accounts, cut: Float[Array, "g a b"]) -> Float[Array, "g a b"]:
    """Of the positions in `cut`, the one with the largest maintenance."""
    kept = maintenance(jnp.abs(look.quantity) * (1 + look.move[..., None]), look.venue, accounts)
    first = jnp.argmax(jnp.where(cut > 0, kept, -jnp.inf), axis=1, keepdims=True)
    return jnp.where(jnp.arange(cut.shape[1])[None, :, None] == first, cut, 0.0)


def _restoring(look: Look, accounts: Accounts, cut: Float[Array, "g a b"]) -> Float[Array, "g a b"]:
    """The smallest share of `cut` after which equity is the target multiple of what is required; all, if none is."""
    size, mark = jnp.abs(look.quantity), 1 + look.move[..., None]
    most = equity(look, look.move[..., None]) / jnp.maximum(accounts.target[look.venue], 1.0)[:, None]

    def halved(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = required((size - middle[:, None] * cut) * mark, look.venue, accounts) <= most
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    zero = jnp.zeros_like(most)
    share = jax.lax.fori_loop(0, _HALVINGS, halved, (zero, zero + 1))[1]
    return share[:, None] * cut
