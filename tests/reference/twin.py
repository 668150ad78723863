"""The slow twin: a liquidation cascade computed account by account, in float64 NumPy, from the prose of the model.

It is the oracle of the fast engine and shares nothing with it: every account is tested in every round, every market
side is filled by itself. Single-asset, linear, USD-backed isolated accounts only. This file holds the inputs, the
triggers and the clock; `twin_state` what changes along the path, and the prices; `twin_layers` what happens to a slice
once the engine has taken it in.

Units: USD, coins, USD per coin, seconds, plain fractions. A long has positive quantity, a sell is a negative flow.
Index, basis and mark are logs relative to the asset's starting price. `V, A, F, J` count venues, assets, pools, tiers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .twin_layers import Slices, execute, unwind_inventory
from .twin_state import DOLLAR, LAYERS, Prices, State, current_prices, impact, open_state, pool_equity

RULES = {
    "mark_rule": ("median", "index_average", "last"),
    "staging": ("full", "tiers"),
    "adl_rank": ("queue", "pro_rata"),
    "adl_close": ("bankruptcy", "mark", "index"),
}


@dataclass(frozen=True)
class Accounts:
    """Isolated positions, one row each; a row stands for `count` identical copies."""

    venue: np.ndarray  # [n] int
    asset: np.ndarray  # [n] int
    quantity: np.ndarray  # [n] signed, of one copy [coins]
    entry: np.ndarray  # [n] [USD per coin]
    margin: np.ndarray  # [n] cash of one copy [USD]
    count: np.ndarray  # [n] copies, may be fractional


@dataclass(frozen=True)
class World:
    """Everything that is not an account: prices, venues, markets, pools, clock."""

    start_price: np.ndarray  # [A] [USD per coin]
    sigma: np.ndarray  # [A] total daily volatility
    listed: np.ndarray  # [V,A] bool
    adv: np.ndarray  # [V,A] average daily volume [USD]
    i_ref: float  # impact of 1 % of a day's volume at a daily volatility of 2.5 %
    delta: float  # impact exponent
    rho: float  # share of the impact that moves the index
    contagion: np.ndarray  # [A,A] share of b's index impact that also moves a; the diagonal is ignored
    half_life_local_s: float
    half_life_global_s: float
    depth: bool  # whether depth withdraws after large exogenous returns
    fee: np.ndarray  # [V] liquidation fee on notional
    fee_in_trigger: np.ndarray  # [V] bool
    surplus_to_pool: np.ndarray  # [V] bool
    mark_rule: np.ndarray  # [V] 'median', 'index_average', 'last'
    mark_window_s: np.ndarray  # [V]
    staging: np.ndarray  # [V] 'full', 'tiers'
    tiers_down: np.ndarray  # [V] int, 1 or 2
    whole_below: np.ndarray  # [V] int: up to this tier (1 is the lowest) an account closes whole
    adl_rank: np.ndarray  # [V] 'queue', 'pro_rata'
    adl_close: np.ndarray  # [V] 'bankruptcy', 'mark', 'index'
    adl_share: np.ndarray  # [V] drawdown of the pool that starts ADL, nan for never
    adl_window_s: np.ndarray  # [V] over which the peak is taken
    straight_to_adl: np.ndarray  # [V] bool: during drawdown-ADL every slice skips to adl
    funding_interval_s: np.ndarray  # [V]
    funding_interest: np.ndarray  # [V] per interval
    funding_clamp: np.ndarray  # [V]
    funding_cap: np.ndarray  # [V]
    take_bound: np.ndarray  # [V,A]
    throughput: np.ndarray  # [V,A] [USD per minute]
    auction_capacity: np.ndarray  # [V,A] [USD per clock hour]
    auction_discount: np.ndarray  # [V,A]
    unwind: np.ndarray  # [V,A] [USD per minute]
    block: np.ndarray  # [V,A] hedgers who never trade, one-sided [coins]
    tier_floor: np.ndarray  # [V,A,J] ascending from 0, padded with inf [USD]
    tier_rate: np.ndarray  # [V,A,J] ascending, padded with the last rate
    pool: np.ndarray  # [V,A] int
    pool_cash: np.ndarray  # [F] [USD]
    takeover_multiple: np.ndarray  # [F] inventory a pool may hold, in multiples of its equity
    dt: float  # [s]
    rounds: int
    barrier_shift: np.ndarray  # [A] log shift of the trigger test, 0 for none


def simulate(
    world: World, accounts: Accounts, log_returns: np.ndarray, index_pin: bool = False
) -> dict[str, np.ndarray]:
    """Run one path.

    Args:
        world: Prices, venues, markets, pools, clock.
        accounts: Positions at the start.
        log_returns: Exogenous log-return of each index in each step [step, A].
        index_pin: The index line has no endogenous part (recorded prices); the basis keeps its weight 1 - rho.

    Returns:
        Hourly variables with the hour leading, by name; `fund_drawdown`, `fund_exhausted_hour` [F]; `ledger_residual`;
        and `account_quantity`, `account_cash` [n], one copy's position and cash at the end.
    """
    check(world, accounts)
    state = open_state(world, accounts, len(log_returns), index_pin)
    for step in range(len(log_returns)):
        open_step(state, log_returns, step)
        pay_funding(state, step)
        last = cascade(state, step)
        close_step(state, last)
    state.out["account_quantity"] = state.quantity
    state.out["account_cash"] = state.cash
    return state.out


def check(world: World, accounts: Accounts) -> None:
    """Refuse rules that do not exist and accounts in markets that do not."""
    for name, known in RULES.items():
        for v, rule in enumerate(getattr(world, name)):
            if rule not in known:
                raise ValueError(f"{name}[{v}] is {rule!r}, expected one of {known}")
    if not np.all(world.listed[accounts.venue, accounts.asset]):
        raise ValueError("accounts: a row is in a market that its venue does not list")


# ------------------------------------------------------------------------------------------------------ step's opening
def open_step(state: State, log_returns: np.ndarray, step: int) -> None:
    """Exogenous return, decay of the imbalances, depth, and the basis average that the rounds hold."""
    world = state.world
    hour = int(step * world.dt // 3600)
    if step == 0 or hour != state.hour:
        state.hour = hour
        state.auction_left = world.auction_capacity.astype(float).copy()
        state.deleveraged = np.zeros(len(state.quantity), bool)
    state.shock = state.shock + log_returns[step]
    state.u_local = state.u_local * 2.0 ** (-world.dt / world.half_life_local_s)
    state.u_global = state.u_global * 2.0 ** (-world.dt / world.half_life_global_s)
    if world.depth:
        first = max(0, step + 1 - max(1, round(300 / world.dt)))
        z5 = log_returns[first : step + 1].sum(axis=0) / (world.sigma / np.sqrt(288))
        state.thinness = np.minimum(20.0, 1 + (np.abs(z5) / 11.8) ** 1.75)
    basis = (1 - world.rho) * impact(world, state.u_local)
    for v, window in enumerate(state.basis_window):
        window.append(basis[v])
        state.basis_average[v] = np.mean(window, axis=0)
    state.premium_sum += np.exp(basis) - 1
    state.premium_samples += 1


def pay_funding(state: State, step: int) -> None:
    """At funding times every holder of q coins pays q x rate x mark; the sum over all holders is zero.

    rate = clip(P + clip(interest - P, -clamp, clamp), -cap, cap), P the mean premium of the openings since the last.
    """
    world = state.world
    mark = current_prices(state).mark
    for v, interval in enumerate(world.funding_interval_s):
        intervals = (step + 1) * world.dt / interval
        if not intervals >= 0.5 or abs(intervals - round(intervals)) > 1e-9:
            continue
        premium = state.premium_sum[v] / state.premium_samples[v]
        clamped = np.clip(world.funding_interest[v] - premium, -world.funding_clamp[v], world.funding_clamp[v])
        per_coin = np.clip(premium + clamped, -world.funding_cap[v], world.funding_cap[v]) * mark[v]
        state.premium_sum[v] = 0.0
        state.premium_samples[v] = 0
        here = state.accounts.venue == v
        paid = state.quantity[here] * per_coin[state.accounts.asset[here]]
        state.cash[here] -= paid
        state.gross_cash += np.sum(state.accounts.count[here] * np.abs(paid))
        state.rest.cash[v] -= state.rest.coins[v] * per_coin
        state.makers.cash[v] -= state.makers.coins[v] * per_coin
        np.subtract.at(state.pool_cash, world.pool[v], state.inventory[v] * per_coin)


# ------------------------------------------------------------------------------------------------------------ triggers
def triggered(state: State, prices: Prices) -> np.ndarray:
    """Rows to liquidate: equity at or below maintenance (and the fee, where the venue counts it), none of it waiting.

    E = cash + q (m - entry), M(n) = max_j (rate_j n - D_j). The test alone sees the mark moved by the barrier shift.
    """
    world, accounts = state.world, state.accounts
    rows = np.flatnonzero((state.quantity != 0) & (state.waiting == 0))
    venue, asset, quantity = accounts.venue[rows], accounts.asset[rows], state.quantity[rows]
    mark = prices.mark[venue, asset] * np.exp(-np.sign(quantity) * world.barrier_shift[asset])
    notional = np.abs(quantity) * mark
    equity = state.cash[rows] + quantity * (mark - accounts.entry[rows])
    rate, deduction = world.tier_rate[venue, asset], state.deduction[venue, asset]
    maintenance = np.max(rate * notional[:, None] - deduction, axis=1)
    fee = np.where(world.fee_in_trigger, world.fee, 0.0)[venue] * notional
    return rows[equity <= maintenance + fee]


def coins_to_close(state: State, row: int, mark: float) -> float:
    """What the venue's staging rule closes of one copy of a triggered account at once [coins, positive].

    `tiers`: down to the floor of its tier, or of the one below; whole in the lowest tiers or without equity. A notional
    up to 0.1 % above a floor counts as the tier below it.
    """
    world, v, a = state.world, state.accounts.venue[row], state.accounts.asset[row]
    size = abs(state.quantity[row])
    equity = state.cash[row] + state.quantity[row] * (mark - state.accounts.entry[row])
    if world.staging[v] == "full" or equity <= 0:
        return size
    floors = world.tier_floor[v, a]
    tier = max(1, int(np.sum(floors * 1.001 < size * mark)))
    if tier <= world.whole_below[v]:
        return size
    target = floors[max(0, tier - world.tiers_down[v])]
    return size if target == 0 else size - target / mark


def enqueue(state: State, prices: Prices, rows: np.ndarray, batch: int) -> None:
    """Put this round's slices at the end of their markets' queues."""
    for row in rows:
        v, a = state.accounts.venue[row], state.accounts.asset[row]
        coins = coins_to_close(state, row, float(prices.mark[v, a]))
        state.waiting[row] = coins
        state.whole[row] = coins == abs(state.quantity[row])
        state.batch[row] = batch
        if not state.ever_triggered[row]:
            state.ever_triggered[row] = True
            state.out["accounts_liquidated"][state.hour, v] += state.accounts.count[row]


def admit(state: State, prices: Prices, budget: np.ndarray) -> Slices:
    """What the engine takes in this round: oldest rounds first, pro rata inside a round, up to the budget left.

    Args:
        state: With the queues, which are shortened.
        prices: Of the round.
        budget: Left in this step, reduced in place [V,A] [USD].
    """
    accounts, queue = state.accounts, np.flatnonzero(state.waiting > 0)
    venue, asset, waiting = accounts.venue[queue], accounts.asset[queue], state.waiting[queue]
    value, coins = accounts.count[queue] * waiting * prices.mark[venue, asset], np.zeros(len(queue))
    for v, a in np.argwhere(state.world.listed):
        here = (venue == v) & (asset == a)
        for batch in np.unique(state.batch[queue[here]]):
            same = here & (state.batch[queue] == batch)
            asked = value[same].sum()
            share = 1.0 if asked <= budget[v, a] else budget[v, a] / asked
            coins[same] = waiting[same] * share
            budget[v, a] = budget[v, a] - asked if share == 1.0 else 0.0
    state.waiting[queue] -= coins
    return Slices.of(state, prices, queue[coins > 0], coins[coins > 0])


# --------------------------------------------------------------------------------------------------------------- clock
def cascade(state: State, step: int) -> Prices:
    """Up to `rounds` rounds, until one triggers nothing and no queue can use throughput that is left.

    Returns the prices at the opening of the last round.
    """
    world, accounts = state.world, state.accounts
    budget = world.throughput * world.dt / 60
    for number in range(world.rounds):
        prices = current_prices(state)
        watch_prices(state, prices)
        rows = triggered(state, prices)
        enqueue(state, prices, rows, step * world.rounds + number)
        if number == 0:
            venue, asset = accounts.venue[rows], accounts.asset[rows]
            volume = accounts.count[rows] * state.waiting[rows] * prices.mark[venue, asset]
            np.add.at(state.out["first_round_volume"][state.hour], (venue, asset), volume)
        queued = state.waiting > 0
        if not np.any(budget[accounts.venue[queued], accounts.asset[queued]] > 0) and not len(rows):
            break
        closing = queued.copy()
        execute(state, prices, admit(state, prices, budget), closing)
        watch_pools(state, pool_equity(state, prices))
    return prices


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


def close_step(state: State, last: Prices) -> None:
    """Unwind the pools, judge their drawdown at the closing marks, check the ledger, note what the hour reports."""
    world, out, hour = state.world, state.out, state.hour
    unwind_inventory(state, last)
    prices = current_prices(state)
    equity = pool_equity(state, prices)
    watch_pools(state, equity)
    for f, window in enumerate(state.equity_window):
        window.append(equity[f])
        share = world.adl_share[state.pool_venue[f]]
        state.drawdown_adl[f] = equity[f] <= (1 - share) * max(window)  # false where the share is nan
    out["fund_equity"][hour] = equity
    out["index_close"][hour] = np.exp(prices.index_log)
    longs = np.zeros(world.listed.shape)
    owned = state.accounts.count * np.maximum(state.quantity, 0)
    np.add.at(longs, (state.accounts.venue, state.accounts.asset), owned)
    for coins in (state.inventory, state.makers.coins, state.rest.coins):
        longs += np.maximum(coins, 0)
    out["open_interest"][hour] = np.where(world.listed, (longs + world.block) * prices.mark, 0.0)
    out["ledger_residual"] = np.maximum(out["ledger_residual"], state.imbalance())


__all__ = ["LAYERS", "Accounts", "World", "simulate"]
