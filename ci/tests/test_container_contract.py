"""What every task's image keeps to, fork or not: each top-level folder with a definition is found and tried.

`make container-test TASK=my-task` runs these for one task.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_images
import pytest
import testinfra
from card_options import card_options
from image_graph import ROOT, declared_arguments, task_folders
from task_inputs import read_definition

pytestmark = pytest.mark.container

OCI = "org.opencontainers.image."
OCI_LABELS = ("title", "description", "version", "revision", "source", "licenses", "base.name", "base.digest")

# GPU tasks run on the processor here; a runner with a card says DEVICE=gpu.
DEVICE = os.environ.get("DEVICE") or "cpu"
HARDENED = ("--init", "--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def rounds(folder: Path) -> list[Any]:
    """(task, base) for each layer to test a task on: the one that BASE asks for, else its own and Theano where it can.

    A base of "" is the Dockerfile's own.
    """
    asked = os.environ.get("BASE") or ""
    found = [pytest.param(folder, asked, id=folder.name)]
    if not asked and "BASE" in declared_arguments(folder / "Dockerfile"):
        found.append(pytest.param(folder, "theano", id=f"{folder.name}-theano", marks=pytest.mark.theano))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One round of tests for each layer of each task, or of the one that --task names."""
    if "task" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--task")
        folders = [folder for folder in task_folders() if wanted in (None, folder.name)]
        assert folders, f"no task is called {wanted}"
        every = [each for folder in folders for each in rounds(folder)]
        metafunc.parametrize(("task", "base"), every, scope="module")


