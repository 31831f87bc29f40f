"""A process that has imported all that `gradledger adapt` needs and forks a child for each run: a start costs little.

The processes that count operations and draw the plot are asked once for equal runs, not by each of the children: a kill
may come before and after them, and what they give is kept beside the folders. Nothing else differs from the command.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CALLS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")

PATIENCE = 120  # seconds after which a child that waits for ever is ended, by SIGALRM


class Forks:
    """The process; use it in a `with` block."""

    def __init__(self, kept: Path):
        """kept: a folder for the children's output and what the other processes gave."""
        self.kept = kept

    def __enter__(self) -> "Forks":
        command = [sys.executable, "-c", "from validation.campaign.forks import serve; serve()", self.kept]
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(self, args: list[str], **orders) -> int:
        """Start `gradledger ARGS` in a child; its process id.

        orders: kill=(k, after): SIGKILL at the k-th of CALLS in the folder that the last of
        ARGS names, before or after its effect; count=True: count them;
        save_always=True: save after each step; limits: {name of a resource limit: bytes, for AS beyond what is used}.
        """
        self._server.stdin.write(json.dumps({"args": args, **orders}) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> tuple[int, str, int]:
        """Wait for the child: its status, negative for a signal; what it said on stderr; the CALLS that it counted."""
        status, calls = map(int, self._server.stdout.readline().split())
        return status, (self.kept / "stderr").read_text(errors="replace"), calls

    def run(self, args: list[str], **orders) -> tuple[int, str, int]:
        """Start and wait."""
        self.start(args, **orders)
        return self.end()


def serve() -> None:
    """Read orders, one a line, and fork; answer with the child's process id, then with its status."""
    from gradledger import adapt, ledger  # noqa: F401 (what a child uses)

    kept = Path(sys.argv[1])
    for line in sys.stdin:
        orders = json.loads(line)
        (kept / "calls").unlink(missing_ok=True)
        ends = os.pipe()  # for stderr: a file could fall under a limit
        child = os.fork()
        if not child:
            try:
                run(orders, kept, ends[1])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(99)
        print(child, flush=True)
        os.close(ends[1])
        with open(ends[0], "rb") as said:
            (kept / "stderr").write_bytes(said.read())
        _, status = os.waitpid(child, 0)
        calls = (kept / "calls").read_text() if (kept / "calls").exists() else "0"
        print(os.waitstatus_to_exitcode(status), calls, flush=True)


def run(orders: dict, kept: Path, stderr: int) -> None:
    """The child: the command as it is, but for what the orders say."""
    from gradledger import adapt, cli

    for number, end in ((0, os.open(os.devnull, os.O_RDONLY)), (1, os.open(os.devnull, os.O_WRONLY)), (2, stderr)):
        os.dup2(end, number)
    os.close(stderr)
    signal.alarm(PATIENCE)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 (until the end)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        signal.signal(number, handler)  # a job in the background, or under nohup, ignores them
    ask_once(kept)
    if orders.get("save_always"):
        adapt.SAVE_AFTER, adapt.SAVE_SHARE = 0.0, 1.0
    count = counting(orders["args"][-1], *orders.get("kill", (0, False)))
    for name, nbytes in orders.get("limits", {}).items():
        if name == "AS":
            nbytes += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (nbytes, nbytes))
    try:
        cli.main(orders["args"])
    except SystemExit as e:
        status = e.code
    with contextlib.suppress(OSError):  # a limit may forbid it
        sys.stdout.flush()
        sys.stderr.flush()
    if orders.get("count"):
        (kept / "calls").write_text(str(count["made"]))
    os._exit(status)


def counting(folder: str, at: int, after: bool) -> dict[str, int]:
    """Count the CALLS that concern a folder from now on, and let the `at`-th be this process's end."""
    count = {"made": 0}

    def concerns(what) -> bool:
        return (os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)).startswith(folder)

    def counted(real):
        def call(what, *args, **named):
            mine = named.get("dir_fd") is None and concerns(what)
            count["made"] += mine
            if mine and count["made"] == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(what, *args, **named)
            if mine and count["made"] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return count


def ask_once(kept: Path) -> None:
    """Take from `kept` what the ledger and the plot of an equal run gave, else ask and keep it."""
    from gradledger import finish
    from refimpl.storage import checkpoint

    real = finish.make

    def make(act: str, record: Path) -> str | None:
        found = json.loads(record.read_bytes())
        path = kept / f"{act}-{found['run']}"
        if not path.exists():
            made = real(act, record)
            path.write_bytes(Path(made).read_bytes() if made else record.read_bytes())
        elif act == "ledger":
            costs = json.loads(path.read_bytes())
            same = {kind: found[kind] | {k: costs[kind][k] for k in found[kind] if "macs" in k}
                    for kind in ("predicted", "measured")}  # fmt: skip
            checkpoint.write_json(record, found | same)
        if act == "ledger":
            return None
        target = record.with_suffix(".png")
        target.write_bytes(path.read_bytes())
        return str(target)

    finish.make = make
