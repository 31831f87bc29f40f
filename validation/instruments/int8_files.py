"""Files of int8 microcontroller nets (`formats.int8_nets`) with random weights: a small one, and nets of whole size."""

import json
import math

import numpy as np

from refimpl.models.mobilenet_folded import MOBILENET_V2_035

# (expanded channels, depthwise kernel, stride, channels) of each block of MCUNet's net for 5 frames a second
# (arXiv 2206.15472), whose first convolution has 16 channels
MCUNET_5FPS = (
    (16, 3, 1, 8), (32, 3, 2, 16), (48, 3, 1, 16), (48, 7, 2, 24), (120, 3, 1, 24), (120, 3, 2, 40), (160, 7, 1, 40),
    (160, 5, 1, 48), (144, 3, 1, 48), (192, 3, 1, 48), (240, 7, 2, 96), (384, 5, 1, 96), (384, 5, 1, 96),
    (576, 3, 1, 160),
)  # fmt: skip
BLOCKS = {"mobilenet_v2_w0.35": MOBILENET_V2_035, "mcunet_5fps": MCUNET_5FPS}
SIX = 6 / 255  # scale of a rectified map that reaches 6
SPREAD = 73  # standard deviation of weights drawn from all of int8


def entry(
    arrays, name, k, c, groups=1, kernel=1, stride=1, y_zero=-128, x_scale=0.02, x_zero=-128, y_scale=0.02
) -> dict:
    """Structure of a convolution with random arrays, which it adds to `arrays`."""
    rng = np.random.default_rng(len(arrays))
    made = {
        "weight": rng.integers(-127, 128, (k, c // groups, kernel, kernel)).astype(np.int8),
        "bias": rng.integers(-999, 999, k).astype(np.int32),
        "w_scales": rng.uniform(1e-3, 1e-2, k).astype(np.float32),
    }
    arrays |= {f"{name}.params.{a}": v for a, v in made.items()}
    params = {a: {"array": f"{name}.params.{a}"} for a in made}
    params |= {"x_scale": x_scale, "x_zero": x_zero, "y_scale": y_scale, "y_zero": y_zero}
    return {"in_channel": c, "in_shape": 16, "out_channel": k, "kernel_size": [kernel, kernel], "stride": stride,
            "groups": groups, "params": params}  # fmt: skip


def int8_arrays() -> tuple[dict[str, np.ndarray], dict]:
    """A quantized net of two blocks, the second with a residual."""
    arrays = {}
    structure = {
        "first_conv": entry(arrays, "first", 8, 3, kernel=3, stride=2, x_scale=1 / 127.5, x_zero=0),
        "blocks": [
            {
                "pointwise1": None,
                "depthwise": entry(arrays, "0.depthwise", 8, 8, 8, 3),
                "pointwise2": entry(arrays, "0.pointwise2", 4, 8, y_zero=3),
                "residual": None,
                "se": None,
            },
            {
                "pointwise1": entry(arrays, "1.pointwise1", 12, 4, x_zero=3),
                "depthwise": entry(arrays, "1.depthwise", 12, 12, 12, 5),
                "pointwise2": entry(arrays, "1.pointwise2", 4, 12, y_zero=1),
                "residual": {"params": {"x_scale": 0.02, "x_zero": 3, "y_scale": 0.02, "y_zero": 0}},
                "se": None,
            },
        ],
        "feature_mix": None,
        "classifier": entry(arrays, "classifier", 5, 4, x_zero=0, y_zero=-9),
    }
    return arrays, structure


def whole_size(net: str, size: int = 128, stem: int = 16, classes: int = 1000) -> dict[str, np.ndarray]:
    """The file of one of BLOCKS, its structure among its arrays: maps of a spread of about 1 that use most of int8."""
    arrays: dict[str, np.ndarray] = {}
    pixel, low, wide = {"x_scale": 1 / 127.5, "x_zero": 0}, {"x_scale": SIX, "x_zero": -128}, {"y_scale": SIX}
    structure = {"first_conv": entry(arrays, "first", stem, 3, kernel=3, stride=2, **pixel, **wide), "blocks": []}
    before, scale, zero = stem, SIX, -128
    for i, (expanded, kernel, stride, channels) in enumerate(BLOCKS[net]):
        x = {"x_scale": scale, "x_zero": zero}
        expand = entry(arrays, f"{i}.pointwise1", expanded, before, **x, **wide) if expanded != before else None
        depthwise = entry(arrays, f"{i}.depthwise", expanded, expanded, expanded, kernel, stride, **low, **wide)
        project = entry(arrays, f"{i}.pointwise2", channels, expanded, y_zero=3, **low, y_scale=0.03)
        residual, scale, zero = None, 0.03, 3
        if stride == 1 and channels == before:
            residual, scale, zero = {"params": {**x, "y_scale": 0.05, "y_zero": -2}}, 0.05, -2
        structure["blocks"].append(
            {"pointwise1": expand, "depthwise": depthwise, "pointwise2": project, "residual": residual, "se": None}
        )
        before = channels
    structure["classifier"] = entry(arrays, "classifier", classes, before, x_scale=scale, x_zero=zero, y_zero=0)
    structure["feature_mix"], structure["first_conv"]["in_shape"] = None, size
    for name in [n for n in arrays if n.endswith(".weight")]:
        k, *terms = arrays[name].shape
        arrays[name.replace("weight", "w_scales")] = np.full(k, 1 / (SPREAD * math.prod(terms) ** 0.5), np.float32)
    return arrays | {"structure": np.array(json.dumps(structure))}
