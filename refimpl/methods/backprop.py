"""Back-propagation as it is: every gradient dense, the method that the others are compared with."""

from typing import ClassVar

from .registry import KINDS, Grid, Statement, register_method


@register_method
class Plain:
    """No rule, no choice: a Plan's defaults."""

    method: ClassVar[str] = "backprop"
    states: ClassVar[Statement] = Statement(
        "plain", 0, "backprop", grid=Grid(), mark="o",
        refuses=dict.fromkeys(KINDS, "backprop is the plain method, to be named alone"),
    )  # fmt: skip
