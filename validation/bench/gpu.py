"""Training steps on a GPU beside PyTorch's there, and the filtered convolutions of arXiv 2301.00330, Table 10.

Each side waits for the GPU at the end of every call, so that times are those of a step as a person sees it, the
launches from Python included. PyTorch's sides: eager in its two layouts, and `torch.compile`; dense back-propagation by
cuDNN and the method in PyTorch's operators for a filtered convolution. TF32 is off, as our kernels compute in float32.

Needs a GPU, a package that compiles for it, and for the peers a PyTorch that is built for it.
"""

import copy
from dataclasses import dataclass, field

import numpy as np

import refimpl as ri
from refimpl.kernels import cuda

from .filtered import TABLE_10, Filtered
from .steps import LR, MOMENTUM, StepCase

PATCHES, BATCH = (2, 4), 32
STEPS = 10  # fewer than those after which a trainer waits


def plan() -> ri.Plan:
    """All layers by SGD with momentum, batch statistics."""
    return ri.Plan("all", batch_norm="train", train_bias=True, step=ri.Backprop(ri.SGD(lr=LR, momentum=MOMENTUM)))


@dataclass(frozen=True)
class GpuStep(StepCase):
    """A model's training step on the GPU."""

    peers: tuple[str, ...] = field(default=("eager", "channels_last", "compiled"), repr=False)

    def on(self, backend: str):
        """A trainer of ours on a backend, with samples."""
        graph = self.graph()
        return ri.Trainer(ri.compile(graph, plan(), self.batch, backend=backend)), *self.samples(graph)

    def ours(self):
        """A step of our trainer on the GPU."""
        trainer, x, y = self.on("cuda")

        def step() -> None:
            trainer.train_step(x, y, 1)
            trainer.backend.synchronise()

        return step

    def eager(self):
        """PyTorch as it comes."""
        return self.of_torch(False)

    def channels_last(self):
        """PyTorch with channels beside each other, as ours are."""
        return self.of_torch(True)

    def compiled(self):
        """PyTorch's own compiler."""
        return self.of_torch(True, compiles=True)

    def of_torch(self, channels_last: bool, compiles: bool = False):
        """A step of PyTorch on the GPU."""
        import torch

        from validation.instruments import torch_nets

        without_tf32(torch)
        graph = self.graph()
        form = torch.channels_last if channels_last else torch.contiguous_format
        module = torch_nets.with_weights(graph, graph.weights, dropout=0.0).train().to("cuda", memory_format=form)
        x, y = (torch.from_numpy(a) for a in self.samples(graph))
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=form).pin_memory()
        optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
        forward = torch.compile(module) if compiles else module

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(forward(x.to("cuda", non_blocking=True)), y.to("cuda"))
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against our reference kernels on the CPU."""
        changes = []
        for backend in ("cuda", "reference"):
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
        """What the step is predicted to take on this GPU, how many launches it has, and its time by CUDA events."""
        from costmodel import predict

        trainer, x, y = self.on("cuda")
        estimate = predict.estimate(trainer.program, device="this-gpu")
        found = {"predicted_ms": 1e3 * estimate.seconds["mid"], "launches": len(trainer.program.order)}
        return found if cuda.simulated() else found | by_events(trainer, x, y)


@dataclass(frozen=True)
class GpuFiltered(Filtered):
    """The filtered backward pass of one convolution on the GPU."""

    peers: tuple[str, ...] = field(default=("operators", "dense"), repr=False)

    def ours(self):
        """The calls of the method that a step makes, from dy to dx and dw."""
        return OursThere(self)

    def operators(self):
        """The method in PyTorch's operators."""
        import torch

        from .filtered import Torch

        without_tf32(torch)
        work = Torch(self, True)
        for name, value in vars(work).items():
            if torch.is_tensor(value):
                setattr(work, name, value.cuda())
        return waited(torch, work)

    def dense(self):
        """The dense backward pass by cuDNN."""
        import torch

        without_tf32(torch)
        a, c = self.arrays(), self.channels
        dy = torch.from_numpy(a["dy"]).permute(0, 3, 1, 2).to("cuda", memory_format=torch.channels_last)
        w = torch.from_numpy(a["w"]).permute(3, 2, 0, 1).contiguous().cuda()
        x = torch.randn(self.batch, c, self.rows, self.columns, device="cuda").to(memory_format=torch.channels_last)
        backward = torch.ops.aten.convolution_backward
        arguments = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, False))
        return waited(torch, lambda: backward(dy, x, w, *arguments))

    def predicted(self) -> dict:
        """Nothing more."""
        return {}


