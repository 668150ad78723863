"""Frozen dataclasses that JAX can trace."""

from __future__ import annotations

import dataclasses
from typing import Any, dataclass_transform

import jax
import numpy as np


def static(**kwargs: Any) -> Any:
    """A field that is part of the compiled program's shape, not an array."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree[T](cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree; fields marked `static()` are auxiliary data.

    No shapes are checked when one is made: JAX also fills the fields with what is not an array, and `host` with
    NumPy's. The functions and methods that take them are checked.
    """
    made = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
    made.__no_type_check__ = True  # pyright: ignore[reportAttributeAccessIssue]
    return made


def host(values: Any, dtype: Any = None) -> Any:
    """A NumPy array for a field of a pytree, declared as JAX's; it goes to the device with the whole pytree."""
    return np.asarray(values, dtype)
