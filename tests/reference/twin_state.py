"""What changes along a path of the slow twin, the prices that follow from it, and the ledger that must balance.

Money of an account is its cash less what its coins cost, cash - q entry, so that the money of traders, pools, makers
and the rest of the market has a constant sum, and so have the coins of every market.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .twin import Accounts, World

LAYERS = ("book", "auction", "takeover", "adl", "remainder")
BOOK, AUCTION, TAKEOVER, ADL, REMAINDER = range(5)
DIRECTIONS = (1.0, -1.0)  # of side 0, long, and side 1, short
DOLLAR = 1.0  # a pool counts as exhausted at or below this equity [USD]


@dataclass(frozen=True)
class Prices:
    """Prices at the opening of a round."""

    spill: np.ndarray  # [A] contagion part of the index log
    index_log: np.ndarray  # [A]
    basis: np.ndarray  # [V,A]
    mark_log: np.ndarray  # [V,A]
    index: np.ndarray  # [A] [USD per coin]
    mark: np.ndarray  # [V,A] [USD per coin]


@dataclass
class Holder:
    """Money and coins of the rest of the market, or of the auction's makers, by market [V,A]."""

    cash: np.ndarray
    coins: np.ndarray

    def take(self, coins: np.ndarray, usd: np.ndarray) -> None:
        """Buy signed `coins` for signed `usd`."""
        self.coins += coins
        self.cash -= usd


@dataclass
class State:
    """Everything that changes along the path, and the outputs so far. Account fields are of one copy [n]."""

    world: World
    accounts: Accounts
    index_pin: bool
    out: dict[str, np.ndarray]
    quantity: np.ndarray  # signed position [coins]
    cash: np.ndarray  # margin, realised profit and funding [USD]
    socialised: np.ndarray  # taken per coin held, by earlier socialisations [USD per coin]
    waiting: np.ndarray  # of the current slice, not admitted yet [coins]
    whole: np.ndarray  # the current slice is the whole account, bool
    batch: np.ndarray  # round in which the current slice was triggered, int
    fee_value: np.ndarray  # of the current slice, closed in book or auction so far [USD]
    ever_triggered: np.ndarray  # bool
    deleveraged: np.ndarray  # in this hour, bool
    deduction: np.ndarray  # [V,A,J] D_j [USD]
    adv: np.ndarray  # [V,A] inf where not listed [USD]
    adv_total: np.ndarray  # [A] [USD]
    shock: np.ndarray  # [A] X
    u_local: np.ndarray  # [V,A]
    u_global: np.ndarray  # [A]
    thinness: np.ndarray  # [A] g, by which depth has withdrawn
    basis_window: list[deque]  # [V] of samples [A]
    basis_average: np.ndarray  # [V,A]
    premium_sum: np.ndarray  # [V,A]
    premium_samples: np.ndarray  # [V]
    pool_cash: np.ndarray  # [F] [USD]
    pool_venue: np.ndarray  # [F] int
    inventory: np.ndarray  # [V,A] of the pools, signed [coins]
    equity_window: list[deque]  # [F] of step-end equities [USD]
    drawdown_adl: np.ndarray  # [F] bool
    peak: np.ndarray  # [F] [USD]
    makers: Holder
    rest: Holder
    auction_left: np.ndarray  # [V,A] in this clock hour [USD]
    gross_cash: float = 0.0  # opening stocks and absolute flows [USD]
    gross_coins: np.ndarray | float = 0.0  # [V,A] the same [coins]
    opening_cash: float = 0.0  # [USD]
    hour: int = 0

    def totals(self) -> tuple[float, np.ndarray]:
        """Money [USD] and coins [V,A] of traders, pools, makers and the rest of the market together."""
        accounts = self.accounts
        traders = np.sum(accounts.count * (self.cash - self.quantity * accounts.entry))
        coins = self.inventory + self.makers.coins + self.rest.coins
        np.add.at(coins, (accounts.venue, accounts.asset), accounts.count * self.quantity)
        return traders + self.pool_cash.sum() + self.makers.cash.sum() + self.rest.cash.sum(), coins

    def imbalance(self) -> float:
        """Largest residual of the ledger, relative to opening stocks and absolute flows."""
        cash, coins = self.totals()
        scale = np.where(self.gross_coins > 0, self.gross_coins, 1.0)
        return max(abs(cash - self.opening_cash) / max(self.gross_cash, DOLLAR), float(np.max(np.abs(coins) / scale)))


