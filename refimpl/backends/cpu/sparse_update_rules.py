"""How the fast kernels take chosen channels."""

from ...methods import sparse_update
from . import channel_rules

RULES = {channel_rules.take: (sparse_update.take_x,)}  # rule → the passes of the calls that it begins at
