"""Drawn convolutions under rules, their gradients by demand as in a Program, and the rules in plain NumPy."""

from collections.abc import Iterable, Mapping

import filter_cases
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import oracles
from checks import Case, call, rng_of, window_attrs
from refimpl.kernels.geometry import conv_derive
from refimpl.kernels.passes import read_sizes
from refimpl.methods.error_map_pruning import ErrorMapPruning
from refimpl.methods.gradient_filter import GradientFilter
from refimpl.methods.layer import bind
from refimpl.methods.sparse_update import SparseUpdate
from refimpl.ops import conv2d

thorough = settings(max_examples=40)  # of what takes milliseconds


def case(pick) -> Case:
    """x, w and dy of a convolution: one group, depthwise or several groups, any geometry; order and block too."""
    a, rng = window_attrs(pick), rng_of(pick)
    one, depthwise, several = (1, pick(1, 5), pick(1, 7)), (pick(2, 6), 1, 1), (pick(2, 3), pick(1, 3), pick(1, 3))
    groups, depth, width = (one, one, depthwise, several)[pick(0, 3)]
    channels, n = groups * depth, pick(1, 3)
    arrays = {"x": rng.normal(size=(n, *a.size, channels)), "w": rng.normal(size=(*a.window, depth, groups * width))}
    attrs = {"stride": a.stride, "dilation": a.dilation, "pad": a.pad}
    y = conv2d.forward(**arrays, **attrs)
    arrays |= {"dy": rng.normal(size=y.shape), "order": rng.permutation(channels).astype(np.int32)}
    return Case(arrays | {"block": np.array([pick(0, 9)], np.int64)}, attrs)


def sample(seed: int) -> Case:
    """A case from a seed."""
    rng = np.random.default_rng(seed)
    return case(lambda low, high: int(rng.integers(low, high + 1)))


def cases():
    """Cases from drawn seeds: few examples are then as different as many."""
    return st.integers(0, 2**32 - 1).map(sample)


def groups_of(arrays: Mapping) -> int:
    """G of a convolution's arrays."""
    return arrays["x"].shape[3] // arrays["w"].shape[2]


class Together:
    """The arrays of one convolution under rules, each computed when it is asked for: `together["dw"]`."""

    def __init__(self, rules: Iterable, case: Case):
        attrs = conv2d.forward.attrs(case.attrs)
        sizes = read_sizes(conv2d.SHAPES, {a: v for a, v in case.arrays.items() if a in conv2d.SHAPES})
        self.node = bind(rules, "conv2d", attrs, conv_derive(sizes, attrs) | sizes)
        self.values = dict(case.arrays)
        self.calls: list = []  # (pass, arrays it read, attributes, letters) of every pass that ran

    def __getitem__(self, array: str) -> np.ndarray:
        if array not in self.values:
            bound = next(b for b in self.node.passes if array in b.writes)
            p = bound.passed
            arrays = {a: self[bound.name(a)] for a in p.reads}
            attrs = {a: v for a, v in (self.node.attrs | bound.attrs).items() if a in p.attributes}
            sizes = p.sizes(arrays, p.attrs(attrs), bound.sizes(self.node.sizes))
            letters = {d: n for d, n in sizes.items() if d in p.letters()}
            self.calls.append((p, arrays, attrs, letters))
            self.values |= {bound.name(a): v for a, v in call(p, arrays, attrs, letters).items()}
        return self.values[array]


def dense(arrays: Mapping, attrs: Mapping) -> dict[str, np.ndarray]:
    """The dense dx, dw and db."""
    a = {name: arrays[name] for name in ("x", "w", "dy")}
    return oracles.conv2d(a | {"b": np.zeros(a["dy"].shape[3])}, attrs)


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The channels with the largest scores, of equal ones the lower."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count]


def scores(rule: ErrorMapPruning, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Eq. (11) of every instance, summed over the mini-batch by eq. (14)."""
    norm = np.abs(w).sum((0, 1, 2))
    return sum(rule.gamma_w * norm + rule.gamma_dy * np.abs(instance).sum((0, 1)) for instance in dy)


def masked(dy: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Dy with zeros in every channel that is not kept."""
    only = np.zeros_like(dy)
    only[..., kept] = dy[..., kept]
    return only


def block_of(order: np.ndarray, block: int, count: int) -> np.ndarray:
    """The channels of a block; the order goes round."""
    return np.take(order, np.arange(block * count, (block + 1) * count), mode="wrap")


def chosen_part(dw: np.ndarray, chosen: np.ndarray, groups: int) -> np.ndarray:
    """Dw (R, S, M, K/G) of the chosen input channels, from dw (R, S, C/G, K)."""
    depth, width = dw.shape[2], dw.shape[3] // groups
    parts = [dw[:, :, c % depth, c // depth * width : (c // depth + 1) * width] for c in chosen]
    return np.stack(parts, 2)


def filtered(rule: GradientFilter, arrays: Mapping, attrs: Mapping) -> dict[str, np.ndarray]:
    """Filtered dx and dw, element by element."""
    x, w, dy = (arrays[a] for a in ("x", "w", "dy"))
    groups = groups_of(arrays)
    geometry = w.shape[:2], attrs["stride"], attrs["dilation"], attrs["pad"]
    shape = x.shape[0], x.shape[1:3], groups, w.shape[2], w.shape[3] // groups
    found = filter_cases.with_numpy(filter_cases.Case(*shape, *geometry, rule.patch, rule.align, 0), x, dy, w)
    return {"dx": found["dx"], "dw": found["dw"]}


def statement(rules: Iterable, arrays: Mapping, attrs: Mapping) -> dict[str, np.ndarray]:
    """Dx, dw and db of a convolution under any of the three rules, in float64.

    With several groups a filtered convolution is not pruned, and dw of chosen channels is exact.
    """
    by = {type(r): r for r in rules}
    groups, found = groups_of(arrays), {}
    pruning, filtering, sparse = (by.get(t) for t in (ErrorMapPruning, GradientFilter, SparseUpdate))
    exact = dense(arrays, attrs)["dw"]
    if pruning and not (filtering and groups > 1):
        found["kept"] = largest(scores(pruning, arrays["w"], arrays["dy"]), pruning.kept(arrays["dy"].shape[3]))
        arrays = {**arrays, "dy": masked(arrays["dy"], found["kept"])}
    found |= {name: value for name, value in dense(arrays, attrs).items() if name != "y"}
    if filtering:
        found |= filtered(filtering, arrays, attrs)
    if sparse:
        count = sparse.count(arrays["x"].shape[3])
        found["chosen"] = block_of(arrays["order"], int(arrays["block"][0]), count)
        found["dw"] = chosen_part(found["dw"] if groups == 1 else exact, found["chosen"], groups)
    return found


def magnitudes(rules: Iterable, case: Case, kept=None) -> dict[str, np.ndarray]:
    """Scales of the statement: the same with absolute values of its terms, where `kept` is given at those channels."""
    rest = [r for r in rules if not isinstance(r, ErrorMapPruning)]
    arrays = {a: np.abs(v) if v.dtype.kind == "f" else v for a, v in case.cast(np.float64).arrays.items()}
    if kept is not None:
        arrays["dy"] = masked(arrays["dy"], kept)
    return statement(rest, arrays, case.attrs)
