"""ci/register_task.py against a live platform whose engine has built none of the images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_graph import ROOT
from publishing import describe
from push_images import push_to_registry
from register_task import bound, difference
from task_inputs import read_definition

pytestmark = pytest.mark.container


def register(checkout: Path, environment: dict[str, str], **settings: str) -> subprocess.CompletedProcess[str]:
    """ci/register_task.py of a checkout, for hello-gbdx."""
    command = [sys.executable, checkout / "ci" / "register_task.py", "hello-gbdx"]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, check=False)


def change_definition(checkout: Path, **keys: Any) -> dict[str, Any]:
    """Changes top-level keys of hello-gbdx's definition; returns it."""
    path = checkout / "hello-gbdx" / "hello-gbdx_definition.json"
    definition = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps(definition))
    return definition


def record(checkout: Path, image: str) -> None:
    """What `make push` leaves behind when it has pushed an image of the definition as it is."""
    folder = checkout / ".make" / "pushed"
    folder.mkdir(parents=True, exist_ok=True)
    definition = read_definition(checkout / "hello-gbdx")
    text = json.dumps({"task": "hello-gbdx", "revision": "0" * 40, "image": image, "definition": definition})
    (folder / "hello-gbdx.json").write_text(text)


@pytest.fixture
def checkout(checkout: Path) -> Path:
    """hello-gbdx in a repository of its own, with the platform's command line as it is installed here."""
    (checkout / "gbdx-platform").symlink_to(ROOT / "gbdx-platform")
    return checkout


@pytest.fixture(scope="session")
def two_digests(
    engine: str, registry: str, logged_in: dict[str, str], hello_image: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Two pushed images of one name that differ in a label."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", logged_in["DOCKER_CONFIG"])
        for build in ("first", "second"):
            name = f"{registry}/two/hello-gbdx:{build}"
            command = [engine, "build", "--quiet", "--tag", name, "--label", f"build={build}", "-"]
            subprocess.run(command, input=f"FROM {hello_image}", text=True, check=True, capture_output=True)
            found.append(push_to_registry(engine, name, name))
    return found[0], found[1]


def test_a_version_is_bound_to_its_digest_and_rises(
    checkout: Path, platform: dict[str, str], two_digests: tuple[str, str]
) -> None:
    first, second = two_digests
    change_definition(checkout, version="0.3.0")
    record(checkout, first)
    done = register(checkout, platform)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"hello-gbdx successfully registered.\nhello-gbdx:0.3.0 is {first}\n"
    registered = describe(platform, "hello-gbdx:0.3.0")
    assert registered["containerDescriptors"][0]["properties"] == {"image": first}

    again = register(checkout, platform)
    assert again.stdout.startswith("hello-gbdx:0.3.0 is registered already, with this image.\n")
    assert again.returncode == 0

    record(checkout, second)
    refused = register(checkout, platform)
    assert refused.returncode == 1
    assert "hello-gbdx:0.3.0 is registered already, with another content; raise the definition's ver" in refused.stderr
    assert refused.stderr.endswith(f"\n  image: registered {first}, pushed {second}\n")

    change_definition(checkout, version="0.3.1")
    record(checkout, second)
    assert register(checkout, platform).returncode == 0
    assert describe(platform, "hello-gbdx")["containerDescriptors"][0]["properties"] == {"image": second}

    change_definition(checkout, version="0.2.9")
    record(checkout, second)
    lower = register(checkout, platform)
    assert lower.returncode == 1
    assert "hello-gbdx:0.2.9: the platform refused it: " in lower.stderr
    assert "expected a version above 0.3.1, found 0.2.9" in lower.stderr


def test_what_was_not_pushed_is_not_registered_elsewhere(checkout: Path, environment: dict[str, str]) -> None:
    done = register(checkout, environment, GBDX_URL="https://platform.example.org")
    assert done.returncode == 1
    assert done.stderr == (
        "register: hello-gbdx: expected the digest of a pushed image, found none; "
        "push it first: make push TASK=hello-gbdx REGISTRY=...\n"
    )


def test_what_was_not_pushed_is_said_in_one_line_to_be_the_local_image(
    checkout: Path, environment: dict[str, str]
) -> None:
    # No engine is there: what is said before the image is built is what counts here.
    done = register(checkout, environment, GBDX_URL="http://127.0.0.1:9", ENGINE="/nowhere")
    assert done.stderr.splitlines()[0] == (
        "register: hello-gbdx: expected the digest of a pushed image, found none: using the local image, "
        "for this machine alone"
    )
    assert "push" not in "".join(done.stderr.splitlines()[1:])


def test_a_definition_that_changed_since_the_push_is_not_registered(
    checkout: Path, environment: dict[str, str]
) -> None:
    record(checkout, "registry.example.org/team/hello-gbdx@sha256:0")
    change_definition(checkout, version="0.2.0", description="Another.")
    done = register(checkout, environment, GBDX_URL="https://platform.example.org")
    assert done.returncode == 1
    assert "expected the definition as it was pushed, found another description, version; push it f" in done.stderr


def test_all_errors_of_a_definition_are_named(checkout: Path, environment: dict[str, str]) -> None:
    change_definition(checkout, version="one", taskOwnerEmail=5)
    done = register(checkout, environment, GBDX_URL="https://platform.example.org")
    assert done.returncode == 1
    assert "register: hello-gbdx_definition.json: taskOwnerEmail: expected " in done.stderr
    assert "register: hello-gbdx_definition.json: version: expected " in done.stderr


def test_the_processors_variant_of_a_gpu_task_asks_for_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = read_definition(ROOT / "train-cnn")
    properties = {device: {} for device in ("cpu", "gpu")}
    for device in properties:
        monkeypatch.setenv("DEVICE", device)
        properties[device] = bound(definition, "a@sha256:1")["containerDescriptors"][0]["properties"]
    assert properties == {
        "cpu": {"image": "a@sha256:1", "domain": "default"},
        "gpu": {"image": "a@sha256:1", "domain": "gpu"},
    }


def test_a_difference_beside_the_image_is_shown_with_both_values() -> None:
    definition = read_definition(ROOT / "hello-gbdx")
    assert difference(definition, {**definition, "description": "New."}) == [
        f'description: registered "{definition["description"]}", here "New."'
    ]
