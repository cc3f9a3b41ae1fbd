"""How a GPU task gets its card: decided without one, on made-up file systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from card_options import card_options, card_problem, wants_card


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


def test_another_device_is_refused() -> None:
    assert card_problem(task(), "tpu") == "DEVICE: expected cpu or gpu, found 'tpu'"
