"""From a run of the engine to the slow twin: the same world, the same accounts, the same shocks.

The twin's world is read off the config, not off the engine's arrays, so that an error in building those shows.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from stress.build import Built, on_device
from stress.config import Run
from stress.diffusions import Diffusion
from stress.portfolio import Positions
from stress.scenarios import Prescribed

from . import behaviour
from . import twin as slow
from .holders import behaving
from .twin import Accounts, World
from .twin_layers import Slices
from .twin_prices import Prices
from .twin_state import State
from .twin_world import isolated, neutral

HOURLY = (
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_accounts", "socialised_loss", "index_close", "index_low", "index_high", "basis_low",
    "basis_high", "open_interest", "accounts_liquidated", "first_round_volume", "fund_drawdown", "fund_exhausted_hour",
    "collateral_sold", "paused", "stop_volume", "voluntary_volume", "opened_volume", "vault_equity", "vault_profit",
    "adl_top_share", "adl_top_10_share", "adl_top_keeps_of_total", "adl_top_keeps_of_largest", "adl_overshoot",
    "adl_open_interest",
)  # fmt: skip
"""Outputs that both engines have."""
OF_LOSSES = ("adl_top_share", "adl_top_10_share", "adl_top_keeps_of_total", "adl_top_keeps_of_largest")
"""Those that are shares of what winners lose, or over it."""


def twin_accounts(positions: Positions, assets: int) -> Accounts:
    """The twin's accounts, in a world of so many assets; of what their holders do, nothing."""
    return isolated(
        venue=positions.venue.astype(int),
        asset=positions.asset.astype(int),
        quantity=positions.quantity,
        entry=positions.entry_price,
        margin=positions.margin,
        count=positions.count,
        assets=assets,
    )


def twin_world(run: Run, positions: Positions, start_price: np.ndarray) -> World:
    """The twin's world of a run.

    Args:
        run: Its config.
        positions: The accounts, over whose longs the hedgers' block is spread.
        start_price: Of each asset [USD].
    """
    dt, venues, assets = float(run.step_seconds), list(run.venues.values()), list(run.assets)
    listed = np.array([[a in v.markets for a in assets] for v in venues])
    sigma = np.array([run.assets[a].daily_volatility for a in assets])
    diffusion = np.array([run.shock.diffusion(a) for a in assets])
    floor, rate = tiers(run)

    def of_market(field: str, missing: float, scale: float = 1.0) -> np.ndarray:
        return np.array(
            [[getattr(v.markets[a], field) * scale if a in v.markets else missing for a in assets] for v in venues]
        )

    def of_venue(pick) -> np.ndarray:
        return np.array([pick(v) for v in venues])

    def of_staging(name: str, missing: float) -> np.ndarray:
        return of_venue(lambda v: getattr(v.staging, name, missing))

    return World(
        start_price=start_price, sigma=sigma, listed=listed, adv=of_market("adv_usd", 1.0),
        i_ref=run.impact.i_ref, delta=run.impact.delta, rho=run.impact.rho,
        contagion=np.full((len(assets), len(assets)), run.impact.contagion),
        half_life_local_s=run.impact.half_life_local_seconds, half_life_global_s=run.impact.half_life_global_seconds,
        depth=run.impact.depth,
        fee=of_venue(lambda v: v.liquidation_fee_bps / 1e4), fee_in_trigger=of_venue(lambda v: v.fee_in_trigger),
        surplus_to_pool=of_venue(lambda v: v.surplus_to == "pool"), mark_rule=of_venue(lambda v: v.mark),
        mark_window_s=of_venue(lambda v: v.mark_window_minutes * 60), staging=of_venue(lambda v: v.staging.kind),
        tiers_down=of_staging("down", 1), whole_below=of_staging("whole_below", 1),
        adl_rank=of_venue(lambda v: v.adl.ranking),
        adl_close=of_venue(lambda v: v.adl.close_at),
        adl_share=of_venue(lambda v: np.nan if v.adl.drawdown_share is None else v.adl.drawdown_share),
        adl_window_s=of_venue(lambda v: v.adl.drawdown_window_hours * 3600),
        straight_to_adl=of_venue(lambda v: v.adl.straight_to_adl),
        funding_interval_s=of_venue(lambda v: v.funding.interval_hours * 3600),
        funding_interest=of_venue(lambda v: v.funding.interest), funding_clamp=of_venue(lambda v: v.funding.clamp),
        funding_cap=of_venue(lambda v: v.funding.cap),
        take_bound=of_market("take_bound_bps", 0.0, 1e-4), throughput=of_market("throughput_usd_per_minute", 0.0),
        auction_capacity=of_market("auction_usd_per_hour", 0.0),
        auction_discount=of_market("auction_discount_bps", 0.0, 1e-4), unwind=of_market("unwind_usd_per_minute", 0.0),
        block=_block(run, positions, start_price, listed.shape), tier_floor=floor, tier_rate=rate,
        pool=_pools(run), pool_cash=np.array([p.equity_usd for v in venues for p in v.pools]),
        takeover_multiple=np.array([p.takeover_multiple for v in venues for p in v.pools]),
        dt=dt, rounds=run.rounds,
        barrier_shift=0.5826 * diffusion * np.sqrt(dt / 86400) * run.barrier_correction,
        **neutral(listed.shape[0], listed.shape[1], sum(len(v.pools) for v in venues))
        | {
            "adl_leftover": of_venue(lambda v: v.adl.leftover),
            "closing_order": of_venue(lambda v: v.closing_order),
            "cooldown_s": of_staging("pause_seconds", 0.0),
            "fraction": of_staging("share", 1.0),
            "fraction_above": of_staging("above_usd", 0.0),
            "restore_target": of_staging("target", 1.5),
            "breaker_move": of_venue(lambda v: v.breaker.move if v.breaker else np.inf),
            "breaker_window_s": of_venue(lambda v: 60.0 * v.breaker.minutes if v.breaker else 0.0),
            "breaker_times": of_venue(lambda v: (v.breaker.margin_times or 1.0) if v.breaker else 1.0),
            "breaker_pause_s": of_venue(lambda v: 60.0 * v.breaker.pause_minutes if v.breaker else 0.0),
            "barrier_correlation": _correlation(run),
            "funding_divisor": of_venue(lambda v: v.funding.divisor),
            "haircut": np.array([[v.haircuts.get(a, 0.0) for a in assets] for v in venues]),
            "inverse": np.array([[v.inverse(a) for a in assets] for v in venues]),
            "token_adv": np.array([a.spot_adv_usd or np.inf for a in run.assets.values()]),
        }
        | _vaults(run)
        | _transfers(run),
    )  # fmt: skip


