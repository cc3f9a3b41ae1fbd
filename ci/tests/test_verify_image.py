"""ci/verify_image.py: a published image against a build of its commit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from publishing import commit
from push_images import push_to_registry
from verify_image import differences

pytestmark = pytest.mark.container


def verify(checkout: Path, reference: str) -> subprocess.CompletedProcess[str]:
    """ci/verify_image.py of a checkout, for hello-gbdx."""
    command = [sys.executable, checkout / "ci" / "verify_image.py", "hello-gbdx", reference]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def publish(engine: str, checkout: Path, registry: str, docker_config: str) -> str:
    """Builds hello-gbdx of a checkout under a name of its own and pushes it, without its container tests."""
    environment = {**os.environ, "REGISTRY": f"{registry}/verify-test"}
    build = [sys.executable, checkout / "ci" / "build_images.py", "hello-gbdx"]
    subprocess.run(build, env=environment, capture_output=True, check=True)
    name = f"{registry}/verify-test/hello-gbdx:dev"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", docker_config)
        return push_to_registry(engine, name, name)


def test_an_image_equals_a_build_of_its_commit(
    engine: str, registry: str, checkout: Path, logged_in: dict[str, str]
) -> None:
    published = publish(engine, checkout, registry, logged_in["DOCKER_CONFIG"])
    done = verify(checkout, published)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"hello-gbdx: {published} equals a build of commit ")
    left = subprocess.check_output([engine, "images", "--format", "{{.Repository}}"], text=True)
    assert "localhost/verify-" not in left


def test_settings_labels_layers_and_files_that_differ_are_named(engine: str, hello_image: str) -> None:
    forged = f"localhost/forged:{os.getpid()}"
    changes = ["USER 0", "RUN echo changed >>/hello_gbdx.py && touch /extra", "ENV EXTRA=1", "USER 10001:10001"]
    command = [engine, "build", "--quiet", "--tag", forged, "--label", "extra=yes", "-"]
    dockerfile = "\n".join([f"FROM {hello_image}", *changes])
    subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True)
    try:
        found = differences(engine, forged, hello_image)
    finally:
        subprocess.run([engine, "rmi", forged], capture_output=True, check=True)
    assert found[0].startswith('Env: published ["')
    assert found[1:] == [
        'extra: published "yes", rebuilt null',
        "layers: published 4, rebuilt 3, equal 3",
        "file /extra: only published",
        "file /hello_gbdx.py: differs",
    ]


def test_layers_in_which_only_times_differ_are_equal(
    engine: str, hello_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    later = f"localhost/later:{os.getpid()}"
    dockerfile = f"FROM {hello_image}\nUSER 0\nRUN touch /hello_gbdx.py\nUSER 10001:10001\n"
    command = [engine, "build", "--quiet", "--tag", later, "-"]
    subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True)
    try:
        assert differences(engine, later, hello_image) == []
    finally:
        subprocess.run([engine, "rmi", later], capture_output=True, check=True)
    shown = "layers: published 4, rebuilt 3, equal 3; in these only times differ, every file is the same\n"
    assert capsys.readouterr().out == shown


def test_a_tag_proves_nothing_and_is_refused(checkout: Path) -> None:
    done = verify(checkout, "registry.example.org/team/hello-gbdx:0.1.0")
    assert done.returncode == 1
    assert "verify: REF: expected host/name@sha256:<64 digits>, as make push printed it, found " in done.stderr


def test_an_image_of_uncommitted_files_is_not_to_be_verified(
    engine: str, registry: str, checkout: Path, logged_in: dict[str, str]
) -> None:
    (checkout / "hello-gbdx" / "hello_gbdx.py").write_text("print('not committed')\n")
    published = publish(engine, checkout, registry, logged_in["DOCKER_CONFIG"])
    commit(checkout, "Too late")
    done = verify(checkout, published)
    assert done.returncode == 1
    assert "verify: label org.opencontainers.image.revision: expected a commit, found " in done.stderr
    assert "-dirty'" in done.stderr
