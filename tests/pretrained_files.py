"""Small files of the kinds that real weights and images come in, for tests."""

import io
import json

import numpy as np
from PIL import Image

LABELS = np.arange(12, dtype=np.uint8) % 10


def streams(count, size=(32, 32), mode="RGB"):
    """JPEG streams of plain colours, and their offsets."""
    parts = []
    for i in range(count):
        out = io.BytesIO()
        Image.new(mode, size, (20 * i, 100, 50) if mode == "RGB" else 20 * i).save(out, "JPEG", quality=90)
        parts.append(out.getvalue())
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)])


def cifar_arrays(**changed):
    """Arrays of a CIFAR-10 JPEG file with 12 and 10 images."""
    train, test = streams(12), streams(10)
    return {
        "train_jpeg": train[0], "train_offsets": train[1], "train_labels": LABELS,
        "test_jpeg": test[0], "test_offsets": test[1], "test_labels": LABELS[:10],
    } | changed  # fmt: skip


def entry(arrays, name, k, c, groups=1, kernel=1, stride=1, y_zero=-128, x_scale=0.02, x_zero=-128):
    """Structure of a convolution with random arrays, which it adds to `arrays`."""
    rng = np.random.default_rng(len(arrays))
    made = {
        "weight": rng.integers(-127, 128, (k, c // groups, kernel, kernel)).astype(np.int8),
        "bias": rng.integers(-999, 999, k).astype(np.int32),
        "w_scales": rng.uniform(1e-3, 1e-2, k).astype(np.float32),
    }
    arrays |= {f"{name}.params.{a}": v for a, v in made.items()}
    params = {a: {"array": f"{name}.params.{a}"} for a in made}
    params |= {"x_scale": x_scale, "x_zero": x_zero, "y_scale": 0.02, "y_zero": y_zero}
    return {"in_channel": c, "in_shape": 16, "out_channel": k, "kernel_size": [kernel, kernel], "stride": stride,
            "groups": groups, "params": params}  # fmt: skip


def int8_arrays():
    """A net of two blocks, the second with a residual."""
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


def saved(path, arrays, structure=None):
    """Write arrays and a structure, where there is one, as `.npz`."""
    extra = {} if structure is None else {"structure": np.array(json.dumps(structure))}
    np.savez(path, **arrays, **extra)
    return path
