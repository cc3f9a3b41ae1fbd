"""One container for one run: how it is laid out, walled in, watched, and ended."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_images import BuildError
from card_options import asked_device, card_options
from hardened_container import CONTAINER_UID, Guard, account_of, default_memory, give, mount, walls
from task_verdict import Verdict

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


def user() -> tuple[int, int] | None:
    """The caller's uid and gid: behind sudo the person's own, None for root itself."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and os.environ.get("SUDO_UID"):
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID") or 0)
    return (uid, gid) if uid else None


def owner() -> tuple[int, int]:
    """The uid and gid that a container runs as: the caller's, for root the images' own."""
    return user() or (CONTAINER_UID, CONTAINER_UID)


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
        give(work, *owner())
    return work


def open_up(folder: Path) -> None:
    """Lets the owner into everything that a task left, closed or not, and drops set-id bits."""
    subprocess.run(["chmod", "-R", "u+rwX,ug-s,o-t", folder], capture_output=True, check=False)


def container_command(engine: str, run: Run, work: Path, container: str, *words: str) -> list[str]:
    """The engine's whole command line for a run of `words`, the definition's command when there are none."""
    options = run.options
    memory = str(options.memory or default_memory())
    mounts = mount(work, "/mnt/work", False) + mount(work / "input", "/mnt/work/input", True)
    for port, folder in run.folders.items():
        mounts += mount(folder, f"/mnt/work/input/{port}", True)
    descriptor = run.definition["containerDescriptors"][0]
    return [
        *(engine, "run", "--name", container, "--label", f"gbdx.task={run.name}"),
        *walls(engine, owner(), memory, options.processes, options.temporary, options.network),
        *card_options(engine, run.definition, asked_device()),
        *(*mounts, *(("--interactive", "--tty") if words else ())),
        *(run.image, *(words or shlex.split(descriptor.get("command") or ""))),
    ]


def run_container(engine: str, run: Run, work: Path, container: str) -> tuple[dict[str, Any], Verdict | None]:
    """Runs the container to its end, its output streaming through.

    Returns:
        The engine's account of the end (exit code, killed for memory), and the verdict if it was stopped from here.
    """
    signals: list[int] = []
    stop = [engine, "stop", "--time", str(run.options.grace), container]
    timeout, disk = run.options.timeout or run.timeout, run.options.disk
    guard = Guard(stop, timeout, work, disk, lambda: "stopped by the caller" if signals else "")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda got, frame: signals.append(got))
    # In a session of its own, so that Ctrl-C reaches the container once, through the guard.
    command = container_command(engine, run, work, container)
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        guard.start()
        client.wait()
        guard.finished.set()
        guard.join()
        account = account_of(engine, container)
    finally:
        guard.finished.set()
        client.kill()
        remove(engine, container)
    if account.returncode:
        raise BuildError(f"the engine could not run {run.image}: {account.stderr.strip()}")
    found: dict[str, Any] = json.loads(account.stdout)
    if found["error"]:
        raise BuildError(f"the engine could not start {run.image}: {found['error']}")
    if found["running"]:
        raise BuildError(f"{engine} ended before its container did; the container is removed")
    return found, Verdict(*guard.stopped) if guard.stopped else None


def remove(engine: str, container: str) -> None:
    """Removes a container. Nobody waits for this: what is left of it is the engine's to remove."""
    subprocess.Popen(
        [engine, "rm", "--force", container],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
