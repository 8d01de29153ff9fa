"""Supply that agents cannot foresee."""

import equinox as eqx
from jaxtyping import Array, Float


class RandomSupply(eqx.Module):
    """An Ornstein–Uhlenbeck supply rate, dQ = reversion (mean − Q) dt + volatility dB.

    `mean` is in units / time, `reversion` in 1 / time, `volatility` in units / time^{3/2}. Agents know the law and
    see the past, not the future.
    """

    mean: Float[Array, ""] | float
    reversion: Float[Array, ""] | float
    volatility: Float[Array, ""] | float
