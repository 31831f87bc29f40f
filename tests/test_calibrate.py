"""`gradledger calibrate`: the profile that it writes, and what is done with profiles that are not right."""

import dataclasses
import json
import math

import numpy as np
import pytest

import costmodel
import refimpl as ri
from costmodel.device import calibration, device, gpu, rates
from costmodel.device.kernels import Caches
from costmodel.device.process import Base
from gradledger import calibrate
from gradledger.cli import main

PROFILE = '{"threads": {"1": {"rates": %s, "factor": 1.1, "caches": {}}}, "name": "mine", "title": "mine", "cores": 1}'
LAYERS = [
    (calibration.LayerCase("plain", 2, 8, 8, 16), (calibration.DENSE,)),
    *((calibration.LayerCase("first", 2, n, 3, 8), (calibration.DENSE,)) for n in (6, 8, 10, 12)),
]


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A machine with five quick layers, a known runtime and an empty folder for profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "LAYERS", LAYERS)
    measure = calibration.measure
    monkeypatch.setattr(calibration, "measure", lambda t, c, w, seconds: measure(t, c, w, seconds=0, rounds=2))
    monkeypatch.setattr(calibrate.resident, "measure_base", lambda: Base(150_000_000, 10_000))
    return tmp_path


def command(*args):
    with pytest.raises(SystemExit) as left:
        main(list(args))
    return left.value.code


def test_the_profile_is_used_as_this_machine(home, capsys):
    assert device.this_machine().title == "this machine, not calibrated"
    assert command("calibrate", "--threads", "1", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file"] == str(home / "gradledger" / "this-machine.json")
    assert {"device", "peak_flops", "bandwidth", "machine", "versions", "command", "state"} <= record.keys()
    assert record["core_flops"] > 0 and set(record["threads"]) == {"1"}
    found = device.this_machine()
    assert (found.name, found.measured, found.cores) == ("this-machine", True, record["cores"])
    assert found.rates[1].by_kernel == record["threads"]["1"]["rates"]
    assert found.base == Base(150_000_000, 10_000)
    p = ri.compile(LAYERS[0][0].graph(), calibration.DENSE, 2, threads=1)
    assert 0 < costmodel.estimate(p, device="this-machine").seconds["mid"] < 1


def test_without_a_profile_the_reference_rates_follow_one_core_and_the_memory(home, monkeypatch):
    given = device._reference()
    monkeypatch.setattr(device, "measure", lambda most: (9e99, given["core_flops"] / 2, given["bandwidth"] / 4))
    monkeypatch.setattr(device, "caches_of", lambda threads: Caches(2.0**18 * threads, 2.0**20))
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    found, known = device._quick.__wrapped__(), device.find(device.REFERENCE)
    assert found.rates.keys() == found.caches.keys() == {1, 2}
    for threads, own in found.rates.items():
        before, after = known.rates[threads].by_kernel["any"], own.by_kernel["any"]
        assert after["mac"] == pytest.approx(2 * before["mac"]) and after["far"] == pytest.approx(4 * before["far"])
        assert found.caches[threads] == Caches(2.0**18 * threads, 2.0**20)


def test_the_bandwidth_is_that_of_memory_and_not_of_a_cache(monkeypatch):
    copied = []
    monkeypatch.setattr(device, "caches_of", lambda threads: Caches(2.0**20, 1.5 * 2**25))
    monkeypatch.setattr(device.np, "copyto", lambda target, source: copied.append(source.nbytes))
    device.measure()
    assert set(copied) == {3 * 2**25}


def test_the_table(home, capsys):
    assert command("calibrate", "--threads", "1", "--output", str(home / "mine.json")) == 0
    text = capsys.readouterr().out
    assert "steps within" in text and "GFLOP/s" in text
    assert not (home / "gradledger").exists()
    assert device.find(str(home / "mine.json")).measured


@pytest.mark.parametrize("text, problem", [
    ("{", "is not JSON"),
    ("{}", "lacks rates"),
    ('{"threads": {}}', "lacks rates"),
    (PROFILE % '{"any": {"call": -1}}', "lacks rates"),
    (PROFILE % '{"any": {"call": "fast"}}', "lacks rates"),
    (PROFILE % '{"other": {"call": 1e-6}}', "lacks rates"),
])  # fmt: skip
def test_a_corrupt_profile_is_refused(tmp_path, capsys, text, problem):
    path = tmp_path / "profile.json"
    path.write_text(text)
    assert command("cost", "--device", str(path)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"gradledger: the device profile {path} ") and problem in err
    assert "gradledger calibrate" in err and err.count("\n") == 1


@pytest.mark.parametrize("place, value, problem", [
    (("name",), None, "is wrong: name must be a text, got null"),
    (("title",), "", "is wrong: title must be a text, got \"\""),
    (("cores",), 0, "is wrong: cores must be a whole number of cores from 1 to 1,024, got 0"),
    (("cores",), 2.5, "cores must be a whole number of cores"),
    (("memory_bytes",), -5, "memory_bytes must be a whole number of bytes from 1 to 1,125,899,906,842,624, got -5"),
    (("memory_bytes",), math.nan, "memory_bytes must be a whole number of bytes from 1 to"),
    (("memory_bytes",), "4GiB", "memory_bytes must be a whole number of bytes from 1 to"),
    (("memory_bytes",), True, "memory_bytes must be a whole number of bytes from 1 to"),
    (("runtime_bytes",), 7, "runtime_bytes must be an object, got 7"),
    (("runtime_bytes",), {"fixed": 1}, "runtime_bytes.launch must be a whole number of bytes from 0 to"),
    (("runtime_bytes",), {"fixed": -1e12, "launch": 1}, "runtime_bytes.fixed must be a whole number of bytes"),
    (("runtime_bytes",), {"fixed": math.inf, "launch": 1}, "runtime_bytes.fixed must be a whole number of bytes"),
    (("threads",), {"0": {}}, 'each name in threads must be a number from 1 to 1,024, got "0"'),
    (("threads",), {"two": {}}, 'each name in threads must be a number from 1 to 1,024, got "two"'),
    (("threads",), [], "lacks rates: threads must be an object with what was measured"),
    (("threads", "1"), None, "threads.1 must be an object, got null"),
    (("threads", "1", "factor"), math.inf, "is wrong: threads.1.factor must be a number of times from 1 to 1,000"),
    (("threads", "1", "factor"), "1.1", "threads.1.factor must be a number of times from 1 to 1,000"),
    (("threads", "1", "caches"), {"fast": -1}, "threads.1.caches.fast must be a number of bytes from 0 to"),
    (("threads", "1", "caches"), {"last": "1MiB"}, "threads.1.caches.last must be a number of bytes from 0 to"),
    (("threads", "1", "caches"), {"l2": 1}, "threads.1.caches must be an object with the bytes of fast and last"),
    (("threads", "1", "rates", "any"), {"call": 0}, "lacks rates: threads.1.rates.any must be an object with a rate"),
    (("threads", "1", "rates", "any"), {"call": math.nan}, "threads.1.rates.any.call must be a number of seconds"),
    (("threads", "1", "rates", "any"), {"dial": 1e-6}, "threads.1.rates.any must be seconds for units of work among"),
    (("threads", "1", "rates", "relu.forward"), {"far": 0}, "threads.1.rates.relu.forward must be an object with"),
])  # fmt: skip
def test_every_figure_of_a_profile_is_checked(tmp_path, capsys, place, value, problem):
    profile = json.loads(PROFILE % '{"any": {"call": 1e-6, "far": 0}}')
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    assert device.load(path).rates[1].by_kernel == {"any": {"call": 1e-6, "far": 0}}
    inner = profile
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(profile))
    assert command("cost", "--device", str(path)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"gradledger: the device profile {path} ") and problem in err
    assert err.endswith("; write it again with gradledger calibrate\n") and err.count("\n") == 1


