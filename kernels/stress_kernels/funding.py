"""Funding: what longs pay to shorts at fixed times."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.world import Rules


def funding_rate(average_premium: Float[Array, "v a p"], rules: Rules) -> Float[Array, "v a p"]:
    """Rate of one payment: (P + clamp(I - P, -c, c)) / divisor, within the cap.

    Args:
        average_premium: Mean of exp(basis) - 1 since the last payment [1].

    Returns:
        What a long pays per USD of notional [1]; negative: receives.
    """
    clamp, cap = rules.funding_clamp[:, None, None], rules.funding_cap[:, None, None]
    interest = rules.funding_interest[:, None, None]
    rate = average_premium + jnp.clip(interest - average_premium, -clamp, clamp)
    return jnp.clip(rate / rules.funding_divisor[:, None, None], -cap, cap)
