"""What changes along a path of the slow twin, and the ledger that must balance.

Money of an account in a settlement currency (USD, or the coin of inverse contracts) is what it owns of it less what its
positions cost, cash - q f(entry), so that the money of traders, pools, makers and the rest of the market has a constant
sum, and so have the contracts of every market.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .twin_prices import settle_price

if TYPE_CHECKING:
    from .twin_behaviour import Cohorts
    from .twin_prices import Prices
    from .twin_world import Accounts, World

LAYERS = ("book", "auction", "takeover", "adl", "remainder")
WITH_VAULT = ("book", "auction", "takeover", "vault", "adl", "remainder")
DIRECTIONS = (1.0, -1.0)  # of side 0, long, and side 1, short
DOLLAR = 1.0  # a pool counts as exhausted at or below this equity [USD]


@dataclass
class Holder:
    """Money and contracts of the rest of the market, or of the auction's makers, by market [V,A]."""

    cash: np.ndarray  # in the market's settlement currency
    coins: np.ndarray  # signed quantity

    def take(self, coins: np.ndarray, cost: np.ndarray) -> None:
        """Buy signed `coins` for signed `cost`."""
        self.coins += coins
        self.cash -= cost


@dataclass
class Vault:
    """Backstop vaults of the venues: money of their own, and what they took over."""

    cash: np.ndarray  # [V] [USD]
    coins: np.ndarray  # [V,A] [coins]
    inventory: np.ndarray  # [V,A] signed quantity
    before: np.ndarray  # [V] equity at the end of the hour before [USD]

    def receive(self, amounts: np.ndarray, inverse: np.ndarray) -> None:
        """Add to what vaults own, in the settlement currency of each market [V,A]."""
        self.cash += np.sum(np.where(inverse, 0.0, amounts), axis=1)
        self.coins += np.where(inverse, amounts, 0.0)

    def equity(self, prices: Prices) -> np.ndarray:
        """Cash, coins and inventory at the marks [V] [USD]."""
        inventory = self.inventory * prices.at.settle * prices.at.money
        return self.cash + np.sum(self.coins * prices.at.coin + inventory, axis=1)


