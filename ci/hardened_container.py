"""The walls around a task's container, the guard that watches it, and the engine's account of its end.

The standard library only, nothing of ci/: the local worker (`make run`) uses this file, and gbdx-platform by a link.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

# The uid of the images' own user: stands in for root, who needs no root in a container.
CONTAINER_UID = 10001
# A run without a limit of its own for the disk is ended when less than this is left there.
FREE_BYTES = 2**30
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size(text: str) -> int:
    """`512m` -> bytes; units are k, m, g and t, powers of 1024.

    Raises:
        argparse.ArgumentTypeError: it is no size.
    """
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 512m or 8g, found {text!r}")
    return int(number) * UNITS[unit]


def default_memory() -> int:
    """Bytes of memory that a run may use when nobody says: three quarters of this machine's."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


# The system's own tool changes a tree: it follows no link and goes to any depth, whatever a task has nested.
def give(folder: Path, uid: int, gid: int) -> None:
    """Makes a user the owner of everything in a folder, links themselves included."""
    subprocess.run(["chown", "-hR", f"{uid}:{gid}", folder], check=True)


def mount(source: str | Path, target: str, read_only: bool) -> list[str]:
    """The engine's option for one bind mount; written as CSV, so that a comma in a path is just a comma."""
    fields = ["type=bind", f"source={os.path.realpath(source)}", f"target={target}"]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields + (["readonly"] if read_only else []))
    return ["--mount", text.getvalue()]


def walls(
    engine: str, owner: tuple[int, int], memory: str, processes: int, temporary: str, network: str = "none"
) -> list[str]:
    """The engine's options that wall a task in; owner: the uid and gid that it runs as."""
    podman = ["--userns", "keep-id"] if "podman" in Path(engine).name and os.getuid() else []
    return [
        *("--init", "--log-driver", "none"),
        *("--user", f"{owner[0]}:{owner[1]}", *podman, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(("--security-opt", "label=disable") if os.path.exists("/sys/fs/selinux/enforce") else ()),
        *("--network", network, "--pids-limit", str(processes), "--memory", memory, "--memory-swap", memory),
        *("--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={temporary}", "--env", "HOME=/tmp"),
    ]


def account_of(engine: str, container: str) -> subprocess.CompletedProcess[str]:
    """The engine's account of a container's end, as JSON: exit_code, out_of_memory, error, running."""
    template = (
        '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}},'
        '"running":{{.State.Running}}}'
    )
    command = [engine, "inspect", "--type", "container", "--format", template, container]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def used_bytes(folder: str | Path) -> int:
    """Bytes that the files below a folder take on the disk; what vanishes meanwhile doesn't count."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
    return total


def over_disk(folder: str | Path, limit: int | None) -> str:
    """A sentence when the outputs have grown over their limit, or the disk is nearly full; else empty."""
    if limit is None:
        free = shutil.disk_usage(folder).free
        return f"only {free >> 20} MB are left on the disk of the outputs" if free < FREE_BYTES else ""
    used = used_bytes(folder)
    return f"the outputs take {used >> 20} MB, over the limit of {limit >> 20} MB (DISK)" if used > limit else ""


class Guard(threading.Thread):
    """Watches a running container and ends it: over its time, over its disk, or canceled.

    stop_command: the engine's, TERM first and KILL later; timeout: in seconds; folder, disk: as over_disk has them;
    canceled: why somebody wants the run to end, empty as long as nobody does. Afterwards `stopped` is the state and the
    reason of the verdict, None for a run that ended by itself.
    """

    def __init__(
        self, stop_command: list[str], timeout: float, folder: str | Path, disk: int | None, canceled: Callable[[], str]
    ) -> None:
        super().__init__(daemon=True)
        self.stop_command, self.timeout, self.canceled = stop_command, timeout, canceled
        self.folder, self.disk = folder, disk
        self.finished = threading.Event()
        self.stopped: tuple[str, str] | None = None

    def run(self) -> None:
        """Looks four times a second, at the disk more rarely, and yet more rarely where that takes long."""
        deadline = time.monotonic() + self.timeout
        next_look = time.monotonic() + 1
        while not self.finished.wait(min(0.25, max(deadline - time.monotonic(), 0))):
            now = time.monotonic()
            if reason := self.canceled():
                return self.stop("canceled", reason)
            if now >= deadline:
                return self.stop("timedout", f"over its timeout of {self.timeout} s")
            if now >= next_look:
                if full := over_disk(self.folder, self.disk):
                    return self.stop("over limit", full)
                next_look = time.monotonic() + 1 + 20 * (time.monotonic() - now)

    def stop(self, state: str, reason: str) -> None:
        """Ends the container, for a reason."""
        self.stopped = state, reason
        # Again and again: a container that the engine is only just starting can't be stopped yet.
        while not self.finished.is_set():
            subprocess.run(self.stop_command, capture_output=True, start_new_session=True, check=False)
            self.finished.wait(0.1)
