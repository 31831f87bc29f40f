"""Which launches a GPU makes of operators on rows, told without one."""

import pytest

import refimpl as ri
from refimpl.backends.cuda import rows, softmax_cross_entropy
from refimpl.backends.cuda.rows import RowWise
from refimpl.graph import INPUT, Graph


def net():
    """A layer norm, a softmax and a linear layer."""
    g = Graph("net", (5, 3), 2)
    x = g.softmax("share", g.layer_norm("norm", g.conv2d("conv", INPUT, 40, 1)))
    g.linear("fc", g.flatten("flat", x), 10)
    return g


def covered(program):
    """Section → what each launch by rows covers there."""
    return {
        section: [[str(call.passed) for call in x.covers] for x in launches if isinstance(x.function, RowWise)]
        for section, launches in program.launches.items()
    }


def test_a_row_is_told_and_used_in_one_launch():
    program = ri.compile(net(), ri.Plan("all", train_bias=True), 4, backend="cuda", threads=1)
    assert covered(program) == {
        "forward": [
            ["layer_norm.statistics", "layer_norm.forward"], ["softmax.scales", "softmax.forward"],
            ["softmax_cross_entropy.log_sum_exp", "softmax_cross_entropy.sample_losses"],
            ["softmax_cross_entropy.mean_loss"],
        ],
        "backward": [
            ["softmax_cross_entropy.grad_x"], ["softmax.projection", "softmax.grad_x"],
            ["layer_norm.projections", "layer_norm.grad_x"],
        ],
        "update": [],
    }  # fmt: skip


def test_losses_and_their_logarithms_are_written_where_others_read_them():
    plan = ri.Plan("all", instances=ri.InstanceFilter())
    program = ri.compile(ri.models.build("lenet"), plan, 4, backend="cuda", threads=1)
    read = program.step.host_reads["losses"].root
    (made,) = (x for x in program.order if read in {b.root for b in x.writes})
    assert made.function is softmax_cross_entropy.SAMPLE_LOSSES
    assert {b.name for b in made.writes} == {"loss.losses", "loss.lse"} and "loss.lse" not in {
        b.name for b in made.reads
    }
    needs = [x for x in program.order if "loss.lse" in {b.name for b in x.reads}]
    assert [x.function for x in needs] == [softmax_cross_entropy.GRAD_X]


def test_tangents_of_the_loss_take_a_launch():
    plan = ri.Plan("all", step=ri.ForwardGradient(m=1, estimator="exact"))
    program = ri.compile(net(), plan, 4, backend="cuda", threads=1)
    found = covered(program)["look"]
    assert ["softmax_cross_entropy.tangent_lse", "softmax_cross_entropy.sample_losses"] in found
    assert found.count(["softmax.projection", "softmax.grad_x"]) == 1


@pytest.mark.parametrize(
    ("length", "wanted"),
    [(1, (16, 8)), (64, (16, 8)), (65, (4, 32)), (256, (4, 32)), (257, (1, 128)), (9000, (1, 128))],
)
def test_a_lane_has_eight_elements_while_there_are_more_lanes(length, wanted, monkeypatch):
    monkeypatch.setattr(rows.house, "simulated", lambda: False)
    block = rows.block_of(length)
    assert block == wanted and block.threads == 128 and block.filled(17) % block.rows == 0 <= block.filled(17) - 17
