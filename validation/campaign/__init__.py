"""Failures on purpose: kills, damaged files, full disks, memory limits, long runs. Each part states what is right.

Each part is a module with `run(short, seed, folder, watch) -> Outcome`: `short` is the form that the tests run, within
seconds; the long one has the counts that `make campaign` promises. Commands run in processes of their own, so that a
crash is a finding and not the end of the campaign.
"""

from dataclasses import dataclass, field

PARTS = ("kills", "cache", "files", "headers", "limits", "steps")


@dataclass
class Outcome:
    """What a part found: cases tried, a sentence for each that went wrong, and figures to print."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, int | float | str] = field(default_factory=dict)
