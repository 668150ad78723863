"""Our normals are those of JAX, made of the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stress_kernels.shocks import draws
from stress_kernels.shocks.draws import normals
from stress_kernels.simulate import path_keys

PATHS = 300


@pytest.mark.parametrize("shape", [(7,), (1440, 5), (61, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_normals_are_those_of_jax(shape, seed):
    """Their bits are; what the compiler makes of these differs in the last place between programs of JAX itself."""
    keys = path_keys(jnp.uint32(seed), jnp.int32(5), PATHS)
    bits = jax.vmap(lambda key: jax.random.bits(key, shape))(keys)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(draws._bits(keys, shape)), -1, 0), bits)
    ours = jax.jit(lambda keys: normals(keys, shape, jnp.float32))(keys)
    theirs = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    np.testing.assert_allclose(np.moveaxis(np.asarray(ours), -1, 0), theirs, rtol=5e-7)


def test_so_are_those_of_other_generators_and_of_64_bits():
    with jax.enable_x64(True):
        for keys, dtype in ((jax.random.key(1, impl="rbg"), jnp.float32), (jax.random.key(1), jnp.float64)):
            ours = normals(keys[None], (20, 2), dtype)
            theirs = jax.vmap(lambda key, dtype=dtype: jax.random.normal(key, (20, 2), dtype))(keys[None])
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours[..., 0], theirs[0])
