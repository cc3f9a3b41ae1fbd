"""The container engine: which one, what images it holds, how a task's container is started, watched and removed."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
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
PROCESSES = 1024
TEMPORARY = "2g"
GRACE = 10
# A run is ended when less than this is left on the disk that it writes to.
FREE_BYTES = 2**30
LABEL = "gbdx.service"


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
        try:
            call("pull", "--quiet", reference, timeout=float(os.environ.get("GBDX_PULL_TIMEOUT", "600")))
        except subprocess.TimeoutExpired:
            pass
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


def memory_limit() -> int:
    """Bytes that one task may use: three quarters of the machine's memory, as in the local worker."""
    return physical_memory() * 3 // 4


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
    memory = str(memory_limit())
    podman = ["--userns", "keep-id"] if "podman" in Path(engine()).name and os.getuid() else []
    return [
        *(engine(), "run", "--name", name, "--label", f"{LABEL}={service}", "--init", "--log-driver", "none"),
        *("--user", f"{uid}:{gid}", *podman, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--network", "none", "--pids-limit", str(PROCESSES), "--memory", memory, "--memory-swap", memory),
        *("--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={TEMPORARY}"),
        *("--env", "HOME=/tmp", *(["--gpus", "all"] if gpu else []), *mounts),
    ]


def account_of(name: str) -> dict[str, Any] | None:
    """The engine's account of a container's end; None when it has none, as when it could not be started."""
    template = '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}}}'
    found = call("inspect", "--type", "container", "--format", template, name)
    return json.loads(found.stdout) if found.returncode == 0 else None


def remove(name: str) -> None:
    """Removes a container, in the background: nobody waits for it."""
    threading.Thread(target=call, args=("rm", "--force", name), daemon=True).start()


def remove_leftovers(service: str) -> list[str]:
    """Removes the containers that an earlier life of this service left; returns their ids."""
    listed = call("ps", "--all", "--quiet", "--filter", f"label={LABEL}={service}").stdout.split()
    if listed:
        call("rm", "--force", *listed, timeout=300)
    return listed


class Guard(threading.Thread):
    """Watches a running container and stops it when it is over its time, canceled, or the disk is nearly full."""

    def __init__(self, name: str, timeout: float, folder: str, canceled: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.container, self.timeout, self.folder, self.canceled = name, timeout, folder, canceled
        self.finished = threading.Event()
        self.verdict: Verdict | None = None

    def run(self) -> None:
        """Looks four times a second."""
        deadline = time.monotonic() + self.timeout
        while not self.finished.wait(min(0.25, max(deadline - time.monotonic(), 0))):
            if self.canceled():
                return self.stop(Verdict("canceled", "canceled by its owner"))
            if time.monotonic() >= deadline:
                return self.stop(Verdict("timedout", f"over its timeout of {self.timeout:g} s"))
            free = shutil.disk_usage(self.folder).free
            if free < FREE_BYTES:
                return self.stop(Verdict("over limit", f"only {free >> 20} MB are left on the disk of the outputs"))

    def stop(self, verdict: Verdict) -> None:
        """Ends the container, TERM first, KILL later; once more if it was only about to start."""
        self.verdict = verdict
        while not self.finished.is_set():
            call("stop", "--time", str(GRACE), self.container)
            self.finished.wait(0.5)
