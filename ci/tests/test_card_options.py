"""How a GPU task gets its card: decided without one, on made-up file systems."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from card_options import DRIVERS, card_options, card_problem, driver_problem, minimum_driver, wants_card


def task(kind: str = "DOCKER", domain: str = "gpu") -> dict[str, Any]:
    """A definition with one container descriptor."""
    return {"name": "train", "containerDescriptors": [{"type": kind, "properties": {"image": "x", "domain": domain}}]}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with an NVIDIA driver and its container toolkit."""
    for path in ("dev/nvidiactl", "usr/bin/nvidia-container-toolkit"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts a program called nvidia-smi before all others on PATH, made of lines of shell."""

    def install(lines: str) -> None:
        program = tmp_path / "programs" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return install


@pytest.mark.parametrize(
    ("kind", "domain", "wanted"),
    [
        ("GPUDOCKER", "default", True),
        ("DOCKER", "gpu", True),
        ("DOCKER", "nvidiag2", True),
        ("DOCKER", "default", False),
        ("DOCKER", "", False),
    ],
)
def test_a_gpu_type_or_a_gpu_domain_wants_a_card(kind: str, domain: str, wanted: bool) -> None:
    assert wants_card(task(kind, domain)) is wanted


def test_docker_gets_all_cards_and_podman_gets_them_by_cdi(machine: Path) -> None:
    assert card_options("/usr/bin/docker", task(), "", str(machine)) == ["--gpus", "all"]
    (machine / "etc/cdi").mkdir(parents=True)
    (machine / "etc/cdi/nvidia.yaml").touch()
    assert card_options("/usr/bin/podman", task(), "", str(machine)) == ["--device", "nvidia.com/gpu=all"]


def test_device_cpu_asks_for_no_card_and_is_told_to_the_task(machine: Path) -> None:
    assert card_options("docker", task(), "cpu", str(machine)) == ["--env", "DEVICE=cpu"]
    assert card_options("docker", task(domain="default"), "", str(machine)) == []


def test_a_machine_with_driver_and_toolkit_can_run_a_gpu_task(machine: Path) -> None:
    assert card_problem(task(), "gpu", str(machine)) == ""


def test_a_machine_without_a_driver_is_told_about_the_processor(tmp_path: Path) -> None:
    problem = card_problem(task(), "", str(tmp_path))
    assert "expected its driver on this machine, found no /dev/nvidiactl" in problem
    assert "make run TASK=train DEVICE=cpu" in problem
    assert card_problem(task(), "cpu", str(tmp_path)) == ""
    assert card_problem(task(domain="default"), "", str(tmp_path)) == ""


def test_a_driver_without_the_toolkit_is_told_what_to_install(machine: Path) -> None:
    (machine / "usr/bin/nvidia-container-toolkit").unlink()
    assert "expected the NVIDIA Container Toolkit, found none" in card_problem(task(), "", str(machine))


TRAIN_CNN = {**task(), "name": "train-cnn"}


def test_the_oldest_driver_is_read_from_the_base_that_has_the_cuda_libraries() -> None:
    assert minimum_driver("train-cnn") == "525.60.13"
    assert minimum_driver("hello-gbdx") == ""
    assert minimum_driver("a task from elsewhere") == ""


@pytest.mark.parametrize("version", ["525.60.13", "525.105.17", "580.65.06\n580.65.06"])
def test_a_new_enough_driver_can_run_a_gpu_task(machine: Path, nvidia_smi: Callable[[str], None], version: str) -> None:
    nvidia_smi(f"echo '{version}'")
    assert card_problem(TRAIN_CNN, "gpu", str(machine)) == ""


def test_a_driver_too_old_for_the_images_cuda_is_told_what_to_install(
    machine: Path, nvidia_smi: Callable[[str], None]
) -> None:
    nvidia_smi("echo 470.256.02")
    assert card_problem(TRAIN_CNN, "", str(machine)) == (
        "train-cnn wants an NVIDIA card: expected its driver 525.60.13 or newer for CUDA in the image, "
        f"found 470.256.02; install one ({DRIVERS}); on the processor it runs with: make run TASK=train-cnn DEVICE=cpu"
    )
    assert card_problem(TRAIN_CNN, "cpu", str(machine)) == ""


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "Driver/library version mismatch",
        ),
        ("echo '[N/A]'", "[N/A]"),
        ("exit 9", "exit code 9"),
    ],
)
def test_an_nvidia_smi_that_does_not_tell_is_quoted(
    machine: Path, nvidia_smi: Callable[[str], None], lines: str, found: str
) -> None:
    nvidia_smi(lines)
    problem = card_problem(TRAIN_CNN, "gpu", str(machine))
    assert "expected nvidia-smi to tell the driver's version, found: " in problem
    assert f"{found}; it comes with the driver" in problem


def test_a_driver_without_nvidia_smi_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "nothing"))
    assert "found: [Errno 2] No such file or directory: 'nvidia-smi'" in driver_problem("525.60.13")


def test_another_device_is_refused() -> None:
    assert card_problem(task(), "tpu") == "DEVICE: expected cpu or gpu, found 'tpu'"
