"""A config into arrays: the world, the ladders, the accounts on cross margin and the shock of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from stress_kernels.accounts import Accounts
from stress_kernels.ladder import CLASSES, Ladders
from stress_kernels.pytree import host
from stress_kernels.world import (
    ADL_BANKRUPTCY,
    ADL_INDEX,
    ADL_MARK,
    ADL_PRO_RATA,
    ADL_QUEUE,
    ADL_WATER_FILLING,
    MARK_INDEX,
    MARK_INDEX_AVERAGE,
    MARK_LAST,
    MARK_MEDIAN,
    Impact,
    Rules,
    World,
)

from stress.behaving import behaviour, fresh_positions
from stress.book import Book, PastTrigger, compile_book
from stress.capping import capped
from stress.closings import Schedule
from stress.collateral import AllAccounts, read_accounts
from stress.concentration import concentrated
from stress.conditions import conditions
from stress.config import Run
from stress.cross import (
    CrossAccounts,
    Currencies,
    PastMargin,
    coins_held,
    compile_accounts,
    defaulting,
    joined,
    losses_of,
    paths_together,
)
from stress.diffusions import Diffusion
from stress.history import recorded_log_prices
from stress.holders import check_margins, with_top_ups
from stress.money import breakers, currencies, transfers, vaults, volume
from stress.recorded import Replay, Window
from stress.sampled import sampled
from stress.sampling import group_of
from stress.scenarios import Prescribed
from stress.shock import Grid, Shock, compile_shock
from stress.spec import InputError
from stress.stops import stop_orders
from stress.venues import Staging, WholeStaging

_DAY = 86400.0
_BARRIER = 0.5826
_MARKS = {"median": MARK_MEDIAN, "index_average": MARK_INDEX_AVERAGE, "last": MARK_LAST, "index": MARK_INDEX}
_CLOSE_AT = {"bankruptcy": ADL_BANKRUPTCY, "mark": ADL_MARK, "index": ADL_INDEX}
_RANKINGS = {"queue": ADL_QUEUE, "pro_rata": ADL_PRO_RATA, "water_filling": ADL_WATER_FILLING}
_BLOCK_SECONDS = 900.0
_LANES, _LANES_WITH_ACCOUNTS = 64, 16
"""Paths that go through a round together; fewer with accounts on cross margin, of which few are hit at once."""


@dataclass(frozen=True)
class Built:
    """Everything a simulation needs."""

    world: World
    ladders: Ladders
    shock: Shock
    book: Book
    start_price: np.ndarray
    """Index price of each asset at the start [USD]."""
    accounts: Accounts | None
    """On cross margin, where there are any."""
    held: np.ndarray
    """Coins of all accounts at the start, longs and shorts, both positive, (v a s); worth 1 USD each."""
    together: int
    """Paths that one device simulates together."""


def build(run: Run, *, single_on_ladders: bool = True) -> Built:
    """Read the files, draw the population, compile the ladders and the accounts.

    Args:
        run: The config.
        single_on_ladders: As in `read_accounts`.

    Raises:
        InputError: A file, a row or a combination is wrong.
    """
    recorded = _recorded(run)
    start = _start_prices(run, recorded)
    everyone, schedules = with_top_ups(run, _everyone(run, start, single_on_ladders), start), _schedules(run)
    check_margins(run, everyone)
    try:
        book = compile_book(
            everyone.ladder, schedules, start, len(run.venues), run.ladder.rungs, run.ladder.entry_classes, run.dtype,
            stop_orders(run),
            fresh_positions(run, everyone.ladder, schedules, start),
        )  # fmt: skip
    except PastTrigger as error:
        raise _past_trigger(run, everyone, error) from None
    money = currencies(run, everyone.cross)
    accounts = _accounts(run, everyone.cross, schedules, start, money)
    held = np.asarray(book.ladders.rows)[..., -1, 0 : 2 * CLASSES : 2].sum(axis=(3, 4), dtype=np.float64)
    if accounts is not None:
        held = held + coins_held(accounts)
    together = paths_together(accounts)
    _check_chunk(run, together)
    _check_groups(run, together)
    grid = Grid(list(run.assets), run.horizon_hours, run.step_seconds, run.dtype)
    return Built(
        world=_world(run, held, money, _LANES if accounts is None else _LANES_WITH_ACCOUNTS, book.fresh),
        ladders=book.ladders,
        shock=sampled(compile_shock(run.shock, grid, recorded), run.shock, run.sampling, grid),
        book=book,
        start_price=start,
        accounts=accounts,
        held=held,
        together=together,
    )


def opening(run: Run) -> tuple[np.ndarray, AllAccounts, dict[tuple[int, int], Schedule]]:
    """What a run starts with: index prices [USD], all accounts, and the rules of every market.

    Raises:
        InputError: A file or a row is wrong.
    """
    start = _start_prices(run, _recorded(run))
    return start, _everyone(run, start, single_on_ladders=True), _schedules(run)


def _accounts(
    run: Run,
    cross: CrossAccounts | None,
    schedules: Mapping[tuple[int, int], Schedule],
    start: np.ndarray,
    money: Currencies | None,
) -> Accounts | None:
    if cross is None:
        return None
    try:
        return compile_accounts(
            cross, schedules, start, len(run.venues), _barrier(run), run.dtype, money, _volatility(run),
            losses_of(run, cross),
        )  # fmt: skip
    except PastMargin as error:
        row, venue = cross.row[error.account], list(run.venues)[cross.venue[error.account]]
        if row < 0:
            raise InputError(
                f"overlays[{-1 - row}].equity_usd is {error.equity:g} USD, expected more than the {error.required:g} "
                "USD that its positions require at the starting prices. Raise it, or make them smaller."
            ) from None
        raise InputError(
            f"{run.portfolio.positions or 'population'}: row {row + 1}, equity of this account at '{venue}' is "
            f"{error.equity:g} USD at the starting prices, expected more than the {error.required:g} USD that its "
            "positions require. Add to its collateral or margin, or leave the account out."
        ) from None


def _barrier(run: Run) -> np.ndarray | None:
    """Covariance of the log moves by which triggers are moved for what a path does between its steps, (a a)."""
    diffusion = run.shock.noise if isinstance(run.shock, Prescribed) else run.shock
    if not run.barrier_correction or not isinstance(diffusion, Diffusion):
        return None
    factor = _BARRIER * diffusion.typical() * diffusion.factor(list(run.assets), run.step_seconds / _DAY)
    return factor @ factor.T


def _check_chunk(run: Run, together: int) -> None:
    if run.chunk > together and run.chunk % together:
        raise InputError(
            f"chunk is {run.chunk} paths, expected at most {together} or a multiple of it: with so many accounts on "
            f"cross margin, {together} paths are simulated together. Choose {-(-run.chunk // together) * together}."
        )


def _check_groups(run: Run, together: int) -> None:
    group = group_of(run.sampling)
    if together % group:
        raise InputError(
            f"sampling.points is {group}, expected at most {together}: with so many accounts on cross margin, "
            f"{together} paths are simulated together. Lower it."
        )


def _start_prices(run: Run, recorded: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of a replay the first recorded ones."""
    first = {asset: np.exp(log[0]) for asset, log in recorded.items()} if isinstance(run.shock, Replay) else {}
    return np.array([first[asset] if first else run.prices.start[asset] for asset in run.assets])


