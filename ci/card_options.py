"""Graphics cards for a run: does a task want one, is there one here, and how is it handed to the container."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Where the NVIDIA Container Toolkit leaves its description of the cards (`nvidia-ctk cdi generate`).
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
TOOLKIT_PROGRAMS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit", "nvidia-container-runtime")
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


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
    return ""


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
