"""The validation report: one file, well-formed, escaped, with every check; its pictures."""

import base64
import json
import re
from html.parser import HTMLParser

import own
import pytest

from costmodel.device.device import QUICK
from costmodel.formulas import cost
from validation.instruments import drawn
from validation.report import report, report_plot

CHECK = {
    "section": "counts", "name": "calls", "formula": "a < b & c", "value": "0", "measured": "0", "ok": True,
    "command": "python -m x", "problem": "", "verdict": "ok",
}  # fmt: skip
SUMMARY = {"cosine": 0.9, "relative_error": 0.1, "bias": 0.1, "variance": None, "noise": 0.5}
TIME = {"name": "lenet5, batch 8", "predicted_seconds": 0.02, "low_seconds": 0.01, "high_seconds": 0.03,
        "measured_seconds": 0.021, "error": -0.05}  # fmt: skip
TERMS = {"runtime": 2 << 20, "data": 1 << 20}
PROCESS = {"name": "watch", "predicted_bytes": 3 << 20, "measured_bytes": 2 << 20, "terms": TERMS}


def torch_row(part, groups, times=1):
    return {"name": f"layer {groups}", "part": part, "groups": groups, "ours": 10, "as_torch": 10 * times,
            "torch": 10 * times, "ratio": float(times), "explained": True}  # fmt: skip


LAUNCHES = [{"section": "forward", "name": "conv1 conv2d.forward", "counted": 1000, "executed": 1250},
            {"section": "forward", "name": "pool1 max_pool.forward", "counted": 0, "executed": 0}]  # fmt: skip
SVG = report_plot.svg
NAMES = ("conv2d.grad_w", "relu.forward")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two passes, and pictures that take no time."""
    every = drawn.drawn_passes.passes()
    monkeypatch.setattr(drawn.drawn_passes, "passes", lambda: {name: every[name] for name in NAMES})
    monkeypatch.setattr(report_plot, "svg", lambda draw, *data: b"<?xml version='1.0'?><svg/>")


@pytest.fixture
def record():
    passes = drawn.run_passes(1)
    return {
        "model": "watch", "data": "watch", "method": "backprop", "weights": "pre-trained", "batch": 4, "batches": 2,
        "seed": 0, "command": "gradledger validate", "versions": {"python": "3"},
        "machine": {"processor": "p", "cores": 2, "architecture": "x", "system": "Linux"},
        "checks": [{**CHECK, "section": name} for name in report.SECTIONS],
        "gradients": {
            "kernels": {"conv1.w": 1e-6}, "slope": {"parameters": {"conv1.w": 1e-9}}, "estimator": {},
            "step": None, "note": "",
            "errors": [{"layer": "conv1", "local": {"dw": SUMMARY}, "whole": {"dw": SUMMARY}, "filter": None}],
        },
        "counts": {
            "model": {"wrong": [], "kernels": {"wrong": [], "launches": LAUNCHES}},
            "passes": passes,
            "nets": {"methods": {"backprop": {"cases": 1, "calls": 9, "mismatches": 0}}, "sets": {}, "wrong": [],
                     "kernels": {"wrong": []}},
            "torch": {"installed": True, "version": "2", "groups": "torch 2 counts dw G times", "rows": [
                torch_row("y", 2), torch_row("dx", 2), torch_row("dw", 2, 2), torch_row("backward", None, 3)]},
        },
        "memory": {
            "drawn": {"methods": {"backprop": {"cases": 2, "mismatches": 0}}, "arenas": [[0, 10, 10], [1, 99, 99]],
                      "wrong": []},
            "process": {"cases": [PROCESS], "note": ""},
        },
        "time": {"cases": [TIME], "device": "here", "calibrated": True},
        "tables": {"rows": [{"source": "s", "what": "w", "published": 1.5, "ours": 1.5, "unit": "%", "note": "n",
                             "origin": {"kind": "fitted", "why": "to this"}, "allowed": [0.1, "relative"],
                             "ok": True}]},
    }  # fmt: skip


class Reader(HTMLParser):
    """Notes tags that are not closed in order, what is fetched from elsewhere, the pictures and the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.wrong, self.fetched, self.images, self.text = [], [], [], [], ""
        self.feed(page)
        self.wrong += self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.images += [attrs["src"]] if tag == "img" else []
        self.fetched += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith(("data:", "#"))]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text += data


