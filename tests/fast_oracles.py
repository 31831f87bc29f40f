"""What the fast kernels around a batch norm should give, stated in float64 NumPy."""

import numpy as np

LOW = {0: -np.inf, 1: 0.0, 2: 0.0}
HIGH = {0: np.inf, 1: np.inf, 2: 6.0}
LIMIT = {np.float32: 1e-5, np.float64: 1e-12}
NONE2, NONE3, NONE4 = (0, 0), (0, 0, 0), (0, 0, 0, 0)


def wide(array):
    return array.astype(np.float64)


def activated(x, affine, act):
    """act(a·x + b); x itself without a table."""
    return np.clip(wide(x) * wide(affine[0]) + wide(affine[1]), LOW[act], HIGH[act]) if affine.size else wide(x)


def flat(x, affine, act):
    """Where the activation is flat: boolean, shape of x."""
    if not affine.size:
        return np.zeros(x.shape, bool)
    z = wide(x) * wide(affine[0]) + wide(affine[1])
    return (z <= LOW[act]) | (z >= HIGH[act])


def raw_gradient(dz, y, coef):
    """A·dz + B·y + C."""
    if not coef.size:
        return wide(dz)
    g = wide(coef[0]) * wide(dz)
    return g + wide(coef[1]) * wide(y) + wide(coef[2]) if y.size else g


def assert_near(got, want, scale, dtype, what):
    """‖got − want‖ ≤ limit · max(‖want‖, ‖scale‖); scale: the same formula with absolute values of its terms."""
    size = max(np.linalg.norm(want), np.linalg.norm(scale), 1e-300)
    error = np.linalg.norm(wide(got) - want) / size
    assert error <= LIMIT[dtype], f"{what}: error {error:.1e}"


def away_from_kinks(rng, shape, affine, act, dtype):
    """Random x whose a·x + b is not so near a kink that rounding decides on which side it falls."""
    x = rng.standard_normal(shape).astype(dtype) * 3
    if affine.size:
        z = wide(x) * wide(affine[0]) + wide(affine[1])
        near = np.minimum(abs(z), abs(z - 6)) < 1e-3
        x[near] = ((1.5 - wide(affine[1])) / wide(affine[0]) * np.ones(shape))[near]
    return x


def tables(rng, channels, dtype, given):
    """An affine table (2, C) with slopes away from zero, or an absent one."""
    if not given:
        return np.empty((0, 0), dtype)
    slope = rng.uniform(0.3, 2, channels) * rng.choice([-1, 1], channels)
    return np.stack([slope, rng.standard_normal(channels)]).astype(dtype)
