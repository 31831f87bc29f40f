"""Whole training steps: forward, loss, backward and SGD with momentum, all layers trained, batch statistics."""

import copy
from dataclasses import dataclass

import numpy as np

import refimpl as ri
from refimpl.training.trainer import initial

LR, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True)
class StepCase:
    """A model with ten classes at an input size and a batch size."""

    model: str
    size: tuple[int, int]
    batch: int
    tolerance = 1e-2  # of the whole change of the weights: a rectifier near its kink may fall to either side

    def graph(self) -> ri.Graph:
        """The model with random weights, the same for every side; nothing is dropped out."""
        graph = ri.models.build(self.model, size=self.size, classes=10)
        for node in graph.nodes:
            if "rate" in node.operator.defaults:
                node.attrs["rate"] = 0.0
        graph.weights = initial(ri.compile(graph, None, 1), 0)
        return graph

    def samples(self, graph: ri.Graph) -> tuple[np.ndarray, np.ndarray]:
        """x (N, H, W, C) float32 and labels (N,), random."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, *self.size, graph.channels), dtype=np.float32)
        return x, rng.integers(0, 10, self.batch)

    def trainer(self) -> tuple[ri.Trainer, np.ndarray, np.ndarray]:
        """Our trainer and its samples."""
        graph = self.graph()
        step = ri.Backprop(ri.SGD(lr=LR, momentum=MOMENTUM))
        plan = ri.Plan("all", batch_norm="train", train_bias=True, step=step)
        return ri.Trainer(ri.compile(graph, plan, self.batch)), *self.samples(graph)

    def ours(self):
        """A step of our trainer."""
        trainer, x, y = self.trainer()
        return lambda: trainer.train_step(x, y, 1)

    def torch(self, channels_last: bool, dtype: str = "float32"):
        """A step of PyTorch; `.module` is what it trains."""
        import torch

        from validation.instruments import torch_nets

        graph = self.graph()
        form = torch.channels_last if channels_last else torch.contiguous_format
        x, y = (torch.from_numpy(a) for a in self.samples(graph))
        weights = {name: a.astype(dtype) for name, a in graph.weights.items()}
        module = torch_nets.with_weights(graph, weights, dropout=0.0).train().to(memory_format=form)
        x = x.to(getattr(torch, dtype)).permute(0, 3, 1, 2).contiguous(memory_format=form)
        optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        step.module = module
        return step

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against PyTorch in float64."""
        from validation.instruments import torch_nets

        trainer, x, y = self.trainer()
        before = copy.deepcopy(trainer.parameters)
        trainer.train_step(x, y, 1)
        step = self.torch(False, "float64")
        step()
        state = {name: a.detach().numpy() for name, a in step.module.state_dict().items()}
        after = torch_nets.torch_names.from_torch(trainer.program.graph, state)
        trained = trainer.program.step.gradients
        change = lambda new: np.concatenate([(new[n].astype("float64") - before[n]).ravel() for n in trained])  # noqa: E731
        ours, theirs = change(trainer.parameters), change(after)
        return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))

    def bytes(self) -> int:
        """Bytes that the launches read and write, each array of a launch once."""
        return sum(b.nbytes for launch in self.trainer()[0].program.order for b in launch.buffers)


CASES = {
    f"step-{model}-{size[0]}x{size[1]}-batch{batch}": StepCase(model, size, batch)
    for model, size, batch in (
        ("mobilenet_v2", (128, 128), 8), ("mobilenet_v2", (128, 128), 1), ("lenet5", (28, 28), 64),
        ("resnet8", (32, 32), 32), ("resnet18", (128, 128), 8),
    )
}  # fmt: skip
