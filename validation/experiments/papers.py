"""Figures that papers publish, with their source, to check the cost model against, and how ours came about.

An agreement is worth as much as the way to it: each figure has an `Origin`. What is said of a figure is meant for that
figure: a rule that was read off one is a test where it meets another.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """How our figure came about. kind: of KINDS. why: what makes it so."""

    kind: str
    why: str


KINDS = {
    "derived": "follows from shapes and from a way of counting that was fixed without this figure",
    "fitted": "the way of counting, a size or a reading was chosen so that this very figure comes out",
    "arithmetic": "follows from other figures that the paper prints beside it",
}
DENSE = Origin("fitted", "what counts of a dense dw, dx and classifier was deduced from the dense rows of both tables")
FILTERED = Origin("fitted", "dx is eq. (15); what else counts was deduced from the filtered rows of both tables")
DEEP = "; that a block's projection counts before its other convolutions, from those of 3, 4 and all layers"
STORED = Origin(
    "fitted", "that the inputs of trained convolutions count alone, in float32, was deduced from the memories"
)
FILTER_NETS = Origin("derived", "multiply-adds of convolutions and linear layers of the published nets")
FILTER_TRAINING = Origin("fitted", "that dx costs its taps at every input element was deduced from the training shares")
SLIM = Origin("fitted", "no padding and 200 hidden outputs were chosen so that both shares of this net come out")
SCORES = Origin("fitted", "that a score costs an addition for each weight and each element was deduced from this share")
WHOLE_STEP = Origin("derived", "the counting that was deduced from the shares of the filter nets, on another figure")
SHAPES = Origin("derived", "shapes of the published net")
RATIO = Origin("fitted", "the ratio of 0.02 was taken from this figure; second-hand it is 0.2")
FEATURES = Origin(
    "fitted", "that it is of the dense whole net's features, masks left out, is the reading under which it comes out"
)
CONSTANTS = Origin("arithmetic", "z_max/127 and its inverse, of the z_max that the paper prints")
PASSES = Origin("derived", "operations of every layer of one net, nothing chosen")


@dataclass(frozen=True)
class PublishedStep:
    """One row: a backward pass at batch 1 and 224×224, as the paper prints it.

    flops: in the paper's own counting. memory: as printed, with two digits, in `unit`; None where none is printed.
    patch: side of the filter's patches; None for dense gradients.
    """

    source: str
    model: str
    classes: int
    train_last: int | str
    patch: int | None
    flops: float
    memory: str | None = None
    unit: str = "KiB"

    @property
    def origin(self) -> Origin:
        """How our operations came about."""
        found = DENSE if self.patch is None else FILTERED
        return Origin(found.kind, found.why + DEEP) if self.train_last in (3, 4, "all") else found

    @property
    def tolerance(self) -> float:
        """Relative error that its few digits, and the element-wise layers in dense rows, leave open."""
        return 0.004 if self.patch is None else 0.0015

    def printed(self, nbytes: int) -> str:
        """A number of bytes as this row prints it."""
        return f"{nbytes / {'KiB': 2**10, 'MiB': 2**20}[self.unit]:.2f}"


_TABLE_2 = "arXiv 2301.00330 Table 2 (ImageNet)"
_TABLE_11 = "arXiv 2301.00330 Table 11 (CIFAR-10)"

GRADIENT_FILTERING = (
    PublishedStep(_TABLE_2, "resnet18", 1000, 2, None, 489.20e6, "196.00"),
    PublishedStep(_TABLE_2, "resnet18", 1000, 4, None, 1.14e9, "490.00"),
    PublishedStep(_TABLE_2, "resnet18", 1000, "all", None, 5.42e9, "8.33", "MiB"),
    PublishedStep(_TABLE_2, "resnet18", 1000, 2, 2, 28.32e6, "64.00"),
    PublishedStep(_TABLE_2, "resnet18", 1000, 4, 2, 61.53e6, "112.00"),
    PublishedStep(_TABLE_11, "resnet18", 10, 1, None, 128.25e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 2, None, 487.68e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 1, 2, 8.18e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 2, 2, 26.80e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 3, 2, 45.45e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 1, 4, 1.88e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 2, 4, 7.93e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 1, 7, 303.10e3),
    PublishedStep(_TABLE_11, "resnet18", 10, 2, 7, 3.21e6),
    PublishedStep(_TABLE_11, "resnet18", 10, 3, 7, 6.12e6),
)

PRUNING = "arXiv 2007.03213"
# main net → filter net, its inference and its training in percent of the main net's
FILTER_SHARES = {
    "resnet110": ("resnet8", 5.0, 5.9),
    "vgg16": ("resnet8", 4.1, 4.8),
    "lenet": ("slim_lenet", 9.5, 7.8),
}
SCORING_SHARE = 0.53  # percent of ResNet-110's backward pass
RESNET110_TRAINING = 780e6  # for a 32×32 image

SPARSE = "arXiv 2503.17959"
SPARSE_UPDATE = {"convolutions": 52, "weights": 2_189_760, "layers": 42, "updated": 2.0, "saved": 98.0}

FORWARD = "arXiv 2411.04036"
FORWARD_GRADIENT = {"z_max": 3.5, "delta_z": 0.0276, "one_q": 36, "cost_ratio": 1.5}
