"""What goes with every result: the machine, the versions and the command."""

import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path


def machine() -> dict:
    """Processor, cores, memory and system of this machine."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
    }


def processor() -> str:
    """The processor's name, or the board's where Linux tells one."""
    for path, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if key is None:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict:
    """Versions of Python and of what decides the numbers."""
    names = ("gradledger", "numpy", "numba", "llvmlite", "scipy", "sympy")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def command() -> str:
    """The command line that is running."""
    return shlex.join(["gradledger", *sys.argv[1:]])


def provenance() -> dict:
    """Machine, versions and command of a result."""
    return {"machine": machine(), "versions": versions(), "command": command()}