def test_what_is_counted_stands_beside_what_is_executed(record):
    found = Reader(report.page(record)).text
    assert "conv1 conv2d.forward1,0001,2501.250" in found and "pool1 max_pool.forward00–" in found
    assert "whole step1,0001,2501.250" in found and "padded taps are skipped" in found


def test_the_page_is_whole_and_needs_nothing_else(record, monkeypatch):
    monkeypatch.setattr(report_plot, "svg", SVG)
    page = report.page(record, b"\x89PNG")
    found = Reader(page)
    assert found.wrong == found.fetched == [] and "<script" not in page and "@import" not in page
    kinds = [src.split(";")[0] for src in found.images]
    assert kinds == ["data:image/png"] + ["data:image/svg+xml"] * 4
    assert all(base64.b64decode(src.split(",")[1]).lstrip().startswith((b"<?xml", b"\x89PNG")) for src in found.images)
    assert "@media print" in page and "All 5 checks passed." in found.text
    assert "mac   C*K*N*taps(H)*taps(W)/G" in found.text
    for name in NAMES:
        assert f"python -m validation.instruments.drawn {name} 0" in found.text


def test_a_check_has_formula_value_measured_verdict_and_command(record):
    text = Reader(report.checks([{**CHECK, "value": "at most 5", "measured": "7", "verdict": "FAILED"}])).text
    assert all(word in text for word in ("a < b & c", "at most 5", "7", "FAILED", "python -m x"))


def test_everything_is_escaped(record):
    bad = "<b onload='x'>&amp;\"</td>"
    record |= dict.fromkeys(("model", "data", "method", "weights", "command"), bad)
    record["machine"]["processor"] = record["versions"]["python"] = bad
    record["gradients"]["kernels"] = {bad: 1.0}
    record["gradients"]["errors"][0]["layer"] = bad
    record["tables"]["rows"][0] |= {"source": bad, "what": bad, "unit": bad, "note": bad}
    record["time"]["cases"][0] = TIME | {"name": bad}
    record["counts"]["torch"]["rows"][0]["name"] = bad
    wrong = {"case": bad, "seed": 3, "what": bad, "command": bad}
    record["counts"]["passes"]["wrong"] = record["memory"]["drawn"]["wrong"] = [wrong]
    for check in record["checks"]:
        check |= dict.fromkeys(("name", "formula", "value", "measured", "command"), bad)
    record["checks"][0] |= {"ok": False, "verdict": "FAILED", "problem": bad}
    page = report.page(record)
    assert "<b onload" not in page and Reader(page).wrong == []
    assert Reader(page).text.count(bad) > 40


def test_mismatches_stand_with_their_seeds_and_are_not_endless(record):
    record["memory"]["drawn"]["wrong"] = [
        {"case": "net", "seed": i, "what": "off", "command": f"python -m validation.instruments.drawn net {i}"}
        for i in range(60)
    ]
    record["counts"]["passes"]["passes"]["relu.forward"]["mismatches"] = 1
    record["checks"][1] |= {"ok": False, "verdict": "FAILED", "problem": "1 of 2 drawn calls differ"}
    text = Reader(report.page(record)).text
    assert (
        "python -m validation.instruments.drawn net 49" in text
        and "python -m validation.instruments.drawn net 50" not in text
    )
    assert "10 more are in the record." in text and "1 of 5 checks failed, 4 passed." in text
    assert text.count("1 of 2 drawn calls differ") == 1 and "FAILED 1" in text


