"""Products of whole numbers beside those of floats: counted by bits, weighed by a ratio that the report names."""

import pytest

import costmodel
import refimpl as ri
from costmodel.advice import integers
from gradledger import cost as command
from gradledger import show_cost
from gradledger.errors import Malformed


def net(plan) -> costmodel.predict.Estimate:
    g = ri.Graph("two", (6, 5), 3)
    x = g.conv2d("second", g.conv2d("first", "input", 4, 3), 5, 2)
    g.linear("fc", g.flatten("flat", x), 2)
    return costmodel.estimate(ri.compile(g, plan, 4, backend="reference"))


FIRST, SECOND = 4 * (4 * 3) * (3 * 3 * 3) * 4, 4 * (3 * 2) * (2 * 2 * 4) * 5  # N · outputs · taps and inputs · K
LAST = 4 * (3 * 2 * 5) * 2  # N · D · K


@pytest.mark.parametrize("scheme, wanted", [
    ("psq", {(8, 8): FIRST + 2 * SECOND + 2 * LAST}),  # dw of all, dx of the second and the last
    ("ptq", {(8, 8): FIRST + 2 * SECOND + 2 * LAST}),
    ("banner", {(8, 8): FIRST + 2 * SECOND + 2 * LAST, (8, 16): FIRST + SECOND + LAST}),  # forward of all and dx; dw
])  # fmt: skip
def test_they_are_counted_by_the_bits_of_their_factors(scheme, wanted):
    found = net(ri.Plan(rules=[ri.QuantizedTraining(scheme)]))
    assert integers.products(found) == wanted
    width = sum(n * max(bits) / 32 for bits, n in wanted.items())
    area = sum(n * bits[0] * bits[1] / 1024 for bits, n in wanted.items())
    assert (integers.as_macs(wanted, "width"), integers.as_macs(wanted, "area")) == (width, area)


def test_a_net_of_floats_has_none():
    assert integers.products(net(ri.Plan())) == {}


def test_eight_bits_are_a_quarter_or_a_sixteenth():
    assert [ratio(8, 8) for ratio in integers.RATIOS.values()] == [1 / 4, 1 / 16]
    assert [ratio(8, 16) for ratio in integers.RATIOS.values()] == [1 / 2, 1 / 8]


@pytest.mark.parametrize("ratio", integers.RATIOS)
def test_the_cost_command_names_the_ratio(ratio):
    method = ["quantized:scheme=psq"]
    settings = command.CostSettings(model="lenet5", batch=2, method=method, train_last="all", integer_ratio=ratio)
    record = command.run(settings)
    found = record["integers"]
    assert found["ratio"] == ratio and found["imacs"].keys() == {"8x8"}
    assert found["as_macs"] == found["imacs"]["8x8"] * integers.RATIOS[ratio](8, 8)
    assert found["macs"] == record["macs"] + found["as_macs"]
    line = next(line for line in show_cost.notes(record) if "IMAC" in line)
    assert "0.25 (width) or 0.0625 (area)" in line and f"here {ratio}: our reading" in line
    show_cost.priced(record)


def test_another_ratio_is_refused():
    with pytest.raises(Malformed, match="value of --integer-ratio 'cubic'.*width, area"):
        command.run(command.CostSettings(integer_ratio="cubic"))
