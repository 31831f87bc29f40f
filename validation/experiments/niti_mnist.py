"""NITI against floats: LeNet-5 on the full MNIST from new weights, each way of training for the same epochs.

    python -m validation.experiments.niti_mnist [--epochs 3] [--seeds 10 11 12] [--output build/niti] [--only NITI]

Training in whole numbers alone (`methods.niti`), with each of its roundings, beside SGD of floats with momentum 0.9 and
plain SGD. Learning rates fall along a cosine; each is the best of those tried by accuracy on HELD_OUT training images,
in runs of a seed of their own on TRIED others. Test images are looked at once, at the end. Finished runs are kept in
the folder and not run again.

[second-hand] NITI's own log: at best 91.7 % on CIFAR-10 with a small VGG, which is another task.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import refimpl as ri
from refimpl import data
from refimpl.kernels.shared_exponent import ROUNDINGS
from refimpl.methods.strategy import Strategy
from refimpl.surgery.for_step import made_for

from .lenet_mnist import mnist
from .runs import FRESH, TRIAL_SEED, Runs, best_of, held_out, percents

SEEDS = FRESH[:3]
HELD_OUT, TRIED = 5000, 10000
BATCH = 64
COSINE = ri.Schedule("cosine")
FLOAT_RATES, WHOLE_RATES = (0.005, 0.02, 0.08), (2**-4, 2**-3, 2**-2)


def sgd(lr: float, momentum: float = 0.0) -> ri.SGD:
    """SGD whose rate falls along a cosine."""
    return ri.SGD(lr, momentum, schedule=COSINE)


WAYS: dict[str, tuple[Callable[[float], Strategy], tuple[float, ...]]] = {
    "floats, momentum 0.9": (lambda lr: ri.Backprop(sgd(lr, 0.9)), FLOAT_RATES),
    "floats, plain SGD": (lambda lr: ri.Backprop(sgd(lr)), (0.05, 0.2, 0.8)),
    **{
        f"NITI, {rounding}": (lambda lr, rounding=rounding: ri.Niti(rounding, sgd(lr)), WHOLE_RATES)
        for rounding in ROUNDINGS
    },
}


def train(d: data.Dataset, step: Strategy, epochs: int, seed: int) -> float:
    """Accuracy on the test images of a LeNet-5 that is trained from new weights; a share."""
    graph = made_for(step, ri.models.build("lenet5", classes=10), d.x_train, seed)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(step=step, train_bias=True), BATCH), seed)
    trainer.fit(d.x_train, d.y_train, epochs)
    return trainer.evaluate(d.x_test, d.y_test)


def main() -> int:
    """Do the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m validation.experiments.niti_mnist", description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--output", type=Path, default=Path("build/niti"))
    parser.add_argument("--only", default="", help="ways whose names have this text")
    asked = parser.parse_args()
    d, ways = mnist(), {name: way for name, way in WAYS.items() if asked.only in name}
    asked.output.mkdir(parents=True, exist_ok=True)
    apart = held_out(d, HELD_OUT)
    apart = replace(apart, x_train=apart.x_train[:TRIED], y_train=apart.y_train[:TRIED])
    best, found = {}, {}
    for name, (step_of, rates) in ways.items():
        runs = Runs(asked.output, name.replace(", ", "-").replace(" ", "-"), {"epochs": asked.epochs, "batch": BATCH})
        trial = lambda s, step_of=step_of: train(apart, step_of(s["lr"]), asked.epochs, TRIAL_SEED)  # noqa: E731
        best[name] = best_of(runs, name, [{"lr": lr} for lr in rates], trial)["lr"]
        for seed in asked.seeds:
            key = {"way": name, "seed": seed, "lr": best[name]}
            if not runs.get(**key):
                accuracy = train(d, step_of(best[name]), asked.epochs, seed)
                print(f"{name}, seed {seed}: {accuracy:.2%}", file=sys.stderr, flush=True)
                runs.add(**key, accuracy=accuracy)
        found[name] = [runs.get(way=name, seed=seed, lr=best[name])["accuracy"] for seed in asked.seeds]
    print("| way | learning rate | accuracy of each seed | mean |")
    print("|---|---|---|---|")
    for name, accuracies in found.items():
        each = ", ".join(f"{100 * a:.2f}" for a in accuracies)
        print(f"| {name} | {best[name]:g} | {each} | {percents(accuracies)['mean']:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
