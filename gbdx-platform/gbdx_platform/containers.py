"""The container engine: which one, what images it holds, how a task's container is started, watched and removed."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbdx_platform.task_verdict import Verdict

# The uid of the images' own user: stands in for root, who needs no root in a container.
CONTAINER_UID = 10001
GRACE = 10
# A run is ended when less than this is left on the disk that it writes to.
FREE_BYTES = 2**30
LABEL, LIFE_LABEL = "gbdx.service", "gbdx.life"
# Tells the containers of this life of the service from those of earlier ones.
LIFE = secrets.token_hex(8)


class ImageError(ValueError):
    """No engine, no such image, or not the one that was registered; the message is a sentence."""


@functools.cache
def engine() -> str:
    """The command line of the container engine: ENGINE, else the first of docker and podman that answers.

    Raises:
        ImageError: none answers.
    """
    asked = os.environ.get("ENGINE")
    candidates = [asked] if asked else ["/usr/bin/docker", "docker", "podman"]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path and subprocess.run([path, "info"], capture_output=True, check=False, timeout=60).returncode == 0:
            return path
    raise ImageError(f"container engine: expected one that answers, tried {', '.join(candidates)}")


def call(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs the engine's command line to its end."""
    return subprocess.run([engine(), *arguments], capture_output=True, text=True, check=False, timeout=timeout)


@dataclass(frozen=True)
class Image:
    """An image in the engine's store: its id, which is the digest of its content, entry point and command."""

    id: str
    entrypoint: list[str]
    command: list[str]


def inspect_image(reference: str) -> Image | None:
    """The image that a reference means now, None when the store has none."""
    if reference.startswith("-"):
        return None
    found = call("image", "inspect", reference)
    if found.returncode:
        return None
    facts = json.loads(found.stdout)[0]
    settings = facts.get("Config") or {}
    return Image(facts["Id"], settings.get("Entrypoint") or [], settings.get("Cmd") or [])


