"""One cascade round: marks, triggered accounts, admission, layers, settlement, pools, new marks."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels import adl
from stress_kernels.account_deleveraging import close_winners
from stress_kernels.account_rounds import Waiting, close, trigger
from stress_kernels.account_winners import Cross
from stress_kernels.engine import admit
from stress_kernels.ladder import (
    ACCOUNTS,
    Kept,
    Ladders,
    Sweep,
    depth_of,
    position,
    quantity,
    row_at,
    split,
    sweep,
)
from stress_kernels.layers import curve, fill_auction, fill_book, fill_takeover
from stress_kernels.money import add_up
from stress_kernels.policy import Borne, bear
from stress_kernels.pools import Claims, Standing, Trades, exhausted, settle_pools, trades
from stress_kernels.price import quotes
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Fills, adl_move, bankruptcy_value, lacking, settle
from stress_kernels.state import Extremes, Hour, Record, State, ledger_residual, pool_equity
from stress_kernels.world import ADL_BANKRUPTCY, ADL_PRO_RATA, World, along, side_sign

_GONE = 1e-6
"""A position of which deleveraging has left at most this share is closed."""


@pytree
class Held:
    """What does not move during the rounds of a step."""

    exogenous: Float[Array, "a p"]
    """Log index without impact."""
    depth: Float[Array, "a p"]
    """Depth divisor."""
    basis_average: Float[Array, "v a p"]


@pytree
class Orders:
    """Slices of a round, by whether they may go to the book."""

    normal: Sweep
    direct: Sweep
    """Those that skip book, auction and takeover."""
    usd: Float[Array, "v a s p"]
    direct_usd: Float[Array, "v a s p"]
    value: Float[Array, "v a s p"]
    """Of accounts on cross margin alone, at bankruptcy prices."""
    direct_value: Float[Array, "v a s p"]
    lack: Float[Array, "v a s p"]
    """What those among them lack that are bankrupt at the mark [USD]."""
    direct_lack: Float[Array, "v a s p"]
    skipping: Bool[Array, "v a p"]
    """Where slices bankrupt at the mark are direct."""
    straight: Bool[Array, "v a p"]
    """Where all slices are."""


def triggered(state: State, ladders: Ladders, world: World) -> Float[Array, "v a s e p"]:
    """Place on each ladder that the present marks reach, never falling back."""
    depth = depth_of(state.quotes.mark, state.kept, ladders)
    place = position(ladders, depth + along(1, world.barrier_shift, depth))
    return jax.lax.optimization_barrier(jnp.maximum(state.reach, place))


def cascade_round(
    state: State,
    record: Record,
    held: Held,
    reach: Float[Array, "v a s e p"],
    first: Bool[Array, " p"],
    ladders: Ladders,
    world: World,
    cross: Cross | None = None,
) -> tuple[State, Record, Cross | None]:
    """One round, from the marks of `state` to new ones; a path on which nothing happens is left as it is.

    Args:
        reach: What the present marks trigger, from `triggered`.
        first: Whether this is the first round of its path in this step.
        cross: Accounts on cross margin, where there are any.
    """
    mark_move, kept = jnp.expm1(state.quotes.mark), state.kept
    budget = jnp.where(first, world.throughput[..., None], record.budget)
    row_done, row_reach = row_at(ladders, record.done), row_at(ladders, reach)
    cross, waiting = _trigger(cross, state.quotes.mark)
    others = jnp.zeros_like(budget) if waiting is None else add_up(waiting.solvent + waiting.bankrupt, 2)
    taken_in = admit(ladders, record.done, reach, row_done, row_reach, kept.scale, budget, 1 + mark_move, others)
    triggered_coins = add_up(kept.scale * (quantity(row_reach) - quantity(row_done)) - state.queued, 2, 3)
    triggered_usd = triggered_coins * (1 + mark_move)
    ended = taken_in.row[..., ACCOUNTS, :] - row_done[..., ACCOUNTS, :]
    ended = add_up(jnp.where(kept.scale > _GONE, ended, 0.0), 1, 2, 3)
    if waiting is not None:
        triggered_usd, ended = triggered_usd + waiting.triggered, ended + waiting.accounts
    whole = jax.lax.optimization_barrier(sweep(record.done, taken_in.done, row_done, taken_in.row))
    equity = pool_equity(state.funds, mark_move, world)
    orders = _sort(whole, equity, state.funds.adl_on, mark_move, kept, ladders, world)
    orders = orders if waiting is None else _with_accounts(orders, waiting, taken_in.part)

    fills, book_usd, auction_usd = _fill(orders, equity, state, record.makers_left, held, mark_move, world)
    standing = Standing(reach, kept, record.taken, taken_in.queued <= 0, mark_move)
    claims, closed = _close(orders, fills, standing, ladders, world, cross)
    cross, claims = _close_accounts(cross, claims, orders, taken_in.part, world)
    done = jax.lax.optimization_barrier(trades(claims, world))
    price = (done.adl_cash / jnp.where(done.adl > 0, done.adl, 1.0))[:, :, ::-1]
    standing = replace(standing, reach=closed.reach, kept=_without_winners(kept, closed.scale, price))
    cross, borne = _close_winners(cross, closed, price, world)
    outcome = settle_pools(state.funds, record, claims, done, standing, ladders, world, cross)

    state = replace(
        state,
        reach=closed.reach,
        queued=taken_in.queued,
        kept=outcome.kept,
        funds=outcome.funds,
        residual=jnp.maximum(state.residual, ledger_residual(outcome.stocks, outcome.funds, world)),
    )
    record = Record(
        done=jnp.where(standing.idle, closed.reach, taken_in.done),
        taken=outcome.taken,
        budget=jnp.maximum(budget - add_up(orders.usd + orders.direct_usd, 2), 0.0),
        makers_left=jnp.maximum(record.makers_left - add_up(auction_usd, 2), 0.0),
        stocks=outcome.stocks,
        hour=_tally(outcome.hour, jnp.where(first, triggered_usd, 0.0), ended, done, closed, borne, mark_move, world),
    )
    flow = -add_up(side_sign(book_usd) * book_usd, 2)
    return observe(press(state, flow, held, world), world), record, outcome.cross


def _trigger(cross: Cross | None, mark_log: Float[Array, "v a p"]) -> tuple[Cross | None, Waiting | None]:
    if cross is None:
        return None, None
    holdings, waiting = trigger(cross.holdings, cross.accounts, cross.chosen, mark_log)
    return replace(cross, holdings=holdings), waiting


def _with_accounts(orders: Orders, waiting: Waiting, part: Float[Array, "v a p"]) -> Orders:
    """The orders of a round with what is taken in of accounts that are on no ladder."""
    skipping, straight = orders.skipping[:, :, None], orders.straight[:, :, None]

    def parted(solvent: Array, bankrupt: Array) -> tuple[Array, Array]:
        solvent, bankrupt = part[:, :, None] * solvent, part[:, :, None] * bankrupt
        direct = jnp.where(straight, solvent + bankrupt, jnp.where(skipping, bankrupt, 0.0))
        return solvent + bankrupt - direct, direct

    usd, direct_usd = parted(waiting.solvent, waiting.bankrupt)
    value, direct_value = parted(waiting.solvent_value, waiting.bankrupt_value)
    short = side_sign(usd) * (waiting.bankrupt_value - waiting.bankrupt)
    lack, direct_lack = parted(jnp.zeros_like(short), short)
    return replace(
        orders,
        usd=orders.usd + usd,
        direct_usd=orders.direct_usd + direct_usd,
        value=value,
        direct_value=direct_value,
        lack=lack,
        direct_lack=direct_lack,
    )


def _close_accounts(
    cross: Cross | None, claims: Claims, orders: Orders, part: Float[Array, "v a p"], world: World
) -> tuple[Cross | None, Claims]:
    """Close what is taken in of accounts that are on no ladder."""
    if cross is None:
        return None, claims
    holdings, normal, direct = close(
        cross.holdings, cross.accounts, cross.chosen, claims.mark_move, part, orders.skipping, orders.straight,
        claims.fills, claims.direct_fills, world,
    )  # fmt: skip
    both = replace(
        claims,
        normal=jax.tree.map(jnp.add, claims.normal, normal),
        direct=jax.tree.map(jnp.add, claims.direct, direct),
    )
    return replace(cross, holdings=holdings), both


def _sort(
    whole: Sweep,
    equity: Float[Array, "f p"],
    adl_on: Bool[Array, "f p"],
    mark_move: Float[Array, "v a p"],
    kept: Kept,
    ladders: Ladders,
    world: World,
) -> Orders:
    """Find the slices that may not go to the book.

    Those bankrupt at the mark while the pool is exhausted or ADL is on; all of them where ADL goes first.
    """
    everybody = whole
    nobody = replace(whole, high=whole.low, quantity_high=whole.quantity_low, value_high=whole.value_low)
    adl_on = world.to_markets(adl_on.astype(mark_move.dtype)) > 0
    spent = world.to_markets(exhausted(equity).astype(mark_move.dtype)) > 0
    straight = adl_on & world.rules.straight_to_adl[:, None, None]
    skipping = adl_on | spent
    swept = jax.lax.optimization_barrier(_coins(whole, kept.scale))

    def sorted_out() -> tuple[Sweep, Sweep]:
        at_mark = jnp.broadcast_to(mark_move[:, :, None], swept.shape)
        bankrupt, solvent = split(ladders, whole, at_mark, kept)

        def choose(none: Sweep, some: Sweep, every: Sweep) -> Sweep:
            wide = (slice(None), slice(None), None, None, None)
            return jax.tree.map(
                lambda n, s, e: jnp.where(straight[wide], e, jnp.where(skipping[wide], s, n)), none, some, every
            )

        end = replace(whole, low=whole.high, quantity_low=whole.quantity_high, value_low=whole.value_high)
        return choose(everybody, solvent, end), choose(nobody, bankrupt, everybody)

    useful = jnp.any(skipping[:, :, None] & (swept > 0))
    normal, direct = jax.lax.cond(useful, sorted_out, lambda: (everybody, nobody))
    mark = 1 + mark_move[:, :, None]
    usd, direct_usd = jax.lax.optimization_barrier(
        (_coins(normal, kept.scale) * mark, _coins(direct, kept.scale) * mark)
    )
    nothing = jnp.zeros_like(usd)
    return Orders(normal, direct, usd, direct_usd, nothing, nothing, nothing, nothing, skipping, straight)


def _coins(part: Sweep, scale: Float[Array, "v a s e p"]) -> Float[Array, "v a s p"]:
    return add_up(jnp.maximum(part.quantity, 0.0) * scale[..., None, :], 3, 4)


def _fill(
    orders: Orders,
    equity: Float[Array, "f p"],
    state: State,
    makers_left: Float[Array, "v a p"],
    held: Held,
    mark_move: Float[Array, "v a p"],
    world: World,
) -> tuple[Fills, Float[Array, "v a s p"], Float[Array, "v a s p"]]:
    """Book, auction and takeover; what they leave stands under `adl` until winners are found."""
    usd, mark, sign = orders.usd, 1 + mark_move, side_sign(orders.usd)
    line = curve(held.exogenous, state.u_local, state.u_global, held.depth, world)
    book = fill_book(usd, line, state.quotes.mark, world)
    after_book = jnp.maximum(usd - book.usd, 0.0)
    auction = fill_auction(after_book, makers_left)
    after_auction = jnp.maximum(after_book - auction, 0.0)
    inventory = world.to_pools(jnp.abs(state.funds.inventory.value) * mark)
    room = jnp.maximum(world.takeover_multiple[:, None] * equity - inventory, 0.0)
    takeover = fill_takeover(after_auction, room, world)
    safe = jnp.where(usd > 0, usd, 1.0)
    shares = Fills(
        book=book.usd / safe,
        auction=auction / safe,
        takeover=takeover / safe,
        adl=jnp.maximum(after_auction - takeover, 0.0) / safe,
        remainder=jnp.zeros_like(usd),
        book_move=jnp.expm1(book.price_log),
        auction_move=mark[:, :, None] * (1 - sign * world.discount[:, :, None, None]) - 1,
        adl_move=adl_move(jnp.expm1(state.quotes.index), mark_move, world),
        mark_move=jnp.broadcast_to(mark_move[:, :, None], usd.shape),
    )
    return jax.lax.optimization_barrier((shares, book.usd, auction))


def _close(
    orders: Orders, fills: Fills, standing: Standing, ladders: Ladders, world: World, cross: Cross | None
) -> tuple[Claims, adl.Deleveraged]:
    """Find winners for what book, auction and takeover left, and settle the accounts of all slices."""
    mark = 1 + standing.mark_move[:, :, None]
    left_over = jnp.where((world.rules.adl_leftover[:, None, None] | orders.skipping)[:, :, None], fills.adl, 0.0)
    need = jax.lax.optimization_barrier((left_over * orders.usd + orders.direct_usd) / mark)
    closed = _deleverage(need, orders, fills, standing, ladders, world, cross)
    fills, direct_fills = _share_adl(fills, need, closed.coins)
    normal = settle(orders.normal, fills, ladders, standing.kept, world)
    direct = jax.lax.cond(
        jnp.any(orders.direct_usd > 0),
        lambda: settle(orders.direct, direct_fills, ladders, standing.kept, world),
        lambda: jax.tree.map(jnp.zeros_like, normal),
    )
    # Without barriers the compiler works out a sum again for every term that it enters.
    claims = jax.lax.optimization_barrier(Claims(normal, direct, fills, direct_fills, standing.mark_move))
    return claims, closed


def _deleverage(
    need: Float[Array, "v a s p"],
    orders: Orders,
    fills: Fills,
    standing: Standing,
    ladders: Ladders,
    world: World,
    cross: Cross | None,
) -> adl.Deleveraged:
    """Look for winners only where a path needs any."""

    def some() -> adl.Deleveraged:
        left, kept, at_mark = standing.alive(ladders), standing.kept, fills.mark_move
        value = fills.adl * (orders.value + bankruptcy_value(orders.normal, kept))
        value = value + orders.direct_value + bankruptcy_value(orders.direct, kept)
        at_bankruptcy = value / jnp.where(need > 0, need, 1.0)
        close = world.rules.adl_close[:, None, None, None]
        price = jnp.where(close == ADL_BANKRUPTCY, at_bankruptcy, 1 + fills.adl_move)
        lack = fills.adl * (orders.lack + lacking(orders.normal, ladders, at_mark, kept))
        lack = lack + orders.direct_lack + lacking(orders.direct, ladders, at_mark, kept)
        return adl.deleverage(need, left, ladders, standing.reach, kept, standing.mark_move, world, price, lack, cross)

    return jax.lax.cond(jnp.any(need > 0), some, lambda: adl.no_winners(need, standing.reach, standing.kept))


def _without_winners(kept: Kept, scale: Float[Array, "v a s e p"], price: Float[Array, "v a s p"]) -> Kept:
    """The accounts after a share of each position was closed at the average price of the deleveraging."""
    return Kept(scale=scale, shift=kept.shift - (kept.scale - scale) * price[:, :, :, None])


def _close_winners(
    cross: Cross | None, closed: adl.Deleveraged, price: Float[Array, "v a s p"], world: World
) -> tuple[Cross | None, Borne]:
    """Close winners on cross margin."""
    if cross is None:
        return None, closed.borne
    taking, ranking = closed.coins[:, :, ::-1] > 0, world.rules.adl_ranking
    return close_winners(cross, closed.share, closed.call, taking, ranking, price, closed.borne)


def _share_adl(fills: Fills, wanted: Float[Array, "v a s p"], got: Float[Array, "v a s p"]) -> tuple[Fills, Fills]:
    """Turn what was left over into deleveraging and remainder, for slices that tried the other layers and for those
    that did not."""
    part = jnp.where(wanted > 0, jnp.minimum(got / jnp.where(wanted > 0, wanted, 1.0), 1.0), 0.0)
    nothing = jnp.zeros_like(part)
    normal = replace(fills, adl=fills.adl * part, remainder=fills.adl * (1 - part))
    direct = replace(fills, book=nothing, auction=nothing, takeover=nothing, adl=part, remainder=1 - part)
    return normal, direct


def _tally(
    hour: Hour,
    first_round: Float[Array, "v a p"],
    ended: Float[Array, "v p"],
    done: Trades,
    closed: adl.Deleveraged,
    borne: Borne,
    mark_move: Float[Array, "v a p"],
    world: World,
) -> Hour:
    """Add a round's volumes and accounts, and what winners bore, to the hour."""
    mark = 1 + mark_move[:, :, None]
    layers = jnp.stack([done.book, done.auction, done.takeover, done.adl, done.remainder]) * mark[None]
    haircut = side_sign(done.adl) * (done.adl_cash - done.adl * mark)
    coins, lost, needed = (x[:, :, ::-1] for x in (done.adl, haircut, closed.needed))
    burden = bear(hour.burden, borne, coins, lost, needed, world.rules.adl_close)
    return replace(
        hour,
        layers=hour.layers + layers,
        first_round=hour.first_round + first_round,
        accounts=hour.accounts + ended,
        adl_haircut=hour.adl_haircut + add_up(haircut, 2),
        adl_accounts=jnp.where(
            (world.rules.adl_ranking == ADL_PRO_RATA)[:, None, None, None, None],
            jnp.maximum(hour.adl_accounts, closed.accounts),
            hour.adl_accounts + closed.accounts,
        ),
        adl_cross_accounts=hour.adl_cross_accounts + borne.accounts,
        burden=burden,
    )


