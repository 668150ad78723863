"""The slow twin's prices: impact, index, basis, mark, and what one order pays on its way through the book.

Index, basis and mark are logs relative to the asset's starting price; a sell is a negative flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .twin_state import State
    from .twin_world import World


@dataclass(frozen=True)
class Prices:
    """Prices at the opening of a round."""

    spill: np.ndarray  # [A] contagion part of the index log
    index_log: np.ndarray  # [A]
    basis: np.ndarray  # [V,A]
    mark_log: np.ndarray  # [V,A]
    index: np.ndarray  # [A] [USD per coin]
    mark: np.ndarray  # [V,A] [USD per coin]
    spot: np.ndarray  # [V,A] of a coin sold at a venue: the index and the token's deviation [USD per coin]
    at: Values  # [V,A] of a position or a coin at the marks


@dataclass(frozen=True)
class Values:
    """What one unit of a position and one coin of collateral are worth; all of one shape, assets last.

    A linear contract of one coin is settled in USD and gains with m. An inverse contract of one USD is settled in coins
    and gains with -1/m. So profit is q (f(m) - f(entry)) in either, with f the `settle` price.
    """

    mark: np.ndarray  # [USD per coin]
    coin: np.ndarray  # of collateral: the spot price, the mark where the contract is inverse [USD per coin]
    settle: np.ndarray  # f(mark) [USD or coins per unit]
    money: np.ndarray  # of a unit of the settlement currency [USD]
    unit: np.ndarray  # notional of a unit of quantity [USD]

    @classmethod
    def of(cls, mark: np.ndarray, spot: np.ndarray, inverse: np.ndarray) -> Values:
        """Values at these marks and spot prices."""
        return cls(
            mark=mark,
            coin=np.where(inverse, mark, spot),
            settle=settle_price(mark, inverse),
            money=np.where(inverse, mark, 1.0),
            unit=np.where(inverse, 1.0, mark),
        )


def settle_price(price: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Settlement currency per unit of quantity at a price: the price, or minus its inverse."""
    return np.where(inverse, -1 / price, price)


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
    return mean_index_log(state, prices, a, flow) + (1 - world.rho) * local


def mean_index_log(state: State, prices: Prices, a: int, flow: float) -> float:
    """Mean of the index's log along an own flow [USD, sells negative], from none to all of it."""
    thin = state.thinness[a]
    push = 0.0 if state.index_pin else mean_impact(state.world, a, state.u_global[a], flow * thin / state.adv_total[a])
    return state.shock[a] + prices.spill[a] + state.world.rho * push


@contextmanager
def pressed(state: State, v: int, a: int, flow: float) -> Iterator[None]:
    """Imbalances of a market while another flow [USD, sells negative] has gone before."""
    before = state.u_local, state.u_global
    state.u_local, state.u_global = before[0].copy(), before[1].copy()
    state.u_local[v, a] += flow * state.thinness[a] / state.adv[v, a]
    state.u_global[a] += flow * state.thinness[a] / state.adv_total[a]
    yield
    state.u_local, state.u_global = before


def add_flows(state: State, flow: np.ndarray, spot: np.ndarray | float = 0.0) -> None:
    """Add book flows and spot flows, which press the index alone, to the imbalances, all at once.

    Args:
        state: Whose imbalances change.
        flow: In the books of the perpetuals [V,A] [USD, sells negative].
        spot: In the spot market, by venue of the seller [V,A] [USD, sells negative].
    """
    state.u_local = state.u_local + flow * state.thinness / state.adv
    state.u_global = state.u_global + (flow + spot).sum(axis=0) * state.thinness / state.adv_total


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
        off = state.seen[v] - index if state.blind[v] else np.zeros_like(average)
        candidates = {
            "median": np.median([off, off + average, basis[v]], axis=0),
            "index_average": off + average,
            "last": basis[v],
            "index": off,
        }
        mark[v] = index + candidates[str(rule)]
    marks = world.start_price * np.exp(mark)
    spot = world.start_price * np.exp(index + state.unusual.get("deviation", np.zeros_like(basis)))
    return Prices(
        spill=spill,
        index_log=index,
        basis=basis,
        mark_log=mark,
        index=world.start_price * np.exp(index),
        mark=marks,
        spot=spot,
        at=Values.of(marks, spot, world.inverse),
    )
