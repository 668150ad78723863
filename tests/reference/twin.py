"""The slow twin: a liquidation cascade computed account by account, in float64 NumPy, from the prose of the model.

It is the oracle of the fast engine and shares nothing with it: every account is tested in every round, every market
side is filled by itself. This file holds the clock: steps, rounds and what they report. `twin_world` has the inputs,
`twin_state` what changes along the path and the ledger, `twin_prices` impact and marks, `twin_accounts` and
`twin_staging` triggers and slices, `twin_layers` and `twin_adl` who takes them, `twin_settle` and
`twin_pools` who pays.

Units: USD, coins, USD per coin, seconds, plain fractions. A long has positive quantity, a sell is a negative flow.
Index, basis and mark are logs relative to the asset's starting price. `n, V, A, F` count accounts, venues, assets,
pools.
"""

from __future__ import annotations

import numpy as np

from .twin_accounts import triggered
from .twin_adl import deleverage, judge_policy
from .twin_behaviour import Cohorts, close_by_choice, turn_over
from .twin_layers import Slices, auction, book, close, takeover, unwind_inventory, vault
from .twin_pools import cover, transfer
from .twin_prices import Prices, add_flows, current_prices, impact
from .twin_settle import settle
from .twin_staging import enqueue
from .twin_state import DOLLAR, LAYERS, State, open_interest, open_state, pool_equity
from .twin_stops import answer_calls, close_whole, fire
from .twin_world import Accounts, World, check, isolated, neutral


def simulate(
    world: World,
    accounts: Accounts,
    log_returns: np.ndarray,
    index_pin: bool = False,
    unusual: dict[str, np.ndarray] | None = None,
    cohorts: Cohorts | None = None,
) -> dict[str, np.ndarray]:
    """Run one path.

    Args:
        world: Prices, venues, markets, pools, clock.
        accounts: Positions at the start, with stop orders and cash to be added where there is any.
        log_returns: Exogenous log-return of each index in each step [step, A].
        index_pin: The index line has no endogenous part (recorded prices); the basis keeps its weight 1 - rho.
        unusual: What is out of the ordinary in each step, by name, all of it optional: `deviation`, log price of a
            token at a venue against its index [step, V, A], moves what coins are worth there as collateral and are sold
            at, not the marks; `thinness`, by which the depth divisor is multiplied [step, A]; `working`, the share of
            throughput and unwinding that a venue is capable of [step, V]; `premium`, on top of what funding averages
            [step, V, A]; `stale`, whether a venue's index stands where it was before that began [step, V]; `loss`, what
            an account with a position loses to the rest of the market [step, n] [USD]; `absent`, the share of the
            makers that is gone [step, A]; `closing`, the share of their positions that holders close [step, A].
        cohorts: Accounts that are opened later.

    Returns:
        Hourly variables with the hour leading, by name (of ADL's, see `judge_policy`); `fund_drawdown` and
        `fund_exhausted_hour` [F]; `ledger_residual`;
        and one copy's `account_quantity` [n,A], `account_cash` [n], `account_coins` [n,A] at the end.
    """
    check(world, accounts)
    state = open_state(world, accounts, len(log_returns), index_pin)
    state.cohorts = cohorts
    opening_interest = open_interest(state, current_prices(state))
    for step in range(len(log_returns)):
        state.unusual = {name: values[step] for name, values in (unusual or {}).items()}
        open_step(state, log_returns, step)
        pay_funding(state, step)
        lose(state)
        cascade(state, step)
        close_step(state)
    judge_policy(state.out, opening_interest)
    state.out["account_quantity"] = state.quantity
    state.out["account_cash"] = state.cash
    state.out["account_coins"] = state.coins
    return state.out