def press(state: State, flow: Float[Array, "v a p"], held: Held, world: World) -> State:
    """Add signed flows [USD] to the imbalances, all markets at once, and quote anew."""
    pressure = flow * held.depth[None]
    u_local = state.u_local + pressure / world.adv[..., None]
    u_global = state.u_global + add_up(pressure, 0) / world.adv_global[:, None]
    now = quotes(held.exogenous, u_local, u_global, held.basis_average, world)
    return replace(state, u_local=u_local, u_global=u_global, quotes=now)


def observe(state: State, world: World) -> State:
    """Take the extremes of prices and funds at the present quotes; doing it twice changes nothing."""
    past, funds, now = state.extremes, state.funds, state.quotes
    equity = pool_equity(funds, jnp.expm1(now.mark), world)
    peak = jnp.maximum(funds.peak, equity)
    return replace(
        state,
        extremes=Extremes(
            fund_low=jnp.minimum(past.fund_low, equity),
            index_low=jnp.minimum(past.index_low, now.index),
            index_high=jnp.maximum(past.index_high, now.index),
            basis_low=jnp.minimum(past.basis_low, now.basis),
            basis_high=jnp.maximum(past.basis_high, now.basis),
        ),
        funds=replace(funds, peak=peak, drawdown=jnp.maximum(funds.drawdown, peak - equity)),
    )
