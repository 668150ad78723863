"""Frozen dataclasses that JAX can trace."""

from __future__ import annotations

import dataclasses
from typing import Any, cast, dataclass_transform

import jax
import numpy as np


def static(**kwargs: Any) -> Any:
    """A field that is part of the compiled program's shape, not an array."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree[T](cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree; fields marked `static()` are auxiliary data."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


def host(values: Any, dtype: Any = None) -> jax.Array:
    """A NumPy array for a field of a pytree; it goes to the device with the whole pytree."""
    return cast(jax.Array, np.asarray(values, dtype))
