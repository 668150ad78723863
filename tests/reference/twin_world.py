"""Inputs of the slow twin: accounts and the world they live in.

Units: USD, coins, USD per coin, seconds, plain fractions. A long has positive quantity. `n, V, A, F, J` count accounts,
venues, assets, pools, tiers. The quantity of an inverse contract is its USD value N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RULES = {
    "mark_rule": ("median", "index_average", "last", "index"),
    "staging": ("full", "tiers", "fraction", "restore"),
    "closing_order": ("proportional", "riskiest_first"),
    "adl_rank": ("queue", "pro_rata", "water_filling"),
    "adl_close": ("bankruptcy", "mark", "index"),
}


@dataclass(frozen=True)
class Accounts:
    """Accounts at one venue each; a row stands for `count` identical copies. An isolated position has one leg."""

    venue: np.ndarray  # [n] int
    quantity: np.ndarray  # [n,A] signed, of one copy, at most one position an asset [coins]
    entry: np.ndarray  # [n,A] of the position, anything where there is none [USD per coin]
    cash: np.ndarray  # [n] of one copy, negative where profit has been taken out [USD]
    coins: np.ndarray  # [n,A] collateral of one copy, not negative [coins]
    count: np.ndarray  # [n] copies, may be fractional
    stop: np.ndarray | None = None  # [n] mark at which it closes its one, linear position itself, nan for none [USD]
    top_up: np.ndarray | None = None  # [n] cash that one copy adds, once, rather than be liquidated [USD]


def isolated(
    venue: np.ndarray, asset: np.ndarray, quantity: np.ndarray, entry: np.ndarray, margin: np.ndarray,
    count: np.ndarray, assets: int,
) -> Accounts:  # fmt: skip
    """Accounts of one position and some cash each.

    Args:
        venue: [n].
        asset: Of the position [n].
        quantity: Signed [n] [coins].
        entry: [n] [USD per coin].
        margin: [n] [USD].
        count: Copies [n].
        assets: Of the world.
    """
    legs = lambda values: values[:, None] * (np.arange(assets) == asset[:, None])  # noqa: E731
    return Accounts(venue, legs(quantity), legs(entry), margin, np.zeros((len(venue), assets)), count)


@dataclass(frozen=True)
class World:
    """Everything that is not an account: prices, venues, markets, pools, clock."""

    start_price: np.ndarray  # [A] [USD per coin]
    sigma: np.ndarray  # [A] total daily volatility
    listed: np.ndarray  # [V,A] bool; an asset that no venue lists is a token without a perpetual
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
    mark_rule: np.ndarray  # [V] 'median', 'index_average', 'last', 'index'
    mark_window_s: np.ndarray  # [V]
    staging: np.ndarray  # [V] 'full', 'tiers', 'fraction', 'restore'
    tiers_down: np.ndarray  # [V] int, 1 or 2
    whole_below: np.ndarray  # [V] int: up to this tier (1 is the lowest) an account closes whole
    adl_rank: np.ndarray  # [V] 'queue', 'pro_rata', 'water_filling'
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
    # what isolated accounts do not need; `neutral` has values that switch all of it off
    barrier_correlation: np.ndarray  # [A,A] of the diffusions behind the shift
    closing_order: np.ndarray  # [V] 'proportional', 'riskiest_first'
    haircut: np.ndarray  # [V,A] on collateral coins, in comparisons with maintenance only
    token_adv: np.ndarray  # [A] spot volume of an asset without a perpetual; ignored for the others [USD]
    pool_coins: np.ndarray  # [F,A] [coins]
    cooldown_s: np.ndarray  # [V] after a partial close, in which the account is not tested
    fraction: np.ndarray  # [V] of every position, closed at the first trigger under 'fraction'
    fraction_above: np.ndarray  # [V] accounts of at most this notional close whole [USD]
    lot: np.ndarray  # [V,A] step to which that fraction is rounded up, 0 for none [coins]
    restore_target: np.ndarray  # [V] multiple of maintenance that 'restore' closes to, above 1
    breaker_move: np.ndarray  # [V] move of an index that stops the venue's liquidations, inf for never
    breaker_window_s: np.ndarray  # [V] within which
    breaker_pause_s: np.ndarray  # [V] for which they are stopped
    breaker_times: np.ndarray  # [V] instead of a stop, multiple of maintenance meanwhile; 1 for a stop
    vault_cash: np.ndarray  # [V] of the venue's backstop vault [USD]
    vault_capacity: np.ndarray  # [V] notional that it may hold over all markets, 0 where there is none [USD]
    vault_entry: np.ndarray  # [V] it takes accounts whose equity is below this multiple of maintenance
    vault_profit: np.ndarray  # [V,2] bounds of its profit against the mark, per USD taken; negative for a loss
    vault_unwind: np.ndarray  # [V,A] [USD per minute]
    funding_divisor: np.ndarray  # [V] of the premium and the clamped difference
    transfer_from: np.ndarray  # [F] int: pool that tops this one up, -1 for none
    transfer_floor: np.ndarray  # [F] equity to which it is topped up, and below which it does not give [USD]
    adl_leftover: np.ndarray  # [V] bool: what layers leave goes to adl though the pool is neither empty nor drawn down
    inverse: np.ndarray  # [V,A] bool: contracts of so many USD, with profit and loss in the asset's coin


def neutral(venues: int, assets: int, pools: int) -> dict[str, Any]:
    """Values of the fields of `World` that isolated accounts do not need."""
    return {
        "barrier_correlation": np.eye(assets),
        "closing_order": np.full(venues, "proportional"),
        "haircut": np.zeros((venues, assets)),
        "token_adv": np.full(assets, np.inf),
        "pool_coins": np.zeros((pools, assets)),
        "cooldown_s": np.zeros(venues),
        "fraction": np.ones(venues),
        "fraction_above": np.zeros(venues),
        "lot": np.zeros((venues, assets)),
        "restore_target": np.full(venues, 1.5),
        "breaker_move": np.full(venues, np.inf),
        "breaker_window_s": np.zeros(venues),
        "breaker_times": np.ones(venues),
        "breaker_pause_s": np.zeros(venues),
        "vault_cash": np.zeros(venues),
        "vault_capacity": np.zeros(venues),
        "vault_entry": np.full(venues, 2 / 3),
        "vault_profit": np.tile([-np.inf, np.inf], (venues, 1)),
        "vault_unwind": np.zeros((venues, assets)),
        "funding_divisor": np.ones(venues),
        "transfer_from": np.full(pools, -1),
        "transfer_floor": np.zeros(pools),
        "adl_leftover": np.ones(venues, bool),
        "inverse": np.zeros((venues, assets), bool),
    }


def check(world: World, accounts: Accounts) -> None:
    """Refuse rules that do not exist, positions in markets that do not, and debts in coins."""
    for name, known in RULES.items():
        for v, rule in enumerate(getattr(world, name)):
            if rule not in known:
                raise ValueError(f"{name}[{v}] is {rule!r}, expected one of {known}")
    if np.any((accounts.quantity != 0) & ~world.listed[accounts.venue]):
        raise ValueError("accounts: a position is in a market that its venue does not list")
    if np.any(world.restore_target <= 1):
        raise ValueError("restore_target: expected above 1, or what is restored triggers again at once")
    if np.any(accounts.coins < 0):
        raise ValueError("accounts: a collateral balance is negative")
