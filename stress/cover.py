"""Cover-N: each insurance fund against the default of its N largest accounts under a stated move of prices.

As clearing houses are asked (CPMI-IOSCO principles, 4): which N accounts would, if they defaulted, cost the fund most
after an extreme but plausible move? Every account is taken to be closed at once, whether or not the move alone would
have liquidated it. The index jumps, marks follow it; each position then goes into the book of its market, alone and
whole, along the model's impact curve from rest:

    g = 1 + (|z| / 11.8)^1.75, at most 20                  z = log(1 + move) over sigma / sqrt(288)
    I(u) = i_ref (sigma / 0.025) (u / 0.01)^delta          u = notional g / ADV
    mean log price paid = log(1 + move) -+ ((1 - rho) I(u_market) + rho I(u_all venues)) / (1 + delta)

An account's loss is what its cash, coins and profit lack after that; coins count at the moved index, without a haircut.
What a loss of an account with several positions costs which fund goes by the maintenance of the positions. No layer but
the book takes part, no take bound holds, and the N close-outs do not press on each other: the first two overstate a
loss, the last understates it. A row of a population may stand for a part of an account, and then counts as that part.

Accounts and books are those of the start: who defaults adds no cash and has no stop order that fills. Neither
`[behaviour]` nor `[[overlays]]` play a part (`left_out`), but for the accounts of those of kind `default`, with all the
equity that they start with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from stress_kernels.price import depth_divisor

from stress.absorbers import falls
from stress.build import opening
from stress.closings import Schedule
from stress.config import Run
from stress.cross import CrossAccounts, joined, one_by_one
from stress.money import volume
from stress.results import sound
from stress.spec import InputError
from stress.triggers import maintenance

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Default:
    """An account, or identical copies of it, among the N."""

    row: int
    """Of its first position in the file of positions, counted from 1; in a population of its draw; -i of the account of
    `overlays[i]`."""
    copies: float
    """How many of the N are copies of it; a row of a population may stand for part of an account."""
    loss: float
    """Of one copy, to this fund [USD]."""
    notional: float
    """Of one copy in the markets of this fund, at the moved prices [USD]."""


@dataclass(frozen=True)
class Cover:
    """An insurance fund against its N largest accounts."""

    size: float
    """[USD]"""
    defaults: Sequence[Default]
    """By descending loss; accounts without a loss are left out."""

    @property
    def loss(self) -> float:
        """Of all of them [USD]."""
        return float(sum(default.copies * default.loss for default in self.defaults))

    @property
    def ratio(self) -> float:
        """Fund over losses; infinite without any [1]."""
        return self.size / self.loss if self.loss > 0 else np.inf


def cover(run: Run, moves: Mapping[str, float], n: int = 2) -> dict[str, Cover]:
    """Each fund of a run against the N accounts whose close-out would cost it most.

    Args:
        run: Whose accounts, venues, funds and impact.
        moves: Index against its start by asset, -0.2 is 20 % down [1]; others do not move.
        n: How many accounts default.

    Raises:
        InputError: A move or the number makes no sense, or a file of the run is wrong.
    """
    assets = list(run.assets)
    _check(moves, n, assets)
    start, everyone, schedules = opening(run)
    row = np.arange(len(everyone.ladder)) if everyone.row is None else everyone.row
    accounts = one_by_one(everyone.ladder, row, len(assets))
    accounts = accounts if everyone.cross is None else joined(accounts, everyone.cross)
    move = np.array([moves.get(asset, 0.0) for asset in assets])
    loss, notional = close_out(accounts, run, schedules, start, move)
    losing, share = np.flatnonzero(loss > 0), np.zeros_like(notional)
    kept = _maintenance(accounts.venue[losing], notional[losing], schedules)
    share[losing] = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-300)
    found = {}
    for v, (name, venue) in enumerate(run.venues.items()):
        there = np.flatnonzero(accounts.venue == v)
        for pool in venue.pools:
            behind = np.array([pool.markets == "all" or asset in pool.markets for asset in assets], dtype=np.float64)
            part, held = loss[there] * (share[there] @ behind), notional[there] @ behind
            found[f"{name}/{pool.name}"] = Cover(
                pool.equity_usd, _largest(part, held, accounts.count[there], accounts.row[there], n)
            )
    return found


def left_out(run: Run, overlay: str = "overlays of kind {kind}") -> list[str]:
    """Tables of a run's config that cover-N does not look at, as they stand there; overlays in the words given."""
    behaviour = [f"behaviour.{name}" for name, of in run.behaviour or () if of is not None]
    kinds = dict.fromkeys(each.kind for each in run.overlays if each.kind != "default")
    return behaviour + [overlay.format(kind=kind) for kind in kinds]


