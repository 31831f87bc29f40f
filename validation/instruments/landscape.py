"""The loss on a plane through the weights, and where trainings pass over it.

A point of the plane is centre + a·d₁ + b·d₂, with all trained parameters of a net as one vector. Two planes:

    principal          d₁ and d₂ are the first principal directions of the points of all paths: the plane that they
                       leave least (arXiv 1712.09913 section 7)
    filter-normalised  two random directions, in which each filter has the length of the filter at the centre; vectors
                       such as biases stay as they are (arXiv 1712.09913 section 4). Our reading: a filter is all
                       weights of an output channel.

What a path does across the plane is not seen: `kept` says which share of the points' variance lies in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refimpl.kernels import random

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Plane:
    """A plane through the weights. names, shapes: of the parameters, in the order of the vectors.

    centre, first, second: (D,) float64, first and second of length 1 and at right angles, or filter-normalised.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    centre: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def at(self, a: float, b: float) -> dict[str, np.ndarray]:
        """The parameters at a point, float32."""
        whole, found, start = self.centre + a * self.first + b * self.second, {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            size = int(np.prod(shape))
            found[name] = whole[start : start + size].reshape(shape).astype(np.float32)
            start += size
        return found

    def coordinates(self, points: Sequence[Weights]) -> np.ndarray:
        """Where the points are above the plane, (P, 2): the nearest point of the plane to each."""
        basis = np.stack([self.first, self.second], axis=1)
        return np.linalg.lstsq(basis, (vectors(points, self.names) - self.centre).T, rcond=None)[0].T


def vectors(points: Sequence[Weights], names: Sequence[str]) -> np.ndarray:
    """Each point as one vector, (P, D) float64."""
    return np.array([np.concatenate([point[name].reshape(-1) for name in names]) for point in points], np.float64)


def principal(paths: Sequence[Sequence[Weights]]) -> tuple[Plane, list[float]]:
    """The plane of all paths around where the first one ends, and the share of the variance along both directions."""
    names, points = tuple(paths[0][0]), [point for path in paths for point in path]
    moved = vectors(points, names) - vectors([paths[0][-1]], names)
    _, lengths, directions = np.linalg.svd(moved, full_matrices=False)
    shapes = tuple(paths[0][0][name].shape for name in names)
    share = np.square(lengths) / np.square(lengths).sum()
    return Plane(names, shapes, vectors([paths[0][-1]], names)[0], *directions[:2]), [float(s) for s in share[:2]]


def filter_normalised(centre: Weights, seed: int) -> Plane:
    """A plane of two random directions whose filters have the lengths of those of `centre`."""
    names = tuple(centre)

    def direction(stream: int) -> np.ndarray:
        parts = []
        for i, name in enumerate(names):
            w = centre[name].astype(np.float64)
            drawn = random.normal(seed, stream + i, 0, w.size).reshape(w.shape)
            if w.ndim == 1:
                drawn = np.zeros_like(w)
            else:
                axes = tuple(range(w.ndim - 1))
                length = np.sqrt(np.square(drawn).sum(axes))
                drawn *= np.sqrt(np.square(w).sum(axes)) / np.where(length > 0, length, 1)
            parts.append(drawn.reshape(-1))
        return np.concatenate(parts)

    first, second = direction(random.PERTURBATION), direction(random.PERTURBATION + len(names))
    shapes = tuple(centre[name].shape for name in names)
    return Plane(names, shapes, vectors([centre], names)[0], first, second)


def surface(plane: Plane, loss: Callable[[Weights], float], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The loss at each point of a grid, (len(b), len(a))."""
    return np.array([[loss(plane.at(x, y)) for x in a] for y in b])