def _correlation(run: Run) -> np.ndarray:
    """Correlation of the diffusion [A,A]."""
    shock = run.shock.noise if isinstance(run.shock, Prescribed) else run.shock
    return shock.matrix(list(run.assets)) if isinstance(shock, Diffusion) else np.eye(len(run.assets))


def _vaults(run: Run) -> dict[str, np.ndarray]:
    """Fields of the twin's world that say what backstop vaults do."""
    vaults = [v.vault for v in run.venues.values()]
    return {
        "vault_cash": np.array([v.equity_usd if v else 0.0 for v in vaults]),
        "vault_capacity": np.array([v.capacity_usd if v else 0.0 for v in vaults]),
        "vault_entry": np.array([v.entry_ratio if v else 2 / 3 for v in vaults]),
        "vault_profit": np.array(
            [np.array(v.profit_bps) / 1e4 if v and v.profit_bps else (-np.inf, np.inf) for v in vaults]
        ),
        "vault_unwind": np.array([[v.unwind_usd_per_minute if v else 0.0] * len(run.assets) for v in vaults]),
    }


def _transfers(run: Run) -> dict[str, np.ndarray]:
    """Fields of the twin's world that say which pool tops up which."""
    source, floor = [], []
    for v in run.venues.values():
        first, places = len(source), {pool.name: i for i, pool in enumerate(v.pools)}
        source += [first + places[pool.topped_up_by] if pool.topped_up_by else -1 for pool in v.pools]
        floor += [pool.floor_usd for pool in v.pools]
    return {"transfer_from": np.array(source), "transfer_floor": np.array(floor)}