def close_out(
    accounts: CrossAccounts, run: Run, schedules: Mapping[tuple[int, int], Schedule], start: Array, move: Array
) -> tuple[Array, Array]:
    """What each account lacks after the move and the close-out of all its positions, and their notional at the move.

    Args:
        accounts: Those of the run, n.
        run: For impact, volumes and contracts.
        schedules: Rules of every listed market; positions are in these alone.
        start: Index prices at the start [USD], shape (A).
        move: Of each index [1], shape (A).

    Returns:
        Loss, >= 0 [USD], shape (n); notional [USD], shape (n, A).
    """
    venues, assets = list(run.venues), list(run.assets)
    inverse = np.array([[spec.inverse(asset) for asset in assets] for spec in run.venues.values()])[accounts.venue]
    adv = np.full((len(venues), len(assets)), np.inf)
    for v, a in schedules:
        adv[v, a] = run.venues[venues[v]].markets[assets[a]].adv_usd
    index = start * (1 + move)
    size = np.abs(accounts.quantity)
    notional = size * np.where(inverse, 1.0, index)
    impact, sigma = run.impact, np.array([asset.daily_volatility for asset in run.assets.values()])
    thinner = np.ones(len(assets))
    if impact.depth:
        returns = jnp.asarray(np.log1p(move)[:, None])
        thinner = np.asarray(depth_divisor(returns, jnp.asarray(sigma)), np.float64)[:, 0]
    flow = notional * thinner / 0.01
    local, everywhere = flow / adv[accounts.venue], flow / np.array(volume(run))
    mean = (1 - impact.rho) * local**impact.delta + impact.rho * everywhere**impact.delta
    push = impact.i_ref * sigma / 0.025 * mean / (1 + impact.delta)
    price = index * np.exp(-np.sign(accounts.quantity) * push)
    entry = np.where(size > 0, accounts.entry_price, 1.0)
    profit = accounts.quantity * np.where(inverse, (1 / entry - 1 / price) * index, price - entry)
    coins = 0.0 if accounts.coins is None else accounts.coins @ index
    return np.maximum(-(accounts.cash + coins + profit.sum(axis=1)), 0.0), notional


def worst_moves(ds: xr.Dataset) -> dict[str, float]:
    """How far each index went on the path of a run on which funds and vaults lost most: its low or its high, whichever
    is farther from the start. They need not have been reached at the same time."""
    kept = sound(ds)
    worst = kept.isel(path=int(falls(kept).argmax()))
    low, high = worst["index_low"].values.min(axis=0) - 1, worst["index_high"].values.max(axis=0) - 1
    found = np.where(np.abs(np.log1p(low)) >= np.abs(np.log1p(high)), low, high)
    return {str(asset): float(move) for asset, move in zip(kept["asset"].values, found, strict=True)}


def _check(moves: Mapping[str, float], n: int, assets: Sequence[str]) -> None:
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1. Say how many accounts default.")
    for asset, move in moves.items():
        if asset not in assets:
            raise InputError(f"move names {asset!r}, expected an asset of the run ({', '.join(assets)}). Correct it.")
        if not -1 < move < np.inf:
            raise InputError(
                f"move of {asset} is {move:g}, expected more than -1, such as -0.2 for 20 % down. Correct it."
            )
    if not any(moves.values()):
        raise InputError("moves are all zero, expected one at least. Give one with --move, such as BTC=-0.2.")


def _maintenance(venue: NDArray[np.int32], notional: Array, schedules: Mapping[tuple[int, int], Schedule]) -> Array:
    """Of every position at the moved prices [USD], shape (n, A)."""
    kept = np.zeros_like(notional)
    for (v, a), schedule in schedules.items():
        there = venue == v
        kept[there, a] = maintenance(notional[there, a], schedule.rate, schedule.deduction)
    return kept


def _largest(loss: Array, notional: Array, count: Array, row: NDArray[np.int64], n: int) -> list[Default]:
    """The accounts of the largest losses, copies counted, up to N."""
    order = np.argsort(-loss, kind="stable")
    order = order[loss[order] > 0]
    before = np.cumsum(count[order]) - count[order]
    order = order[: int(np.searchsorted(before, n))]
    taken = np.minimum(count[order], n - before[: len(order)])
    return [
        Default(int(row[i]) + 1, float(c), float(loss[i]), float(notional[i]))
        for i, c in zip(order, taken, strict=True)
    ]
