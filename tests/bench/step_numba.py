"""The time step for positions on ladders in numba, path by path: a yardstick of stress/bench.py.

A thread takes one path after another from start to end. A step quotes all markets, which takes no power: between two
orders a push decays by a constant factor. Each ladder keeps the log mark beyond which anything is triggered; where no
mark has passed one, the step ends there. What it leaves out is what `step_twin.cpp` leaves out.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numba
import numpy as np
from stress_kernels.ladder import CLASSES
from stress_kernels.world import MARK_INDEX, MARK_INDEX_AVERAGE, MARK_LAST

from stress.bench_given import SUMS, Given

BISECTIONS = 24
NEVER = 1e9
ZERO, LEAST, HALF, ONE = np.float32(0), np.float32(1e-3), np.float32(0.5), np.float32(1)
"""With Python's own numbers numba would go on in doubles."""
Array = np.ndarray
Float = float | np.floating
compiled = numba.njit(fastmath=True, error_model="numpy")


def run(given: Given, threads: int) -> tuple[float, dict[str, Array]]:
    """Seconds, without those of compiling, and sums of every hour (hour v a p) [USD]."""
    numba.set_num_threads(threads)
    hours, venues, assets, paths = given.shape
    tables = {name: np.asarray(x) for name, x in given._asdict().items() if name not in ("rows", "log")}
    world = np.zeros(1, [(name, x.dtype, x.shape) for name, x in tables.items()])
    for name, x in tables.items():
        world[name] = x
    log = np.ascontiguousarray(np.moveaxis(given.log, -1, 0))
    sums = np.zeros((paths, len(SUMS), hours, venues, assets), np.float32)
    states = np.zeros(paths, carried(given))
    all_paths(world, given.rows, log[:0], states[:0], sums[:0])
    began = time.perf_counter()
    all_paths(world, given.rows, log, states, sums)
    seconds = time.perf_counter() - began
    return seconds, dict(zip(SUMS, np.moveaxis(sums, 0, -1), strict=True))


def carried(given: Given) -> np.dtype:
    """What a path carries from step to step, as a record: numba hands it on by its address."""
    market, asset = given.adv.shape, given.adv.shape[1]
    fields = {
        "u_local": market,  # imbalance [days of volume]
        "u_global": asset,
        "basis": market,  # push of the local imbalance on the market's price [log]
        "push": asset,  # of the global one, of which the index takes a share [log]
        "total": market,  # of the bases in the mark's average
        "ring": (given.window, *market),  # past bases
        "index": asset,  # its log
        "mark": market,  # its log
        "thinner": asset,  # how many times thinner the books are
        "flow": market,  # what a round buys, by how many times thinner the books are [USD]
        "near": (*market, 2),  # log mark beyond which the next accounts of a side are triggered
    }
    return np.dtype([*((name, "f4", shape) for name, shape in fields.items()), ("reach", "i4", (*market, 2))])


@numba.njit(parallel=True, fastmath=True, error_model="numpy")
def all_paths(worlds: Array, rows: Array, log: Array, states: Array, sums: Array) -> None:
    """Add to the sums (p sum hour v a) what every path of log indices (p step a) closes."""
    beyond = next_triggers(worlds[0], rows)
    for p in numba.prange(len(log)):
        one_path(worlds[0], rows, beyond, log[p], states[p], sums[p])


