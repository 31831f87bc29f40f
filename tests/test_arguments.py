"""What a caller of refimpl may pass by mistake: each ends in one sentence, before anything is computed."""

import re

import numba
import numpy as np
import pytest
from nets import NETS

import refimpl as ri


def compiled(plan=None, batch=4, graph=None, **options):
    return ri.compile(NETS["residual"]() if graph is None else graph, plan or ri.Plan(), batch, **options)


def empty():
    return ri.Graph("empty", (4, 4), 1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ri.Plan(rules=ri.GradientFilter()), "rules must be a tuple of methods, such as (Grad"),
        (lambda: ri.Plan(rules=("gradient-filter",)), "each of rules must be a rule for gradients, such as"),
        (lambda: ri.Plan(rules=(ri.InstanceFilter(),)), "each of rules must be a rule for gradients, such as"),
        (lambda: ri.Plan(rules=(ri.GradientFilter,)), "each of rules must be a rule for gradients, such as"),
        (lambda: ri.Plan(instances=ri.GradientFilter()), "instances must be a choice of data, such as"),
        (lambda: ri.Plan(depth=0.5), "depth must be what leaves blocks out, such as StochasticDepth(), got 0.5"),
        (lambda: ri.Plan(depth=ri.InstanceFilter()), "depth must be what leaves blocks out, such as StochasticDepth()"),
        (lambda: ri.Plan(step=ri.SGD(lr=0.1)), "step must be a way to make a step, such as Backprop"),
        (lambda: ri.Backprop("sgd"), "optimizer must be an optimizer, such as SGD(lr=0.01), got 'sgd'"),
        (lambda: ri.Backprop(clip_norm=-1), "clip_norm must be a norm above 0, got -1"),
        (lambda: ri.Backprop(clip_norm="a"), "clip_norm must be a number, got 'a'"),
        (lambda: ri.Plan(label_smoothing="a"), "label_smoothing must be a number, got 'a'"),
        (lambda: ri.SGD(lr="a"), "lr must be a number, got 'a'"),
        (lambda: ri.SGD(lr=0.1, weight_decay="a"), "weight_decay must be a number, got 'a'"),
        (lambda: ri.Adam(lr=0.1, weight_decay=None), "weight_decay must be a number, got None"),
        (lambda: ri.InstanceFilter(keep="a"), "keep must be a number, got 'a'"),
        (lambda: ri.ErrorMapPruning("a"), "keep must be a number, got 'a'"),
        (lambda: ri.ErrorMapPruning(0.5, gamma_w=None), "gamma_w must be a number, got None"),
        (lambda: ri.SparseUpdate("a"), "ratio must be a number, got 'a'"),
        (lambda: ri.SparseUpdate(0.5, fixed_first="a"), "fixed_first must be a number, got 'a'"),
        (lambda: ri.StochasticDepth("a"), "survival must be a number, got 'a'"),
        (lambda: ri.HardExamples("a"), "keep must be a number, got 'a'"),
        (lambda: ri.RandomSkip("a"), "skip must be a number, got 'a'"),
        (lambda: ri.InstanceFilter(0.1), "graph must be a Graph with two outputs, or None for the paper's, got 0.1"),
        (lambda: ri.Plan(class_weights=(1, -2)), "class_weights must be positive finite numbers, one a"),
        (lambda: ri.Plan(class_weights=3.0), "class_weights must be positive finite numbers, one a class, got 3.0"),
        (lambda: ri.Plan(class_weights=(1, 1), loss="mse"), "class_weights need the loss softmax_cross_entropy, but"),
        (lambda: compiled(ri.Plan(class_weights=(1, 2))), "class_weights has 2 weights, but residual has"),
        (lambda: compiled(batch=2.5), "batch must be a whole number from 1 up, got 2.5"),
        (lambda: compiled(batch=True), "batch must be a whole number from 1 up, got True"),
        (lambda: compiled(dtype="float16"), "dtype must be float32 or float64, got 'float16'"),
        (lambda: compiled(dtype=None), "dtype must be float32 or float64, got None"),
        (lambda: compiled(memory_limit="2MiB"), "memory_limit, in bytes, must be a whole number from 1 up, got '2MiB'"),
        (lambda: compiled(threads=1.5), "threads must be a whole number from 1 up, got 1.5"),
        (lambda: compiled(size=28), "size must be rows and columns (H, W), got 28"),
        (lambda: compiled(size=(28, 0)), "each of size must be a whole number from 1 up, got 0"),
        (lambda: compiled(graph="mobilenet_v2"), "graph must be a Graph, such as models.build makes, got"),
        (lambda: compiled(graph=empty()), "the graph empty has no nodes: add layers to it by its"),
        (lambda: compiled(ri.GradientFilter()), "plan must be a Plan, or None for inference, got GradientFilter("),
        (lambda: ri.Trainer(compiled(), seed=-1), "seed must be a whole number from 0 up, got -1"),
        (lambda: ri.Graph("flat", 4, 1), "size of the graph flat must be rows and columns (H, W), got 4"),
        (lambda: ri.Graph("flat", (4, 4), 0), "channels of the graph flat must be a whole number from 1 up, got 0"),
        (lambda: empty().conv2d("conv", "input", 0, 3), "channels of conv must be a whole number from 1 up, got 0"),
        (lambda: empty().relu("relu", "inptu"), "the graph empty has no tensor 'inptu'; it has input"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()


def test_more_threads_than_the_process_has_compile_but_do_not_run():
    """A cost is asked for another machine's threads; here the step cannot run."""
    most = numba.config.NUMBA_NUM_THREADS
    trainer = ri.Trainer(compiled(threads=most + 1))
    x = np.zeros((4, *trainer.program.size, trainer.program.graph.channels), np.float32)
    message = f"the program is compiled for {most + 1} threads, but this process has {most}: compile it with at most"
    with pytest.raises(ValueError, match=message):
        trainer.fit(x, np.zeros(4, int), 1)
