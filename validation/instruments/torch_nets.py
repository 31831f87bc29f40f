"""The five architectures as plain PyTorch modules, with our weights copied into them: ground truth and peer.

ResNet-18 and MobileNetV2 have torchvision's module names, so that their state dicts have the names of published files.
"""

import numpy as np
import torch
from torch import nn

from refimpl.formats import torch_names


class Watch(nn.Module):
    """The net for watch recordings."""

    def __init__(self, classes=7, channels=6):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, (1, 7), padding=(0, 3), bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, (1, 5), padding=(0, 2), bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, (1, 5), padding=(0, 2), bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), (1, 2))
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), (1, 2))
        return self.fc(self.bn3(self.conv3(x)).relu().mean((2, 3)))


class LeNet5(nn.Module):
    """LeNet-5 with max pooling and rectifiers."""

    def __init__(self, classes=10, size=(28, 28), channels=1):
        super().__init__()
        pad = 2 if min(size) < 32 else 0
        h, w = (((s + 2 * pad - 4) // 2 - 4) // 2 for s in size)
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=pad)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * h * w, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


class ResNet(nn.Module):
    """stem: kernel, stride and padding of the first convolution, and whether a max pool follows it."""

    def __init__(self, widths, blocks, stem, classes, channels=3):
        super().__init__()
        kernel, stride, pad, pool = stem
        self.conv1 = nn.Conv2d(channels, widths[0], kernel, stride, pad, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        before, self.stages = widths[0], len(widths)
        for i, width in enumerate(widths, start=1):
            stage = [
                BasicBlock(before if b == 0 else width, width, 2 if i > 1 and b == 0 else 1) for b in range(blocks)
            ]
            setattr(self, f"layer{i}", nn.Sequential(*stage))
            before = width
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


def resnet8(classes=10, channels=3):
    """ResNet-8 for small images."""
    return ResNet((16, 32, 64), 1, (3, 1, 1, False), classes, channels)


def resnet20(classes=10, channels=3):
    """ResNet-20 for small images."""
    return ResNet((16, 32, 64), 3, (3, 1, 1, False), classes, channels)


def resnet18(classes=1000, channels=3):
    """ResNet-18 with torchvision's module names."""
    return ResNet((64, 128, 256, 512), 2, (7, 2, 3, True), classes, channels)


def _conv(before, channels, kernel, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(before, channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(self, before, channels, stride, expansion):
        super().__init__()
        hidden = before * expansion
        first = [] if expansion == 1 else [_conv(before, hidden, 1)]
        self.conv = nn.Sequential(
            *first,
            _conv(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.residual = stride == 1 and before == channels

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 with torchvision's module names."""

    # width multiplier → channels after stem, of the seven stages, and of the head, as torchvision prints them
    CHANNELS = {
        1.0: (32, 16, 24, 32, 64, 96, 160, 320, 1280),
        0.35: (16, 8, 8, 16, 24, 32, 56, 112, 1280),
        1.4: (48, 24, 32, 48, 88, 136, 224, 448, 1792),
    }

    def __init__(self, classes=1000, width=1.0, channels=3, dropout=0.2):
        super().__init__()
        stem, *stages, head = self.CHANNELS[width]
        features, before = [_conv(channels, stem, 3, 2)], stem
        for out, blocks, stride in zip(stages, (1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1), strict=True):
            for i in range(blocks):
                expansion = 1 if len(features) == 1 else 6
                features.append(InvertedResidual(before, out, stride if i == 0 else 1, expansion))
                before = out
        features.append(_conv(before, head, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def build(graph, width=1.0, dropout=0.2):
    """The PyTorch module of the same architecture as one of our graphs, with weights of its own."""
    classes = graph.shape(graph.output)[1]
    if graph.name == "watch":
        return Watch(classes, graph.channels)
    if graph.name == "lenet5":
        return LeNet5(classes, graph.size, graph.channels)
    if graph.name == "mobilenet_v2":
        return MobileNetV2(classes, width, graph.channels, dropout)
    return {"resnet8": resnet8, "resnet18": resnet18, "resnet20": resnet20}[graph.name](classes, graph.channels)


def random_weights(graph, seed, dtype=np.float64):
    """Weights and running statistics that keep activations near 1 and leave nothing at a special value."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, parameter in graph.parameters.items():
        local, noise = name.rsplit(".", 1)[1], rng.standard_normal(parameter.shape)
        if local == "w":
            noise *= np.sqrt(2 / parameter.fan_in)
        elif local == "running_var":
            noise = 0.5 + rng.random(parameter.shape)
        elif local == "gamma":
            noise = 1 + 0.2 * noise
        else:
            noise *= 0.2
        arrays[name] = noise.astype(dtype)
    return arrays


def with_weights(graph, arrays, width=1.0, dropout=0.2):
    """PyTorch module with our arrays, of their float dtype, in evaluation mode; its names and shapes must all fit."""
    net = build(graph, width, dropout)
    state = {name: torch.from_numpy(a) for name, a in torch_names.to_torch(graph, arrays).items()}
    dtype = next(iter(state.values())).dtype
    expected = net.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    net.to(dtype).load_state_dict(state | counters, strict=True)
    return net.eval()


def grads(graph, net):
    """Gradients of the module's parameters after a backward pass, under our names and in our layouts.

    Running statistics have none, and stand as zeros in what the conversion needs.
    """
    state = {name: np.zeros(tuple(v.shape)) for name, v in net.state_dict().items()}
    state |= {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    gradients = torch_names.from_torch(graph, state)
    trainable = {n.params[p] for n in graph.nodes for p in n.operator.params if p in n.params}
    return {name: g for name, g in gradients.items() if name in trainable}