def bind_image(reference: str) -> Image:
    """The image of a definition at registration, pulled when the store doesn't have it.

    Raises:
        ImageError: it is neither in the store nor to be pulled.
    """
    image = inspect_image(reference)
    if image is None and not reference.startswith("-"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            call("pull", "--quiet", reference, timeout=float(os.environ.get("GBDX_PULL_TIMEOUT", "600")))
        image = inspect_image(reference)
    if image is None:
        raise ImageError(f"image {reference!r}: expected it in the engine's store or to be pulled, found neither")
    return image


def check_image(reference: str, registered: str) -> None:
    """Refuses a tag that no longer means the image that was registered.

    Raises:
        ImageError: the image has vanished, or the tag was moved.
    """
    image = inspect_image(reference)
    if image is None:
        raise ImageError(f"image {reference!r}: expected {registered[:19]} as registered, found that it has vanished")
    if image.id != registered:
        raise ImageError(
            f"image {reference!r}: expected {registered[:19]} as registered, found {image.id[:19]}: "
            "the tag was moved; register a higher version"
        )


@functools.cache
def has_gpu() -> bool:
    """Whether the engine can lend a GPU to a container."""
    return shutil.which("nvidia-smi") is not None and "nvidia" in call("info", "--format", "{{json .Runtimes}}").stdout


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Limits:
    """What one task may use, the local worker's own defaults. disk None: until FREE_BYTES are left."""

    memory: int
    disk: int | None
    processes: int
    temporary: str


def limits() -> Limits:
    """Limits from GBDX_TASK_MEMORY and GBDX_TASK_DISK (bytes), GBDX_TASK_PROCESSES, GBDX_TASK_TMP (as 2g)."""
    asked = {name: os.environ.get(f"GBDX_TASK_{name}") for name in ("MEMORY", "DISK", "PROCESSES", "TMP")}
    return Limits(
        int(asked["MEMORY"] or physical_memory() * 3 // 4),
        int(asked["DISK"]) if asked["DISK"] else None,
        int(asked["PROCESSES"] or 1024),
        asked["TMP"] or "2g",
    )


def used_bytes(folder: str) -> int:
    """Bytes that the files below a folder take on the disk; what vanishes meanwhile doesn't count."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
    return total


def over_disk(folder: str) -> str:
    """A sentence when a work folder has grown over its limit, or the disk is nearly full; else empty."""
    limit = limits().disk
    if limit is None:
        free = shutil.disk_usage(folder).free
        return f"only {free >> 20} MB are left on the disk of the outputs" if free < FREE_BYTES else ""
    used = used_bytes(folder)
    return f"the outputs take {used >> 20} MB, over the limit of {limit >> 20} MB (DISK)" if used > limit else ""


def user() -> tuple[int, int]:
    """The uid and gid that tasks run as: the caller's, for root the images' own."""
    return (os.getuid(), os.getgid()) if os.getuid() else (CONTAINER_UID, CONTAINER_UID)


def mount(source: str, target: str, read_only: bool) -> list[str]:
    """The engine's option for one bind mount; written as CSV, so that a comma in a path is just a comma."""
    text = io.StringIO()
    fields = ["type=bind", f"source={source}", f"target={target}"] + (["readonly"] if read_only else [])
    csv.writer(text, lineterminator="").writerow(fields)
    return ["--mount", text.getvalue()]


def run_options(name: str, service: str, mounts: list[str], gpu: bool) -> list[str]:
    """Everything before the image: the same hardened container as in the local worker (`make run`)."""
    uid, gid = user()
    allowed = limits()
    memory = str(allowed.memory)
    podman = ["--userns", "keep-id"] if "podman" in Path(engine()).name and os.getuid() else []
    return [
        *(engine(), "run", "--name", name, "--label", f"{LABEL}={service}", "--label", f"{LIFE_LABEL}={LIFE}"),
        *("--init", "--log-driver", "none"),
        *("--user", f"{uid}:{gid}", *podman, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(("--security-opt", "label=disable") if os.path.exists("/sys/fs/selinux/enforce") else ()),
        *("--network", "none", "--pids-limit", str(allowed.processes), "--memory", memory, "--memory-swap", memory),
        *("--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={allowed.temporary}"),
        *("--env", "HOME=/tmp", *(["--gpus", "all"] if gpu else []), *mounts),
    ]


def account_of(name: str) -> dict[str, Any] | None:
    """The engine's account of a container's end; None when it has none, as when it could not be started."""
    template = (
        '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}},'
        '"running":{{.State.Running}}}'
    )
    found = call("inspect", "--type", "container", "--format", template, name)
    return json.loads(found.stdout) if found.returncode == 0 else None


def remove(name: str) -> None:
    """Removes a container, in the background: nobody waits for it."""
    threading.Thread(target=call, args=("rm", "--force", name), daemon=True).start()


def remove_leftovers(service: str) -> list[str]:
    """Removes the containers that an earlier life of this service left; returns their ids."""
    lines = call(
        "ps", "--all", "--filter", f"label={LABEL}={service}", "--format", f'{{{{.ID}}}} {{{{.Label "{LIFE_LABEL}"}}}}'
    )
    listed = [line.split()[0] for line in lines.stdout.splitlines() if not line.endswith(f" {LIFE}")]
    if listed:
        call("rm", "--force", *listed, timeout=300)
    return listed


def remove_mounting(folder: Path) -> None:
    """Removes the containers that have something below a folder mounted, whoever started them."""
    listed = call("ps", "--all", "--quiet").stdout.split()
    facts = json.loads(call("inspect", "--type", "container", *listed).stdout or "[]") if listed else []
    inside = f"{folder.resolve()}/"
    found = [one["Id"] for one in facts if any(mounted["Source"].startswith(inside) for mounted in one["Mounts"])]
    if found:
        call("rm", "--force", *found, timeout=300)


class Guard(threading.Thread):
    """Watches a running container and stops it when it is over its time, canceled, or the disk is nearly full."""

    def __init__(self, name: str, timeout: float, folder: str, canceled: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.container, self.timeout, self.folder, self.canceled = name, timeout, folder, canceled
        self.finished = threading.Event()
        self.verdict: Verdict | None = None

    def run(self) -> None:
        """Looks four times a second, at the disk more rarely."""
        deadline = time.monotonic() + self.timeout
        next_look = time.monotonic() + 1
        while not self.finished.wait(min(0.25, max(deadline - time.monotonic(), 0))):
            if self.canceled():
                return self.stop(Verdict("canceled", "canceled by its owner"))
            if time.monotonic() >= deadline:
                return self.stop(Verdict("timedout", f"over its timeout of {self.timeout:g} s"))
            looked = time.monotonic()
            if looked >= next_look:
                if full := over_disk(self.folder):
                    return self.stop(Verdict("over limit", full))
                next_look = time.monotonic() + 1 + 20 * (time.monotonic() - looked)

    def stop(self, verdict: Verdict) -> None:
        """Ends the container, TERM first, KILL later; once more if it was only about to start."""
        self.verdict = verdict
        while not self.finished.is_set():
            call("stop", "--time", str(GRACE), self.container)
            self.finished.wait(0.5)
