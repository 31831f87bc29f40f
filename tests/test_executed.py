"""What tuned kernels state that they execute, against their own bodies on vectors that count their lanes."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import refimpl as ri
from costmodel import predict
from refimpl import models
from refimpl.backends.cpu import (
    add,
    batch_norm,
    conv2d,
    dequantize,
    elementwise,
    interpolate,
    matmul,
    product,
    quantize,
    quantized_add,
    quantized_conv2d,
    quantized_gradients,
    quantized_perturbation,
    quantized_pools,
    quantized_rows,
    quantized_taps,
)
from refimpl.compiler import executed, two_stage
from refimpl.compiler.executed import ADD, MAC, MUL, NOTHING, Ops
from refimpl.graph import INPUT, Graph
from refimpl.kernels.kernel import GpuLoop
from validation.instruments import drawn, drawn_nets, executing, measured
from validation.instruments.counting import count_call

ROOT = Path(__file__).parent.parent
SGD = ri.Backprop(ri.SGD(lr=0.1))
CUDA = "refimpl.backends.cuda."


def names(seeds):
    """Tuned kernels of drawn nets, and what they state wrongly."""
    found, wrong = Counter(), []
    for seed in seeds:
        case = drawn_nets.net_case(seed)
        found.update(launch.function for launch in case.program.order)
        wrong += [str(k) for k in drawn.compare_kernels(case.program, case.n) if not k.ok]
    return found, wrong


def test_every_kernel_states_what_its_body_does_in_drawn_nets():
    found, wrong = names(range(300))
    assert wrong == []
    unused = {batch_norm.frozen_table, two_stage.ADD_SLICES.cpu, two_stage.AVERAGE_SLICES.cpu}  # no rule launches them
    # of nets in whole numbers: tests/test_fast_quantized.py
    unused |= {quantized_add.forward, quantized_conv2d.dense, quantized_conv2d.depthwise, quantize.forward}
    unused |= {quantized_taps.forward, dequantize.forward}
    unused |= {quantized_pools.maximum, quantized_pools.mean}
    unused |= {quantized_perturbation.perturbed, quantized_perturbation.stepped}  # test_fast_quantized_perturbation.py
    # tests/test_quantized_gradients.py
    unused |= {quantized_gradients.pointwise, quantized_gradients.depthwise, quantized_gradients.rounded}
    unused |= {quantized_rows.three}
    unused |= {interpolate.forward, interpolate.grad_x}  # tests/test_fast_interpolate.py
    unused |= {elementwise.approximate_gelu, elementwise.approximate_gelu_grad_x}  # tests/test_fast_elementwise.py
    # the library's own on the CPU; those of a GPU are known once a test has compiled for one
    stated = {kernel for kernel in executed.STATED if not kernel.__module__.startswith("own.")}
    stated -= {kernel for kernel in stated if isinstance(kernel, GpuLoop) or kernel.__module__.startswith(CUDA)}
    assert stated - set(found) <= unused


REAL = {
    "residual": ("resnet8", {"size": (16, 16)}, 5, {}),
    "depthwise": ("mobilenet_v2", {"size": (64, 64), "width": 0.35}, 3, {}),
    "batch statistics": ("mobilenet_v2", {"size": (64, 64), "width": 0.35}, 5, {"batch_norm": "train"}),
    "filtered": ("watch", {}, 32, {"rules": (ri.GradientFilter(2),)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REAL)
def test_every_kernel_states_what_its_body_does_in_real_nets(name, dtype):
    model, options, batch, plan = REAL[name]
    p = ri.compile(models.build(model, **options), ri.Plan(step=SGD, **plan), batch, dtype=dtype)
    assert [str(k) for k in drawn.compare_kernels(p, batch) if not k.ok] == []


@pytest.mark.parametrize("features", [{"avx2": True, "avx": True}, {}], ids=["avx2", "without vectors of their own"])
def test_statements_follow_the_vectors_of_the_processor(features):
    code = (
        "import sys, llvmlite.binding as llvm\n"
        "class Features(dict):\n"
        "    flatten = lambda self, sort=True: ''\n"
        f"llvm.get_host_cpu_features = lambda: Features({features!r})\n"
        "sys.path.insert(0, 'tests')\n"
        "from test_executed import names\n"
        "import json\n"
        "from refimpl.backends.cpu import matmul\n"
        "print(json.dumps([matmul.VECTOR, names(range(40))[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [32 if features else 16, []]


def test_padding_is_executed_and_not_counted():
    g = Graph("padded", (16, 16), 16)
    g.linear("fc", g.flatten("flat", g.conv2d("conv", INPUT, 64, 3, pad=1)), 2)
    p = ri.compile(g, ri.Plan(step=SGD), 2)
    conv = next(launch for launch in p.order if launch.function is conv2d.forward)
    counted, ops = count_call(conv.covers[0], 2), executed.executed(conv, 2, count_call)
    nominal = 2 * 16 * 16 * 9 * 16 * 64
    assert counted["mul"] < nominal <= ops.mul < 1.1 * nominal


def test_a_reference_kernel_executes_what_is_counted():
    p = ri.compile(models.build("lenet5"), ri.Plan(step=SGD), 3, backend="reference")
    price = predict.estimate(p)
    for section, units in price.sections.items():
        assert price.executed[section] == Ops(units["mul"], units["add"])
    assert price.executed_flops == price.flops > 0


def test_a_fast_kernel_without_a_statement_does_not_compile(monkeypatch):
    monkeypatch.delitem(executed.STATED, conv2d.grad_w)
    with pytest.raises(KeyError, match="the kernel grad_w of .* does not state what it executes: add @executes"):
        ri.compile(models.build("lenet5"), ri.Plan(step=SGD), 3)


@pytest.mark.parametrize(
    "kernel, statement",
    [
        (add.forward, lambda y, a, b: ADD * (y.size + 1)),
        (conv2d.forward, lambda *args: conv2d.forward_executes(*args) + MUL),
        (conv2d.grad_w, lambda *args: NOTHING),
    ],
)
def test_a_wrong_statement_is_found(kernel, statement, monkeypatch):
    monkeypatch.setitem(executed.STATED, kernel, statement)
    assert names(range(40))[1]


def looped(m, n, k, lanes, blocks):
    """Multiply-adds of a product made in register blocks, one by one; blocks: (vectors for which, vectors, rows)."""
    done, j = 0, 0
    while j < n:
        vectors, rows = next((v, r) for least, v, r in blocks if n - j > least * lanes)
        i = 0
        while i < m:
            done += (rows if m >= rows else 1) * vectors * lanes * k
            i += rows if m >= rows else 1
        j += vectors * lanes
    return done


@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (5, 17, 3), (8, 64, 100), (13, 65, 97), (120, 40, 9), (7, 200, 1)])
def test_products_fill_their_vectors_and_rows(m, n, k):
    blocks = ((3, 4, matmul.ROWS_4), (1, 2, matmul.ROWS_2), (0, 1, matmul.ROWS_1))
    for itemsize in (4, 8):
        assert matmul.product_executes(m, n, k, itemsize) == MAC * looped(m, n, k, matmul.VECTOR // itemsize, blocks)
    columns = -(-n // product.LANES) * product.LANES
    assert product.product_executes(m, n, k, False) == MAC * (m * columns * k)
    assert product.product_executes(m, n, k + product.DEPTH, True).add > product.product_executes(m, n, k, False).add


def test_the_counting_body_counts():
    y = np.zeros((3, 5), np.float32)
    assert executing.run(add.forward, (y, y, y)) == ADD * 15


def test_a_run_counts_and_executes_every_launch_it_made():
    g = models.build("lenet5")
    trainer = ri.Trainer(ri.compile(g, ri.Plan(step=SGD), 4))
    trainer.fit(np.zeros((6, 28, 28, 1), np.float32), np.arange(6), 1)
    program, made = trainer.program, trainer.made
    counted, done = (measured.all_flops(program, made, of) for of in (measured.counted_flops, measured.executed_flops))
    steps = [4, 2]
    assert predict.as_macs(counted) == predict.run_macs(program, steps)
    assert predict.as_macs(done) == predict.run_macs(program, steps, predict.executed_of) != predict.as_macs(counted)


def test_expected_operations_lie_between_those_of_whole_numbers():
    p = ri.compile(models.build("lenet5"), ri.Plan(step=SGD), 4)
    launch = next(launch for launch in p.order if launch.function is conv2d.forward)
    low, mid, high = (predict.expected_ops(launch, n) for n in (2, 2.25, 3))
    assert (
        mid.mul == pytest.approx(low.mul + 0.25 * (high.mul - low.mul)) and predict.expected_ops(launch, 0) == NOTHING
    )


def test_layers_share_what_a_step_executes():
    plan = ri.Plan(rules=(ri.GradientFilter(2),), step=SGD)
    price = predict.estimate(ri.compile(models.build("resnet8", size=(16, 16)), plan, 4))
    layers = [layer.executed for layer in price.layers]
    assert sum(o.mul + o.add for o in layers) == price.executed_flops