def open_state(world: World, accounts: Accounts, steps: int, index_pin: bool) -> State:
    """State before the first step; the rest of the market holds minus the sum of all positions."""
    (venues, assets), n = world.listed.shape, len(accounts.quantity)
    markets = lambda: np.zeros((venues, assets))  # noqa: E731
    position, size = markets(), markets()
    where = accounts.venue, accounts.asset
    np.add.at(position, where, accounts.count * accounts.quantity)
    np.add.at(size, where, accounts.count * np.abs(accounts.quantity))
    rest = Holder(markets(), -position)
    floors = np.where(np.isfinite(world.tier_floor), world.tier_floor, 0.0)
    jumps = np.diff(world.tier_rate, axis=2, prepend=world.tier_rate[:, :, :1])
    traded = np.where(world.listed, world.adv, 0.0).sum(axis=0)
    pools = len(world.pool_cash)
    pool_venue = np.array([np.argwhere(world.listed & (world.pool == f))[0, 0] for f in range(pools)])
    samples = lambda seconds: max(1, round(seconds / world.dt))  # noqa: E731
    state = State(
        world=world, accounts=accounts, index_pin=index_pin, out=empty_outputs(world, steps),
        quantity=accounts.quantity.astype(float).copy(), cash=accounts.margin.astype(float).copy(),
        socialised=np.zeros(n), waiting=np.zeros(n), whole=np.zeros(n, bool), batch=np.zeros(n, int),
        fee_value=np.zeros(n), ever_triggered=np.zeros(n, bool), deleveraged=np.zeros(n, bool),
        deduction=np.cumsum(floors * jumps, axis=2),
        adv=np.where(world.listed, world.adv, np.inf), adv_total=np.where(traded > 0, traded, np.inf),
        shock=np.zeros(assets), u_local=markets(), u_global=np.zeros(assets), thinness=np.ones(assets),
        basis_window=[deque(maxlen=samples(s)) for s in world.mark_window_s], basis_average=markets(),
        premium_sum=markets(), premium_samples=np.zeros(venues, int),
        pool_cash=world.pool_cash.astype(float).copy(), pool_venue=pool_venue, inventory=markets(),
        equity_window=[deque([cash], maxlen=samples(world.adl_window_s[v]))
                       for cash, v in zip(world.pool_cash, pool_venue, strict=True)],
        drawdown_adl=np.zeros(pools, bool), peak=world.pool_cash.astype(float).copy(),
        makers=Holder(markets(), markets()), rest=rest, auction_left=markets(),
    )  # fmt: skip
    state.opening_cash = state.totals()[0]
    stocks = np.abs(accounts.margin) + np.abs(accounts.quantity) * accounts.entry
    state.gross_cash = np.sum(accounts.count * stocks) + np.abs(world.pool_cash).sum()
    state.gross_coins = size + np.abs(position)
    return state


def empty_outputs(world: World, steps: int) -> dict[str, np.ndarray]:
    """Sums start at zero, extremes at nan."""
    venues, assets = world.listed.shape
    pools, hours = len(world.pool_cash), int(np.ceil(steps * world.dt / 3600))
    market, pool, asset = (hours, venues, assets), (hours, pools), (hours, assets)
    shapes = {
        "liquidation_volume": (*market, 2), "absorbed_volume": (*market, len(LAYERS)), "first_round_volume": market,
        "adl_volume": market, "adl_haircut": market, "adl_accounts": (hours, venues), "open_interest": market,
        "accounts_liquidated": (hours, venues), "deficit": pool, "surplus": pool, "socialised_loss": pool,
        "fund_equity": pool, "fund_drawdown": (pools,), "index_close": asset, "ledger_residual": (),
    }  # fmt: skip
    extremes = {
        "index_low": asset, "index_high": asset, "basis_low": market, "basis_high": market,
        "fund_low": pool, "fund_exhausted_hour": (pools,),
    }  # fmt: skip
    return {k: np.zeros(s) for k, s in shapes.items()} | {k: np.full(s, np.nan) for k, s in extremes.items()}


