import copy
import json
import math
from importlib.resources import files

import numpy as np
import pytest

import refimpl as ri
from costmodel import predict
from costmodel.device import device as devices
from costmodel.device import kernels
from costmodel.device.gpu import ARITHMETIC, LAUNCH, MEMORY, STEP
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.surgery.for_step import made_for
from validation.instruments import int8_files

DEVICES = (
    "esp32-s3",
    "jetson-nano",
    "jetson-orin-nano",
    "microcontroller-256k",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2",
    "rp2040",
    "rp2350",
    "stm32h743",
)
GPUS = ("jetson-agx-xavier-gpu", "jetson-orin-nano-gpu")
SECTIONS = {
    "memory": {"ram_bytes", "flash_bytes"},
    "compute": {"cores", "clock_hz", "flops_per_cycle"},
    "bandwidth": {"memory_bytes_per_second", "l1_bytes", "l2_bytes", "l3_bytes"},
    "power": {"idle_watts", "load_watts"},
}
TOP = {"name", "title", "names", "measured_here", "process_nanometres", "measured_peak_flops", *SECTIONS}
MAY_BE_NULL = {
    "memory.flash_bytes",
    "bandwidth.l1_bytes",
    "bandwidth.l2_bytes",
    "bandwidth.l3_bytes",
    "measured_peak_flops",
    "process_nanometres",
}


def read_device(name):
    return json.loads(files("costmodel.device.devices").joinpath(f"{name}.json").read_text(encoding="utf-8"))


def read_energy():
    return json.loads(files("costmodel.advice").joinpath("energy.json").read_text(encoding="utf-8"))


def is_positive_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def check_figure(path, figure):
    assert isinstance(figure, dict), f"{path} is no figure"
    assert {"value", "source"} <= set(figure) <= {"value", "source", "note"}, f"{path} has keys {sorted(figure)}"
    assert is_positive_number(figure["value"]), f"{path} is not a positive number"
    for key in set(figure) - {"value"}:
        assert isinstance(figure[key], str) and figure[key].strip(), f"{path} has an empty {key}"


def check_device(name, device):
    assert set(device) - {"note"} == TOP, f"{name} has keys {sorted(device)}"
    assert ("note" in device) == bool(device["memory"]["flash_bytes"]), f"{name} must say what runs there"
    assert device["names"] and all(isinstance(n, str) and n.strip() for n in device["names"]), f"{name} has no names"
    assert device["name"] == name, f"{name}.json names itself {device['name']}"
    assert isinstance(device["title"], str) and device["title"].strip(), f"{name} has no title"
    assert device["measured_here"] is False, f"{name} comes from data sheets, not from a measurement here"
    figures = {key: device[key] for key in ("process_nanometres", "measured_peak_flops")}
    chip = device["memory"]["flash_bytes"]
    for section, keys in SECTIONS.items():
        gpu = {"gpu_peak_flops"} if section == "compute" and name.startswith("jetson-") else set()
        gpu |= {"int8_macs_per_cycle"} if section == "compute" and chip else set()
        assert set(device[section]) == keys | gpu, f"{name} {section} has keys {sorted(device[section])}"
        figures |= {f"{section}.{key}": figure for key, figure in device[section].items()}
    for path, figure in figures.items():
        if figure is None:
            assert path in MAY_BE_NULL or chip and path.startswith("power."), f"{name} {path} is null"
        else:
            check_figure(f"{name} {path}", figure)


def test_the_folder_holds_exactly_the_named_devices():
    found = sorted(f.name for f in files("costmodel.device.devices").iterdir() if f.name.endswith(".json"))
    assert found == sorted(
        f"{name}.json" for name in (*DEVICES, *GPUS, "reference")
    )  # the reference machine is measured


@pytest.mark.parametrize("name", DEVICES)
def test_device_file(name):
    check_device(name, read_device(name))


