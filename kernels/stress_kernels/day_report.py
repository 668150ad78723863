"""What a kernel that goes through whole days says, and that as the outputs of a run: the end of every hour as that of
an hour of a path of its own. Axes as in `day_tables.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.day_tables import Place, Sizes
from stress_kernels.funds import pool_equity
from stress_kernels.ladder import Ladders
from stress_kernels.ledger import Stocks
from stress_kernels.money import Sum
from stress_kernels.pytree import pytree
from stress_kernels.simulate import STATUS_NOT_FINITE, STATUS_OK, Outputs, open_carry, report
from stress_kernels.state import Extremes, Hour, State, worth_of
from stress_kernels.world import LAYERS, World

Rows = Float[Array, "hour row p"]


@pytree
class Behind:
    """What went behind the book in every hour, and who holds it at its end."""

    auction: Place
    """By side [USD]."""
    takeover: Place
    makers: Place
    """High and low parts of sums by market, (hour 2 row p)."""
    makers_cash: Place
    """By venue."""
    inventory: Place
    """Of pools, by market."""


@pytree
class Report:
    """What the kernel says of every hour (hour ... row p), and of the whole time."""

    volume: Place
    """In the book, by side [USD]."""
    first_round: Place
    """By market [USD]."""
    accounts: Place
    """By venue."""
    deficit: Place
    """By pool [USD]."""
    surplus: Place
    traders: Place
    """By side at the end of the hour, as all stocks; high and low parts of sums, (hour 2 row p)."""
    rest: Place
    """By market."""
    traders_cash: Place
    """By venue."""
    rest_cash: Place
    gross: Place
    """Of cash and of coins, (hour 2 p)."""
    cash: Place
    """Of pools, (hour 2 f p)."""
    fund_low: Place
    index: Place
    mark: Place
    index_low: Place
    index_high: Place
    basis_low: Place
    basis_high: Place
    drawdown: Place
    """(f p)"""
    unknown: Place
    """1 where a path has met something that the kernel does not do, (1 p)."""
    behind: Behind | None
    """Where a kernel knows what goes behind the book."""


def report_of(sizes: Sizes, paths: int, dtype: Any, *, behind: bool = False) -> Report:
    """Shapes of the report of all paths."""

    def hourly(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((sizes.hours, *shape, paths), dtype)

    venues, assets, pools = hourly(sizes.venues), hourly(sizes.width), hourly(sizes.pools)
    markets, cash = hourly(sizes.venues * sizes.width), hourly(2, sizes.venues)
    sides, stocks = hourly(sizes.rows), hourly(2, sizes.venues * sizes.width)
    return Report(
        volume=sides, first_round=markets, accounts=venues, deficit=pools, surplus=pools,
        traders=hourly(2, sizes.rows), rest=stocks,
        traders_cash=cash, rest_cash=cash, gross=hourly(2), cash=hourly(2, sizes.pools),
        fund_low=pools, index=assets, mark=markets, index_low=assets, index_high=assets,
        basis_low=markets, basis_high=markets,
        drawdown=jax.ShapeDtypeStruct((sizes.pools, paths), dtype),
        unknown=jax.ShapeDtypeStruct((1, paths), dtype),
        behind=Behind(sides, sides, stocks, cash, stocks) if behind else None,
    )  # fmt: skip


def outputs_of(said: Report, ladders: Ladders, world: World) -> Outputs:
    """Arrays named as the run's variables, as from `simulate.simulate`."""
    assets, paths = world.adv.shape[1], said.unknown.shape[-1]
    carry, opening = open_carry(ladders, world, None, assets, world.hours * paths)
    state = _ended(said, carry.state, world)
    record = replace(opening, stocks=_stocks(said, opening.stocks), hour=_hour(said, opening.hour))
    hourly = report(state, record, jnp.ones_like(state.quotes.mark), world)
    hourly = {name: jnp.moveaxis(x.reshape(*x.shape[:-1], world.hours, paths), -2, 0) for name, x in hourly.items()}
    residual = jnp.max(hourly.pop("ledger_residual"), axis=0)
    finite = jnp.all(jnp.isfinite(hourly["fund_equity"][-1]), axis=0) & jnp.isfinite(residual)
    return hourly | {
        "paused": jnp.zeros_like(hourly["accounts_liquidated"]),
        "fund_drawdown": said.drawdown,
        "fund_exhausted_hour": jnp.full_like(said.drawdown, jnp.nan),
        "ledger_residual": residual,
        "status": jnp.where(finite, STATUS_OK, STATUS_NOT_FINITE),
        "log_weight": jnp.zeros_like(residual),
    }