# -------------------------------------------------------------------------------------------------------------- prices
def impact(world: World, u: np.ndarray) -> np.ndarray:
    """Log price push of an imbalance: I(u) = i_ref (sigma / 0.025) sign(u) (|u| / 0.01)^delta, assets last."""
    return world.i_ref * (world.sigma / 0.025) * np.sign(u) * (np.abs(u) / 0.01) ** world.delta


def mean_impact(world: World, asset: int, u: float, du: float) -> float:
    """Mean of I along the way from u to u + du, from its integral; Simpson's rule where that would cancel."""

    def push(y: float) -> float:
        return world.i_ref * (world.sigma[asset] / 0.025) * np.sign(y) * (abs(y) / 0.01) ** world.delta

    if abs(du) <= 1e-3 * abs(u) or du == 0:
        return (push(u) + 4 * push(u + du / 2) + push(u + du)) / 6
    return ((u + du) * push(u + du) - u * push(u)) / (world.delta + 1) / du


def book_log(state: State, prices: Prices, v: int, a: int, flow: float) -> float:
    """Log of `last` after an own flow [USD, sells negative] from the current imbalances; without one it is x + b."""
    world, thin = state.world, state.thinness[a]
    local = impact(world, state.u_local[v] + flow * thin / state.adv[v])[a]
    push = 0.0 if state.index_pin else impact(world, state.u_global + flow * thin / state.adv_total)[a]
    return state.shock[a] + prices.spill[a] + world.rho * push + (1 - world.rho) * local


def mean_book_log(state: State, prices: Prices, v: int, a: int, flow: float) -> float:
    """Mean of `book_log` along the own flow, from none to all of it."""
    world, thin = state.world, state.thinness[a]
    local = mean_impact(world, a, state.u_local[v, a], flow * thin / state.adv[v, a])
    push = 0.0 if state.index_pin else mean_impact(world, a, state.u_global[a], flow * thin / state.adv_total[a])
    return state.shock[a] + prices.spill[a] + world.rho * push + (1 - world.rho) * local


def add_flows(state: State, flow: np.ndarray) -> None:
    """Add book flows [V,A] [USD, sells negative] to the imbalances, all markets at once."""
    state.u_local = state.u_local + flow * state.thinness / state.adv
    state.u_global = state.u_global + flow.sum(axis=0) * state.thinness / state.adv_total


def current_prices(state: State) -> Prices:
    """Index, basis and mark at the current imbalances; shock, depth and basis average are those of the step.

    x = X + rho I(u_global) + sum_b beta_ab rho I_b(u_global[b]), b = (1 - rho) I(u_local), last = x + b.
    """
    world = state.world
    push = world.rho * impact(world, state.u_global)
    spill = (world.contagion * (1 - np.eye(len(push)))) @ push
    if state.index_pin:
        push, spill = np.zeros_like(push), np.zeros_like(push)
    index = state.shock + push + spill
    basis = (1 - world.rho) * impact(world, state.u_local)
    mark = np.empty_like(basis)
    for v, rule in enumerate(world.mark_rule):
        average = state.basis_average[v]
        candidates = {
            "median": np.median([np.zeros_like(average), average, basis[v]], axis=0),
            "index_average": average,
            "last": basis[v],
        }
        mark[v] = index + candidates[str(rule)]
    return Prices(
        spill=spill,
        index_log=index,
        basis=basis,
        mark_log=mark,
        index=world.start_price * np.exp(index),
        mark=world.start_price * np.exp(mark),
    )


def pool_equity(state: State, prices: Prices) -> np.ndarray:
    """Cash and inventory at the marks [F] [USD]."""
    equity = state.pool_cash.copy()
    np.add.at(equity, state.world.pool, state.inventory * prices.mark)
    return equity
