"""One container for one run: how it is laid out, walled in, watched, and ended."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_images import BuildError
from card_options import asked_device, card_options
from task_verdict import Verdict

# The uid of the images' own user: stands in for root, who needs no root in a container.
CONTAINER_UID = 10001
# The platform's own default, in seconds, for a definition without a timeout.
DEFAULT_TIMEOUT = 7200


@dataclass(frozen=True)
class Run:
    """One run as it was asked for, everything checked."""

    name: str
    definition: dict[str, Any]
    image: str
    values: dict[str, Any]
    folders: dict[str, Path]
    output: Path
    options: argparse.Namespace

    @property
    def timeout(self) -> int:
        """Seconds that the task may take."""
        properties = self.definition.get("properties") or {}
        return int(properties.get("timeout") or DEFAULT_TIMEOUT)


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def user() -> tuple[int, int] | None:
    """The caller's uid and gid: behind sudo the person's own, None for root itself."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and os.environ.get("SUDO_UID"):
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID") or 0)
    return (uid, gid) if uid else None


def lay_out(run: Run, staging: Path) -> Path:
    """A fresh /mnt/work as the platform made it, owned by the container's user; returns its folder here."""
    work = staging / "work"
    (work / "output").mkdir(parents=True)
    (work / "input").mkdir()
    for port in run.folders:
        (work / "input" / port).mkdir()
    (work / "input" / "ports.json").write_text(json.dumps(run.values, indent=2) + "\n", encoding="utf-8")
    (work / "gbdx_runtime.json").write_text("{}\n", encoding="utf-8")
    if os.getuid() == 0:
        give(work, *(user() or (CONTAINER_UID, CONTAINER_UID)))
    return work


# The system's own tools change and remove trees: they follow no link and go to any depth, whatever a task has nested.
def give(folder: Path, uid: int, gid: int) -> None:
    """Makes a user the owner of everything in a folder, links themselves included."""
    subprocess.run(["chown", "-hR", f"{uid}:{gid}", folder], check=True)


def open_up(folder: Path) -> None:
    """Lets the owner into everything that a task left, closed or not, and drops set-id bits."""
    subprocess.run(["chmod", "-R", "u+rwX,ug-s,o-t", folder], capture_output=True, check=False)


def mount(source: Path, target: str, read_only: bool) -> list[str]:
    """The engine's option for one bind mount; written as CSV, so that a comma in a path is just a comma."""
    text = io.StringIO()
    fields = ["type=bind", f"source={source.resolve()}", f"target={target}"] + (["readonly"] if read_only else [])
    csv.writer(text, lineterminator="").writerow(fields)
    return ["--mount", text.getvalue()]