def _recorded(run: Run) -> dict[str, np.ndarray]:
    shock = run.shock
    if not isinstance(shock, Replay | Window) or run.prices.dir is None:
        return {}
    folder, files = Path(run.prices.dir), run.prices.files
    return recorded_log_prices(shock, folder, files, list(run.assets), run.horizon_hours, run.step_seconds)


def _tiers(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Floors (padded with infinity) and rates (padded with the last; 0 where not listed), (v a tier)."""
    listed = {(v, a): run.brackets(v, a) for v in run.venues for a in run.markets(v)}
    most = max(len(floors) for floors, _ in listed.values())
    floor = np.full((len(run.venues), len(run.assets), most), np.inf)
    rate = np.zeros_like(floor)
    for i, venue in enumerate(run.venues):
        for j, asset in enumerate(run.assets):
            if (venue, asset) in listed:
                floors, rates = listed[venue, asset]
                floor[i, j, : len(floors)], rate[i, j, : len(rates)], rate[i, j, len(rates) :] = (
                    floors,
                    rates,
                    rates[-1],
                )
    return floor, rate


def _everyone(run: Run, start: np.ndarray, single_on_ladders: bool) -> AllAccounts:
    """All accounts, a cap on leverage applied; at venues with a vault, which ladders do not know, one by one."""
    everyone, cap = _listed(run, start, single_on_ladders), run.portfolio.leverage_cap
    if cap is not None:
        inverse = np.array([[venue.inverse(asset) for asset in run.assets] for venue in run.venues.values()])
        everyone = capped(everyone, cap, start, inverse)
    everyone = concentrated(everyone, run.portfolio.concentration, len(run.assets))
    with_vault = np.array([venue.vault is not None for venue in run.venues.values()])
    everyone, more = everyone.apart(with_vault, len(run.assets)), defaulting(run, start)
    if more is None:
        return everyone
    return replace(everyone, cross=more if everyone.cross is None else joined(everyone.cross, more))


def _listed(run: Run, start: np.ndarray, single_on_ladders: bool) -> AllAccounts:
    venues, assets, files = list(run.venues), list(run.assets), run.portfolio
    if files.population is not None:
        volatility = _volatility(run)
        return AllAccounts(files.population.draw(venues, assets, start, volatility, *_tiers(run)), None, None)
    assert files.positions is not None
    terms = {venue: run.terms(venue) for venue in venues}
    return read_accounts(files.positions, files.collateral, terms, assets, single_on_ladders=single_on_ladders)


def _past_trigger(run: Run, everyone: AllAccounts, error: PastTrigger) -> InputError:
    positions, place = everyone.ladder, error.row
    row = place if everyone.row is None else everyone.row[place]
    asset = list(run.assets)[positions.asset[place]]
    where = run.portfolio.positions or "population"
    single = everyone.single is not None and everyone.single[place]
    what, add = ("cash of this account on cross margin", "cash") if single else ("margin", "margin")
    return InputError(
        f"{where}: row {row + 1}, {what} is {positions.margin[place]:g} USD, expected enough for a position in {asset} "
        f"that is not liquidated at the starting price of {error.start:g} USD (its trigger is {error.trigger:g} USD). "
        f"Add {add}, or leave the row out."
    )


def _schedules(run: Run) -> dict[tuple[int, int], Schedule]:
    schedules = {}
    for i, (name, venue) in enumerate(run.venues.items()):
        for j, asset in enumerate(run.assets):
            if asset in run.markets(name):
                floor, rate = run.brackets(name, asset)
                schedules[i, j] = Schedule(
                    floor=floor,
                    rate=rate,
                    fee=venue.liquidation_fee_bps / 1e4,
                    fee_in_trigger=venue.fee_in_trigger,
                    staging=venue.staging,
                    pause_steps=_pause_steps(venue.staging, run.step_seconds),
                    riskiest_first=venue.closing_order == "riskiest_first",
                    margin_times=1.0 if venue.breaker is None else venue.breaker.margin_times or 1.0,
                )
    return schedules


def _pause_steps(staging: Staging, step_seconds: int) -> int:
    """Steps until an account is tested again; a pause that no step divides ends with the next step."""
    pause = 0.0 if isinstance(staging, WholeStaging) else staging.pause_seconds
    return int(np.ceil(pause / step_seconds - 1e-9))


def _world(
    run: Run, held: np.ndarray, money: Currencies | None, lanes: int = _LANES, fresh: Ladders | None = None
) -> World:
    dt, dtype = float(run.step_seconds), run.dtype
    names, assets = list(run.venues), list(run.assets)

    def market(field: str, missing: float = 0.0, scale: float = 1.0) -> Any:
        table = np.full((len(names), len(assets)), missing)
        for i, name in enumerate(names):
            for asset in run.markets(name):
                table[i, assets.index(asset)] = getattr(run.venues[name].markets[asset], field) * scale
        return host(table, dtype)

    pools = [(i, pool) for i, name in enumerate(names) for pool in run.venues[name].pools]
    first = np.cumsum([0, *(len(run.venues[name].pools) for name in names)])
    behind = np.zeros((len(pools), len(names), len(assets)))
    for i, name in enumerate(names):
        for asset in run.markets(name):
            behind[first[i] + run.venues[name].pool_of(asset), i, assets.index(asset)] = 1.0
    rules = _rules(run, dt)
    sigma = _volatility(run)
    shift = [_BARRIER * run.shock.diffusion(asset) * np.sqrt(dt / _DAY) for asset in assets]
    block_steps = max(1, round(_BLOCK_SECONDS / dt))
    return World(
        impact=_impact(run, sigma, dt),
        rules=rules,
        sigma=host(sigma, dtype),
        barrier_shift=host(shift if run.barrier_correction else np.zeros(len(assets)), dtype),
        adv=market("adv_usd", missing=1.0),
        adv_global=host(volume(run), dtype),
        take_bound=market("take_bound_bps", scale=1e-4),
        throughput=market("throughput_usd_per_minute", scale=dt / 60),
        auction=market("auction_usd_per_hour"),
        discount=market("auction_discount_bps", scale=1e-4),
        unwind=market("unwind_usd_per_minute", scale=dt / 60),
        block=_block(run, held),
        behind=host(behind, dtype),
        pool_venue=host([i for i, _ in pools], np.int32),
        pool_cash=host([pool.equity_usd for _, pool in pools], dtype),
        takeover_multiple=host([pool.takeover_multiple for _, pool in pools], dtype),
        inverse=None if money is None else host(money.inverse),
        conditions=conditions(run, coins=money is not None),
        vaults=vaults(run),
        transfers=transfers(run),
        breakers=breakers(run),
        behaviour=behaviour(run, fresh),
        steps_per_hour=3600 // run.step_seconds,
        hours=run.horizon_hours,
        rounds=run.rounds,
        lanes=lanes,
        window=int(np.max(rules.mark_window)),
        blocks=int(np.max(rules.adl_blocks)),
        block_steps=block_steps,
        five_minutes=max(1, round(300 / dt)),
    )


def _volatility(run: Run) -> np.ndarray:
    """Daily, of each asset [1]."""
    return np.array([asset.daily_volatility for asset in run.assets.values()])


def _impact(run: Run, sigma: np.ndarray, dt: float) -> Impact:
    spec, size = run.impact, len(sigma)
    replay = run.shock if isinstance(run.shock, Replay) else None
    numbers = {
        "coefficient": spec.i_ref * (sigma / 0.025) * 100.0**spec.delta,
        "delta": spec.delta,
        "rho": spec.rho,
        "contagion": spec.contagion * (1 - np.eye(size)),
        "decay_local": 2.0 ** (-dt / spec.half_life_local_seconds),
        "decay_global": 2.0 ** (-dt / spec.half_life_global_seconds),
        "depth": float(spec.depth),
        "index_weight": 0.0 if replay is not None and replay.pin_index else 1.0,
    }
    return Impact(**{name: host(value, run.dtype) for name, value in numbers.items()})


def _rules(run: Run, dt: float) -> Rules:
    venues, dtype = list(run.venues.values()), run.dtype
    block = max(1, round(_BLOCK_SECONDS / dt)) * dt
    share = [np.inf if v.adl.drawdown_share is None else v.adl.drawdown_share for v in venues]
    return Rules(
        fee=host([v.liquidation_fee_bps / 1e4 for v in venues], dtype),
        surplus_to_pool=host([v.surplus_to == "pool" for v in venues]),
        mark=host([_MARKS[v.mark] for v in venues], np.int32),
        mark_window=host([max(1, round(v.mark_window_minutes * 60 / dt)) for v in venues], np.int32),
        adl_ranking=host([_RANKINGS[v.adl.ranking] for v in venues], np.int32),
        adl_leftover=host([v.adl.leftover for v in venues]),
        adl_close=host([_CLOSE_AT[v.adl.close_at] for v in venues], np.int32),
        adl_share=host(share, dtype),
        adl_blocks=host([max(1, round(v.adl.drawdown_window_hours * 3600 / block)) for v in venues], np.int32),
        straight_to_adl=host([v.adl.straight_to_adl for v in venues]),
        funding_every=host([max(1, round(v.funding.interval_hours * 3600 / dt)) for v in venues], np.int32),
        funding_interest=host([v.funding.interest for v in venues], dtype),
        funding_clamp=host([v.funding.clamp for v in venues], dtype),
        funding_cap=host([v.funding.cap for v in venues], dtype),
        funding_divisor=host([v.funding.divisor for v in venues], dtype),
    )


def _block(run: Run, held: np.ndarray) -> Any:
    """Hedgers' coins, over the markets in proportion to the accounts' longs."""
    longs = held[:, :, 0]
    share = longs / longs.sum() if longs.sum() > 0 else np.zeros_like(longs)
    return host(run.portfolio.block_usd * share, run.dtype)


def on_device(built: Built) -> tuple[World, Ladders, Shock]:
    """World, ladders and shock as device arrays."""
    import jax

    return jax.tree.map(jnp.asarray, (built.world, built.ladders, built.shock))
