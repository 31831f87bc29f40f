"""Figures that papers publish, with their source, to check the cost model against."""

from dataclasses import dataclass


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
