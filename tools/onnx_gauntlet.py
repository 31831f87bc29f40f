"""52 nets of torchvision and timm as ONNX files: exported, read, and held against onnxruntime.

python tools/onnx_gauntlet.py export FOLDER [classic|dynamo]   by a Python that has torchvision, timm and onnxscript
python tools/onnx_gauntlet.py gradients FOLDER                 by the first again: NAME.npz beside each NAME.onnx
python tools/onnx_gauntlet.py float64 FOLDER NAME …            the same in float64, of these files: NAME.float64.npz
python tools/onnx_gauntlet.py check FOLDER                     by one that has gradledger and onnxruntime

Each net has random weights, and takes 1×3×224×224. `check` prints a line a file: the largest error of its output as a
share of its largest value, or the operators that cannot be read; then how many are read.
"""

import sys
import warnings
from pathlib import Path

NETS = {
    "torchvision": (
        "resnet18 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large efficientnet_b0 squeezenet1_1 shufflenet_v2_x1_0 "
        "mnasnet1_0 vgg11_bn densenet121 googlenet regnet_y_400mf convnext_tiny"
    ),
    "segmentation": "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50",
    "timm": (
        "mobilenetv1_100 mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small efficientnet_lite0 "
        "tf_efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0 ghostnet_100 hardcorenas_a fbnetc_100 mixnet_s "
        "rexnet_100 repvgg_a0 regnetx_002 mobileone_s0 fastvit_t8 edgenext_xx_small vit_tiny_patch16_224 "
        "deit_tiny_patch16_224 mobilevit_xxs tinynet_a lcnet_050 semnasnet_075 spnasnet_100 dla34 skresnet18 "
        "ese_vovnet19b_dw resnet10t resnet26d convnextv2_atto efficientvit_b0 starnet_s1 tiny_vit_5m_224 levit_128s "
        "poolformer_s12"
    ),
}
OPSETS = {"classic": 17, "dynamo": 20}
SIZE = 224


def built(library: str, name: str):
    """A net in evaluation mode, with random weights of one seed."""
    import timm
    import torch
    import torchvision

    torch.manual_seed(0)
    if library == "timm":
        return timm.create_model(name).eval()
    if library == "segmentation":
        return getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None).eval()
    net = getattr(torchvision.models, name)(**({"init_weights": False} if name == "googlenet" else {})).eval()
    if name == "googlenet":
        net.aux1 = net.aux2 = None
    return net


def export(folder: Path, exporter: str) -> None:
    """Write the nets that the folder lacks."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for library, names in NETS.items():
        for name in names.split():
            path = folder / f"{library}-{name}-{exporter}.onnx"
            if path.exists():
                continue
            x = torch.randn(1, 3, SIZE, SIZE)
            try:
                torch.onnx.export(
                    built(library, name), (x,), path, dynamo=exporter == "dynamo", opset_version=OPSETS[exporter]
                )
                print(path.name)
            except Exception as e:  # an exporter raises almost anything
                print(f"{path.name}: {type(e).__name__}: {str(e).splitlines()[0][:100]}")


def gradients(folder: Path) -> None:
    """What PyTorch makes of a sample, and of a random gradient of the output, where that is not there yet."""
    import numpy as np
    from onnx_by_torch import run

    for path in sorted(folder.glob("*.onnx")):
        if path.with_suffix(".npz").exists():
            continue
        rng = np.random.default_rng(0)
        x = rng.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
        dy = rng.normal(size=run(path, x)[0].shape).astype(np.float32)
        y, found = run(path, x, dy)
        np.savez(path.with_suffix(".npz"), x=x, dy=dy, y=y, **{f"gradient:{name}": a for name, a in found.items()})
        print(f"{path.stem:48} {len(found)} gradients", flush=True)


def float64(folder: Path, names: list[str]) -> None:
    """The same sample and gradient in float64."""
    import numpy as np
    from onnx_by_torch import run

    for name in names:
        path = folder / f"{name}.onnx"
        with np.load(path.with_suffix(".npz")) as beside:
            y, found = run(path, beside["x"].astype(np.float64), beside["dy"].astype(np.float64))
        np.savez(folder / f"{name}.float64.npz", y=y, **{f"gradient:{place}": a for place, a in found.items()})
        print(name, flush=True)


def check(folder: Path) -> None:
    """Read every file; compare its output on one sample with that of onnxruntime."""
    import numpy as np
    import onnxruntime

    import refimpl as ri
    from refimpl.formats.onnx import imported

    right, paths = 0, sorted(folder.glob("*.onnx"))
    for path in paths:
        found = imported(path)
        if found.graph is None:
            print(f"{path.stem:48} not read: {', '.join(sorted({t.op for t in found.missing}))}", flush=True)
            continue
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
        wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
        trainer = ri.Trainer(ri.compile(found.graph, None, 1))
        y = trainer.predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        y = found.end.theirs(y)
        error = np.abs(y - wanted).max() / np.abs(wanted).max()
        right += error < 1e-4
        print(f"{path.stem:48} {error:.1e}", flush=True)
    print(f"{right} of {len(paths)} are read and give what onnxruntime gives")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "classic")
    elif sys.argv[1] == "float64":
        float64(Path(sys.argv[2]), sys.argv[3:])
    elif sys.argv[1] == "gradients":
        gradients(Path(sys.argv[2]))
    else:
        check(Path(sys.argv[2]))
