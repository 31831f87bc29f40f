"""timm's names for our arrays: of MobileNetV2 at its widths (`mobilenetv2_050`, …), and of EfficientNet-Lite0.

Blocks are counted within their stage there: `block3.project.bn` is `blocks.1.1.bn3`. timm's ResNets bear torchvision's
names. Layouts are those of `torch_names`.
"""

from ..graph import Graph
from ..models.efficientnet_lite import STAGES as LITE_STAGES
from ..models.mobilenet_v2 import STAGES
from .torch_names import LOCAL

BLOCKS = {  # model → blocks of each stage
    "mobilenet_v2": [blocks for _, _, blocks, _ in STAGES],
    "efficientnet_lite0": [stage[3] for stage in LITE_STAGES],
}
STEMS = {"stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2"), "fc": ("classifier", "")}
PARTS = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
FIRST_PARTS = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}  # of a block that does not expand


def timm_module(model: str, node: str) -> str:
    """timm's name for one of our nodes."""
    name, bn = (node.removesuffix(".bn"), True) if node.endswith(".bn") else (node, False)
    if name in STEMS:
        return STEMS[name][bn]
    block, part = name.removeprefix("block").split(".")
    stage, left = 0, int(block) - 1
    while left >= BLOCKS[model][stage]:
        left, stage = left - BLOCKS[model][stage], stage + 1
    parts = PARTS if stage else FIRST_PARTS
    return f"blocks.{stage}.{left}.{parts[part][bn]}"


def timm_names(graph: Graph) -> dict[str, str]:
    """timm's name for each of the graph's parameters and running statistics."""
    return {
        parameter: f"{timm_module(graph.name, node.name)}.{LOCAL.get(local, local)}"
        for node in graph.nodes
        for local, parameter in node.params.items()
    }


__all__ = ["timm_names"]
