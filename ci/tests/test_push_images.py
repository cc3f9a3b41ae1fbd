"""ci/push_images.py against a real registry with a password, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT

pytestmark = pytest.mark.container

CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


def install(*packages: str) -> None:
    """Debian's packages, when they are missing; fails with a sentence where they can't be had."""
    commands = {"docker-registry": "docker-registry", "apache2-utils": "htpasswd"}
    missing = [package for package in packages if not shutil.which(commands[package])]
    if missing:
        assert os.getuid() == 0, f"this test needs {', '.join(missing)}: apt-get install {' '.join(missing)}"
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        subprocess.run(command, env=environment, capture_output=True, check=True)


def answers(address: str) -> bool:
    """Whether a registry listens: it asks everyone for a password."""
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=1)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False


@pytest.fixture(scope="module")
def registry(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants the password `secret word` of the user `author`."""
    install("docker-registry", "apache2-utils")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder, port=port))
    subprocess.run(["htpasswd", "-icB", folder / "htpasswd", "author"], input="secret word", text=True, check=True)
    log = (folder / "log").open("w")
    server = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while not answers(f"127.0.0.1:{port}"):
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "the registry does not answer"
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait()
    log.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of the repository as it stands, all of it committed."""
    folder = tmp_path / "checkout"
    listed = subprocess.check_output(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "ci", "hello-gbdx"], text=True
    )
    for line in filter(lambda name: (ROOT / name).exists(), listed.splitlines()):
        (folder / line).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / line, folder / line)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "All of it"]):
        author = ["-c", "user.name=Author", "-c", "user.email=author@example.com"]
        subprocess.run(["git", "-C", folder, *author, *command], check=True)
    return folder


@pytest.fixture
def logged_in(engine: str, registry: str, tmp_path: Path) -> dict[str, str]:
    """An environment whose engine is logged in at the registry, with its credentials in a folder of the test's."""
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), "REGISTRY": f"{registry}/team"}
    command = [engine, "login", "--username", "author", "--password-stdin", registry]
    subprocess.run(command, env=environment, input="secret word", text=True, capture_output=True, check=True)
    return environment


def push(checkout: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """ci/push_images.py of the checkout, for hello-gbdx."""
    command = ["python3", checkout / "ci" / "push_images.py", "hello-gbdx"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_pushed_image_is_pulled_by_digest_and_runs_where_it_was_never_built(
    engine: str, registry: str, checkout: Path, logged_in: dict[str, str]
) -> None:
    done = push(checkout, logged_in)
    assert done.returncode == 0, done.stderr
    digest = done.stdout.strip()
    assert digest.startswith(f"{registry}/team/hello-gbdx@sha256:")
    record = json.loads((checkout / ".make/pushed/hello-gbdx.json").read_text())
    commit = subprocess.check_output(["git", "-C", checkout, "rev-parse", "HEAD"], text=True).strip()
    assert record == {"task": "hello-gbdx", "version": "0.1.0", "revision": commit, "image": digest}
    names = [f"{registry}/team/hello-gbdx:{tag}" for tag in ("0.1.0", commit[:12])]
    subprocess.run([engine, "rmi", *names], capture_output=True, check=True)
    assert build_images.image_ids(engine, digest) == [None]
    for name in (digest, *names):
        subprocess.run([engine, "pull", "--quiet", name], env=logged_in, capture_output=True, check=True)
    run = [engine, "run", "--rm", "--network", "none", digest, "python", "-c", "import gbdx_task_interface"]
    subprocess.run(run, cwd="/", check=True)
    subprocess.run([engine, "rmi", "--force", digest, *names], capture_output=True, check=True)


def test_without_a_login_the_registry_refuses_and_nothing_is_recorded(
    registry: str, checkout: Path, logged_in: dict[str, str], tmp_path: Path
) -> None:
    done = push(checkout, {**logged_in, "DOCKER_CONFIG": str(tmp_path / "nobody")})
    assert done.returncode == 1
    assert f"push: {registry}/team/hello-gbdx:" in done.stderr
    assert "the registry refused it" in done.stderr
    assert not (checkout / ".make/pushed").exists()


def test_uncommitted_changes_are_named_and_not_pushed(checkout: Path, logged_in: dict[str, str]) -> None:
    (checkout / "hello-gbdx" / "hello_gbdx.py").write_text("print('not yet committed')\n")
    done = push(checkout, logged_in)
    assert done.returncode == 1
    assert "expected a clean working tree, found changes in hello-gbdx/hello_gbdx.py" in done.stderr


def test_a_registry_has_to_be_named(checkout: Path) -> None:
    done = push(checkout, {**os.environ, "REGISTRY": ""})
    assert done.returncode == 1
    assert "push: expected REGISTRY=host/path, found none" in done.stderr
