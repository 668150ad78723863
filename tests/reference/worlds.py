"""Small worlds and books for the hand-computed cases of the slow twin."""

from dataclasses import replace

import numpy as np

from .twin import Accounts, World, isolated, neutral

INF = np.inf


def world_of(venues: int = 1, assets: int = 1, **changes) -> World:
    """Markets at 100 USD, maintenance 1 %, a pool of 1 M USD a venue; no impact, fee, auction, takeover or funding."""
    one_v, one_va = np.ones(venues), np.ones((venues, assets))
    word = lambda rule: np.full(venues, rule)  # noqa: E731
    pool = np.asarray(changes.get("pool", np.tile(np.arange(venues)[:, None], assets)))
    pools = int(pool.max()) + 1
    base = World(
        start_price=np.full(assets, 100.0), sigma=np.full(assets, 0.025), listed=one_va > 0, adv=1e9 * one_va,
        i_ref=0.0, delta=0.5, rho=0.4, contagion=np.zeros((assets, assets)),
        half_life_local_s=600.0, half_life_global_s=1800.0, depth=False,
        fee=0 * one_v, fee_in_trigger=one_v < 0, surplus_to_pool=one_v > 0, mark_rule=word("median"),
        mark_window_s=1800 * one_v, staging=word("full"), tiers_down=np.ones(venues, int), 
        whole_below=np.ones(venues, int),
        adl_rank=word("queue"), adl_close=word("bankruptcy"), adl_share=np.nan * one_v, adl_window_s=28800 * one_v,
        straight_to_adl=one_v < 0, funding_interval_s=INF * one_v, funding_interest=0 * one_v,
        funding_clamp=0 * one_v, funding_cap=INF * one_v,
        take_bound=0.5 * one_va, throughput=INF * one_va, auction_capacity=0 * one_va, auction_discount=0.01 * one_va,
        unwind=0 * one_va, block=0 * one_va, tier_floor=0 * one_va[..., None], tier_rate=0.01 * one_va[..., None],
        pool=pool, pool_cash=np.full(pools, 1e6), takeover_multiple=np.zeros(pools),
        dt=60.0, rounds=5, barrier_shift=np.zeros(assets), **neutral(venues, assets, pools),
    )  # fmt: skip
    return replace(base, **{k: _like(getattr(base, k), v) for k, v in changes.items()})


def _like(default, value):
    """A scalar fills the shape of the default; anything else is taken as it is."""
    return np.full(default.shape, value) if isinstance(default, np.ndarray) and np.ndim(value) == 0 else value


def accounts_of(*rows: tuple, assets: int = 1) -> Accounts:
    """Rows of (quantity, margin[, entry[, count]]) in the first market."""
    full = np.array([(*row, 100.0, 1.0)[:4] if len(row) == 2 else (*row, 1.0)[:4] for row in rows], float)
    place = np.zeros(len(rows), int)
    return isolated(place, place, full[:, 0], full[:, 2], full[:, 1], full[:, 3], assets)


def path_to(*prices: float, start: float = 100.0) -> np.ndarray:
    """Log-returns of one asset through these prices, a step each."""
    return np.diff(np.log([start, *prices]))[:, None]


def accounts_from(*rows: dict, assets: int = 2) -> Accounts:
    """Accounts of several positions: `legs` and `coins` by asset, a leg being (quantity[, entry]); `cash`, `venue`."""
    quantity, entry, coins = np.zeros((3, len(rows), assets))
    for i, row in enumerate(rows):
        for a, leg in row.get("legs", {}).items():
            quantity[i, a], entry[i, a] = (*np.atleast_1d(leg), 100.0)[:2]
        for a, held in row.get("coins", {}).items():
            coins[i, a] = held
    of_row = lambda name, default: np.array([row.get(name, default) for row in rows])  # noqa: E731
    return Accounts(of_row("venue", 0), quantity, entry, of_row("cash", 0.0), coins, of_row("count", 1.0))


def paths_to(*prices: tuple[float, ...], start: float = 100.0) -> np.ndarray:
    """Log-returns of several assets through these prices, a step each."""
    return np.diff(np.log(np.vstack([np.full(len(prices[0]), start), *prices])), axis=0)


def crowd(n: int, rng: np.random.Generator) -> Accounts:
    """Longs and shorts of 2 to 50 times leverage in two markets at two venues."""
    quantity = rng.choice([-1.0, 1.0], n) * rng.lognormal(0, 1, n)
    entry = 100 * np.exp(rng.normal(0, 0.02, n))
    worst = np.maximum(0, -quantity * (100 - entry)) + np.abs(quantity) * 4
    margin = worst + np.abs(quantity) * entry / rng.uniform(2, 50, n)
    venue, asset, count = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.uniform(0.5, 2, n)
    return isolated(venue, asset, quantity, entry, margin, count, 2)


def busy_world() -> World:
    """Two venues with everything switched on, and different rules."""
    floors, rates = np.tile([0, 100.0, 300.0, INF], (2, 2, 1)), np.tile([0.005, 0.01, 0.02, 0.02], (2, 2, 1))
    return world_of(
        2, 2, i_ref=0.01, delta=0.7, adv=4e5, depth=True, contagion=0.2, fee=np.array([0.01, 0.0005]),
        fee_in_trigger=np.array([False, True]), surplus_to_pool=np.array([False, True]),
        mark_rule=np.array(["median", "index_average"]), staging="tiers", tiers_down=np.array([1, 2]),
        adl_rank=np.array(["queue", "pro_rata"]), adl_close=np.array(["bankruptcy", "index"]),
        adl_share=np.array([np.nan, 0.3]), straight_to_adl=np.array([False, True]),
        funding_interval_s=600.0, funding_interest=1e-4, funding_clamp=5e-4, funding_cap=3e-3,
        take_bound=0.03, throughput=3000.0, auction_capacity=500.0, unwind=200.0, block=10.0,
        tier_floor=floors, tier_rate=rates, pool_cash=np.array([40.0, 600.0]), takeover_multiple=3.0,
    )  # fmt: skip


def crash(rng: np.random.Generator, steps: int = 90) -> np.ndarray:
    fall = np.zeros((steps, 1))
    fall[20:23] = np.log(0.8) / 3
    fall[5:10] = np.log(1.08) / 5
    fall[45:60] = np.log(1.15) / 15
    return fall * [1, 1.2] + rng.normal(0, 5e-4, (steps, 2))


def cross_crowd(n: int, rng: np.random.Generator, coins: float = 0.0) -> Accounts:
    """Accounts of 2 to 50 times leverage with positions in both markets of one of two venues, one in four in one only.

    Args:
        n: Accounts.
        rng: Source of everything.
        coins: Share of what backs them that is held in coins.
    """
    quantity = rng.choice([-1.0, 1.0], (n, 2)) * rng.lognormal(0, 1, (n, 2)) * (rng.random((n, 2)) < [1.0, 0.75])
    entry = 100 * np.exp(rng.normal(0, 0.02, (n, 2)))
    worst = np.sum(np.maximum(0, -quantity * (100 - entry)) + np.abs(quantity) * 4, axis=1)
    margin = worst + np.sum(np.abs(quantity) * entry, axis=1) / rng.uniform(2, 50, n)
    held = coins * margin[:, None] / 100 * rng.dirichlet([1, 1], n)
    return Accounts(rng.integers(0, 2, n), quantity, entry, (1 - coins) * margin, held, rng.uniform(0.5, 2, n))
