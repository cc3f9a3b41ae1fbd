"""The container engine: which one, what images it holds, how a task's container is started and removed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gbdx_platform.hardened_container import CONTAINER_UID, default_memory, walls
from gbdx_platform.settings import byte_size, number, whole_number
from gbdx_platform.task_verdict import printable

GRACE = 10
# Seconds between the looks for an image while the engine doesn't answer, which takes about 20 to start again.
WAITS = (1, 3, 6, 10)
LABEL, LIFE_LABEL = "gbdx.service", "gbdx.life"
# Tells the containers of this life of the service from those of earlier ones.
LIFE = secrets.token_hex(8)


class ImageError(ValueError):
    """No engine, no such image, or not the one that was registered; the message is a sentence."""


class EngineError(ImageError):
    """An engine that was there doesn't answer."""


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
        with contextlib.suppress(subprocess.TimeoutExpired):
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
    """The image that a reference means now, None when the store has none.

    Raises:
        EngineError: no engine answers, not even one that was just starting again.
    """
    inspect = ("image", "inspect", "--", reference)
    try:
        for wait in (0, *WAITS):
            time.sleep(wait)
            found = call(*inspect)
            if found.returncode and call("info").returncode == 0:
                found = call(*inspect)  # once more: it may have begun to answer in between
                if found.returncode:
                    return None
            if not found.returncode:
                facts = json.loads(found.stdout)[0]
                settings = facts.get("Config") or {}
                return Image(facts["Id"], settings.get("Entrypoint") or [], settings.get("Cmd") or [])
        said = printable(found.stderr)
    except subprocess.TimeoutExpired as error:
        said = f"none within {error.timeout:g} s"
    raise EngineError(f"container engine: expected an answer about the image {reference!r}, found: {said}")


def pull_timeout() -> float:
    """Seconds that a pull may take.

    Raises:
        ServiceError: GBDX_PULL_TIMEOUT is no number.
    """
    return number("GBDX_PULL_TIMEOUT", 600)


def bind_image(reference: str) -> Image:
    """The image of a definition at registration, pulled when the store doesn't have it.

    Raises:
        ImageError: it is neither in the store nor to be pulled, or no engine answers.
    """
    image = inspect_image(reference)
    if image is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            call("pull", "--quiet", "--", reference, timeout=pull_timeout())
        image = inspect_image(reference)
    if image is None:
        raise ImageError(f"image {reference!r}: expected it in the engine's store or to be pulled, found neither")
    return image


def check_image(reference: str, registered: str) -> None:
    """Refuses a tag that no longer means the image that was registered.

    Raises:
        ImageError: the image has vanished, the tag was moved, or no engine answers.
    """
    image = inspect_image(reference)
    if image is None or image.id != registered:
        moved = image and f"{image.id[:19]}: the tag was moved; register a higher version"
        found = moved or "that it has vanished"
        raise ImageError(f"image {reference!r}: expected {registered[:19]} as registered, found {found}")


@functools.cache
def has_gpu() -> bool:
    """Whether the engine can lend a GPU to a container."""
    return shutil.which("nvidia-smi") is not None and "nvidia" in call("info", "--format", "{{json .Runtimes}}").stdout


@dataclass(frozen=True)
class Limits:
    """What one task may use, the local worker's own defaults. disk None: until the disk is nearly full."""

    memory: int
    disk: int | None
    processes: int
    temporary: int


def limits() -> Limits:
    """Limits from the environment.

    Raises:
        ServiceError: a variable that is no size, or no number.
    """
    return Limits(
        memory=byte_size("GBDX_TASK_MEMORY", default_memory()),
        disk=byte_size("GBDX_TASK_DISK", 0) or None,
        processes=whole_number("GBDX_TASK_PROCESSES", 1024),
        temporary=byte_size("GBDX_TASK_TMP", 2 * 2**30),
    )


def user() -> tuple[int, int]:
    """The uid and gid that tasks run as: the caller's, for root the images' own."""
    return (os.getuid(), os.getgid()) if os.getuid() else (CONTAINER_UID, CONTAINER_UID)


def let_read(folder: Path) -> None:
    """Lets everybody read all that is in a folder, because a task may be another user than the one who wrote it."""
    subprocess.run(["chmod", "-R", "a+rX", "--", folder], capture_output=True, check=False)


def run_options(name: str, service: str, mounts: list[str], gpu: bool) -> list[str]:
    """Everything before the image: the same hardened container as in the local worker (`make run`)."""
    allowed = limits()
    return [
        *(engine(), "run", "--name", name, "--label", f"{LABEL}={service}", "--label", f"{LIFE_LABEL}={LIFE}"),
        *walls(engine(), user(), str(allowed.memory), allowed.processes, str(allowed.temporary)),
        *(*(["--gpus", "all"] if gpu else []), *mounts),
    ]


def remove(*containers: str) -> None:
    """Removes containers, running ones too."""
    if containers:
        call("rm", "--force", *containers, timeout=300)


def remove_leftovers(service: str) -> None:
    """Removes the containers that an earlier life of this service left."""
    template = f'{{{{.ID}}}} {{{{.Label "{LIFE_LABEL}"}}}}'
    listed = call("ps", "--all", "--filter", f"label={LABEL}={service}", "--format", template).stdout.splitlines()
    remove(*(line.split()[0] for line in listed if not line.endswith(f" {LIFE}")))


def remove_mounting(folder: Path) -> None:
    """Removes the containers that have something below a folder mounted, whoever started them."""
    listed = call("ps", "--all", "--quiet").stdout.split()
    facts = json.loads(call("inspect", "--type", "container", *listed).stdout or "[]") if listed else []
    inside = f"{folder.resolve()}/"
    remove(*(one["Id"] for one in facts if any(mounted["Source"].startswith(inside) for mounted in one["Mounts"])))
