"""Work on a GPU beside PyTorch's there: steps, products, the filtered convolutions of arXiv 2301.00330, Table 10.

Times are those between two CUDA events around calls that are queued without waiting. A GPU for which Python is too slow
idles between them, so that launches count as far as they show. PyTorch's sides: eager in its two layouts, and
`torch.compile`; cuBLAS for a product; dense back-propagation by cuDNN and the method in PyTorch's operators for a
filtered convolution. TF32 is off, as our kernels compute in float32.

Needs a GPU, a package that compiles for it, and for the peers a PyTorch that is built for it.
"""

import copy
from dataclasses import dataclass, field

import numpy as np

import refimpl as ri
from refimpl.kernels import cuda

from . import roofline
from .filtered import TABLE_10, Filtered
from .queued import Queued, QueuedLayer, launch_share, of_torch, replayed, steps_of
from .steps import LR, MOMENTUM, StepCase

PATCHES, BATCH = (2, 4), 32
CHECKED = 64  # rows of a product
FACTORS = {  # what a product makes → its factors, and which of them are turned
    "y": {"x": False, "w": False}, "dx": {"dy": False, "w": True}, "dw": {"x": True, "dy": False},
}  # fmt: skip
PRODUCTS = (  # rows, inner, columns: of MobileNetV2's 1×1 convolutions on 224×224 pixels at batch 32, and a square
    (401_408, 16, 96), (100_352, 144, 24), (25_088, 192, 32), (6_272, 576, 96), (1_568, 960, 320), (4096, 4096, 4096),
)  # fmt: skip


def plan() -> ri.Plan:
    """All layers by SGD with momentum, batch statistics."""
    return ri.Plan("all", batch_norm="train", train_bias=True, step=ri.Backprop(ri.SGD(lr=LR, momentum=MOMENTUM)))


@dataclass(frozen=True)
class GpuStep(StepCase):
    """A model's training step on the GPU."""

    peers: tuple[str, ...] = field(default=("eager", "channels_last", "compiled"), repr=False)
    peer: str = "torch"

    def on(self, backend: str):
        """A trainer of ours on a backend, with samples."""
        graph = self.graph()
        return ri.Trainer(ri.compile(graph, plan(), self.batch, backend=backend)), *self.samples(graph)

    def ours(self) -> Queued:
        """A step of our trainer on the GPU."""
        return steps_of(*self.on("cuda"))

    def eager(self):
        """PyTorch as it comes."""
        return self.of_torch(False)

    def channels_last(self):
        """PyTorch with channels beside each other, as ours are."""
        return self.of_torch(True)

    def compiled(self):
        """PyTorch's own compiler."""
        return self.of_torch(True, compiles=True)

    def of_torch(self, channels_last: bool, compiles: bool = False) -> Queued:
        """A step of PyTorch on the GPU; like ours, it hands its samples on and leaves its loss there."""
        import torch

        from validation.instruments import torch_nets

        graph = self.graph()
        form = torch.channels_last if channels_last else torch.contiguous_format
        module = torch_nets.with_weights(graph, graph.weights, dropout=0.0).train().to("cuda", memory_format=form)
        x, y = (torch.from_numpy(a) for a in self.samples(graph))
        x, y = x.permute(0, 3, 1, 2).contiguous(memory_format=form).pin_memory(), y.pin_memory()
        optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
        forward = torch.compile(module) if compiles else module

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            there = (a.to("cuda", non_blocking=True) for a in (x, y))
            torch.nn.functional.cross_entropy(forward(next(there)), next(there)).backward()
            optimizer.step()

        return of_torch(torch, step)

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against our reference kernels on the CPU."""
        return self.distance("cuda")

    def rounding(self) -> float:
        """The same of our fast kernels on the CPU.

        Statistics of few values and rectifiers near their kinks carry the last bits of sums in another order far: on
        the CPU 1e-5 for ResNet-18 on 64×64 pixels in batches of 8, 0.02 for MobileNetV2 and 0.6 for ResNet-18 on 32×32
        in batches of 2. No fixed bound tells that from a fault, this does.
        """
        return self.distance("fast")

    def distance(self, other: str) -> float:
        """‖change of all weights − the reference kernels'‖ / ‖the reference kernels'‖ after a step on a backend."""
        changes = []
        for backend in (other, "reference"):
            trainer, x, y = self.on(backend)
            before = copy.deepcopy(trainer.parameters)
            trainer.train_step(x, y, 1)
            after, names = trainer.evaluated(), trainer.program.step.gradients
            changes.append(np.concatenate([(after[n].astype("float64") - before[n]).ravel() for n in names]))
        ours, theirs = changes
        return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))

    def bytes(self) -> int:
        """None are told: the bandwidth that is measured is the host's."""
        return 0

    def predicted(self) -> dict:
        """What the step is predicted to take on this GPU, how many launches it has, and its share of the roofline.

        launch_share: of the step's time, that in which Python queues it; captured, why_not: see `queued.replayed`;
        kernels: see `roofline.kernels`.
        """
        from costmodel import predict

        trainer, x, y = self.on("cuda")
        estimate = predict.estimate(trainer.program, device="this-gpu")
        found = {"predicted_ms": 1e3 * estimate.seconds["mid"], "launches": len(trainer.program.order)}
        found["kernels"] = roofline.kernels(trainer.program)
        if not cuda.simulated():
            found["launch_share"] = launch_share(steps_of(trainer, x, y))
        return found | replayed(trainer)