@compiled
def one_path(given: Any, rows: Array, beyond: Array, log: Array, state: Any, sums: Array) -> None:
    state.near[:] = beyond[..., 0]
    for k in range(len(log)):
        decay(state, given, k)
        if not quote(state, given, log, k):
            continue
        hour = sums[:, k // given.steps_per_hour]
        thin(state, given, log, k)
        for _ in range(given.rounds):
            close_all(state, given, rows, beyond, hour)
            press(state, given)
            if not quote(state, given, log, k):
                break


@compiled
def next_triggers(given: Any, rows: Array) -> Array:
    """Log mark beyond which a ladder swept up to a rung triggers more, a little early (v a s rung)."""
    venues, assets, sides, entries, rungs, _ = rows.shape
    beyond = np.empty((venues, assets, sides, rungs), np.float32)
    for v, a, s in np.ndindex(venues, assets, sides):
        depth = NEVER
        for rung in range(rungs - 1, -1, -1):
            more = False
            for e in range(entries if rung < min(rungs - 1, given.cells) else 0):
                for c in range(CLASSES):
                    table = rows[v, a, s, e]
                    more |= table[rung + 1, 2 * c] > table[rung, 2 * c]
            if more:
                middle = (rung + 0.5) / given.cells
                depth = NEVER if middle >= 1 else given.spread * middle / (1 - middle) * (1 - 1e-6) - given.shift[a]
            beyond[v, a, s, rung] = (2 * s - 1) * depth
    return beyond


@compiled
def decay(state: Any, given: Any, k: int) -> None:
    """Imbalances decay, and their pushes; bases go into the average."""
    venues, assets = given.adv.shape
    fall, fall_global = given.decay_local**given.delta, given.decay_global**given.delta
    for a in range(assets):
        state.u_global[a] *= given.decay_global
        state.push[a] *= fall_global
    new = k % given.window
    for v in range(venues):
        full = k >= given.average[v]
        old = (k - given.average[v]) % given.window
        for a in range(assets):
            basis = state.basis[v, a] * fall
            state.u_local[v, a] *= given.decay_local
            state.basis[v, a] = basis
            state.total[v, a] += basis - (state.ring[old, v, a] if full else ZERO)
            state.ring[new, v, a] = basis


@compiled
def quote(state: Any, given: Any, log: Array, k: int) -> bool:
    """Quote index and marks; whether any mark triggers anything."""
    venues, assets = given.adv.shape
    triggered = False
    for a in range(assets):
        pushed = state.push[a]
        for b in range(assets):
            pushed += given.contagion[a, b] * state.push[b]
        state.index[a] = log[k, a] + given.index_weight * given.rho * pushed
    for v in range(venues):
        share, rule = np.float32(1 / min(k + 1, given.average[v])), given.mark[v]
        for a in range(assets):
            here, average = state.basis[v, a], state.total[v, a] * share
            if rule == MARK_INDEX_AVERAGE:
                here = average
            elif rule == MARK_INDEX:
                here = ZERO
            elif rule != MARK_LAST:
                here = max(min(average, here), min(max(average, here), ZERO))
            mark = state.index[a] + here
            state.mark[v, a] = mark
            triggered |= (mark <= state.near[v, a, 0]) | (mark >= state.near[v, a, 1])
    return triggered


@compiled
def thin(state: Any, given: Any, log: Array, k: int) -> None:
    """How much thinner the books are in a fast market."""
    for a in range(len(state.thinner)):
        moved = log[k, a] - (log[k - given.lag, a] if k >= given.lag else ZERO)
        z = abs(moved) * math.sqrt(288) / (11.8 * given.sigma[a])
        state.thinner[a] = min(1 + given.deep * z**1.75, 20)


@compiled
def press(state: Any, given: Any) -> None:
    """Orders move imbalances and their pushes."""
    venues, assets = given.adv.shape
    for a in range(assets):
        everywhere = ZERO
        for v in range(venues):
            flow = state.flow[v, a]
            if flow != 0:
                u = state.u_local[v, a] + flow / given.adv[v, a]
                state.u_local[v, a] = u
                state.basis[v, a] = (ONE - given.rho) * given.coefficient[a] * signed_power(u, given.delta)
                state.flow[v, a] = 0
                everywhere += flow
        if everywhere != 0:
            u = state.u_global[a] + everywhere / given.adv_global[a]
            state.u_global[a] = u
            state.push[a] = given.coefficient[a] * signed_power(u, given.delta)


@compiled
def close_all(state: Any, given: Any, rows: Array, beyond: Array, hour: Array) -> None:
    """Close whatever the marks trigger."""
    venues, assets = given.adv.shape
    for v in range(venues):
        for a in range(assets):
            for s in range(2):
                past = state.mark[v, a] - state.near[v, a, s]
                if past >= 0 if s else past <= 0:
                    close(state, given, rows, beyond, v, a, s, hour)


@compiled
def close(state: Any, given: Any, rows: Array, beyond: Array, v: int, a: int, s: int, hour: Array) -> None:
    """Close what the mark triggers on one side of a market."""
    sign, at, low = np.float32(1 - 2 * s), state.mark[v, a], state.reach[v, a, s]
    high = max(low, position(given, given.shift[a] - sign * at))
    state.reach[v, a, s] = high
    state.near[v, a, s] = beyond[v, a, s, high]
    coins = ZERO
    for e in range(rows.shape[3]):
        for c in range(CLASSES):
            coins += rows[v, a, s, e, high, 2 * c] - rows[v, a, s, e, low, 2 * c]
    if coins <= 0:
        return
    wanted = coins * math.exp(at)
    usd, price = trade(state, given, v, a, sign, wanted)
    book = usd / wanted
    level = book * math.expm1(price) + (ONE - book) * math.expm1(at)
    fee = given.fee[v] * book * math.exp(price)
    deficit, surplus = settle(given, rows, v, a, s, low, high, level, fee)
    hour[0, v, a] += wanted
    hour[1, v, a] += wanted - usd
    hour[2, v, a] += deficit
    hour[3, v, a] += surplus
    state.flow[v, a] -= sign * usd * state.thinner[a]


@compiled
def trade(state: Any, given: Any, v: int, a: int, sign: Float, wanted: Float) -> tuple[Float, Float]:
    """What the book takes down to the bound [USD], and the log of the mean price along the curve."""
    delta = given.delta
    per_local = -sign * state.thinner[a] / given.adv[v, a]
    per_global = -sign * state.thinner[a] / given.adv_global[a]
    local = (ONE - given.rho) * given.coefficient[a]
    everywhere = given.index_weight * given.rho * given.coefficient[a]
    u_local, u_global = state.u_local[v, a], state.u_global[a]
    start_local, start_global = state.basis[v, a] / local, state.push[a] / given.coefficient[a]
    base = state.index[a] - everywhere * start_global
    limit = state.mark[v, a] + math.log1p(-sign * given.bound[v, a])
    usd, under, over = wanted, ZERO, wanted
    end_local = signed_power(u_local + usd * per_local, delta)
    end_global = signed_power(u_global + usd * per_global, delta)
    if sign * (base + everywhere * end_global + local * end_local - limit) < 0:
        for _ in range(BISECTIONS):
            usd = HALF * (under + over)
            end_local = signed_power(u_local + usd * per_local, delta)
            end_global = signed_power(u_global + usd * per_global, delta)
            if sign * (base + everywhere * end_global + local * end_local - limit) < 0:
                over = usd
            else:
                under = usd
    mean_local = mean_power(u_local, usd * per_local, start_local, end_local, delta)
    mean_global = mean_power(u_global, usd * per_global, start_global, end_global, delta)
    return usd, base + everywhere * mean_global + local * mean_local


@compiled
def settle(
    given: Any, rows: Array, v: int, a: int, s: int, low: int, high: int, level: Float, fee: Float
) -> tuple[Float, Float]:
    """Deficits of the bankrupt, and the pool's fees and surpluses [USD].

    Accounts come by bankruptcy price: bankrupt, short of the fee, whole, class by class.
    """
    sign = np.float32(1 - 2 * s)
    zero = -sign * math.log(max(ONE + level, LEAST))
    full = -sign * math.log(max(ONE + level - sign * fee, LEAST))
    cells = np.float32(given.cells)
    nearest = given.spread * (low + HALF) / (cells - low - HALF)
    deficit, surplus = ZERO, ZERO
    for c in range(CLASSES):
        margin, partial = sign * given.log_margin[v, a, s, c], given.partial[v, a, s, c] != 0
        bankrupt = short = low
        if full + margin >= nearest:
            bankrupt = min(max(position(given, zero + margin), low), high)
            short = min(max(position(given, full + margin), low), high)
        for e in range(rows.shape[3]):
            table = rows[v, a, s, e]
            if short > low:
                q0, x0 = part(table, c, low, bankrupt)
                q1, x1 = part(table, c, bankrupt, short)
                deficit += max(-sign * (q0 * level - x0), ZERO)
                surplus += fee * q1 if partial else max(sign * (q1 * level - x1), ZERO)
            q, x = part(table, c, short, high)
            surplus += fee * q
            if given.keeps[v] and not partial:
                surplus += max(sign * (q * level - x) - fee * q, ZERO)
    return deficit, surplus


@compiled
def part(table: Array, c: int, low: int, high: int) -> tuple[Float, Float]:
    """Quantity and bankruptcy value of a class between two rungs of a table (rung column)."""
    return table[high, 2 * c] - table[low, 2 * c], table[high, 2 * c + 1] - table[low, 2 * c + 1]


@compiled
def position(given: Any, depth: Float) -> Any:
    """Rungs whose trigger is at or before a depth."""
    depth = max(depth, ZERO)
    cells = np.float32(given.cells)
    cell = cells * (depth / (given.spread + depth))
    return np.int32(min(cell + HALF, cells))


@compiled
def signed_power(x: Float, exponent: Float) -> Float:
    """|x|^exponent with the sign of x."""
    return math.copysign(abs(x) ** exponent, x)


@compiled
def mean_power(u: Float, du: Float, start: Float, end: Float, delta: Float) -> Float:
    """Mean of `signed_power` over [u, u + du], given that at both ends."""
    if abs(du) <= 0.03 * abs(u) or du == 0:
        return signed_power(u + HALF * du, delta)
    return ((u + du) * end - u * start) / ((delta + ONE) * du)