def test_a_step_of_whole_numbers_has_its_weights_and_the_reason_in_place_of_gradients(record):
    step = {"checked": 3, "mismatches": 1, "allowed": 0, "parameters": {"fc.w": 1, "fc.b": 0}}
    record["gradients"] |= {"kernels": {}, "errors": [], "step": step, "note": "between those a <loss> has no slope"}
    text = Reader(report.page(record)).text
    assert "between those a <loss> has no slope." in text and "elements that differ\nfc.w1\nfc.b0" in text
    assert "What the method costs in error" not in text and "Relative errors, parameter by parameter" not in text


def test_what_was_not_measured_is_told(record):
    record["counts"]["torch"] = {"installed": False, "note": "PyTorch is not installed", "rows": []}
    record["memory"]["process"] = {"cases": [], "note": "not measured"}
    record["checks"] = [c for c in record["checks"] if c["section"] != "time"]
    record["checks"][0] |= {"ok": None, "verdict": "not judged"}
    page = report.page(record)
    assert "<p>PyTorch is not installed</p>" in page and 'id="time"' not in page
    assert "3 of 4 checks passed, 1 was not judged." in page and len(Reader(page).images) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([True, True], "All 2 checks passed."),
        ([True, None, None], "1 of 3 checks passed, 2 were not judged."),
        ([True, False], "1 of 2 checks failed, 1 passed."),
        ([True, False, None, True], "1 of 4 checks failed, 2 passed, 1 was not judged."),
    ],
)
def test_what_was_not_judged_did_not_pass(found, said):
    assert report.summed([{"ok": ok} for ok in found]) == said


def test_only_a_calibrated_machine_has_a_measured_coverage(record):
    hold = "From and to hold 19 of 20 undisturbed steps."
    assert f"here, calibrated here. {hold}" in report.time(record, None)
    record["time"] |= {"calibrated": False, "device": "this machine, not calibrated"}
    text = Reader(report.time(record, None)).text
    assert hold not in text and text.count("not calibrated") == 1
    assert f"an assumed factor of {QUICK:g} either way" in text and "gradledger calibrate measures" in text


def test_every_letter_of_a_formula_is_in_the_legend():
    cost.load_formulas()
    known = {word.split("(")[0] for key in report.LEGEND for word in key.split(", ")}
    settings = ("patch", "stride", "window")
    missing = set()
    for operator, name in (key for key in cost.COSTS if key[0] not in own.NAMES):
        lines = "\n".join(cost.show(operator, name).splitlines()[1:])
        inside = re.sub(r"(has|nonzero|differs)\(\w+(, -?\d+)?\)", r"\1", lines)
        missing |= {w for w in re.findall(r"[A-Za-z]\w*", inside) if w not in known and not w.startswith(settings)}
    assert not missing
    assert {"E", "J", "taps", "has", "nonzero", "Min"} <= known


def test_the_legend_stands_beside_the_formulas(record):
    text = Reader(report.counts(record, None)).text
    assert all(meaning in text for meaning in report.LEGEND.values())
    told = Reader(report.tables(record, None)).text
    assert "fitted: to this" in told and "arithmetic" in told  # every kind is explained
    assert "torch 2 counts dw G times. y: output" in text and "the known error of torch 2.13.0 alone" in text


@pytest.mark.parametrize(
    ("most", "measure", "said"),
    [
        (0.0015, "relative", "0.15 % of it"),
        (0.3, "points", "0.3 points"),
        (0.0, "exact", "0"),
        (0.0, "one-sided", "any amount more, none less"),
    ],
)
def test_what_a_printed_figure_may_differ_by(most, measure, said):
    assert report.allowed(most, measure) == said


def test_an_arena_that_differs_is_crossed():
    plain, again, outside = (
        SVG(report_plot.arenas, [[0, 100, 100], [1, 200, touched]]) for touched in (200, 200, None)
    )
    assert plain == again != outside


def test_the_file(record, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(record))
    report.main(str(tmp_path / "r.json"), str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text() == report.page(json.loads((tmp_path / "r.json").read_text()))