@dataclass(frozen=True)
class GpuProduct:
    """One of a linear layer's products in float32, of x (rows, inner), w (inner, columns) and dy (rows, columns).

    made: "y" = x w, "dx" = dy wᵀ, or "dw" = xᵀ dy.
    """

    rows: int
    inner: int
    columns: int
    made: str = "y"
    tolerance = 1e-5
    peers: tuple[str, ...] = field(default=("cublas",), repr=False)
    peer: str = "torch"

    def arrays(self) -> dict[str, np.ndarray]:
        """Both factors by their names, random, the same for every side."""
        shapes = {"x": (self.rows, self.inner), "w": (self.inner, self.columns), "dy": (self.rows, self.columns)}
        rng = np.random.default_rng(0)
        return {name: rng.standard_normal(shapes[name], np.float32) for name in FACTORS[self.made]}

    def factors(self, arrays: dict) -> tuple:
        """The matrices whose product it is, as views."""
        return tuple(arrays[name].T if turned else arrays[name] for name, turned in FACTORS[self.made].items())

    def ours(self) -> QueuedLayer:
        """The launches of the layer."""
        g = ri.Graph("product", (1, 1), 1)
        x = g.linear("before", g.flatten("flat", "input"), self.inner, bias=False)  # makes the layer compute dx
        g.linear("fc", x, self.columns, bias=False)
        section = "forward" if self.made == "y" else "backward"
        work = QueuedLayer(g, ri.Plan("all"), self.rows, section, "fc", self.made)
        for name, values in self.arrays().items():
            if name == "w":
                work.put_parameter("fc.w", values)
            else:
                work.put(name, values)
        return work

    def error(self) -> float:
        """Error of ours against the product in float64, of as many rows of it as take no minutes."""
        work = self.ours()
        work.queue()
        left, right = self.factors(self.arrays())
        want = left[:CHECKED].astype("float64") @ right.astype("float64")
        return float(np.linalg.norm(work.get(self.made)[:CHECKED] - want) / np.linalg.norm(want))

    def bytes(self) -> int:
        """None are told: the bandwidth that is measured is the host's."""
        return 0

    def predicted(self) -> dict:
        """Nothing more."""
        return {}

    def cublas(self) -> Queued:
        """PyTorch's product, which is cuBLAS's; a factor that is turned is a view."""
        import torch

        left, right = self.factors({name: torch.from_numpy(a).cuda() for name, a in self.arrays().items()})
        out = torch.empty((left.shape[0], right.shape[1]), device="cuda")
        return of_torch(torch, lambda: torch.mm(left, right, out=out))


class QueuedFilter(QueuedLayer):
    """The backward pass of a filtered convolution."""

    def __call__(self) -> None:
        """Run it."""
        self.queue()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """dx and dw."""
        return self.get("dx"), self.get("dw")


@dataclass(frozen=True)
class GpuFiltered(Filtered):
    """The filtered backward pass of one convolution on the GPU."""

    peers: tuple[str, ...] = field(default=("operators", "dense"), repr=False)
    peer: str = "torch"

    def ours(self) -> QueuedFilter:  # type: ignore[override]
        """The calls of the method that a step makes, from dy to dx and dw."""
        c = self.channels
        g = ri.Graph("filtered", (self.rows, self.columns), c)
        x = g.conv2d("before", "input", c, 1, bias=False)  # makes the filtered layer compute dx
        g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", x, c, 3, pad=1, bias=False)), 2)
        work = QueuedFilter(g, ri.Plan("all", rules=[ri.GradientFilter(self.patch)]), self.batch, "backward", "conv")
        arrays = self.arrays()
        work.put("dy", arrays["dy"])
        work.put("x_sum", arrays["x_sum"])
        work.put_parameter("conv.w", arrays["w"])
        return work

    def operators(self):
        """The method in PyTorch's operators."""
        import torch

        from .filtered import Torch

        work = Torch(self, True)
        for name, value in vars(work).items():
            if torch.is_tensor(value):
                setattr(work, name, value.cuda())
        return of_torch(torch, work)

    def dense(self):
        """The dense backward pass by cuDNN."""
        import torch

        a, c = self.arrays(), self.channels
        dy = torch.from_numpy(a["dy"]).permute(0, 3, 1, 2).to("cuda", memory_format=torch.channels_last)
        w = torch.from_numpy(a["w"]).permute(3, 2, 0, 1).contiguous().cuda()
        x = torch.randn(self.batch, c, self.rows, self.columns, device="cuda").to(memory_format=torch.channels_last)
        backward = torch.ops.aten.convolution_backward
        arguments = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, False))
        return of_torch(torch, lambda: backward(dy, x, w, *arguments))

    def predicted(self) -> dict:
        """Nothing more."""
        return {}


CASES = {
    **{
        f"gpu-step-{model}-{size[0]}x{size[1]}-batch{batch}": GpuStep(model, size, batch)
        for model, size, batch in (
            ("mobilenet_v2", (224, 224), 32), ("resnet18", (224, 224), 32), ("lenet5", (28, 28), 64),
            ("watch", (1, 100), 32),
        )
    },
    **{
        f"gpu-filtered-{c}x{h}x{w}-patch{patch}": GpuFiltered(c, h, w, patch, BATCH)
        for c, h, w in TABLE_10
        for patch in PATCHES
    },
    **{f"gpu-product-{m}x{k}x{n}-{made}": GpuProduct(m, k, n, made) for m, k, n in PRODUCTS for made in FACTORS},
}  # fmt: skip
