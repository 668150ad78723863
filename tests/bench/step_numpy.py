"""The time step for positions on ladders in plain NumPy, as a person would write it: a yardstick of stress/bench.py.

Every round works on all markets of all paths at once, paths last; only what is triggered is picked out, for look-ups,
book and settlement. Threads share the paths. What it leaves out is what `step_twin.cpp` leaves out.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from stress_kernels.ladder import CLASSES
from stress_kernels.world import MARK_INDEX, MARK_INDEX_AVERAGE, MARK_LAST

from stress.bench_given import SUMS, Given

BISECTIONS = 24
Array = np.ndarray


def run(given: Given, threads: int) -> tuple[float, dict[str, Array]]:
    """Seconds, and sums of every hour (hour v a p) [USD]."""
    paths = given.log.shape[-1]
    parts = [slice(i * paths // threads, (i + 1) * paths // threads) for i in range(threads)]
    inputs = [given._replace(log=np.ascontiguousarray(given.log[..., part])) for part in parts]
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(simulate, inputs))
    seconds = time.perf_counter() - began
    return seconds, {name: np.concatenate([part[name] for part in done], axis=-1) for name in SUMS}


class State(NamedTuple):
    """What some paths carry from step to step, float32."""

    u_local: Array
    """Imbalance of each market (v a p) [days of volume]."""
    u_global: Array
    """(a p)"""
    basis: Array
    """Push of the local imbalance on the market's price, (v a p) [log]."""
    push: Array
    """Of the global one, of which the index takes a share, (a p) [log]."""
    total: Array
    """Of the bases in the mark's average, (v a p)."""
    ring: Array
    """Past bases (window v a p)."""
    reach: Array
    """Rung up to which accounts are gone (v a s p)."""


