"""How much memory this process may still take, as far as the system tells: machine, control groups, `ulimit -v`."""

import math
import resource
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def room() -> float:
    """Bytes that are left; infinity where nothing tells."""
    left = [_available(), _addresses()]
    for folder, limit, usage in _groups():
        try:
            left.append(int((folder / limit).read_text()) - int((folder / usage).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(0, min(left))


def resident(process: int | str = "self") -> int:
    """Bytes of a process that are in memory; 0 where nothing tells."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def _available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def _addresses() -> float:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return math.inf
    return math.inf if most == resource.RLIM_INFINITY else most - pages * resource.getpagesize()


def memberships() -> list[str]:
    """The lines that tell of which control groups this process is."""
    try:
        return Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []


def _groups():
    """(folder, file of its limit, file of its use) of each group that this process is in, version 1 or 2."""
    for line in memberships():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            root, names = GROUPS, ("memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            root, names = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.strip("/")
        for group in (folder, *folder.parents):
            if group == root.parent:
                break
            yield (group, *names)