def _like(x: Rows, of: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """Rows of venues or pools, hours beside paths: those of the first hour first."""
    return jnp.moveaxis(x, 0, 1).reshape(of.shape)


def _assets(x: Rows, of: Float[Array, "a n"]) -> Float[Array, "a n"]:
    """Rows of one tile, without those that fill it up."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[: len(of)]


def _markets(x: Rows, of: Float[Array, "v a n"]) -> Float[Array, "v a n"]:
    venues, assets, many = of.shape
    return jnp.moveaxis(x, 0, 1).reshape(venues, -1, many)[:, :assets]


def _sides(x: Rows, of: Float[Array, "v a s n"]) -> Float[Array, "v a s n"]:
    venues, assets, sides, many = of.shape
    return jnp.swapaxes(jnp.moveaxis(x, 0, 1).reshape(venues, sides, -1, many)[:, :, :assets], 1, 2)


def _sum(x: Float[Array, "hour 2 row p"], of: Sum, shaped: Callable[[Array, Array], Array] = _like) -> Sum:
    return Sum(shaped(x[:, 0], of.high), shaped(x[:, 1], of.low))


def _ended(said: Report, state: State, world: World) -> State:
    """The ends of all hours; what the kernel knows nothing of is as it was at the start."""
    past, quotes, funds = state.extremes, state.quotes, state.funds
    quotes = replace(quotes, index=_assets(said.index, quotes.index), mark=_markets(said.mark, quotes.mark))
    funds = replace(funds, cash=_sum(said.cash, funds.cash))
    if said.behind is not None:
        funds = replace(funds, inventory=_sum(said.behind.inventory, funds.inventory, _markets))
    return replace(
        state,
        quotes=quotes,
        funds=replace(funds, equity=pool_equity(funds, worth_of(quotes, world), world)),
        extremes=Extremes(
            fund_low=_like(said.fund_low, past.fund_low),
            index_low=_assets(said.index_low, past.index_low),
            index_high=_assets(said.index_high, past.index_high),
            basis_low=_markets(said.basis_low, past.basis_low),
            basis_high=_markets(said.basis_high, past.basis_high),
        ),
    )


def _stocks(said: Report, opening: Stocks) -> Stocks:
    if said.behind is not None:
        opening = replace(
            opening,
            makers=_sum(said.behind.makers, opening.makers, _markets),
            makers_cash=_sum(said.behind.makers_cash, opening.makers_cash),
        )
    return replace(
        opening,
        traders=_sum(said.traders, opening.traders, _sides),
        rest=_sum(said.rest, opening.rest, _markets),
        traders_cash=_sum(said.traders_cash, opening.traders_cash),
        rest_cash=_sum(said.rest_cash, opening.rest_cash),
        gross_cash=_like(said.gross[:, :1], opening.gross_cash),
        gross_coins=_like(said.gross[:, 1:], opening.gross_coins),
    )


def _hour(said: Report, opening: Hour) -> Hour:
    layers, behind = opening.layers, said.behind
    volumes = {"book": said.volume} | (
        {} if behind is None else {"auction": behind.auction, "takeover": behind.takeover}
    )
    for name, volume in volumes.items():
        layers = layers.at[LAYERS.index(name)].set(_sides(volume, layers[0]))
    return replace(
        opening,
        layers=layers,
        first_round=_markets(said.first_round, opening.first_round),
        accounts=_like(said.accounts, opening.accounts),
        deficit=_like(said.deficit, opening.deficit),
        surplus=_like(said.surplus, opening.surplus),
    )
