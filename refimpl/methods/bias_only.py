"""Training only biases of convolutions (TinyTL, Cai et al. 2020, arXiv 2007.11622): `Plan.bias_only` says how."""

from typing import ClassVar

from .registry import Statement, register_method


@register_method
class BiasOnly:
    """The plan's setting `bias_only`."""

    method: ClassVar[str] = "bias-only"
    states: ClassVar[Statement] = Statement(
        "bias", 70, "bias-only", norms=False, combines={"instances": "the chosen instances train biases"},
        refuses={
            "rule": "bias-only trains no weights of convolutions, whose gradients the other replaces"
        },
    )  # fmt: skip