def container_command(engine: str, run: Run, work: Path, container: str, *words: str) -> list[str]:
    """The engine's whole command line for a run of `words`, the definition's command when there are none."""
    options = run.options
    memory = str(options.memory or physical_memory() * 3 // 4)
    uid, gid = user() or (CONTAINER_UID, CONTAINER_UID)
    podman_user = ["--userns", "keep-id"] if "podman" in Path(engine).name and os.getuid() else []
    mounts = mount(work, "/mnt/work", False) + mount(work / "input", "/mnt/work/input", True)
    for port, folder in run.folders.items():
        mounts += mount(folder, f"/mnt/work/input/{port}", True)
    descriptor = run.definition["containerDescriptors"][0]
    return [
        *(engine, "run", "--name", container, "--label", f"gbdx.task={run.name}", "--init", "--log-driver", "none"),
        *("--user", f"{uid}:{gid}", *podman_user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(("--security-opt", "label=disable") if os.path.exists("/sys/fs/selinux/enforce") else ()),
        *card_options(engine, run.definition, asked_device()),
        *("--network", options.network, "--pids-limit", str(options.processes)),
        *("--memory", memory, "--memory-swap", memory),
        *("--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={options.temporary}"),
        *("--env", "HOME=/tmp", *mounts, *(("--interactive", "--tty") if words else ())),
        *(run.image, *(words or shlex.split(descriptor.get("command") or ""))),
    ]


def used_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk; what vanishes meanwhile doesn't count."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
    return total


def over_disk(work: Path, limit: int | None) -> str:
    """A sentence when the outputs have grown over their limit, or the disk is nearly full; else empty."""
    free = shutil.disk_usage(work).free
    if limit is None:
        return f"only {free >> 20} MB are left on the disk of the outputs" if free < 2**30 else ""
    used = used_bytes(work)
    return f"the outputs take {used >> 20} MB, over the limit of {limit >> 20} MB (DISK)" if used > limit else ""


class Guard(threading.Thread):
    """Watches a running container and stops it, TERM first, KILL later: over its time, over its disk, or canceled."""

    def __init__(self, engine: str, container: str, run: Run, work: Path) -> None:
        super().__init__(daemon=True)
        self.engine, self.container, self.run_asked, self.work = engine, container, run, work
        self.client: subprocess.Popen[bytes] | None = None
        self.woken = threading.Event()
        self.canceled = False
        self.verdict: Verdict | None = None

    def watch(self, client: subprocess.Popen[bytes]) -> None:
        """Starts to look after the container that an engine's client runs."""
        self.client = client
        self.start()

    def run(self) -> None:
        """Looks once a second, or more rarely where looking at the disk takes long."""
        timeout = self.run_asked.options.timeout or self.run_asked.timeout
        deadline = time.monotonic() + timeout
        pause = 0.0
        while not self.woken.wait(min(max(pause, 1.0), max(deadline - time.monotonic(), 0))):
            looked = time.monotonic()
            if looked >= deadline:
                return self.stop(Verdict("timedout", f"over its timeout of {timeout} s"))
            if full := over_disk(self.work, self.run_asked.options.disk):
                return self.stop(Verdict("over limit", full))
            pause = 20 * (time.monotonic() - looked)
        if self.canceled and self.running():
            self.stop(Verdict("canceled", "stopped by the caller"))

    def cancel(self, signal_number: int, frame: object) -> None:
        """Handles a signal: Ctrl-C, SIGTERM, or the end of the terminal."""
        self.canceled = True
        self.woken.set()

    def running(self) -> bool:
        """Whether the engine's client, and so the container, has not ended yet."""
        return self.client is not None and self.client.poll() is None

    def stop(self, verdict: Verdict) -> None:
        """Ends the container for a reason."""
        self.verdict = verdict
        command = [self.engine, "stop", "--time", str(self.run_asked.options.grace), self.container]
        # Again and again: a container that the engine is only just starting can't be stopped yet.
        while self.running():
            subprocess.run(command, capture_output=True, start_new_session=True, check=False)
            time.sleep(0.05)


def run_container(engine: str, run: Run, work: Path, container: str) -> tuple[dict[str, Any], Verdict | None]:
    """Runs the container to its end, its output streaming through.

    Returns:
        The engine's account of the end (exit code, killed for memory), and the verdict if it was stopped from here.
    """
    command = container_command(engine, run, work, container)
    guard = Guard(engine, container, run, work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, guard.cancel)
    # In a session of its own, so that Ctrl-C reaches the container once, through the guard.
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        guard.watch(client)
        client.wait()
        guard.woken.set()
        guard.join()
        template = (
            '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}},'
            '"running":{{.State.Running}}}'
        )
        account = subprocess.run(
            [engine, "inspect", "--format", template, container], capture_output=True, text=True, check=False
        )
    finally:
        guard.woken.set()
        client.kill()
        remove(engine, container)
    if account.returncode:
        raise BuildError(f"the engine could not run {run.image}: {account.stderr.strip()}")
    found: dict[str, Any] = json.loads(account.stdout)
    if found["error"]:
        raise BuildError(f"the engine could not start {run.image}: {found['error']}")
    if found["running"]:
        raise BuildError(f"{engine} ended before its container did; the container is removed")
    return found, guard.verdict


def remove(engine: str, container: str) -> None:
    """Removes a container. Nobody waits for this: what is left of it is the engine's to remove."""
    subprocess.Popen(
        [engine, "rm", "--force", container],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