class OursThere:
    """The launches that a step makes of a filtered convolution, replayed as a section of their own."""

    def __init__(self, case: GpuFiltered):
        c = case.channels
        g = ri.Graph("filtered", (case.rows, case.columns), c)
        x = g.conv2d("before", "input", c, 1, bias=False)  # makes the filtered layer compute dx
        g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", x, c, 3, pad=1, bias=False)), 2)
        program = ri.compile(g, ri.Plan("all", rules=[ri.GradientFilter(case.patch)]), case.batch, backend="cuda")
        trainer = ri.Trainer(program)
        self.trainer, self.backend, self.case = trainer, trainer.backend, case
        trainer.rehearse(np.zeros((case.batch, case.rows, case.columns, c), np.float32), np.zeros(case.batch, int))
        n, runner = case.batch, trainer.runner
        own, belongs = [], False
        for launch, prepared in runner.present("backward", n):
            if launch.covers:  # one without adds the slices of the launch before it
                belongs = any(call.node == "conv" for call in launch.covers)
            if belongs:
                own.append((launch, prepared))
        self.calls = [call for launch, _ in own for call in launch.covers if call.node == "conv"]
        arrays = case.arrays()
        self.put("dy", arrays["dy"])
        self.put("x_sum", arrays["x_sum"])
        runner.backend.write(runner.parameter("conv.w"), arrays["w"])
        self.queue = self.backend.ready([launch for launch, _ in own], [prepared for _, prepared in own], 1)

    def buffer(self, name: str):
        """The array of that name of one of the calls."""
        return next(call.arrays[name] for call in self.calls if name in call.arrays)

    def put(self, name: str, values: np.ndarray) -> None:
        """Fill one of them."""
        self.backend.write(self.trainer.runner.array(self.buffer(name)), values)

    def __call__(self) -> None:
        """Run the pass."""
        self.backend.launch(self.queue)
        self.backend.synchronise()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """dx and dw."""
        runner = self.trainer.runner
        return tuple(self.backend.read(runner.array(self.buffer(name))) for name in ("dx", "dw"))


def by_events(trainer, x: np.ndarray, y: np.ndarray) -> dict:
    """ms of a step on the GPU (`event_ms`) and the share of it in which Python queues it (`launch_share`).

    Of STEPS steps that are queued without waiting, their sections captured before.
    """

    def steps(count: int) -> None:
        for _ in range(count):
            trainer.train_step(x, y, 1)

    steps(3)
    trainer.backend.synchronise()
    seconds, queued = cuda.timed(trainer.backend.stream, lambda: steps(STEPS))
    return {"event_ms": 1e3 * seconds / STEPS, "launch_share": queued / seconds}


def without_tf32(torch) -> None:
    """Products in float32, as ours."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def waited(torch, work):
    """The work, and then the GPU is waited for."""

    def run() -> None:
        work()
        torch.cuda.synchronize()

    return run


CASES = {
    **{
        f"gpu-{model}-{size[0]}x{size[1]}-batch{batch}": GpuStep(model, size, batch)
        for model, size, batch in (
            ("mobilenet_v2", (224, 224), 32), ("resnet18", (224, 224), 32), ("lenet5", (28, 28), 64),
        )
    },
    **{
        f"gpu-filtered-{c}x{h}x{w}-patch{patch}": GpuFiltered(c, h, w, patch, BATCH)
        for c, h, w in TABLE_10
        for patch in PATCHES
    },
}  # fmt: skip
