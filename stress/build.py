"""A config into arrays: the world, the ladders, the accounts on cross margin and the shock of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from stress_kernels.accounts import Accounts
from stress_kernels.ladder import CLASSES, Ladders
from stress_kernels.world import World

from stress.behaving import fresh_positions, returning_positions
from stress.book import Book, PastTrigger, compile_book
from stress.capping import capped
from stress.closings import Schedule
from stress.collateral import AllAccounts, read_accounts
from stress.concentration import concentrated
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
from stress.money import currencies
from stress.recorded import Replay, Window
from stress.recovering import aftershock, recovering, refuse_unless_on_ladders
from stress.rules import BARRIER, volatility, world_of
from stress.sampled import sampled
from stress.sampling import group_of
from stress.scenarios import Prescribed
from stress.shock import Grid, Shock, compile_shock
from stress.spec import InputError
from stress.stops import stop_orders
from stress.venues import Staging, WholeStaging

_DAY = 86400.0
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
    refuse_unless_on_ladders(run, everyone)
    try:
        book = compile_book(
            everyone.ladder, schedules, start, len(run.venues), run.ladder.rungs, run.ladder.entry_classes, run.dtype,
            stop_orders(run),
            fresh_positions(run, everyone.ladder, schedules, start),
            returning_positions(run, everyone.ladder, schedules, start),
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
    lanes = _LANES if accounts is None else _LANES_WITH_ACCOUNTS
    recovery = recovering(run, held, money, lanes, book.fresh, book.back)
    shock = sampled(compile_shock(run.shock, grid, recorded), run.shock, run.sampling, grid)
    return Built(
        world=replace(world_of(run, held, money, lanes, book.fresh), recovery=recovery),
        ladders=book.ladders,
        shock=replace(shock, after=aftershock(run, recovery)),
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
            cross, schedules, start, len(run.venues), _barrier(run), run.dtype, money, volatility(run),
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
    factor = BARRIER * diffusion.typical() * diffusion.factor(list(run.assets), run.step_seconds / _DAY)
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
        drawn = files.population.draw(venues, assets, start, volatility(run), *_tiers(run))
        return AllAccounts(drawn, None, None)
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


def on_device(built: Built) -> tuple[World, Ladders, Shock]:
    """World, ladders and shock as device arrays."""
    import jax

    return jax.tree.map(jnp.asarray, (built.world, built.ladders, built.shock))
