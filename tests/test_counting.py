"""The two savings of `validation.instruments.counting` against counts of every item in full."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS, RULES, STEPS, step_for

import refimpl as ri
from refimpl.kernels.passes import declare
from validation.instruments import counting


def distinct(step, n):
    return {
        (c.passed, str(sorted(c.sizes_at(n).items())), str(c.attrs), str(sorted(c.present))): c for c in step
    }.values()


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_classes_and_sums_give_the_full_count(net, rules, batch_norm):
    step = step_for(rules, STEPS["adamw, clipped"])
    plan = ri.Plan(rules=rules, batch_norm=batch_norm, train_bias=True, step=step)
    p = ri.compile(NETS[net](), plan, 3, backend="reference")
    for c in distinct(p.step, 3):
        sizes = c.sizes_at(3)
        full = counting.count(c.passed, sizes, c.attrs, c.present, every_item=True)
        assert counting.count_call(c, 3) == dict(sorted((u, n) for u, n in full.items() if n)), c.name


SHAPES = {"x": "N K", "w": "K C", "y": "N C", "z": "N"}


@declare(SHAPES, items="C", writes="y", sums="N K")
def crossed(t, y, x, w):
    """Σ_k x[n, k]·w[k, c] for all n: N·K products, K loads of w kept outside the sum over n."""
    for k in range(x.shape[1]):
        v = w[k, t]
        for n in range(x.shape[0]):
            y[n, t] = v * x[n, k]


@given(n=st.integers(1, 9), k=st.integers(1, 9), c=st.integers(1, 3))
def test_sums_may_be_crossed(n, k, c):
    found = counting.count(crossed, {"N": n, "K": k, "C": c}, {})
    assert found == counting.count(crossed, {"N": n, "K": k, "C": c}, {}, every_item=True)
    assert found == {"load": c * k * (1 + n), "mul": c * k * n, "store": c * k * n}


def test_a_long_sum_is_not_run(monkeypatch):
    longest = []
    counted = counting._counted
    monkeypatch.setattr(
        counting, "_counted", lambda p, sizes, *rest, **kw: longest.append(sizes) or counted(p, sizes, *rest, **kw)
    )
    found = counting.count(crossed, {"N": 10**9, "K": 10**6, "C": 7}, {})
    assert found["mul"] == 7 * 10**15
    assert max(max(s["N"], s["K"]) for s in longest) == 2


@declare(SHAPES, items="N", writes="z", sums="K")
def triangle(t, z, x):
    """Not affine along K, whatever it declares."""
    for k in range(x.shape[1]):
        for _ in range(k):
            z[t] = x[t, k]


def test_a_wrong_declaration_shows():
    sizes = {"N": 2, "K": 5}
    assert counting.count(triangle, sizes, {}) != counting.count(triangle, sizes, {}, every_item=True)


def test_an_item_cannot_sum_over_its_own_letter():
    with pytest.raises(TypeError, match="cannot stand for one index along {'K'} and sum over it"):

        @declare(SHAPES, items="N K", writes="z", sums="K")
        def body(t, z, x):
            """Nothing."""


def test_an_index_outside_the_array_is_refused():
    @declare(SHAPES, items="N", writes="z")
    def past(t, z, x):
        """Read one column too far."""
        z[t] = x[t, x.shape[1]]

    with pytest.raises(IndexError, match=r"index \(0, 4\) is outside an array of shape \(2, 4\)"):
        counting.count(past, {"N": 2, "K": 4}, {})
