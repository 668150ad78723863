"""Where a linear, USD-backed account is liquidated, and where it is bankrupt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def deductions(floor: Array, rate: Array) -> Array:
    """What makes maintenance continuous: D_j = D_{j-1} + floor_j (rate_j - rate_{j-1}).

    Args:
        floor: Notional above which each tier applies, ascending from 0; unused tiers infinite [USD], shape (..., tier).
        rate: Marginal maintenance rate of each tier [1], shape (..., tier); unused tiers repeat the last.

    Returns:
        Deduction of each tier [USD], shape (..., tier).
    """
    steps = np.diff(rate, axis=-1)
    increments = np.where(steps > 0, np.where(np.isfinite(floor[..., 1:]), floor[..., 1:], 0.0) * steps, 0.0)
    return np.concatenate([np.zeros_like(rate[..., :1]), np.cumsum(increments, axis=-1)], axis=-1)


def maintenance(notional: Array, rate: Array, deduction: Array) -> Array:
    """Margin at or below which a position is liquidated, M(n) = max_j (rate_j n - D_j) [USD].

    Args:
        notional: Absolute position value, >= 0 [USD], shape (...).
        rate: Marginal maintenance rates [1], shape (..., tier).
        deduction: From `deductions` [USD], shape (..., tier).
    """
    return np.max(rate * notional[..., None] - deduction, axis=-1)


def trigger_price(cash: Array, quantity: Array, rate: Array, deduction: Array, fee: float) -> Array:
    """Mark at which equity falls to maintenance: cash + q m = M(|q| m) + fee |q| m.

    Every tier gives a candidate; as M is the largest of the tiers, the first to be met counts: the highest for longs,
    the lowest for shorts. This solves in the tier that holds at the trigger.

    Args:
        cash: Equity less position value, margin - q entry [USD], shape (n).
        quantity: Signed coins, all of one sign, shape (n).
        rate: Marginal maintenance rates [1], shape (tier).
        deduction: From `deductions` [USD], shape (tier).
        fee: Liquidation fee where the venue counts it in the trigger, else 0 [1].

    Returns:
        Trigger price [USD], shape (n); at or below 0 for a long that no price liquidates.
    """
    size, long = np.abs(quantity), bool(quantity[0] > 0) if len(quantity) else True
    best = np.full(len(size), -np.inf if long else np.inf)
    for r, d in zip(rate, deduction, strict=True):
        candidate = (-cash - d) / (size * (1 - r - fee)) if long else (cash + d) / (size * (1 + r + fee))
        best = np.maximum(best, candidate) if long else np.minimum(best, candidate)
    return best


def bankruptcy_price(cash: Array, quantity: Array) -> Array:
    """Mark at which equity is zero [USD], shape (n)."""
    return -cash / quantity
