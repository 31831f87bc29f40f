"""What a run begins with: parameters from a graph's weights, or drawn from a seed."""

import math

import numpy as np

from ..compiler.program import Program
from ..kernels import random

BLOCK = 1 << 16  # values drawn at a time: NumPy makes arrays of all of them in between


def initial(program: Program, seed: int) -> dict[str, np.ndarray]:
    """Parameter arrays of a program: the graph's weights where it has them, else drawn from the seed.

    ValueError for weights that the graph has no parameter for, or of another shape.
    """
    arrays = {}
    for graph in program.graphs.values():
        for name, a in graph.weights.items():
            if name not in graph.parameters:
                raise ValueError(f"{graph.name} has no parameter {name!r}; it has {', '.join(graph.parameters)}")
            if np.shape(a) != tuple(graph.parameters[name].shape):
                shape = tuple(graph.parameters[name].shape)
                raise ValueError(f"the weights {name!r} of {graph.name} must be of shape {shape}, got {np.shape(a)}")
    found = [(prefix, graph, name) for prefix, graph in program.graphs.items() for name in graph.parameters]
    for i, (prefix, graph, own) in enumerate(found):
        p, name = graph.parameters[own], prefix + own
        if own in graph.weights:
            arrays[name] = np.array(graph.weights[own], program.dtype, order="C").reshape(p.shape)
        elif p.init == "he":
            arrays[name] = drawn = np.empty(p.shape, program.dtype)
            flat, deviation = drawn.reshape(-1), p.gain * math.sqrt(2 / p.fan_in)
            for start in range(0, flat.size, BLOCK):
                part = flat[start : start + BLOCK]
                part[...] = random.normal(seed, random.WEIGHTS, i, part.size, start) * deviation
        else:
            arrays[name] = np.full(p.shape, {"zeros": 0, "ones": 1}[p.init], program.dtype)
    return arrays
