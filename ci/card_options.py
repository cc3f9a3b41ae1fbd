"""Graphics cards for a run: does a task want one, is there one here, and how is it handed to the container."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import build_images
from image_graph import instructions, lineage, read_graph

# Where the NVIDIA Container Toolkit leaves its description of the cards (`nvidia-ctk cdi generate`).
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
TOOLKIT_PROGRAMS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit", "nvidia-container-runtime")
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
DRIVERS = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide"
# The label of a Dockerfile that says how old the driver may be for the CUDA libraries in its image.
MINIMUM_DRIVER = "gbdx.cuda.minimum-driver"


def wants_card(definition: dict[str, Any]) -> bool:
    """Whether a definition is a GPU task's: the type GPUDOCKER of generation 1, or a GPU domain."""
    descriptor = definition["containerDescriptors"][0]
    domain = str((descriptor.get("properties") or {}).get("domain") or "")
    return descriptor.get("type") == "GPUDOCKER" or "gpu" in domain.lower() or domain.startswith("nvidia")


def asked_device() -> str:
    """DEVICE of the environment: `cpu`, `gpu`, or empty when nothing was asked for."""
    return os.environ.get("DEVICE", "")


def card_problem(definition: dict[str, Any], device: str, root: str = "/") -> str:
    """Why a GPU task can't run here, a sentence; empty when it can, when it needs no card, or DEVICE=cpu was asked for.

    root: the root of the file system to look at for the driver and the toolkit.
    """
    if device not in ("", "cpu", "gpu"):
        return f"DEVICE: expected cpu or gpu, found {device!r}"
    if not wants_card(definition) or device == "cpu":
        return ""
    task = definition["name"]
    otherwise = f"; on the processor it runs with: make run TASK={task} DEVICE=cpu"
    if not Path(root, "dev/nvidiactl").exists():
        return f"{task} wants an NVIDIA card: expected its driver on this machine, found no /dev/nvidiactl{otherwise}"
    if not (cdi_files(root) or any(Path(root, "usr/bin", name).exists() for name in TOOLKIT_PROGRAMS)):
        return f"{task} wants an NVIDIA card: expected the NVIDIA Container Toolkit, found none ({TOOLKIT}){otherwise}"
    if problem := driver_problem(minimum_driver(task)):
        return f"{task} wants an NVIDIA card: {problem}{otherwise}"
    return ""


def minimum_driver(task: str) -> str:
    """The oldest driver for a task's image, as the Dockerfiles say that it is built from; empty where none does."""
    images = read_graph(arguments=build_images.asked_arguments())
    dockerfiles = [image.folder / "Dockerfile" for image in lineage(task, images)] if task in images else []
    words = [rest for file in dockerfiles for keyword, rest in instructions(file) if keyword == "LABEL"]
    found = [rest.partition("=")[2].strip('"') for rest in words if rest.startswith(f"{MINIMUM_DRIVER}=")]
    return found[-1] if found else ""


def driver_problem(minimum: str) -> str:
    """Why this machine's driver doesn't do for an image, a part of a sentence; empty when it does, or none is asked."""
    if not minimum:
        return ""
    try:
        found = driver_version()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"expected nvidia-smi to tell the driver's version, found: {error}; it comes with the driver ({DRIVERS})"
    if numbers(found) < numbers(minimum):
        return f"expected its driver {minimum} or newer for CUDA in the image, found {found}; install one ({DRIVERS})"
    return ""


def driver_version() -> str:
    """The version of this machine's NVIDIA driver, such as 550.54.15.

    Raises:
        OSError: there is no nvidia-smi. subprocess.TimeoutExpired: it hangs. ValueError: it tells something else.
    """
    # Where no process keeps the driver awake, each card takes seconds to answer.
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    version = done.stdout.partition("\n")[0].strip()
    if done.returncode or not numbers(version):
        raise ValueError((done.stdout + done.stderr).strip() or f"exit code {done.returncode}")
    return version


def numbers(version: str) -> list[int]:
    """550.54.15 -> [550, 54, 15]; empty for anything else."""
    parts = version.split(".")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else []


def cdi_files(root: str = "/", folders: Iterable[str] = CDI_FOLDERS) -> list[str]:
    """The descriptions of NVIDIA cards that are there for CDI."""
    return [str(path) for folder in folders for path in Path(root, folder.lstrip("/")).glob("nvidia*")]


def card_options(engine: str, definition: dict[str, Any], device: str, root: str = "/") -> list[str]:
    """The engine's options: DEVICE as asked for, and the cards for a GPU task, by CDI for Podman, else `--gpus all`."""
    options = ["--env", f"DEVICE={device}"] if device else []
    if not wants_card(definition) or device == "cpu":
        return options
    by_cdi = "podman" in Path(engine).name and cdi_files(root)
    return options + (["--device", "nvidia.com/gpu=all"] if by_cdi else ["--gpus", "all"])