def unusual(run: Run, steps: int) -> dict[str, np.ndarray]:
    """What the run's overlays make of each step, minute by minute, for the twin."""
    venues, assets = list(run.venues), list(run.assets)
    shape = len(venues), len(assets)
    off: dict[str, np.ndarray] = {
        "deviation": np.zeros((steps, *shape)), "thinness": np.ones((steps, shape[1])),
        "working": np.ones((steps, shape[0])), "premium": np.zeros((steps, *shape)),
        "stale": np.zeros((steps, shape[0]), bool),
    }  # fmt: skip
    for step in range(steps):
        minute = (step + 1) * run.step_seconds / 60
        it: Any
        for it in run.overlays:
            if it.kind == "support" or not it.start_minutes < minute <= it.start_minutes + it.minutes:
                continue
            here = venues.index(it.venue) if hasattr(it, "venue") else None
            if it.kind == "depeg":
                off["deviation"][step, here, assets.index(it.token)] = np.log(1 - it.share)
            if it.kind in ("slowdown", "outage"):
                off["working"][step, here] = it.share if it.kind == "slowdown" else 0
            if it.kind in ("stale_index", "outage"):
                off["stale"][step, here] = True
            for a, asset in enumerate(assets):
                if it.kind == "depth_collapse" and (not it.assets or asset in it.assets):
                    off["thinness"][step, a] *= it.times
                for v, venue in enumerate(venues):
                    named = it.kind == "funding_spike" and (not it.venues or venue in it.venues)
                    if named and (not it.assets or asset in it.assets):
                        off["premium"][step, v, a] += it.premium
    return off


