"""Errors that a limit of memory causes, told in a sentence. Imports nothing that could fail for want of memory."""

import errno
import resource


def addresses() -> int | None:
    """Bytes that `ulimit -v` allows; None where it sets no limit."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most


def short_of_memory(e: BaseException | None) -> bool:
    """Did an error come about because memory ran out, or because a library found no room under `ulimit -v`?"""
    limited = addresses() is not None
    while e is not None:
        unloaded = isinstance(e, (ImportError, SystemError)) or (
            isinstance(e, OSError) and e.errno in (None, errno.ENOMEM)
        )
        if isinstance(e, MemoryError) or (limited and unloaded):
            return True
        e = e.__cause__ or (None if e.__suppress_context__ else e.__context__)
    return False


def sentence(e: BaseException) -> str:
    """What happened, and what to do."""
    most = addresses()
    limit = "" if most is None else f"; ulimit -v allows {most / 2**20:,.0f} MiB"
    told = " ".join(str(e).split())[:120] or "none is left"
    return (
        f"the memory that this process may use does not suffice ({told}{limit}): a smaller --batch or --size takes less"
    )