@pytest.mark.parametrize("name", GPUS)
def test_file_of_a_gpu(name):
    gpu = read_device(name)
    assert gpu.keys() == {"name", "title", "names", "measured_here", "process_nanometres", "memory", "gpu", "power"}
    assert gpu["name"] == name and gpu["title"] and gpu["names"] and gpu["measured_here"] is False
    figures = {"ram": gpu["memory"]["ram_bytes"], **gpu["gpu"], **gpu["power"], "process": gpu["process_nanometres"]}
    assert gpu["gpu"].keys() == {"peak_flops", "memory_bytes_per_second"}
    for path, figure in figures.items():
        if figure is not None:
            check_figure(f"{name} {path}", figure)


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_is_priced_by_its_launches_arithmetic_and_bytes(name):
    gpu, found = read_device(name)["gpu"], devices.find(name)
    assert found.backend == "cuda" and not found.measured
    program = ri.compile(ri.models.build("resnet8", classes=4), ri.Plan(), 8, backend="cuda", threads=1)
    e = predict.estimate(program, device=found)
    assert len(e.launches) == len(program.order) and e.executed_flops >= e.flops * 0.9
    macs = sum(max(ops.mul + ops.imul, ops.add + ops.iadd) for _, ops in e.executed_launches)
    moved = sum(launch.moved_bytes for launch in program.order)
    seconds = len(program.order) * LAUNCH + 2 * macs / (ARITHMETIC * gpu["peak_flops"]["value"])
    seconds += moved / (MEMORY * gpu["memory_bytes_per_second"]["value"])
    np.testing.assert_allclose(e.seconds["mid"], seconds + STEP, rtol=1e-9)


@pytest.mark.parametrize("name", DEVICES)
def test_figures_of_a_device_agree_with_each_other(name):
    device = read_device(name)
    compute, caches = device["compute"], device["bandwidth"]
    peak = compute["cores"]["value"] * compute["clock_hz"]["value"] * compute["flops_per_cycle"]["value"]
    if device["measured_peak_flops"]:
        assert 0.1 * peak < device["measured_peak_flops"]["value"] <= peak
    if "gpu_peak_flops" in compute:
        assert compute["gpu_peak_flops"]["value"] > peak
    sizes = [caches[key]["value"] for key in ("l1_bytes", "l2_bytes", "l3_bytes") if caches[key]]
    sizes.append(device["memory"]["ram_bytes"]["value"])
    assert sizes == sorted(sizes)
    idle, load = (device["power"][f"{when}_watts"] for when in ("idle", "load"))
    assert idle["value"] < load["value"] if idle or load else name in ("rp2040", "rp2350", "esp32-s3", "stm32h743")
    # The energies of energy.json can be carried over to the process of every device that names one.
    if device["process_nanometres"]:
        assert str(device["process_nanometres"]["value"]) in read_energy()["energy_factor_from_45_nanometres"]


@pytest.mark.parametrize("asked, found", [
    ("Pi Zero 2", "raspberry-pi-zero-2"), ("rpi4", "raspberry-pi-4"), ("pi5", "raspberry-pi-5"),
    ("Raspberry Pi 4 Model B", "raspberry-pi-4"), ("Orin Nano", "jetson-orin-nano"), ("jetson nano", "jetson-nano"),
    ("NVIDIA JETSON_NANO", "jetson-nano"), ("raspberry pi 3B+", "raspberry-pi-3b-plus"),
    ("nRF52840", "microcontroller-256k"), ("raspberry-pi-pico", "rp2040"), ("Pi Pico", "rp2040"), ("Pico 2", "rp2350"),
    ("ESP32-S3", "esp32-s3"), ("stm32h7", "stm32h743"), ("raspberry-pi-4", "raspberry-pi-4"),
    ("Reference", "reference"),
])  # fmt: skip
def test_boards_by_the_names_that_people_use(asked, found):
    assert devices.find(asked).name == found


def test_no_two_devices_have_a_name_in_common():
    keys = {}
    for name in (*DEVICES, *GPUS):
        for other in (name, *read_device(name)["names"]):
            assert keys.setdefault(devices.key(other), name) == name, f"{other} is two devices"
            assert devices.find(other).name == name


