"""Cubic interpolation of tabulated functions, as coefficients that are looked up: one read of memory for each place."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def _cubic(left, right, left_slope, right_slope) -> list[Array]:
    """The coefficients of the cubics on [0, 1] with such values and slopes at the ends."""
    rise = right - left
    return [left, left_slope, 3.0 * rise - 2.0 * left_slope - right_slope, left_slope + right_slope - 2.0 * rise]


def hermite(value: Float[Array, "... knots"], slope: Float[Array, "... knots"]) -> Float[Array, "... cells 4"]:
    """The coefficients of cubics between evenly spaced values with such slopes, the spacing being 1."""
    return jnp.stack(_cubic(value[..., :-1], value[..., 1:], slope[..., :-1], slope[..., 1:]), -1)


def polynomial(coefficients: Float[Array, "... 4"], t: Float[Array, "..."]) -> Float[Array, "..."]:
    c = coefficients
    return c[..., 0] + t * (c[..., 1] + t * (c[..., 2] + t * c[..., 3]))


def slope_of(coefficients: Float[Array, "... 4"], t: Float[Array, "..."]) -> Float[Array, "..."]:
    c = coefficients
    return c[..., 1] + t * (2.0 * c[..., 2] + 3.0 * t * c[..., 3])


def between(knots, value, slope, place):
    """A function known with its slope at increasing knots (knots,): itself and its slope at other places (places,)."""
    cell = jnp.clip(jnp.searchsorted(knots, place) - 1, 0, knots.size - 2)
    width = knots[cell + 1] - knots[cell]
    coefficients = jnp.stack(_cubic(value[cell], value[cell + 1], width * slope[cell], width * slope[cell + 1]), -1)
    t = jnp.clip((place - knots[cell]) / width, 0.0, 1.0)
    return polynomial(coefficients, t), slope_of(coefficients, t) / width


def evaluate(cells: Float[Array, "kinds cells 4"], kind, place):
    """The cubic at each place, by kind (broadcast with it); a straight line beyond the last, the first value before."""
    count = cells.shape[-2]
    place = jnp.maximum(place, 0.0)
    cell = jnp.minimum(place.astype(int), count - 1)
    found = cells.reshape(-1, 4)[kind * count + cell]
    within = place - cell
    return polynomial(found, jnp.minimum(within, 1.0)) + jnp.maximum(within - 1.0, 0.0) * slope_of(found, 1.0)


def bicubic(value, slope, rise, twist) -> Float[Array, "rows columns 16"]:
    """Coefficients on a grid (rows + 1, columns + 1), spacing 1; `slope` is along columns, `rise` along rows."""
    along = _cubic(value[:, :-1], value[:, 1:], slope[:, :-1], slope[:, 1:])
    rises = _cubic(rise[:, :-1], rise[:, 1:], twist[:, :-1], twist[:, 1:])
    powers = [_cubic(one[:-1], one[1:], up[:-1], up[1:]) for one, up in zip(along, rises, strict=True)]
    return jnp.stack([powers[column][row] for row in range(4) for column in range(4)], -1)


def evaluate_bicubic(cells: Float[Array, "kinds rows columns 16"], kind, row, column):
    """The bicubic at each place; as at the edge beyond it."""
    _, rows, columns, _ = cells.shape
    places = (jnp.clip(row, 0.0, rows), jnp.clip(column, 0.0, columns))
    i, j = (jnp.minimum(place.astype(int), count - 1) for place, count in zip(places, (rows, columns), strict=True))
    found = cells.reshape(-1, 16)[(kind * rows + i) * columns + j]
    s, t = places[0] - i, places[1] - j
    along = [polynomial(found[..., 4 * power : 4 * power + 4], t) for power in range(4)]
    return along[0] + s * (along[1] + s * (along[2] + s * along[3]))


def differences(table: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Slopes along rows of spacing 1, from the parabola through each three neighbours."""
    inner = 0.5 * (table[2:] - table[:-2])
    first = 2.0 * (table[1] - table[0]) - inner[0]
    last = 2.0 * (table[-1] - table[-2]) - inner[-1]
    return jnp.concatenate([first[None], inner, last[None]])
