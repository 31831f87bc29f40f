"""What a person sees of `bench`."""

from rich.console import Console
from rich.table import Table

from .show import console


def timed(record: dict) -> None:
    """The table of `bench`: milliseconds, ratios below 1 where ours is faster."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("ms", "ours", "NCHW", "NHWC", "ratio to NCHW", "to the better", "floor", "spread", "error")
    for name in columns:
        table.add_column(name, justify="left" if name == "ms" else "right", no_wrap=True)
    for c in record["cases"]:
        keys = ("ours_ms", "peer_nchw_ms", "peer_nhwc_ms", "ratio_nchw", "ratio", "floor_ms")
        numbers = ("-" if c.get(key) is None else f"{c[key]:.2f}" for key in keys)
        error = "-" if c["error"] is None else f"{c['error']:.0e}"
        table.add_row(c["name"], *numbers, f"{c['spread']:.0%}", error)
    Console(width=max(console.width, 120)).print(table)
    for c in record["cases"]:
        if c.get("resident_ratio"):
            console.print(
                f"{c['name']}: resident memory {c['ours_resident_mb']:.0f} MiB, peer {c['peer_resident_mb']:.0f} MiB, "
                f"ratio {c['resident_ratio']:.2f}",
                highlight=False,
            )
        if "predicted_macs_ratio" in c:
            low, high = c["predicted_seconds_ratio_range"]
            console.print(
                f"{c['name']}: {c['ratio']:.2f} of the time of back-propagation ({c['peer_ms']:.2f} ms); predicted "
                f"{c['predicted_macs_ratio']:.2f} by multiply-adds, {c['predicted_executed_ratio']:.2f} by those "
                f"executed, {c['predicted_seconds_ratio']:.2f} in seconds ({low:.2f} to {high:.2f})"
                f"{'' if c['predicted_calibrated'] else ' (this machine is not calibrated)'}",
                highlight=False,
                soft_wrap=True,
            )
        for sentence in c["failed"].values():
            console.print(sentence, highlight=False, soft_wrap=True, markup=False)
        if c["rounding"] is not None:
            console.print(
                f"{c['name']}: the error is {c['error']:.0e}, where rounding alone carries our kernels on the CPU "
                f"{c['rounding']:.0e}",
                highlight=False,
                soft_wrap=True,
            )
        if c["name"].startswith("gpu-"):
            on_gpu(c)
        if "peak_ratio" in c:
            console.print(
                f"{c['name']}: {c['ratio']:.2f} of the time of float32 ({c['peer_ms']:.2f} ms); arena of "
                f"{c['peak_bytes']:,} bytes, {c['peak_ratio']:.2f} of {c['peer_peak_bytes']:,}; constants of "
                f"{c['constant_bytes']:,} and {c['peer_constant_bytes']:,}",
                highlight=False,
                soft_wrap=True,
            )
    if record["peer"]:
        console.print("ratio: ours / the better of PyTorch's two layouts; floor: bytes that must move at copy speed")


SHOWN = 8  # kernels of a step on a GPU, those that take the most time


def on_gpu(case: dict) -> None:
    """What `bench` finds of a case on a GPU beside its row: each peer, who waits for whom, kernels by their time."""
    peers = {key[len("peer_") : -len("_ms")]: case[key] for key in case if key.startswith("peer_") and key != "peer_ms"}
    if peers:
        each = ", ".join(f"{case['ours_ms'] / ms:.2f} of {name} ({ms:.2f} ms)" for name, ms in peers.items())
        console.print(f"{case['name']}: {each}", highlight=False, soft_wrap=True)
    if "launch_share" in case:
        queued = f"{case['launches']} launches, which Python queues in {case['launch_share']:.0%} of the time of a step"
        console.print(
            f"{case['name']}: predicted {case['predicted_ms']:.2f} ms; {queued}", highlight=False, soft_wrap=True
        )
    if "captured" in case:
        why = case["why_not"]
        how = "sections are replayed as graphs" if case["captured"] else f"launches are made one by one: {why}"
        console.print(f"{case['name']}: {how}", highlight=False, soft_wrap=True, markup=False)
    if "kernels" in case:
        table = Table("kernel", box=None, pad_edge=False, header_style="bold")
        for name in ("launches", "ms", "of the roofline"):
            table.add_column(name, justify="right")
        for k in case["kernels"][:SHOWN]:
            table.add_row(k["kernel"], str(k["launches"]), f"{k['ms']:.3f}", f"{k['share']:.0%}")
        Console(width=max(console.width, 120)).print(table)