@pytest.mark.parametrize("asked, near", [
    ("raspbery-pi-4", ["raspberry-pi-4"]), ("orin", ["jetson-orin-nano", "jetson-orin-nano-gpu"]),
    ("toaster", []), ("jetson xavier", ["jetson-agx-xavier-gpu"]), ("pi zero", ["raspberry-pi-zero-2"]),
    ("esp32", ["esp32-s3"]), ("stm32f4", ["stm32h743"]),
])  # fmt: skip
def test_the_nearest_few_of_an_unknown_name(asked, near):
    assert devices.nearest(asked) == near
    with pytest.raises(KeyError, match="there is no device"):
        devices.find(asked)


def test_what_people_call_a_device():
    called = [devices.find(name).called for name in ("rpi4", "nrf52840", "reference")]
    assert called == ["a Raspberry Pi 4", "an nRF52840", "the reference machine"]


def test_energy_file():
    energy = read_energy()
    assert set(energy) == {
        "process_nanometres",
        "supply_volts",
        "operations",
        "memory",
        "energy_factor_from_45_nanometres",
    }
    check_figure("process_nanometres", energy["process_nanometres"])
    check_figure("supply_volts", energy["supply_volts"])
    for section in ("operations", "memory"):
        for key, figure in energy[section].items():
            assert key.endswith("_picojoules"), f"{key} names no unit"
            check_figure(key, figure)
    assert set(energy["operations"]) == {
        *(f"int{bits}_add_picojoules" for bits in (8, 16, 32)),
        *(f"int{bits}_mul_picojoules" for bits in (8, 32)),
        *(f"float{bits}_{op}_picojoules" for bits in (16, 32) for op in ("add", "mul")),
        "instruction_picojoules",
    }
    assert set(energy["memory"]) == {
        *(f"sram_{size}_read_64_bits_picojoules" for size in ("8_kib", "32_kib", "1_mib")),
        *(f"dram_read_64_bits_{end}_picojoules" for end in ("low", "high")),
    }


def test_energy_falls_with_the_process():
    factors = read_energy()["energy_factor_from_45_nanometres"]
    for node, figure in factors.items():
        check_figure(node, figure)
    by_node = [factors[node]["value"] for node in sorted(factors, key=int)]
    assert by_node == sorted(by_node) and len(set(by_node)) == len(by_node)
    assert factors["45"]["value"] == 1


def change(path, value):
    device = copy.deepcopy(read_device("raspberry-pi-4"))
    *sections, key = path
    inner = device
    for section in sections:
        inner = inner[section]
    inner[key] = value
    return device


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "raspberry-pi-5", "names itself raspberry-pi-5"),
        (("measured_here",), True, "not from a measurement here"),
        (("compute", "gpu_peak_flops"), {"value": 1, "source": "s"}, "compute has keys"),
        (("power", "idle_watts"), None, "power.idle_watts is null"),
        (("power", "idle_watts"), 2.7, "power.idle_watts is no figure"),
        (("compute", "cores", "value"), 0, "compute.cores is not a positive number"),
        (("compute", "cores", "value"), "4", "compute.cores is not a positive number"),
        (("compute", "cores", "source"), " ", "compute.cores has an empty source"),
        (("extra",), 1, "has keys"),
    ],
)
def test_a_faulty_file_is_seen(path, value, message):
    with pytest.raises(AssertionError, match=message):
        check_device("raspberry-pi-4", change(path, value))


def test_kernels_of_whole_numbers_have_rates_that_another_machine_lent():
    profile = devices._reference()
    lent, known = profile["lent"], devices.find("reference").rates
    assert lent["machine"]["processor"] != profile["machine"]["processor"]
    for one in known.values():
        assert set(lent["kernels"]) <= set(one.by_kernel)
    assert not set(lent["kernels"]) & set(devices.find("raspberry-pi-4").rates[1].by_kernel)
    step = ri.ForwardGradient(m=1, bits="16w8a", optimizer=ri.SGD(lr=0.01))
    arrays = int8_files.whole_size("mobilenet_v2_w0.35", 32)
    whole, net = (read(arrays, 10, (32, 32)) for read in (whole_from_int8, from_int8))
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    for graph, plan in ((whole, None), (made_for(step, net, x), ri.Plan("all", step=step))):
        launches = [p for p in ri.compile(graph, plan, 1, threads=1).order if "quant" in kernels.kernel(p)]
        assert len(launches) > 40
        assert {kernels.kernel(launch) for launch in launches} <= set(known[1].by_kernel)
