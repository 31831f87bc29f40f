"""A method for each operator, by which nets are built."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from .. import arguments
from ..kernels.geometry import MOST_DIGITS, ceil_pad
from ..kernels.passes import ShapeError, canonical
from ..kernels.quantized import Quantized
from ..kernels.resizing import resized
from ..ops.cubic_resize import reaches
from .nodes import Pad, Pair, Parameter


class Building(ABC):
    """What `graph.Graph` is built by: each method adds a node and returns the name of its output tensor.

    In the order of refimpl.ops. Errors: those of `add_node`.
    """

    @abstractmethod
    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor at batch 1."""

    @abstractmethod
    def add_node(
        self, name: str, op: str, inputs: tuple[str, ...], attrs: Mapping, params: Mapping[str, Parameter | str],
        quantized: Mapping[str, Quantized[str]] | None = None,
    ) -> str:  # fmt: skip
        """Append a node and return the name of its first output."""

    @abstractmethod
    def _shared(self, node: str, op: str, wanted: Mapping[str, Parameter]) -> Mapping[str, Parameter | str]:
        """The parameters of a node, for another one of the same operator that wants such ones to use."""

    def conv2d(
        self, name: str, x: str, channels: int, kernel: Pair, stride: Pair = 1, pad: Pad = 0, dilation: Pair = 1,
        groups: int = 1, bias: bool = False, shared: str | None = None,
    ) -> str:  # fmt: skip
        """Convolution with `channels` outputs; pad: rows and columns, sides as in `Pad`, "same" or "valid".

        shared: another convolution whose weights and bias it uses too.
        """
        r, s = (kernel, kernel) if isinstance(kernel, int) else kernel
        arguments.whole(f"channels of {name}", channels)
        depth = self.shape(x)[3] // groups
        if depth * groups != self.shape(x)[3]:
            raise ShapeError(f"{name}: {x} has C={self.shape(x)[3]}, which is not a multiple of G={groups} groups")
        params = {"w": Parameter((r, s, depth, channels), "he", r * s * depth)}
        if bias:
            params["b"] = Parameter((channels,), "zeros")
        used: Mapping[str, Parameter | str] = params if shared is None else self._shared(shared, "conv2d", params)
        return self.add_node(name, "conv2d", (x,), {"stride": stride, "pad": pad, "dilation": dilation}, used)

    def linear(self, name: str, x: str, features: int, bias: bool = True, shared: str | None = None) -> str:
        """Linear layer on the last axis of x (N, …, D). shared: another one whose weights and bias it uses too."""
        arguments.whole(f"features of {name}", features)
        fan_in = self.shape(x)[-1]
        params = {"w": Parameter((fan_in, features), "he", fan_in)}
        if bias:
            params["b"] = Parameter((features,), "zeros")
        return self.add_node(
            name, "linear", (x,), {}, params if shared is None else self._shared(shared, "linear", params)
        )

    def batch_norm(self, name: str, x: str, eps: float = 1e-5, momentum: float = 0.1) -> str:
        """Batch normalisation; frozen or with batch statistics, as the plan says."""
        c = (self.shape(x)[3],)
        ones, zeros = Parameter(c, "ones"), Parameter(c, "zeros")
        params = {"gamma": ones, "beta": zeros, "running_mean": zeros, "running_var": ones}
        return self.add_node(name, "batch_norm", (x,), {"eps": eps, "momentum": momentum}, params)

    def group_norm(self, name: str, x: str, groups: int = 1, eps: float = 1e-5) -> str:
        """Normalisation of each sample over a map and the channels of each of `groups`; one a channel: of instances."""
        c = (self.shape(x)[3],)
        params = {"gamma": Parameter(c, "ones"), "beta": Parameter(c, "zeros")}
        return self.add_node(name, "group_norm", (x,), {"groups": groups, "eps": eps}, params)

    def relu(self, name: str, x: str) -> str:
        """max(x, 0)."""
        return self.add_node(name, "relu", (x,), {}, {})

    def relu6(self, name: str, x: str) -> str:
        """min(max(x, 0), 6)."""
        return self.add_node(name, "relu6", (x,), {}, {})

    def gelu(self, name: str, x: str, approximate: bool = False) -> str:
        """x·Φ(x), Φ the normal distribution function; approximate: its form with a tanh."""
        return self.add_node(name, "gelu", (x,), {"approximate": approximate}, {})

    def sigmoid(self, name: str, x: str) -> str:
        """1 / (1 + exp(−x))."""
        return self.add_node(name, "sigmoid", (x,), {}, {})

    def silu(self, name: str, x: str) -> str:
        """x / (1 + exp(−x)), also called swish."""
        return self.add_node(name, "silu", (x,), {}, {})

    def tanh(self, name: str, x: str) -> str:
        """Hyperbolic tangent."""
        return self.add_node(name, "tanh", (x,), {}, {})

    def hard_sigmoid(self, name: str, x: str, alpha: float = 1 / 6, beta: float = 0.5) -> str:
        """min(max(alpha·x + beta, 0), 1); the defaults are PyTorch's."""
        return self.add_node(name, "hard_sigmoid", (x,), {"alpha": alpha, "beta": beta}, {})

    def hard_swish(self, name: str, x: str) -> str:
        """x·min(max(x/6 + 1/2, 0), 1)."""
        return self.add_node(name, "hard_swish", (x,), {}, {})

    def leaky_relu(self, name: str, x: str, slope: float = 0.01) -> str:
        """x where it is above 0, else slope·x."""
        return self.add_node(name, "leaky_relu", (x,), {"slope": slope}, {})

    def clip(self, name: str, x: str, low: float = -math.inf, high: float = math.inf) -> str:
        """min(max(x, low), high); ShapeError where low is above high."""
        bounds = {"low": low} if low != -math.inf else {}
        bounds |= {"high": high} if high != math.inf else {}
        return self.add_node(name, "clip", (x,), bounds, {})  # a file says no number that is not finite

    def reciprocal(self, name: str, x: str) -> str:
        """1/x, element by element."""
        return self.add_node(name, "reciprocal", (x,), {}, {})

    def square_root(self, name: str, x: str) -> str:
        """√x, element by element."""
        return self.add_node(name, "square_root", (x,), {}, {})

    def exponential(self, name: str, x: str) -> str:
        """exp(x), element by element."""
        return self.add_node(name, "exponential", (x,), {}, {})

    def logarithm(self, name: str, x: str) -> str:
        """The natural logarithm of x, element by element."""
        return self.add_node(name, "logarithm", (x,), {}, {})

    def absolute_value(self, name: str, x: str) -> str:
        """|x|, element by element."""
        return self.add_node(name, "absolute_value", (x,), {}, {})

    def error_function(self, name: str, x: str) -> str:
        """erf(x), element by element."""
        return self.add_node(name, "error_function", (x,), {}, {})

    def smooth_relu(self, name: str, x: str) -> str:
        """log(1 + exp(x)), also called softplus."""
        return self.add_node(name, "smooth_relu", (x,), {}, {})

    def softsign(self, name: str, x: str) -> str:
        """x/(1 + |x|)."""
        return self.add_node(name, "softsign", (x,), {}, {})

    def staircase(self, name: str, x: str, kind: int = 0) -> str:
        """x as whole numbers: 0 those below, 1 those above, 2 the nearest, 3 towards 0. Gradients stop here."""
        return self.add_node(name, "staircase", (x,), {"kind": kind}, {})

    def by_sign(self, name: str, x: str, below: float = -1.0, at: float = 0.0, above: float = 1.0) -> str:
        """A number for each sign of x: below 0, at 0, above 0. Gradients stop here."""
        return self.add_node(name, "by_sign", (x,), {"below": below, "at": at, "above": above}, {})

    def constant_like(self, name: str, x: str, value: float = 0.0) -> str:
        """One number in the shape of x. Gradients stop here."""
        return self.add_node(name, "constant_like", (x,), {"value": value}, {})

    def one_of_two(self, name: str, condition: str, a: str, b: str) -> str:
        """a where the condition is above 0, else b, of one shape. At the condition gradients stop."""
        return self.add_node(name, "one_of_two", (condition, a, b), {}, {})

    def elu(self, name: str, x: str, alpha: float = 1.0) -> str:
        """x where it is above 0, else alpha·(exp(x) − 1)."""
        return self.add_node(name, "elu", (x,), {"alpha": alpha}, {})

    def prelu(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x where it is above 0, else w·x, w the same for every sample; shape: as in `add_weight`."""
        return self.add_node(name, "prelu", (x,), {}, {"w": Parameter(tuple(shape), "zeros")})

    def block_prune(self, name: str, x: str, block: Pair = 2, threshold: float = 0.0) -> str:
        """Zero where a whole block of a channel is below `threshold` in magnitude, identity elsewhere."""
        return self.add_node(name, "block_prune", (x,), {"block": block, "threshold": threshold}, {})

    def max_pool(
        self, name: str, x: str, window: Pair, stride: Pair | None = None, pad: Pad = 0, ceil: bool = False
    ) -> str:
        """Maximum of each window; the stride defaults to the window.

        ceil: as many windows as begin before the map ends, not only those that fit with the padding.
        """
        attrs, _ = _pooling(window, stride or window, pad, ceil)  # nothing of the padding counts
        return self.add_node(name, "max_pool", (x,), attrs, {})

    def avg_pool(
        self, name: str, x: str, window: Pair, stride: Pair | None = None, pad: Pad = 0, ceil: bool = False,
        count_include_pad: bool = True,
    ) -> str:  # fmt: skip
        """Mean of each window; the stride defaults to the window. ceil: as in `max_pool`.

        count_include_pad: do elements of the padding count, as zeros? What lies beyond it never does.
        """
        attrs, overhang = _pooling(window, stride or window, pad, ceil)
        attrs |= {"overhang": overhang} if any(overhang) else {}
        attrs |= {} if count_include_pad is True else {"count_include_pad": count_include_pad}
        return self.add_node(name, "avg_pool", (x,), attrs, {})

    def interpolate(
        self, name: str, x: str, size: Pair = 0, scale: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
        smooth: bool = False, grid: Pair = 0, rounding: int = 0,
    ) -> str:  # fmt: skip
        """A map in another size: `size` rows and columns, or where that is 0, `scale` times as many, as a quotient.

        smooth: linear between neighbours, else the nearest; grid: how places correspond, 0 by halves of pixels, 1
        corners on corners, 2 first on first; rounding, of the nearest: 0 half down, 1 half up, 2 down, 3 up.
        """
        attrs = {"size": size, "scale": scale, "smooth": smooth, "grid": grid, "rounding": rounding}
        return self.add_node(name, "interpolate", (x,), attrs, {})

    def cubic_resize(
        self, name: str, x: str, size: Pair = 0, scale: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
        grid: Pair = 0, cubic: bool = True, bend: float = -0.75, shrink: bool = False, exclude: bool = False,
    ) -> str:  # fmt: skip
        """A map in another size by a cubic or linear filter; size, scale and grid as in `interpolate`.

        bend: of the cubic one; shrink: it is wider where the map becomes smaller (antialiasing); exclude: what lies
        beyond the map has no share.
        """
        attrs: dict = {"size": size if isinstance(size, tuple) else (size, size), "scale": scale, "shrink": shrink}
        attrs |= {"cubic": cubic}
        letters = dict(zip("HW", self.shape(x)[1:3], strict=True))
        attrs["reach"] = reaches(letters | resized(letters, attrs), attrs)
        return self.add_node(
            name, "cubic_resize", (x,), attrs | {"grid": grid, "bend": bend, "exclude": exclude}, {}
        )  # fmt: skip

    def border(
        self,
        name: str,
        x: str,
        sides: Sequence[tuple[int, int]],
        channels: tuple[int, int] = (0, 0),
        value: float = 0.0,
        mode: int = 0,
    ) -> str:
        """A map in a border: ((top, bottom), (left, right)), and channels before and behind its own.

        mode: 0 of `value`; or of the map itself: 1 of its last element, 2 mirrored at that, 3 from its other end.
        """
        return self.add_node(name, "border", (x,), {"sides": (*sides, channels), "value": value, "mode": mode}, {})

    def sum_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0), mean: bool = False) -> str:
        """Sums, or means, over rows, columns and channels of a map where `over` says 1; these stay with length 1."""
        return self.add_node(name, "sum_over", (x,), {"over": over, "mean": mean}, {})

    def norm_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0)) -> str:
        """Euclidean norms, over axes as in `sum_over`."""
        return self.add_node(name, "norm_over", (x,), {"over": over}, {})

    def max_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0)) -> str:
        """Maxima, over axes as in `sum_over`."""
        return self.add_node(name, "max_over", (x,), {"over": over}, {})

    def arg_max(self, name: str, x: str, over: Sequence[int] = (1, 1, 0), last: bool = False) -> str:
        """Places of the maxima, as floats, over axes as in `sum_over`; last: of equal ones. Gradients stop here."""
        return self.add_node(name, "arg_max", (x,), {"over": over, "last": last}, {})

    def top_values(self, name: str, x: str, count: int, smallest: bool = False) -> str:
        """The `count` largest, or smallest, elements along the last axis, in their order."""
        return self.add_node(name, "top_values", (x,), {"count": count, "smallest": smallest}, {})

    def top_places(self, name: str, x: str, count: int, smallest: bool = False) -> str:
        """Where these stand, as floats. Gradients stop here."""
        return self.add_node(name, "top_places", (x,), {"count": count, "smallest": smallest}, {})

    def one_hot(self, name: str, x: str, depth: int, on: float = 1.0, off: float = 0.0) -> str:
        """A row of `depth` numbers for each index of a map of one channel: `on` at its place, else `off`."""
        return self.add_node(name, "one_hot", (x,), {"depth": depth, "on": on, "off": off}, {})

    def spread_out(self, name: str, x: str, size: Sequence[int]) -> str:
        """A map spread to `size` rows, columns and channels along its axes of length 1."""
        return self.add_node(name, "spread_out", (x,), {"size": size}, {})

    def global_avg_pool(self, name: str, x: str) -> str:
        """Mean of the whole map: (N, H, W, C) to (N, C)."""
        return self.add_node(name, "global_avg_pool", (x,), {}, {})

    def add(self, name: str, a: str, b: str) -> str:
        """Sum of two branches."""
        return self.add_node(name, "add", (a, b), {}, {})

    def sub(self, name: str, a: str, b: str) -> str:
        """a − b, of one shape."""
        return self.add_node(name, "sub", (a, b), {}, {})

    def mul(self, name: str, a: str, b: str) -> str:
        """Product of two branches of one shape, element by element."""
        return self.add_node(name, "mul", (a, b), {}, {})

    def scale_channels(self, name: str, x: str, scale: str) -> str:
        """A map x (N, H, W, C) times scale (N, C), one factor for each channel of a sample."""
        return self.add_node(name, "scale_channels", (x, scale), {}, {})

    def affine(self, name: str, x: str, factor: float = 1.0, offset: float = 0.0) -> str:
        """factor·x + offset, two numbers that do not train."""
        return self.add_node(name, "affine", (x,), {"factor": factor, "offset": offset}, {})

    def add_weight(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x + w, w the same for every sample; shape: that of w, each axis of a sample, or 1 where all share one."""
        return self.add_node(name, "add_weight", (x,), {}, {"w": Parameter(tuple(shape), "zeros")})

    def mul_weight(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x·w, w the same for every sample; shape: as in `add_weight`."""
        return self.add_node(name, "mul_weight", (x,), {}, {"w": Parameter(tuple(shape), "ones")})

    def add_spread(self, name: str, x: str, other: str) -> str:
        """x + other, which has the axes of x, each whole or of length 1, where one number stands for all."""
        return self.add_node(name, "add_spread", (x, other), {}, {})

    def mul_spread(self, name: str, x: str, other: str) -> str:
        """x·other, which is as in `add_spread`; one factor for each channel of a map is `scale_channels`."""
        return self.add_node(name, "mul_spread", (x, other), {}, {})

    def concat(self, name: str, *inputs: str) -> str:
        """Tensors that differ in their last axis only, side by side along it."""
        return self.add_node(name, "concat", inputs, {}, {})

    def channel_slice(self, name: str, x: str, start: int, count: int) -> str:
        """The channels start … start + count − 1 of the last axis."""
        return self.add_node(name, "channel_slice", (x,), {"start": start, "count": count}, {})

    def channel_shuffle(self, name: str, x: str, groups: int) -> str:
        """The channels of `groups` groups, dealt out in turn."""
        return self.add_node(name, "channel_shuffle", (x,), {"groups": groups}, {})

    def flatten(self, name: str, x: str) -> str:
        """(N, …) to (N, D)."""
        return self.add_node(name, "flatten", (x,), {}, {})

    def as_map(self, name: str, x: str) -> str:
        """Features (N, C) as a map of one pixel, (N, 1, 1, C)."""
        return self.add_node(name, "as_map", (x,), {}, {})

    def reshape(self, name: str, x: str, size: tuple[int, int]) -> str:
        """(N, …) as maps of `size` rows and columns, the elements of a sample in their order."""
        return self.add_node(name, "reshape", (x,), {"size": size}, {})

    def rearrange(
        self, name: str, x: str, size: tuple[int, int], lengths: Sequence[int], steps: Sequence[int]
    ) -> str:  # fmt: skip
        """The elements of a sample in the order of digits, as maps of `size`: at most six `lengths` and `steps`."""
        fill = MOST_DIGITS - len(lengths)
        attrs = {"lengths": (*lengths, *(1,) * fill), "steps": (*steps, *(0,) * fill), "size": size}
        return self.add_node(name, "rearrange", (x,), attrs, {})

    def layer_norm(self, name: str, x: str, eps: float = 1e-5) -> str:
        """Layer normalisation along the last axis of x (N, …, C)."""
        c = (self.shape(x)[-1],)
        params = {"gamma": Parameter(c, "ones"), "beta": Parameter(c, "zeros")}
        return self.add_node(name, "layer_norm", (x,), {"eps": eps}, params)

    def softmax(self, name: str, x: str) -> str:
        """Softmax along the last axis of x (N, …, C)."""
        return self.add_node(name, "softmax", (x,), {}, {})

    def matmul(self, name: str, a: str, b: str, transposed: bool = False) -> str:
        """Products a · b of (N, G, P, D) and (N, G, D, K), for each sample and group; transposed: b is (…, K, D)."""
        return self.add_node(name, "matmul", (a, b), {"transposed": transposed}, {})

    def attach(self, name: str, x: str, count: int, after: bool = False) -> str:
        """`count` weights before the elements of each row of a map (N, H, W, C), or behind them: a class token."""
        arguments.whole(f"count of {name}", count)
        w = Parameter((*self.shape(x)[1:3], count), "zeros")
        return self.add_node(name, "attach", (x,), {"after": after} if after else {}, {"w": w})

    def dropout(self, name: str, x: str, rate: float = 0.5) -> str:
        """Zero with probability `rate` in training, identity otherwise."""
        return self.add_node(name, "dropout", (x,), {"rate": rate}, {})


def _pooling(window: Pair, stride: Pair, pad: Pad, ceil: bool) -> tuple[dict, tuple[int, int]]:
    """Attributes of a pooling, and the rows and columns by which a ceil mode adds to the padding."""
    attrs = {"window": window, "stride": stride, "pad": pad}
    if not ceil or pad == "same":  # which is rounded up as it is
        return attrs, (0, 0)
    sides = canonical("pad", 0 if pad == "valid" else pad, ((0, 0), (0, 0)))
    windows, strides = canonical("window", window, (1, 1)), canonical("stride", stride, (1, 1))
    rows, columns = (ceil_pad(*axis) for axis in zip(windows, strides, sides, strict=True))
    return attrs | {"pad": (rows, columns)}, (rows[1] - sides[0][1], columns[1] - sides[1][1])
