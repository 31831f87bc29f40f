"""Read files one by one, each in a child of its own, as the command line reads them: `python -m … < CASES`.

Each line of stdin is a JSON list [format, path]. For each a line is printed: [status, stderr, processor seconds, most
bytes of resident memory]. A child that crashes ends alone; its status is then minus the signal.
"""

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

from gradledger import cli, compare, options
from gradledger import models as nets
from refimpl import data
from refimpl.storage import checkpoint
from validation.experiments import runs

WAIT = 30  # seconds after which a child that waits is ended
ADDRESSES = 2**34  # bytes of address space of a child, so that a bomb ends it and not the machine
SIZE = (8, 8)  # to which images are stretched


def weights(path: str) -> None:
    """A net from a file: as it describes itself, and for data of its size."""
    graph = nets.described(path, None, None)
    x, classes = np.zeros((2, *graph.size, graph.channels), np.float32), graph.shape(graph.output)[1]
    dataset = data.Dataset("none", x, np.arange(2), x, np.arange(2), tuple(map(str, range(classes))))
    nets.pretrained(path, dataset, None, None)


READERS = {
    "data": data.load,
    "images": lambda path: data.load(path, size=SIZE),
    "weights": weights,
    "arrays": checkpoint.load,
    "device": options.device,
    "record": lambda path: compare.run(compare.CompareSettings(Path(path))),
    "runs": lambda path: runs.Runs(Path(path), "runs", {}),
}  # what reads a format → the function


def child(kind: str, path: str, said: int) -> None:
    """Read and leave with the status that the command line would have; its words go to the pipe `said`."""
    status = 3  # as a traceback is no answer
    try:
        os.dup2(said, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(WAIT)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        READERS[kind](path)
        status = 0
    except Exception as e:
        status = cli.refuse(e, as_json=False)
        if status is None:
            sys.__stderr__.write("".join(traceback.format_exception(e)))
            status = 3
    finally:  # whatever it is: the child must not go on with what its parent was at
        sys.stderr.flush()
        os._exit(status)


def read(kind: str, path: str) -> tuple[int, str, float, int]:
    """Status, words, processor seconds and bytes of a child that reads the file."""
    ours, said = os.pipe()
    pid = os.fork()
    if not pid:
        child(kind, path, said)
    os.close(said)
    with open(ours, errors="backslashreplace") as words:
        text = words.read()
    _, state, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(state), text, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss


def main() -> None:
    """Answer each line of stdin with a line on stdout."""
    for line in sys.stdin:
        print(json.dumps(read(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
