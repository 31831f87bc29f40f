"""Modules that can be called, because a command and its module bear one name: `gradledger.adapt(…)`."""

import importlib
import sys
from types import ModuleType


class Called(ModuleType):
    """A module; to call it is to call the function of its name in `gradledger.door`."""

    def __call__(self, *args, **settings):
        """See `gradledger.door`."""
        door = importlib.import_module("gradledger.door")
        return getattr(door, self.__name__.rpartition(".")[2])(*args, **settings)


def can_be(name: str) -> None:
    """Let the module of that name be called."""
    sys.modules[name].__class__ = Called
