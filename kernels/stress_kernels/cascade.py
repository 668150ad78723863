"""One cascade round: marks, triggered accounts, admission, layers, settlement, pools, new marks."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels import adl
from stress_kernels.account_closing import Routes, close
from stress_kernels.account_deleveraging import close_winners
from stress_kernels.account_queue import Turn
from stress_kernels.account_rounds import Cross, trigger
from stress_kernels.account_settlement import Left
from stress_kernels.account_settlement import settle as settle_accounts
from stress_kernels.breakers import throughput
from stress_kernels.contracts import Worth
from stress_kernels.contracts import settle as price_of
from stress_kernels.engine import admit
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.ladder_lanes import Lanes
from stress_kernels.layers import Curve, curve, fill_auction, fill_book, fill_takeover, share
from stress_kernels.marks import Held, observe, press
from stress_kernels.money import add_up
from stress_kernels.orders import Orders, sort_orders, with_accounts
from stress_kernels.policy import Borne, bear
from stress_kernels.pools import Standing, settle_pools, spot_flow
from stress_kernels.rows import when
from stress_kernels.settlement import Fills, adl_move, bankruptcy_value, lacking, settle
from stress_kernels.state import Hour, Record, State, layers_of, worth_of
from stress_kernels.stops import liquidated, with_stops
from stress_kernels.trades import Claims, Trades, trades
from stress_kernels.world import ADL_BANKRUPTCY, ADL_PRO_RATA, World, side_sign


def swept(state: State, reach: Float[Array, "v a s e p"]) -> Bool[Array, "v a s e p"]:
    """Ladders on which a round would take anything in: what `reach` triggers, and what waits."""
    return (reach > state.reach) | (state.queued > 0)


def cascade_round(
    state: State,
    record: Record,
    held: Held,
    reach: Float[Array, "v a s e p"],
    first: Bool[Array, " p"],
    lanes: Lanes,
    ladders: Ladders,
    world: World,
    cross: Cross | None = None,
) -> tuple[State, Record, Cross | None]:
    """One round, from the marks of `state` to new ones; a path on which nothing happens is left as it is.

    Args:
        reach: What the present marks trigger, from `triggered`.
        first: Whether this is the first round of its path in this step.
        lanes: All ladders of these paths on which `swept` finds anything.
        cross: Accounts on cross margin, where there are any.
    """
    mark_move, kept, at = jnp.expm1(state.quotes.mark), state.kept, worth_of(state.quotes, world)
    budget = jnp.where(first, throughput(held.liquidates, world), record.budget)
    cross, waiting = (None, None) if cross is None else trigger(cross, world)
    others = jnp.zeros_like(budget) if waiting is None else add_up(waiting.usd, 0, 3)
    taken_in = admit(lanes, record.done, reach, budget, 1 + mark_move, others)
    line = curve(held.exogenous, state.u_local, state.u_global, held.depth, world)
    forced, line, stopped = with_stops(taken_in.swept, line, mark_move, lanes, world)
    triggered_usd = (taken_in.demand - add_up(state.queued, 2, 3)) * (1 + mark_move)
    triggered_usd = triggered_usd if stopped is None else triggered_usd + add_up(stopped.forced_usd, 2)
    ended = liquidated(taken_in.accounts, stopped, lanes)
    if waiting is not None:
        triggered_usd, ended = triggered_usd + waiting.triggered, ended + waiting.accounts
    equity = state.funds.equity
    orders = sort_orders(forced, equity, state.funds.adl_on, mark_move, lanes, world)
    orders, turn = with_accounts(orders, cross, waiting, taken_in.part * others, at, world)

    makers_left = _present(record.makers_left, held, world)
    fills, book_usd, auction_usd = _fill(orders, equity, state, makers_left, line, at, world)
    vault = _vault_share(orders, fills, state, at, world)
    standing = Standing(reach, kept, record.taken, taken_in.queued <= 0, mark_move)
    claims, closed, routes = _close(orders, fills, vault, standing, at, lanes, ladders, world, cross)
    cross, claims = _close_accounts(cross, claims, routes, turn, world)
    done = jax.lax.optimization_barrier(trades(claims, world))
    price = (done.adl_cash / jnp.where(done.adl > 0, done.adl, 1.0))[:, :, ::-1]
    standing = replace(standing, reach=closed.reach, kept=_without_winners(kept, closed.scale, price))
    cross, borne = _close_winners(cross, closed, price, world)
    cross, left = (None, None) if cross is None else settle_accounts(cross, state.u_global, held.depth, world)
    outcome = settle_pools(state.funds, record, claims, done, standing, ladders, world, cross, left)

    outcome = outcome if stopped is None else stopped.noted(outcome, world)
    state = replace(state, reach=closed.reach, queued=taken_in.queued, kept=outcome.kept, funds=outcome.funds)
    record = Record(
        done=jnp.where(standing.idle, closed.reach, lanes.put(taken_in.swept.high[..., 0, :], record.done)),
        taken=outcome.taken,
        budget=jnp.maximum(budget - add_up(orders.usd + orders.direct_usd, 2), 0.0),
        makers_left=jnp.maximum(record.makers_left - add_up(auction_usd, 2), 0.0),
        stocks=outcome.stocks,
        hour=_tally(outcome.hour, jnp.where(first, triggered_usd, 0.0), ended, done, closed, borne, at, world),
    )
    in_book = book_usd if stopped is None else book_usd + stopped.usd
    flow = -add_up(side_sign(in_book) * in_book, 2)
    return observe(press(state, flow, held, world, _sales(left, cross)), world), record, outcome.cross


def _sales(left: Left | None, cross: Cross | None) -> Float[Array, "v a p"] | None:
    """Collateral that goes to the spot market [USD, negative]."""
    return None if left is None or left.sold is None or cross is None else -spot_flow(left, cross)


def _close_accounts(
    cross: Cross | None, claims: Claims, routes: Routes, turn: Turn | None, world: World
) -> tuple[Cross | None, Claims]:
    """Close what is taken in of accounts that are on no ladder."""
    if cross is None or turn is None:
        return cross, claims
    cross, *sums = close(cross, turn, routes, world)
    parts = [(jax.tree.map(jnp.add, of, more), how) for (of, how), more in zip(claims.parts, sums, strict=True)]
    return cross, replace(claims, parts=tuple(parts))


def _present(makers_left: Float[Array, "v a p"], held: Held, world: World) -> Float[Array, "v a p"]:
    """What makers can still take in this hour, without those that have left."""
    if held.absent is None:
        return makers_left
    return jnp.maximum(makers_left - held.absent[None] * world.auction[..., None], 0.0)


def _fill(
    orders: Orders,
    equity: Float[Array, "f p"],
    state: State,
    makers_left: Float[Array, "v a p"],
    line: Curve,
    at: Worth,
    world: World,
) -> tuple[Fills, Float[Array, "v a s p"], Float[Array, "v a s p"]]:
    """Book, auction and takeover; what they leave stands under `adl` until vaults have taken and winners are found."""
    mark_move = jnp.expm1(state.quotes.mark)
    usd, mark, sign = orders.usd, 1 + mark_move, side_sign(orders.usd)
    # Found once: else again for everything that asks what it takes or pays.
    book = jax.lax.optimization_barrier(fill_book(usd, line, state.quotes.mark, world))
    after_book = jax.lax.optimization_barrier(jnp.maximum(usd - book.usd, 0.0))
    nothing = jnp.zeros_like(usd)

    def behind() -> tuple[Array, Array, Array]:
        auction = fill_auction(after_book, makers_left)
        after_auction = jnp.maximum(after_book - auction, 0.0)
        inventory = world.to_pools(jnp.abs(state.funds.inventory.value) * at.unit)
        room = jnp.maximum(world.takeover_multiple[:, None] * equity - inventory, 0.0)
        takeover = fill_takeover(after_auction, room, world)
        return auction, takeover, jnp.maximum(after_auction - takeover, 0.0)

    auction, takeover, left = jax.lax.cond(jnp.any(after_book > 0), behind, lambda: (nothing, nothing, nothing))
    safe = jnp.where(usd > 0, usd, 1.0)
    shares = Fills(
        book=book.usd / safe,
        auction=auction / safe,
        takeover=takeover / safe,
        vault=nothing,
        adl=left / safe,
        remainder=jnp.zeros_like(usd),
        book_move=jnp.expm1(book.price_log),
        auction_move=mark[:, :, None] * (1 - sign * world.discount[:, :, None, None]) - 1,
        adl_move=adl_move(jnp.expm1(state.quotes.index), mark_move, world),
        mark_move=jnp.broadcast_to(mark_move[:, :, None], usd.shape),
    )
    return jax.lax.optimization_barrier((shares, book.usd, auction))


def _vault_share(orders: Orders, fills: Fills, state: State, at: Worth, world: World) -> Float[Array, "v a s p"]:
    """Share that vaults take of what reaches them from accounts far enough below maintenance.

    A vault takes up to its capacity less what it holds, shared over the venue's markets; nothing without equity. What
    skips the first layers reaches it too, but for venues where all goes straight to deleveraging.
    """
    rule, vault = world.vaults, state.funds.vault
    if rule is None or vault is None:
        return jnp.zeros_like(orders.usd)
    direct = jnp.where(orders.straight[:, :, None], 0.0, orders.direct_usd)
    asked = add_up(fills.adl * orders.near_usd + direct, 1, 2)
    held = add_up(jnp.abs(vault.inventory.value) * at.unit, 1)
    free = jnp.where(vault.equity(at) > 0, jnp.maximum(rule.capacity[:, None] - held, 0.0), 0.0)
    part = jnp.where(asked > 0, share(free, asked), 0.0)
    return jnp.broadcast_to(part[:, None, None], orders.usd.shape)


def _close(
    orders: Orders,
    fills: Fills,
    vault: Float[Array, "v a s p"],
    standing: Standing,
    at: Worth,
    lanes: Lanes,
    ladders: Ladders,
    world: World,
    cross: Cross | None,
) -> tuple[Claims, adl.Deleveraged, Routes]:
    """Find winners for what the other layers left, and settle the ladder accounts of all slices."""
    straight = orders.straight[:, :, None]
    by_vault = jnp.where(straight, 0.0, vault)
    left_over = jnp.where((world.rules.adl_leftover[:, None, None] | orders.skipping)[:, :, None], fills.adl, 0.0)
    left = left_over * (orders.usd - vault * orders.near_usd) + (1 - by_vault) * orders.direct_usd
    need = jax.lax.optimization_barrier(left / at.unit[:, :, None])
    closed = _deleverage(need, orders, fills, vault, standing, lanes, ladders, world, cross)
    routes = _share_adl(fills, vault, by_vault, need, closed.coins, orders)
    normal = settle(orders.normal, routes.normal, lanes, world)
    nobody = jax.tree.map(jnp.zeros_like, normal)
    direct = jax.lax.cond(
        jnp.any(orders.direct_usd > 0),
        lambda: settle(orders.direct, routes.direct, lanes, world),
        lambda: nobody,
    )
    parts = [(normal, routes.normal), (direct, routes.direct)]
    if cross is not None:
        parts.insert(1, (nobody, routes.near))
    # Without barriers the compiler works out a sum again for every term that it enters.
    claims, routes = jax.lax.optimization_barrier((Claims(tuple(parts), at), routes))
    return claims, closed, routes


def _deleverage(
    need: Float[Array, "v a s p"],
    orders: Orders,
    fills: Fills,
    vault: Float[Array, "v a s p"],
    standing: Standing,
    lanes: Lanes,
    ladders: Ladders,
    world: World,
    cross: Cross | None,
) -> adl.Deleveraged:
    """Look for winners only where a path needs any."""

    def some() -> adl.Deleveraged:
        left, kept, at_mark = standing.alive(ladders), standing.kept, standing.mark_move
        by_vault = jnp.where(orders.straight[:, :, None], 0.0, vault)
        value = fills.adl * (orders.value - vault * orders.near_value + bankruptcy_value(orders.normal, lanes))
        value = value + (1 - by_vault) * (orders.direct_value + bankruptcy_value(orders.direct, lanes))
        at_bankruptcy = value / jnp.where(need > 0, need, 1.0)
        close = world.rules.adl_close[:, None, None, None]
        price = jnp.where(close == ADL_BANKRUPTCY, at_bankruptcy, price_of(fills.adl_move, world.inverse))
        lack = fills.adl * ((1 - vault) * orders.lack + lacking(orders.normal, at_mark, lanes))
        lack = lack + (1 - by_vault) * (orders.direct_lack + lacking(orders.direct, at_mark, lanes))
        return adl.deleverage(need, left, ladders, standing.reach, kept, standing.mark_move, world, price, lack, cross)

    return jax.lax.cond(jnp.any(need > 0), some, lambda: adl.no_winners(need, standing.reach, standing.kept, cross))


def _without_winners(kept: Kept, scale: Float[Array, "v a s e p"], price: Float[Array, "v a s p"]) -> Kept:
    """The accounts after a share of each position was closed at the average price of the deleveraging."""
    return replace(kept, scale=scale, shift=kept.shift - (kept.scale - scale) * price[:, :, :, None])


def _close_winners(
    cross: Cross | None, closed: adl.Deleveraged, price: Float[Array, "v a s p"], world: World
) -> tuple[Cross | None, Borne]:
    """Close winners on cross margin."""
    if cross is None:
        return None, closed.borne
    assert closed.share is not None
    assert closed.call is not None
    taking, ranking = closed.coins[:, :, ::-1] > 0, world.rules.adl_ranking
    return close_winners(cross, closed.share, closed.call, taking, ranking, price, closed.borne)


def _share_adl(
    fills: Fills,
    vault: Float[Array, "v a s p"],
    by_vault: Float[Array, "v a s p"],
    wanted: Float[Array, "v a s p"],
    got: Float[Array, "v a s p"],
    orders: Orders,
) -> Routes:
    """Turn what was left over into vaults, deleveraging and remainder, for every kind of slice.

    Args:
        fills: Of slices that tried book, auction and takeover.
        vault: What vaults take of slices that reach them [1].
        by_vault: The same of slices that skip the first layers.
        wanted: What deleveraging was asked for, in contracts.
        got: What it gave.
        orders: Of the round.
    """
    part = jnp.where(wanted > 0, jnp.minimum(got / jnp.where(wanted > 0, wanted, 1.0), 1.0), 0.0)
    nothing = jnp.zeros_like(part)

    def after(of: Fills, rest: Float[Array, "v a s p"], vault: Float[Array, "v a s p"]) -> Fills:
        left = rest * (1 - vault)
        return replace(of, vault=rest * vault, adl=left * part, remainder=left * (1 - part))

    first = replace(fills, book=nothing, auction=nothing, takeover=nothing)
    return Routes(
        normal=after(fills, fills.adl, nothing),
        near=after(fills, fills.adl, vault),
        direct=after(first, nothing + 1, by_vault),
        skipping=orders.skipping,
        straight=orders.straight,
    )


def _tally(
    hour: Hour,
    first_round: Float[Array, "v a p"],
    ended: Float[Array, "v p"],
    done: Trades,
    closed: adl.Deleveraged,
    borne: Borne,
    at: Worth,
    world: World,
) -> Hour:
    """Add a round's volumes and accounts to the hour."""
    layers = jnp.stack([getattr(done, layer) for layer in layers_of(world)]) * at.unit[None, :, :, None]
    hour = replace(
        hour,
        layers=hour.layers + layers,
        first_round=hour.first_round + first_round,
        accounts=hour.accounts + ended,
    )
    return when(jnp.any(done.adl > 0), lambda hour: _deleveraged(hour, done, closed, borne, at, world), hour)


def _deleveraged(hour: Hour, done: Trades, closed: adl.Deleveraged, borne: Borne, at: Worth, world: World) -> Hour:
    """Add what winners bore."""
    haircut = side_sign(done.adl) * (done.adl_cash - done.adl * at.settle[:, :, None]) * at.money[:, :, None]
    coins, lost, needed = (x[:, :, ::-1] for x in (done.adl, haircut, closed.needed))
    again = (world.rules.adl_ranking == ADL_PRO_RATA)[:, None, None, None, None]
    accounts = hour.adl_accounts
    return replace(
        hour,
        adl_haircut=hour.adl_haircut + add_up(haircut, 2),
        adl_accounts=jnp.where(again, jnp.maximum(accounts, closed.accounts), accounts + closed.accounts),
        adl_cross_accounts=hour.adl_cross_accounts + (0.0 if borne.single is None else borne.single.accounts),
        burden=bear(hour.burden, borne, coins, lost, needed, world.rules.adl_close),
    )
