"""A backend that makes every call in two stages that can be, whatever that costs, for the tests."""

from refimpl.backends.backend import Host
from refimpl.compiler.lower import reference
from refimpl.compiler.two_stage import Pays, two_stage


class InStages(Host):
    """The backend; pays: when two stages do."""

    def __init__(self, pays: Pays):
        self.pays = pays

    def lower(self, step, threads):
        """A launch for each call, or those of its two stages."""
        return {
            section: [launch for call in calls for launch in two_stage(call, self.pays) or [reference(call)]]
            for section, calls in step.calls.items()
        }
