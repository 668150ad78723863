"""Shapes are checked under test: a wrong one and an implicit new axis are refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from stress_kernels.layers import share
from stress_kernels.price import Impact, index_push, push

from stress.fits.spread import spread_range


def impact(assets: int) -> Impact:
    one = jnp.ones(())
    each = jnp.ones(assets)
    return Impact(each, one, one, jnp.ones((assets, assets)), one, one, one, one)


def test_kernels_refuse_arguments_that_do_not_fit_together():
    with pytest.raises(TypeCheckError, match="demand"):
        share(jnp.ones(3), jnp.ones(4))
    with pytest.raises(TypeCheckError, match="u_global"):
        index_push(jnp.ones((1, 2, 3)), impact(2))


def test_kernels_refuse_results_of_another_shape_than_they_say():
    with pytest.raises(TypeCheckError, match="return value"):
        push(jnp.ones((1, 3)), impact(2))


def test_host_code_with_shapes_in_its_types_is_checked():
    with pytest.raises(TypeCheckError, match="minutes"):
        spread_range(np.ones((2, 2)))


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank"):
        jnp.add(jnp.ones((2, 3)), jnp.ones(3))