def simulate(given: Given) -> dict[str, Array]:
    """All steps."""
    hours, venues, assets, paths = given.shape
    markets = np.zeros((venues, assets, paths), np.float32)
    of_assets = np.zeros((assets, paths), np.float32)
    state = State(
        u_local=markets.copy(),
        u_global=of_assets.copy(),
        basis=markets.copy(),
        push=of_assets.copy(),
        total=markets.copy(),
        ring=np.zeros((given.window, *markets.shape), np.float32),
        reach=np.zeros((venues, assets, 2, paths), np.int32),
    )
    sums = {name: np.zeros((hours, *markets.shape), np.float32) for name in SUMS}
    for k, log in enumerate(given.log):
        decay(state, given, k)
        thinner = depth_divisor(given, k)
        hour = {name: each[k // given.steps_per_hour] for name, each in sums.items()}
        for _ in range(given.rounds):
            index, mark = quote(state, given, log, k)
            flow = np.zeros_like(markets)
            for side in (0, 1):
                flow += close(state, given, side, index, mark, thinner, hour)
            if not flow.any():
                break
            press(state, given, flow)
    return sums


def decay(state: State, given: Given, k: int) -> None:
    """Imbalances decay, and their pushes; bases go into the average."""
    state.u_local[...] *= given.decay_local
    state.u_global[...] *= given.decay_global
    state.basis[...] *= given.decay_local**given.delta
    state.push[...] *= given.decay_global**given.delta
    state.total[...] += state.basis
    for v, window in enumerate(given.average):
        if k >= window:
            state.total[v] -= state.ring[(k - window) % given.window, v]
    state.ring[k % given.window] = state.basis


def depth_divisor(given: Given, k: int) -> Array:
    """How many times thinner the books are in a fast market (a p)."""
    moved = given.log[k] - (given.log[k - given.lag] if k >= given.lag else 0)
    z = np.abs(moved) * (np.sqrt(np.float32(288)) / (11.8 * given.sigma))[:, None]
    return np.minimum(1 + given.deep * z**1.75, 20)


def quote(state: State, given: Given, log: Array, k: int) -> tuple[Array, Array]:
    """Log of the index (a p) and of the mark (v a p)."""
    own = given.rho * state.push
    index = log + given.index_weight * (own + given.contagion @ own)
    average = state.total / np.minimum(k + 1, given.average).astype(np.float32)[:, None, None]
    here = state.basis
    rule = given.mark[:, None, None]
    median = np.maximum(np.minimum(average, here), np.minimum(np.maximum(average, here), 0))
    off = np.select([rule == MARK_INDEX_AVERAGE, rule == MARK_LAST, rule == MARK_INDEX], [average, here, 0], median)
    return index, index + off


def press(state: State, given: Given, flow: Array) -> None:
    """Orders move imbalances and their pushes.

    Args:
        flow: What is bought, by how many times thinner the books are, (v a p) [USD].
    """
    paths = np.flatnonzero(flow.any(axis=(0, 1)))
    state.u_local[..., paths] += flow[..., paths] / given.adv[..., None]
    state.u_global[..., paths] += flow[..., paths].sum(axis=0) / given.adv_global[:, None]
    coefficient = given.coefficient[:, None]
    state.basis[..., paths] = (1 - given.rho) * coefficient * signed_power(state.u_local[..., paths], given.delta)
    state.push[..., paths] = coefficient * signed_power(state.u_global[..., paths], given.delta)


def close(
    state: State, given: Given, side: int, index: Array, mark: Array, thinner: Array, hour: dict[str, Array]
) -> Array:
    """Close what the marks trigger on a side; what is bought, by how many times thinner the books are (v a p) [USD]."""
    sign = -1 if side else 1
    high = position(given, given.shift[:, None] - sign * mark)
    flow = np.zeros_like(mark)
    v, a, p = np.nonzero(high > state.reach[:, :, side])
    if p.size == 0:
        return flow
    low, high, at = state.reach[v, a, side, p], high[v, a, p], mark[v, a, p]
    state.reach[v, a, side, p] = high
    swept = given.rows[v, a, side, :, high] - given.rows[v, a, side, :, low]
    wanted = swept[..., : 2 * CLASSES : 2].sum(axis=(1, 2)) * np.exp(at)
    usd, price = trade(state, given, sign, (v, a, p), wanted, at, index[a, p], thinner[a, p])
    book = np.divide(usd, wanted, out=np.zeros_like(usd), where=wanted > 0)
    level = book * np.expm1(price) + (1 - book) * np.expm1(at)
    fee = given.fee[v] * book * np.exp(price)
    settled = settle(given, side, (v, a), low, high, swept, level, fee)
    for name, amount in zip(SUMS, (wanted, wanted - usd, *settled), strict=True):
        hour[name][v, a, p] += amount
    flow[v, a, p] = -sign * usd * thinner[a, p]
    return flow


def trade(
    state: State, given: Given, sign: int, place: tuple[Array, Array, Array],
    wanted: Array, at: Array, index: Array, thinner: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """What the book takes down to the bound [USD], and the log of the mean price along the curve.

    Args:
        state: At the round's opening.
        given: The input.
        sign: 1 for longs, -1 for shorts.
        place: Venue, asset and path of each order (n).
        wanted: Its size (n) [USD].
        at: Log of the mark (n).
        index: Log of the index (n).
        thinner: How many times thinner the book is (n).
    """
    v, a, p = place
    per_local, per_global = thinner / given.adv[v, a], thinner / given.adv_global[a]
    local = (1 - given.rho) * given.coefficient[a]
    everywhere = given.index_weight * given.rho * given.coefficient[a]
    u_local, u_global = state.u_local[v, a, p], state.u_global[a, p]
    base = index - everywhere * signed_power(u_global, given.delta)
    limit = at + np.log1p(-sign * given.bound[v, a])

    def beyond(usd: Array) -> Array:
        pushed_local = signed_power(u_local - sign * usd * per_local, given.delta)
        pushed_global = signed_power(u_global - sign * usd * per_global, given.delta)
        return sign * (base + everywhere * pushed_global + local * pushed_local - limit) < 0

    usd = wanted
    too_much = beyond(wanted) & (wanted > 0)
    if too_much.any():
        under, over = np.zeros_like(wanted), wanted
        for _ in range(BISECTIONS):
            middle = (under + over) / 2
            out = beyond(middle)
            under, over = np.where(out, under, middle), np.where(out, middle, over)
        usd = np.where(too_much, under, wanted)
    mean_global = mean_power(u_global, -sign * usd * per_global, given.delta)
    mean_local = mean_power(u_local, -sign * usd * per_local, given.delta)
    return usd, base + everywhere * mean_global + local * mean_local


def settle(
    given: Given,
    side: int,
    ladder: tuple[Array, Array],
    low: Array,
    high: Array,
    swept: Array,
    level: Array,
    fee: Array,
) -> tuple[Array, Array]:
    """Deficits of the bankrupt, and the pool's fees and surpluses, (n) [USD].

    Accounts come by bankruptcy price: bankrupt, short of the fee, whole, class by class.

    Args:
        given: Input.
        side: 0 for longs, 1 for shorts.
        ladder: Venue and asset of each sweep (n).
        low: Rung where it starts (n).
        high: Rung where it ends (n).
        swept: What its table says of it (n e column).
        level: Price - 1 at which it is closed (n).
        fee: [USD per coin], (n).
    """
    sign, level, fee = -1 if side else 1, level[:, None, None], fee[:, None, None]
    quantity, value = swept[..., : 2 * CLASSES : 2], swept[..., 1 : 2 * CLASSES : 2]
    v, a = (x[:, None, None] for x in ladder)
    place = v, a, side, np.arange(swept.shape[1])[:, None]
    columns = np.array([0, 1])[:, None, None, None] + 2 * np.arange(CLASSES)

    def down_to(price: Array) -> Array:
        """Quantity and bankruptcy value of those whose equity is gone at a price - 1, both (n e c)."""
        depth = sign * (given.log_margin[ladder][:, side] - np.log1p(np.maximum(price[:, :, 0], -0.999)))
        rung = np.clip(position(given, depth), low[:, None], high[:, None])[:, None]
        return given.rows[*place, rung, columns] - given.rows[*place, low[:, None, None], columns]

    (q0, x0), (q1, x1) = down_to(level), down_to(level - sign * fee)
    deficit = np.maximum(-sign * (q0 * level - x0), 0).sum(axis=(1, 2))
    partial = given.partial[ladder][:, None, side] != 0
    rest = np.maximum(sign * ((q1 - q0) * level - (x1 - x0)), 0)
    fees = np.where(partial, fee * (quantity - q0), fee * (quantity - q1) + rest)
    spare = np.maximum(sign * ((quantity - q1) * level - (value - x1)) - fee * (quantity - q1), 0)
    kept = np.where(partial | (given.keeps[v] == 0), 0, spare)
    return deficit, (fees + kept).sum(axis=(1, 2))


def position(given: Given, depth: Array) -> Array:
    """Rungs whose trigger is at or before a depth."""
    depth = np.maximum(depth, 0)
    cell = given.cells * (depth / (given.spread + depth))
    return np.minimum(cell + 0.5, given.cells).astype(np.int32)


def signed_power(x: Array, exponent: float) -> Array:
    """|x|^exponent with the sign of x."""
    return np.copysign(np.abs(x) ** exponent, x)


def mean_power(u: Array, du: Array, delta: float) -> Array:
    """Mean of `signed_power` over [u, u + du]."""
    small = np.abs(du) <= 0.03 * np.abs(u)
    small |= du == 0
    swept = np.abs(u + du) ** (delta + 1) - np.abs(u) ** (delta + 1)
    return np.where(small, signed_power(u + du / 2, delta), swept / ((delta + 1) * np.where(small, 1, du)))