@pytest.fixture(scope="module")
def image(engine: str, task: Path, base: str) -> Iterator[str]:
    """The task's image on a base, built; the runs of the same round are on that base too."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BASE", base)
        assert build_images.main([task.name]) == 0
        yield build_images.reference(task.name)


@pytest.fixture(scope="module")
def config(engine: str, image: str) -> dict[str, Any]:
    """What the engine says of the image: user, environment, labels, command."""
    command = [engine, "image", "inspect", "--format", "{{json .Config}}", image]
    found: dict[str, Any] = json.loads(subprocess.check_output(command))
    return found


@pytest.fixture(scope="module")
def host(engine: str, image: str) -> Iterator[Any]:
    """A container of the image that does nothing, to be looked at from inside."""
    command = [engine, "run", "--detach", "--rm", *HARDENED, image, "sleep", "600"]
    container = subprocess.check_output(command, text=True).strip()
    kind = "podman" if "podman" in Path(engine).name else "docker"
    yield testinfra.get_host(f"{kind}://{container}")
    subprocess.run([engine, "rm", "--force", container], capture_output=True, check=True)


def tree_hash(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content and its time of change."""
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(task: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """One run on the task's own test inputs."""
    environment = {**os.environ, "DEVICE": DEVICE}
    command = [sys.executable, ROOT / "ci" / "run_task.py", task.name, "--output", output]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def first_run(image: str, task: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, bool]:
    """A run on test_inputs: the finished process, its outputs, and whether the inputs stayed as they were."""
    output = tmp_path_factory.mktemp(task.name) / "outputs"
    before = tree_hash(task / "test_inputs")
    done = run(task, output)
    return done, output, before == tree_hash(task / "test_inputs")


def test_the_image_carries_the_standard_labels_and_its_definition(config: dict[str, Any], task: Path) -> None:
    labels = config["Labels"]
    assert [name for name in OCI_LABELS if not labels.get(OCI + name)] == []
    definition = read_definition(task)
    assert labels[OCI + "title"] == definition["name"]
    assert labels[OCI + "version"] == definition["version"]
    assert json.loads(labels["gbdx.task.definition"]) == definition


def test_the_image_runs_as_a_user_that_is_not_root(config: dict[str, Any], host: Any) -> None:
    assert config["User"].split(":")[0].isdigit()
    assert config["User"].split(":")[0] != "0"
    assert host.check_output("id -u") == config["User"].split(":")[0]


def test_python_prints_each_line_at_once(config: dict[str, Any]) -> None:
    assert "PYTHONUNBUFFERED=1" in config["Env"]


def test_the_image_keeps_within_its_size_budget(engine: str, image: str, config: dict[str, Any]) -> None:
    budget = int(config["Labels"]["gbdx.image.budget-megabytes"]) * 10**6
    command = [engine, "run", "--rm", "--user", "0", "--network", "none", image, "du", "-sxb", "/"]
    used = int(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[0])
    assert used <= budget, f"{used / 1e6:.1f} MB of {budget / 1e6:.0f} MB"


@pytest.mark.parametrize("folder", ["/var/lib/apt/lists", "/var/cache/apt/archives", "/root/.cache", "/var/log"])
def test_the_image_holds_no_package_caches_or_logs(host: Any, folder: str) -> None:
    assert host.run(f"find {folder} -type f -size +0 ! -name lock").stdout == ""


@pytest.mark.parametrize("tool", ["gcc", "cc", "g++", "make"])
def test_the_image_holds_no_compiler(host: Any, config: dict[str, Any], tool: str) -> None:
    if config["Labels"].get("gbdx.image.needs-compiler"):
        assert config["Labels"]["gbdx.image.needs-compiler"].strip(), "the label says why"
    else:
        assert not host.exists(tool)


def test_no_certificate_of_the_building_machine_stays_in_the_image(host: Any) -> None:
    assert not host.file("/dev/shm/ca.crt").exists
    assert not host.file("/run/secrets/ca").exists


def test_every_file_that_the_command_names_is_in_the_image(host: Any, task: Path) -> None:
    command = read_definition(task)["containerDescriptors"][0]["command"]
    for word in command.split():
        assert not word.startswith("/") or host.file(word).is_file


def test_the_root_file_system_is_read_only_and_tmp_is_not_needed_to_look_around(host: Any) -> None:
    assert "Read-only file system" in host.run("touch /somewhere").stderr


def test_the_task_succeeds_on_its_own_test_inputs(first_run: tuple[Any, Path, bool], task: Path) -> None:
    done, output, _ = first_run
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{task.name}: success in ")
    assert json.loads((output / "status.json").read_text())["status"] == "success"


def test_the_task_writes_what_it_declares_and_nothing_else(first_run: tuple[Any, Path, bool], task: Path) -> None:
    done, output, _ = first_run
    ports = [p["name"] for p in read_definition(task)["outputPortDescriptors"] if p["type"] == "directory"]
    written = {path.name for path in output.iterdir()} - {"status.json", "run.json", "ports.json"}
    assert written == set(ports)
    assert all(any((output / port).iterdir()) for port in ports), "an output folder is empty"
    assert "warning" not in done.stdout.splitlines()[-1]


def test_the_task_leaves_its_inputs_as_they_are(first_run: tuple[Any, Path, bool]) -> None:
    _, _, unchanged = first_run
    assert unchanged


def test_outputs_belong_to_the_caller(first_run: tuple[Any, Path, bool]) -> None:
    _, output, _ = first_run
    assert {path.stat().st_uid for path in output.rglob("*")} == {os.getuid()}


def test_a_second_run_works_as_the_first(first_run: tuple[Any, Path, bool], task: Path, tmp_path: Path) -> None:
    _, output, _ = first_run
    done = run(task, tmp_path / "outputs")
    assert done.returncode == 0, done.stdout + done.stderr

    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*")}

    assert names(tmp_path / "outputs") == names(output)


def test_any_uid_without_a_home_will_do(engine: str, image: str, task: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    for folder in (tmp_path, tmp_path / "output"):
        folder.chmod(0o777)
    command = [engine, "run", "--rm", *HARDENED, "--user", "54321:54321", "--tmpfs", "/tmp:exec"]
    command += card_options(engine, read_definition(task), DEVICE)
    command += ["--volume", f"{tmp_path}:/mnt/work", "--volume", f"{task}/test_inputs:/mnt/work/input:ro", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "success"
    assert (tmp_path / "status.json").stat().st_uid == 54321