def tiers(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Floors, padded with infinity, and rates, padded with the last, [V,A,J]."""
    listed = {
        (i, j): v.markets[a].tiers
        for i, v in enumerate(run.venues.values())
        for j, a in enumerate(run.assets)
        if a in v.markets
    }
    most = max(map(len, listed.values()))
    floor = np.full((len(run.venues), len(run.assets), most), np.inf)
    rate = np.zeros_like(floor)
    for place, brackets in listed.items():
        floor[place][: len(brackets)] = [t.floor_usd for t in brackets]
        rate[place] = [t.rate for t in brackets] + [brackets[-1].rate] * (most - len(brackets))
    return floor, rate


def _pools(run: Run) -> np.ndarray:
    """Pool behind every market, counted over all venues [V,A]."""
    table, first = np.zeros((len(run.venues), len(run.assets)), int), 0
    for i, v in enumerate(run.venues.values()):
        table[i] = [first + v.pool_of(a) if a in v.markets else first for a in run.assets]
        first += len(v.pools)
    return table


def _block(run: Run, positions: Positions, start_price: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Hedgers' coins, by the accounts' longs in USD at the start [V,A]."""
    longs = np.zeros(shape)
    usd = positions.count * np.maximum(positions.quantity, 0) * start_price[positions.asset]
    np.add.at(longs, (positions.venue, positions.asset), usd)
    return run.portfolio.block_usd * longs / max(longs.sum(), 1.0) / start_price


def log_returns(log_index: np.ndarray) -> np.ndarray:
    """Exogenous log-returns of one path from its log index after each step [step, A]."""
    return np.diff(log_index, axis=0, prepend=0.0)


def engine(log_index: np.ndarray, built: Built, pin_index: bool = False, accounts: Any = None) -> dict[str, np.ndarray]:
    """Outputs of the engine; one compiled program for all inputs of one shape.

    Args:
        log_index: Exogenous, after each step [step, A, path].
        built: World and ladders.
        pin_index: As a replay of recorded prices sets it.
        accounts: On cross margin, where there are any.
    """
    import jax

    world, ladders, _ = on_device(built)
    if pin_index:
        impact = replace(world.impact, index_weight=0 * world.impact.index_weight)
        world = replace(world, impact=impact)
    return jax.device_get(
        _compiled()(log_index.astype(world.sigma.dtype), ladders, world, jax.tree.map(jax.numpy.asarray, accounts))
    )


@functools.cache
def _compiled():
    import jax
    from stress_kernels.simulate import simulate

    return jax.jit(simulate)


def twin_of(
    log_index: np.ndarray, run: Run, positions: Positions, built: Built, pin_index: bool = False
) -> dict[str, np.ndarray]:
    """Outputs of the twin on every path, the paths last, as the engine's."""
    world = twin_world(run, positions, built.start_price)
    accounts = behaving(run, world, twin_accounts(positions, len(run.assets)))
    off = unusual(run, len(log_index))
    everyone, cohorts = behaviour.with_cohorts(run, accounts, built.start_price)
    each = [
        slow.simulate(
            world, everyone, log_returns(x), pin_index, off | behaviour.moods(run, x), behaviour.fresh(cohorts)
        )
        for x in np.moveaxis(log_index, -1, 0)
    ]
    return outputs(each, world)


def outputs(each: list[dict[str, np.ndarray]], world: World) -> dict[str, np.ndarray]:
    """What is compared of the twin's paths, with `adl_loss`; the paths last."""
    found = {name: np.stack([out[name] for out in each], axis=-1) for name in (*HOURLY, "adl_loss")}
    nobody = np.broadcast_to((world.vault_capacity == 0)[:, None], found["vault_equity"].shape)
    return found | {name: np.where(nobody, np.nan, found[name]) for name in ("vault_equity", "vault_profit")}


def watch_as_often(monkeypatch) -> None:
    """Let the twin look for extremes of prices and funds when the engine does.

    The twin looks at prices when a round opens, and at funds after every round at that round's marks and at the end of
    a step. The engine looks at both, always at the present marks: when an hour begins, when a step opens, after every
    round and at the end of a step. So its lows are never above the twin's, and a close lies between low and high.
    """
    plain = {name: getattr(slow, name) for name in ("open_step", "pay_funding", "execute", "close_step", "pool_equity")}

    def look(state: State) -> None:
        prices = slow.current_prices(state)
        slow.watch_prices(state, prices)
        slow.watch_pools(state, plain["pool_equity"](state, prices))

    def opening(state: State, log_index: np.ndarray, step: int) -> None:
        before, state.hour = state.hour, int(step * state.world.dt // 3600)
        if step == 0 or before != state.hour:
            look(state)
        state.hour = before
        plain["open_step"](state, log_index, step)

    def then_look(name: str):
        def run(state: State, *args) -> None:
            plain[name](state, *args)
            look(state)

        return run

    monkeypatch.setattr(slow, "open_step", opening)
    for name in ("pay_funding", "execute", "close_step"):
        monkeypatch.setattr(slow, name, then_look(name))
    at_present = lambda state, _: plain["pool_equity"](state, slow.current_prices(state))  # noqa: E731
    monkeypatch.setattr(slow, "pool_equity", at_present)


def in_trigger_order(state: State, prices: Prices, budget: np.ndarray) -> Slices:
    """The twin's admission as the ladder does it: pro rata between the sides of a market, by trigger within a side.

    Stands in for `reference.twin.admit`, so that what this order changes can be told from everything else. It knows
    the triggers of whole closings only.
    """
    world, accounts = state.world, state.accounts
    rows, asset = np.nonzero(state.waiting > 0)
    venue, waiting, coins = accounts.venue[rows], state.waiting[rows, asset], np.zeros(len(rows))
    value, quantity = accounts.count[rows] * waiting * prices.mark[venue, asset], accounts.quantity[rows, asset]
    cash = (accounts.cash[rows] - quantity * accounts.entry[rows, asset])[:, None]
    fee = np.where(world.fee_in_trigger, world.fee, 0.0)[venue, None]
    rate, deduction, size = world.tier_rate[venue, asset], state.deduction[venue, asset], np.abs(quantity)[:, None]
    long = np.max((-cash - deduction) / (size * (1 - rate - fee)), axis=1)
    short = np.min((cash + deduction) / (size * (1 + rate + fee)), axis=1)
    depth = np.where(quantity > 0, -long, short)
    for v, a in np.argwhere(world.listed):
        here = (venue == v) & (asset == a)
        asked = value[here].sum()
        share = 1.0 if asked <= budget[v, a] else budget[v, a] / asked
        for sign in (1, -1):
            side = np.flatnonzero(here & (np.sign(quantity) == sign))
            side = side[np.argsort(depth[side], kind="stable")]
            before = np.cumsum(value[side]) - value[side]
            coins[side] = waiting[side] * np.clip((share * value[side].sum() - before) / value[side], 0.0, 1.0)
        budget[v, a] = budget[v, a] - asked if share == 1.0 else 0.0
    coins = np.where(coins > waiting * (1 - 1e-12), waiting, coins)
    state.waiting[rows, asset] -= coins
    taken = coins > 0
    return Slices.of(state, prices, rows[taken], asset[taken], coins[taken])


def where_lost(out: dict[str, np.ndarray], twin: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs with NaN for shares of losses that are rounding, up to a millionth of what the twin's winners closed."""
    lost = twin["adl_loss"] > 1e-6 * twin["adl_volume"].sum(axis=2)
    return out | {name: np.where(lost, out[name], np.nan) for name in OF_LOSSES}