@pytest.mark.parametrize("name", [n for n in device.names() if n not in (device.HERE, gpu.THERE)])
def test_every_shipped_device_prices_a_step(name):
    found = device.find(name)
    p = ri.compile(ri.models.build("lenet5"), ri.Plan("all"), 4, backend=found.backend, threads=found.cores)
    seconds = costmodel.estimate(p, device=name).seconds
    assert 1e-5 < seconds["low"] < seconds["mid"] < seconds["high"] < 100
    assert found.measured == (name == device.REFERENCE)
    if name != device.REFERENCE:
        assert found.ram_bytes
        assert found.flash_bytes or found.backend == gpu.BACKEND or found.watts[0] < found.watts[1]


def test_more_threads_than_were_measured_share_the_work():
    found = device.find("raspberry-pi-4")
    one, four = (
        costmodel.estimate(ri.compile(ri.models.build("resnet8"), ri.Plan("all"), 8, threads=t), device=found).seconds
        for t in (1, 4)
    )
    assert one["mid"] / 4 < four["mid"] < one["mid"]


def test_where_the_system_does_not_tell_memory_a_profile_has_none(home, monkeypatch, capsys):
    def unknown():
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(calibrate.resident, "measure_base", unknown)
    assert command("calibrate", "--threads", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runtime_bytes"] is None
    assert device.this_machine().base is None
    assert command("cost", "--model", "lenet5", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    arrays = sum(record[f"{kind}_bytes"] for kind in ("peak", "state", "constant"))
    assert record["resident_bytes"] is None and record["fits"]["needs"] == {"ram": arrays}


def test_a_probe_is_used_until_the_machine_is_calibrated_and_does_not_count_as_measured(home, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "PROBED", calibration.PROBED[2:4])
    monkeypatch.setattr(calibrate.quick, "__defaults__", (0.1,))
    assert command("calibrate", "--quick", "--threads", "1", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file"] == str(home / "gradledger" / "this-machine-quick.json") and not record["measured_here"]
    found = device.this_machine()
    assert (found.name, found.measured, found.title) == ("this-machine", False, record["title"])
    assert found.rates[1].by_kernel == record["threads"]["1"]["rates"] and found.rates[1].factor >= rates.PROBED
    p = ri.compile(LAYERS[0][0].graph(), calibration.DENSE, 2, threads=1)
    assert 0 < costmodel.estimate(p, device="this-machine").seconds["mid"] < 1
    assert command("calibrate", "--threads", "1") == 0
    assert device.this_machine().measured and device.quick_path().is_file()


def test_a_probe_finds_what_each_group_of_terms_costs():
    known, rng = device.find(device.REFERENCE).rates[1], np.random.default_rng(0)
    true = {"compute": 2.0, "cache": 3.0, "memory": 5.0, "call": 4.0}
    slower, samples = known.scaled(true, 1.0), []
    for i, kernel in enumerate([k for k in known.by_kernel if k != rates.ANY][:40]):
        terms = {t: float(rng.uniform(0.3, 3) / r) for t, r in known.by_kernel[kernel].items() if r}
        samples.append(rates.TimedLaunch(kernel, terms, slower.seconds(kernel, terms), i))
    found = rates.scaled_by(samples, known)
    assert found.factor == rates.PROBED
    for kernel, own in slower.by_kernel.items():
        assert found.by_kernel[kernel] == pytest.approx(own, rel=1e-3)
    noisy = [
        dataclasses.replace(s, seconds=s.seconds * f) for s, f in zip(samples, rng.uniform(0.3, 3, 40), strict=True)
    ]
    assert rates.scaled_by(noisy, known).factor > 1.5
