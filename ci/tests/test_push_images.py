"""What ci/push_images.py refuses, and how it names what it pushes; test_publish_end_to_end.py pushes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from card_options import card_problem
from image_graph import ROOT, read_graph
from publishing import commit
from push_images import PushError, push_to_registry, variant
from task_inputs import read_definition

pytestmark = pytest.mark.container


def push(
    checkout: Path, environment: dict[str, str], task: str = "hello-gbdx", **settings: str
) -> subprocess.CompletedProcess[str]:
    """ci/push_images.py of a checkout."""
    command = [sys.executable, checkout / "ci" / "push_images.py", task]
    return subprocess.run(
        command, env={**environment, **settings}, capture_output=True, text=True, check=False, cwd=checkout
    )


def test_what_fails_its_container_tests_is_not_pushed(registry: str, checkout: Path, logged_in: dict[str, str]) -> None:
    script = checkout / "hello-gbdx" / "hello_gbdx.py"
    script.write_text("raise SystemExit('broken')\n")
    commit(checkout, "Break the task")
    done = push(checkout, logged_in)
    assert done.returncode == 1
    assert "push: hello-gbdx: its container tests failed: see the lines above" in done.stderr
    assert "FAILED ci/tests/test_container_contract.py::test_the_task_succeeds_on_its_own_test_inputs" in done.stderr
    assert not (checkout / ".make/pushed").exists()


def test_without_a_login_the_registry_refuses(
    engine: str, registry: str, hello_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    target = f"{registry}/team/nobody:0.1.0"
    with pytest.raises(PushError, match=f"^{target}: the registry refused it: "):
        push_to_registry(engine, hello_image, target)


def test_uncommitted_changes_are_named_and_not_pushed(checkout: Path, logged_in: dict[str, str]) -> None:
    (checkout / "hello-gbdx" / "hello_gbdx.py").write_text("print('not yet committed')\n")
    done = push(checkout, logged_in)
    assert done.returncode == 1
    assert "expected a clean working tree, found changes in hello-gbdx/hello_gbdx.py" in done.stderr


def test_a_registry_has_to_be_named(environment: dict[str, str]) -> None:
    done = push(ROOT, environment, REGISTRY="")
    assert done.returncode == 1
    assert "push: expected REGISTRY=host/path, found none" in done.stderr


@pytest.mark.skipif(card_problem(read_definition(ROOT / "train-cnn"), "gpu") == "", reason="this machine has a card")
@pytest.mark.parametrize("device", ["", "gpu"])
def test_a_gpu_variant_is_not_pushed_where_there_is_no_card_to_test_it_on(
    environment: dict[str, str], device: str
) -> None:
    done = push(ROOT, environment, "train-cnn", REGISTRY="127.0.0.1:1/team", DEVICE=device)
    assert done.returncode == 1
    assert (
        "train-cnn: expected an NVIDIA card to test its GPU variant on before it is pushed, found none" in done.stderr
    )
    assert "0.1.0-cpu: make push TASK=train-cnn DEVICE=cpu REGISTRY=..." in done.stderr


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        ("train-cnn", {"DEVICE": "gpu"}, ""),
        ("train-cnn", {"DEVICE": "cpu"}, "-cpu"),
        ("train-cnn", {"DEVICE": "gpu", "BASE": "theano"}, "-theano"),
        ("train-cnn", {"DEVICE": "cpu", "BASE": "theano"}, "-theano-cpu"),
        ("hello-gbdx", {"DEVICE": "cpu", "BASE": "theano"}, ""),
        ("hello-gbdx", {"DEVICE": "gpu", "PLATFORM": "linux/arm64"}, "-arm64"),
    ],
)
def test_the_tag_of_a_variant_says_which_it_is(
    monkeypatch: pytest.MonkeyPatch, task: str, settings: dict[str, str], expected: str
) -> None:
    for name in ("DEVICE", "BASE", "PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    images = read_graph(arguments=build_images.asked_arguments())
    assert variant(images[task], images) == expected