# ------------------------------------------------------------------------------------------------------ step's opening
def open_step(state: State, log_returns: np.ndarray, step: int) -> None:
    """Exogenous return, decay of the imbalances, depth, and the basis average that the rounds hold."""
    world, out = state.world, state.out
    hour = int(step * world.dt // 3600)
    state.now = step * world.dt
    if step == 0 or hour != state.hour:
        state.vault.before = out["vault_equity"][hour - 1] if hour else world.vault_cash
        state.hour = hour
        state.auction_left = world.auction_capacity.astype(float).copy()
        state.deleveraged = np.zeros(len(state.quantity), bool)
        state.largest_adl = np.zeros(len(world.fee))
    state.shock = state.shock + log_returns[step]
    state.u_local = state.u_local * 2.0 ** (-world.dt / world.half_life_local_s)
    state.u_global = state.u_global * 2.0 ** (-world.dt / world.half_life_global_s)
    if world.depth:
        first = max(0, step + 1 - max(1, round(300 / world.dt)))
        z5 = log_returns[first : step + 1].sum(axis=0) / (world.sigma / np.sqrt(288))
        state.thinness = np.minimum(20.0, 1 + (np.abs(z5) / 11.8) ** 1.75)
    if "thinness" in state.unusual:
        state.thinness = (state.thinness if world.depth else 1.0) * state.unusual["thinness"]
    if "absent" in state.unusual:
        plain = state.thinness if world.depth or "thinness" in state.unusual else 1.0
        state.thinness = plain / (1 - state.unusual["absent"])
    basis = (1 - world.rho) * impact(world, state.u_local)
    for v, window in enumerate(state.basis_window):
        window.append(basis[v])
        state.basis_average[v] = np.mean(window, axis=0)
    state.premium_sum += np.exp(basis) - 1 + state.unusual.get("premium", 0.0)
    state.premium_samples += 1


def pay_funding(state: State, step: int) -> None:
    """At funding times every holder of q coins pays q x rate x mark; the sum over all holders is zero.

    A holder of an inverse contract of N USD pays N x rate / mark coins.
    rate = clip((P + clip(interest - P, -clamp, clamp)) / divisor, -cap, cap), P the mean premium of the openings since
    the last.
    """
    world = state.world
    mark = np.abs(current_prices(state).at.settle)
    for v, interval in enumerate(world.funding_interval_s):
        intervals = (step + 1) * world.dt / interval
        if not intervals >= 0.5 or abs(intervals - round(intervals)) > 1e-9:
            continue
        premium = state.premium_sum[v] / state.premium_samples[v]
        clamped = np.clip(world.funding_interest[v] - premium, -world.funding_clamp[v], world.funding_clamp[v])
        rate = (premium + clamped) / world.funding_divisor[v]
        per_coin = np.clip(rate, -world.funding_cap[v], world.funding_cap[v]) * mark[v]
        state.premium_sum[v] = 0.0
        state.premium_samples[v] = 0
        rows, assets = np.nonzero((state.accounts.venue == v)[:, None] & (state.quantity != 0))
        paid = state.quantity[rows, assets] * per_coin[assets]
        state.pay(rows, assets, -paid)
        np.add.at(state.gross_money, state.currency[v, assets], state.accounts.count[rows] * np.abs(paid))
        state.rest.cash[v] -= state.rest.coins[v] * per_coin
        state.makers.cash[v] -= state.makers.coins[v] * per_coin
        here = np.arange(len(mark))[:, None] == v
        state.pool_receives(np.where(here, -state.inventory * per_coin, 0.0))
        state.vault.receive(np.where(here, -state.vault.inventory * per_coin, 0.0), world.inverse)


def lose(state: State) -> None:
    """Money leaves accounts that hold any position; the rest of the market gets it, in a linear market."""
    lost = np.where(np.any(state.quantity != 0, axis=1), state.unusual.get("loss", 0.0), 0.0)
    state.cash -= lost
    for n in np.flatnonzero(lost):
        v, copies = state.accounts.venue[n], state.accounts.count[n]
        linear = np.flatnonzero(~state.world.inverse[v] & state.world.listed[v])[0]
        state.rest.cash[v, linear] += copies * lost[n]
        state.gross_money[0] += copies * lost[n]


# -------------------------------------------------------------------------------------------------------------- rounds
def execute(state: State, prices: Prices, slices: Slices, closing: np.ndarray) -> None:
    """One round: the admitted slices through all layers, settlement, pools, and the flows into the imbalances.

    Args:
        state: Changed throughout.
        prices: At the round's opening.
        slices: Admitted, all of which is executed.
        closing: Rows that are being liquidated and can neither be deleveraged nor socialised [n] bool.
    """
    world = state.world
    opening_equity = pool_equity(state, prices)
    pool = world.pool[slices.venue, slices.asset]
    stressed = (opening_equity <= DOLLAR) | state.drawdown_adl
    straight = state.drawdown_adl[pool] & world.straight_to_adl[slices.venue]
    skips = (stressed[pool] & slices.bankrupt) | straight
    flow = book(state, prices, slices, ~skips)
    auction(state, prices, slices, ~skips)
    takeover(state, prices, slices, ~skips, opening_equity)
    if np.any(world.vault_capacity > 0):
        vault(state, prices, slices, ~straight)  # it does not depend on the pool, and so not on its exhaustion
    deleveraged = deleverage(state, prices, slices, world.adl_leftover[slices.venue] | stressed[pool], closing)
    state.rest.take(*close(state, slices, slices.coins.copy(), slices.mark, "remainder"))
    deficit, sold = settle(state, prices, slices, deleveraged)
    cover(state, prices, deficit, closing)
    add_flows(state, flow + state.stop_flow.sum(axis=2), sold)


def admit(state: State, prices: Prices, budget: np.ndarray) -> Slices:
    """What the engine takes in this round: oldest rounds first, pro rata inside a round, up to the budget left.

    Accounts that a jump has taken past their stops come in at once, and leave what is left to the next round.

    Args:
        state: With the queues, which are shortened.
        prices: Of the round.
        budget: Left in this step, reduced in place [V,A] [USD].
    """
    accounts = state.accounts
    rows, asset = np.nonzero(state.waiting > 0)
    venue, waiting, coins = accounts.venue[rows], state.waiting[rows, asset], np.zeros(len(rows))
    value = accounts.count[rows] * waiting * prices.at.unit[venue, asset]
    for v, a in np.argwhere(state.world.listed):
        here = (venue == v) & (asset == a)
        for batch in np.unique(state.batch[rows[here]]):
            same = here & (state.batch[rows] == batch) & ~state.forced[rows]
            asked = value[same].sum()
            share = 1.0 if asked <= budget[v, a] else budget[v, a] / asked
            coins[same] = waiting[same] * share
            budget[v, a] = budget[v, a] - asked if share == 1.0 else 0.0
        at_once = here & state.forced[rows]
        coins[at_once] = waiting[at_once]
        budget[v, a] = max(budget[v, a] - value[at_once].sum(), 0.0)
    state.waiting[rows, asset] -= coins
    taken = coins > 0
    return Slices.of(state, prices, rows[taken], asset[taken], coins[taken])


# --------------------------------------------------------------------------------------------------------------- clock
def cascade(state: State, step: int) -> None:
    """Up to `rounds` rounds, until one triggers nothing and no queue can use throughput that is left."""
    world, accounts = state.world, state.accounts
    stopped = trip_breakers(state)
    budget = np.where(stopped[:, None], 0.0, world.throughput * world.dt / 60 * state.working)
    for number in range(world.rounds):
        prices = current_prices(state)
        watch_prices(state, prices)
        answer_calls(state, prices)
        fired, forced = fire(state, prices)
        rows = np.union1d(triggered(state, prices), forced)
        enqueue(state, prices, rows, step * world.rounds + number)
        close_whole(state, forced)
        if number == 0:
            venue = accounts.venue[rows]
            volume = accounts.count[rows, None] * state.waiting[rows] * prices.at.unit[venue]
            np.add.at(state.out["first_round_volume"][state.hour], venue, volume)
        queued = state.waiting > 0
        if not np.any(queued & (budget[accounts.venue] > 0)) and not len(rows) and not fired:
            break
        closing = np.any(queued, axis=1)
        execute(state, prices, admit(state, prices, budget), closing)
        watch_pools(state, pool_equity(state, prices))


def trip_breakers(state: State) -> np.ndarray:
    """Which venues do not liquidate in this step [V]: an index of theirs has moved too far since its earlier opening.

    While a venue's breaker is tripped it is not judged again. Where it does not stop liquidations, margins are wider.
    """
    world, now = state.world, current_prices(state).index
    for v, move in enumerate(world.breaker_move):
        back = max(1, round(world.breaker_window_s[v] / world.dt))
        before = state.openings[max(0, len(state.openings) - back)]
        moved = np.abs(now / before - 1)[world.listed[v]]
        if state.stopped_until[v] <= state.now + 1e-9 and np.any(moved > move):
            state.stopped_until[v] = state.now + world.breaker_pause_s[v]
    state.openings.append(now)
    tripped = state.stopped_until > state.now + 1e-9
    stopped = tripped & (world.breaker_times == 1)
    state.wider = np.where(tripped, world.breaker_times, 1.0)
    state.out["paused"][state.hour] += stopped * world.dt / 3600
    return stopped


def watch_prices(state: State, prices: Prices) -> None:
    """Extremes of index and basis, seen at the opening of every round (the first is the step's opening)."""
    out, hour = state.out, state.hour
    index, premium = np.exp(prices.index_log), np.exp(prices.basis) - 1
    out["index_low"][hour] = np.fmin(out["index_low"][hour], index)
    out["index_high"][hour] = np.fmax(out["index_high"][hour], index)
    out["basis_low"][hour] = np.fmin(out["basis_low"][hour], premium)
    out["basis_high"][hour] = np.fmax(out["basis_high"][hour], premium)


def watch_pools(state: State, equity: np.ndarray) -> None:
    """Lows, drawdown and exhaustion of the pools, seen after every round and at the step's end."""
    out, hour = state.out, state.hour
    out["fund_low"][hour] = np.fmin(out["fund_low"][hour], equity)
    state.peak = np.maximum(state.peak, equity)
    out["fund_drawdown"] = np.maximum(out["fund_drawdown"], state.peak - equity)
    newly = (equity <= DOLLAR) & np.isnan(out["fund_exhausted_hour"])
    out["fund_exhausted_hour"][newly] = hour


def close_step(state: State) -> None:
    """Unwind the pools, judge their drawdown at the closing marks, check the ledger, note what the hour reports."""
    world, out, hour = state.world, state.out, state.hour
    unwind_inventory(state)
    close_by_choice(state)
    turn_over(state)
    prices = current_prices(state)
    for v in np.flatnonzero(~state.blind):
        state.seen[v] = prices.index_log
    transfer(state, prices)
    equity = pool_equity(state, prices)
    watch_pools(state, equity)
    for f, window in enumerate(state.equity_window):
        window.append(equity[f])
        share = world.adl_share[state.pool_venue[f]]
        state.drawdown_adl[f] = not np.isnan(share) and equity[f] <= max((1 - share) * max(window), 1.0)  # to a dollar
    out["fund_equity"][hour] = equity
    out["vault_equity"][hour] = state.vault.equity(prices)
    out["vault_profit"][hour] = out["vault_equity"][hour] - state.vault.before
    out["index_close"][hour] = np.exp(prices.index_log)
    out["open_interest"][hour] = open_interest(state, prices)
    out["ledger_residual"] = np.maximum(out["ledger_residual"], state.imbalance())


__all__ = ["LAYERS", "Accounts", "World", "isolated", "neutral", "simulate"]
