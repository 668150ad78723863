"""Adding to what the kernel keeps in memory: only where there is anything to add, as most paths have nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from stress_kernels.day_tables import Sizes
from stress_kernels.money import Sum


def tile(number: int, sizes: Sizes) -> Any:
    """Rows of a tile on a board."""
    return pl.ds(number * sizes.width, sizes.width)


def some(of: Any, *at: Any) -> Any:
    """Reference to a row or a tile of all paths; whole numbers as arrays, which is what masked loads take."""
    return of.at[tuple(np.int32(i) if isinstance(i, int) else i for i in at)]


def extend(
    to: Any,
    x: Float[Array, "*b p"],
    there: Bool[Array, "*b p"],
    by: Callable[[Array, Array], Array],
) -> None:
    """Join numbers with those in memory."""
    triton.store(to, by(triton.load(to, mask=there, other=0.0), x), mask=there)


def add(to: Any, x: Float[Array, "*b p"], there: Bool[Array, "*b p"]) -> None:
    """Add to numbers in memory."""
    extend(to, x, there, lambda a, b: a + b)


def add_sum(book: Any, hour: Array, at: Any, lanes: Any, x: Float[Array, "*b p"], there: Bool[Array, "*b p"]) -> None:
    """Add to sums of a book, which have a high and a low part."""
    high, low = (some(book, hour, part, at, lanes) for part in (0, 1))
    held = Sum(triton.load(high, mask=there, other=0.0), triton.load(low, mask=there, other=0.0))
    after = held.add(x)
    triton.store(high, after.high, mask=there)
    triton.store(low, after.low, mask=there)