@dataclass
class State:
    """Everything that changes along the path, and the outputs so far. Account fields are of one copy."""

    world: World
    accounts: Accounts
    index_pin: bool
    out: dict[str, np.ndarray]
    quantity: np.ndarray  # [n,A] signed position [coins]
    entry: np.ndarray  # [n,A] settle price of the entry
    cash: np.ndarray  # [n] margin, realised profit and funding [USD]
    coins: np.ndarray  # [n,A] collateral, and profit and funding of inverse contracts [coins]
    socialised: np.ndarray  # [n,A] taken per unit held, by earlier socialisations [USD]
    waiting: np.ndarray  # [n,A] of the current slices, not admitted yet [coins]
    whole: np.ndarray  # [n,A] the current slice is the whole position, bool
    batch: np.ndarray  # [n] round in which the current slices were triggered, int
    fee_value: np.ndarray  # [n,A] of the current slices, closed in book or auction so far [USD, or coins: settlement]
    rests_until: np.ndarray  # [n] before which the account is not tested [s]
    begun: np.ndarray  # [n] a share has been closed and no test was passed since, bool
    ever_triggered: np.ndarray  # [n] bool
    deleveraged: np.ndarray  # [n] in this hour, bool
    currency: np.ndarray  # [V,A] of settlement, int: 0 for USD, 1 + a for the asset's coin
    deduction: np.ndarray  # [V,A,J] D_j [USD]
    adv: np.ndarray  # [V,A] inf where not listed [USD]
    adv_total: np.ndarray  # [A] [USD]
    shock: np.ndarray  # [A] X
    unusual: dict[str, np.ndarray]  # of this step, see `twin.simulate`
    seen: np.ndarray  # [V,A] index log as each venue saw it when the last step ended in which it saw anything
    u_local: np.ndarray  # [V,A]
    u_global: np.ndarray  # [A]
    thinness: np.ndarray  # [A] g, by which depth has withdrawn
    basis_window: list[deque]  # [V] of samples [A]
    basis_average: np.ndarray  # [V,A]
    premium_sum: np.ndarray  # [V,A]
    premium_samples: np.ndarray  # [V]
    pool_cash: np.ndarray  # [F] [USD]
    pool_coins: np.ndarray  # [F,A] [coins]
    pool_venue: np.ndarray  # [F] int
    inventory: np.ndarray  # [V,A] of the pools, signed [coins]
    equity_window: list[deque]  # [F] of step-end equities [USD]
    drawdown_adl: np.ndarray  # [F] bool
    peak: np.ndarray  # [F] [USD]
    vault: Vault
    makers: Holder
    rest: Holder
    spot: Holder  # who buys collateral in the spot market, by venue of the seller [V,A]
    auction_left: np.ndarray  # [V,A] in this clock hour [USD]
    stopped_until: np.ndarray  # [V] before which a breaker stops the venue's liquidations [s]
    wider: np.ndarray  # [V] multiple of maintenance that a breaker asks for at present
    stop_flow: np.ndarray  # [V,A,2] stop orders of the round [USD, sells negative]
    forced: np.ndarray  # [n] has a stop, and is liquidated instead: admitted before all others, bool
    at_stop: np.ndarray  # [n] has a stop that is reached and waits for the venue to work, bool
    answered: np.ndarray  # [n] has added its cash, bool
    openings: list[np.ndarray]  # index at the start and at the opening of every step so far, each [A] [USD]
    gross_money: np.ndarray  # [1+A] opening stocks and absolute flows, by settlement currency [USD, coins]
    gross_coins: np.ndarray | float = 0.0  # [V,A] the same of contracts
    opening_money: np.ndarray | float = 0.0  # [1+A]
    largest_adl: np.ndarray | float = 0.0  # [V] loss of winners in the hour's largest ADL of a market side [USD]
    cohorts: Cohorts | None = None
    hour: int = 0
    now: float = 0.0  # since the start, at the step's opening [s]

    def pay(self, rows: np.ndarray, assets: np.ndarray, amounts: np.ndarray) -> None:
        """Add to what accounts own, of one copy, in the settlement currencies of their markets in these assets."""
        coin = self.world.inverse[self.accounts.venue[rows], assets]
        np.add.at(self.cash, rows[~coin], amounts[~coin])
        np.add.at(self.coins, (rows[coin], assets[coin]), amounts[coin])

    def pool_receives(self, amounts: np.ndarray) -> None:
        """Add to what pools own, in the settlement currency of each market [V,A]."""
        world = self.world
        np.add.at(self.pool_cash, world.pool[~world.inverse], amounts[~world.inverse])
        coin = np.nonzero(world.inverse)
        np.add.at(self.pool_coins, (world.pool[coin], coin[1]), amounts[coin])

    def note_flow(self, amounts: np.ndarray) -> None:
        """Count absolute flows [V,A] in settlement currencies for the scale of the ledger's residual."""
        np.add.at(self.gross_money, self.currency, np.abs(amounts))

    @property
    def working(self) -> np.ndarray:
        """Share of its throughput and of its unwinding that each venue is capable of [V,1]."""
        return self.unusual.get("working", np.ones(len(self.seen)))[:, None]

    @property
    def blind(self) -> np.ndarray:
        """Which venues see the index as it was [V] bool."""
        return self.unusual.get("stale", np.zeros(len(self.seen), bool))

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Money [1+A] and contracts [V,A] of traders, pools, makers, the rest of the market and the spot market."""
        venue, count = self.accounts.venue, self.accounts.count
        money = np.zeros(1 + self.quantity.shape[1])
        money[0] = np.sum(count * self.cash) + self.pool_cash.sum() + self.spot.cash.sum()
        money[1:] = count @ self.coins + self.pool_coins.sum(axis=0) + self.spot.coins.sum(axis=0)
        np.subtract.at(money, self.currency[venue], count[:, None] * self.quantity * self.entry)
        np.add.at(money, self.currency, self.makers.cash + self.rest.cash)
        money[0] += self.vault.cash.sum()
        money[1:] += self.vault.coins.sum(axis=0)
        coins = self.inventory + self.vault.inventory + self.makers.coins + self.rest.coins
        np.add.at(coins, venue, count[:, None] * self.quantity)
        return money, coins

    def imbalance(self) -> float:
        """Largest residual of the ledger, relative to opening stocks and absolute flows."""
        money, coins = self.totals()
        floor = np.where(np.arange(len(money)) == 0, DOLLAR, 1e-12)
        scale = np.where(self.gross_coins > 0, self.gross_coins, 1.0)
        of_money = np.abs(money - self.opening_money) / np.maximum(self.gross_money, floor)
        return float(max(np.max(of_money), np.max(np.abs(coins) / scale)))


def open_state(world: World, accounts: Accounts, steps: int, index_pin: bool) -> State:
    """State before the first step; the rest of the market holds minus the sum of all positions."""
    (venues, assets), (n, pools) = world.listed.shape, (len(accounts.cash), len(world.pool_cash))
    markets = lambda: np.zeros((venues, assets))  # noqa: E731
    legs = lambda: np.zeros((n, assets))  # noqa: E731
    position, size = markets(), markets()
    np.add.at(position, accounts.venue, accounts.count[:, None] * accounts.quantity)
    np.add.at(size, accounts.venue, accounts.count[:, None] * np.abs(accounts.quantity))
    floors = np.where(np.isfinite(world.tier_floor), world.tier_floor, 0.0)
    jumps = np.diff(world.tier_rate, axis=2, prepend=world.tier_rate[:, :, :1])
    traded = np.where(world.listed, world.adv, 0.0).sum(axis=0)
    pool_venue = np.array([np.argwhere(world.listed & (world.pool == f))[0, 0] for f in range(pools)])
    samples = lambda seconds: max(1, round(seconds / world.dt))  # noqa: E731
    entry = np.where(accounts.quantity != 0, accounts.entry, 1.0)
    pool_equity = world.pool_cash + world.pool_coins @ world.start_price
    state = State(
        world=world, accounts=accounts, index_pin=index_pin, out=empty_outputs(world, steps),
        quantity=accounts.quantity.astype(float).copy(), entry=settle_price(entry, world.inverse[accounts.venue]),
        cash=accounts.cash.astype(float).copy(), coins=accounts.coins.astype(float).copy(),
        socialised=legs(), waiting=legs(), whole=legs() > 0, batch=np.zeros(n, int), fee_value=legs(),
        rests_until=np.zeros(n), begun=np.zeros(n, bool), ever_triggered=np.zeros(n, bool),
        deleveraged=np.zeros(n, bool),
        currency=np.where(world.inverse, 1 + np.arange(assets), 0), deduction=np.cumsum(floors * jumps, axis=2),
        adv=np.where(world.listed, world.adv, np.inf), adv_total=np.where(traded > 0, traded, world.token_adv),
        shock=np.zeros(assets), unusual={}, seen=markets(), u_local=markets(), u_global=np.zeros(assets),
        thinness=np.ones(assets),
        basis_window=[deque(maxlen=samples(s)) for s in world.mark_window_s], basis_average=markets(),
        premium_sum=markets(), premium_samples=np.zeros(venues, int),
        pool_cash=world.pool_cash.astype(float).copy(), pool_coins=world.pool_coins.astype(float).copy(),
        pool_venue=pool_venue, inventory=markets(),
        equity_window=[deque([equity], maxlen=samples(world.adl_window_s[v]))
                       for equity, v in zip(pool_equity, pool_venue, strict=True)],
        drawdown_adl=np.zeros(pools, bool), peak=pool_equity,
        vault=Vault(world.vault_cash.astype(float).copy(), markets(), markets(), world.vault_cash),
        makers=Holder(markets(), markets()), rest=Holder(markets(), -position), spot=Holder(markets(), markets()),
        auction_left=markets(), stopped_until=np.zeros(venues), wider=np.ones(venues),
        stop_flow=np.zeros((venues, assets, 2)), forced=np.zeros(n, bool), answered=np.zeros(n, bool),
        at_stop=np.zeros(n, bool),
        openings=[world.start_price],
        gross_money=np.zeros(1 + assets), gross_coins=size + np.abs(position),
    )  # fmt: skip
    state.opening_money = state.totals()[0]
    owned = np.append(accounts.count @ np.abs(accounts.cash), accounts.count @ np.abs(accounts.coins))
    funds = np.abs(world.pool_cash).sum() + np.abs(world.vault_cash).sum()
    pooled = np.append(funds, np.abs(world.pool_coins).sum(axis=0))
    state.gross_money = owned + pooled
    cost = accounts.count[:, None] * np.abs(accounts.quantity * state.entry)
    np.add.at(state.gross_money, state.currency[accounts.venue], cost)
    return state


def empty_outputs(world: World, steps: int) -> dict[str, np.ndarray]:
    """Sums start at zero, extremes at nan."""
    venues, assets = world.listed.shape
    pools, layers, hours = len(world.pool_cash), len(layers_of(world)), int(np.ceil(steps * world.dt / 3600))
    market, pool, asset = (hours, venues, assets), (hours, pools), (hours, assets)
    shapes = {
        "liquidation_volume": (*market, 2), "stop_volume": (*market, 2),
        "absorbed_volume": (*market, layers), "first_round_volume": market,
        "adl_volume": market, "adl_haircut": market, "adl_accounts": (hours, venues), "open_interest": market,
        "accounts_liquidated": (hours, venues), "deficit": pool, "surplus": pool, "socialised_loss": pool,
        "fund_equity": pool, "fund_drawdown": (pools,), "index_close": asset, "ledger_residual": (),
        "adl_needed": market, "adl_loss": (hours, venues), "adl_loss_top_1": (hours, venues),
        "adl_loss_top_10": (hours, venues), "collateral_sold": market,
        "voluntary_volume": (*market, 2), "opened_volume": (*market, 2),
        "vault_equity": (hours, venues), "vault_profit": (hours, venues), "paused": (hours, venues),
    }  # fmt: skip
    extremes = {
        "index_low": asset, "index_high": asset, "basis_low": market, "basis_high": market,
        "fund_low": pool, "fund_exhausted_hour": (pools,),
        "adl_top_keeps_of_total": (hours, venues), "adl_top_keeps_of_largest": (hours, venues),
    }  # fmt: skip
    return {k: np.zeros(s) for k, s in shapes.items()} | {k: np.full(s, np.nan) for k, s in extremes.items()}


def open_interest(state: State, prices: Prices) -> np.ndarray:
    """One-sided: longs of accounts, pools, vaults and makers, of the rest if net long, and the block [V,A] [USD]."""
    longs = np.zeros(state.world.listed.shape)
    np.add.at(longs, state.accounts.venue, state.accounts.count[:, None] * np.maximum(state.quantity, 0))
    for coins in (state.inventory, state.vault.inventory, state.makers.coins, state.rest.coins):
        longs += np.maximum(coins, 0)
    return np.where(state.world.listed, (longs + state.world.block) * prices.at.unit, 0.0)


def layers_of(world: World) -> tuple[str, ...]:
    """Names of the layers that a world reports."""
    return WITH_VAULT if np.any(world.vault_capacity > 0) else LAYERS


def pool_equity(state: State, prices: Prices) -> np.ndarray:
    """Cash, coins and inventory at the marks [F] [USD]."""
    equity = state.pool_cash + np.sum(state.pool_coins * prices.at.coin[state.pool_venue], axis=1)
    np.add.at(equity, state.world.pool, state.inventory * prices.at.settle * prices.at.money)
    return equity
