"""What publishing is tested against, all of it real: a registry with a password, an engine that has built nothing, and
a platform that runs on that engine. conftest.py hands the fixtures to the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from image_graph import ROOT

CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""
# What these tests build has tags of its own: other tests, and people, go on with theirs.
TAG = f"published-{os.getpid()}"
# A second daemon and its network need root; runners of CI have sudo.
AS_ROOT = ("sudo", "-n") if os.getuid() else ()


def install(*packages: str) -> None:
    """Debian's packages, when they are missing; fails with a sentence where they can't be had."""
    commands = {"docker-registry": "docker-registry", "apache2-utils": "htpasswd", "iproute2": "ip"}
    missing = [package for package in packages if not shutil.which(commands[package])]
    if missing:
        assert os.getuid() == 0, f"this test needs {', '.join(missing)}: apt-get install {' '.join(missing)}"
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        subprocess.run(command, env=environment, capture_output=True, check=True)


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Waits for a server to be ready; fails with its log when it ends, or isn't ready in time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not ready after {seconds:g} s:\n{log.read_text()}"
        time.sleep(0.1)


def asks_for_a_password(address: str) -> bool:
    """Whether a registry listens: it asks everyone for a password."""
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=1)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False


@pytest.fixture(scope="session")
def registry(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants the password `secret word` of the user `author`."""
    install("docker-registry", "apache2-utils")
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder, port=address.split(":")[1]))
    subprocess.run(["htpasswd", "-icB", folder / "htpasswd", "author"], input="secret word", text=True, check=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    wait_until(lambda: asks_for_a_password(address), server, folder / "log", 60)
    yield address
    server.terminate()
    server.wait()
    listed = subprocess.check_output([engine, "images", "--format", "{{.Repository}}:{{.Tag}}"], text=True).split()
    ours = [name for name in listed if name.startswith(f"{address}/") or name.endswith(f":{TAG}")]
    subprocess.run([engine, "rmi", *ours], capture_output=True, check=False)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def logged_in(
    engine: str, registry: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """An environment for pushing: logged in at the registry, with the credentials in a folder of the tests'."""
    config = tmp_path_factory.mktemp("docker")
    found = {**environment, "DOCKER_CONFIG": str(config), "REGISTRY": f"{registry}/team", "TAG": TAG}
    command = [engine, "login", "--username", "author", "--password-stdin", registry]
    subprocess.run(command, env=found, input="secret word", text=True, capture_output=True, check=True)
    return found


def commit(checkout: Path, message: str) -> str:
    """Commits all that lies in a checkout; returns the commit."""
    author = ["-c", "user.name=Author", "-c", "user.email=author@example.com"]
    for command in (["add", "."], ["commit", "--quiet", "-m", message]):
        subprocess.run(["git", "-C", checkout, *author, *command], check=True)
    return subprocess.check_output(["git", "-C", checkout, "rev-parse", "HEAD"], text=True).strip()


def copy_of_the_repository(folder: Path, *names: str) -> Path:
    """A repository of its own with some of this one's files and folders as they stand, all of them committed."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", *names]
    for line in subprocess.check_output(command, text=True).splitlines():
        if (ROOT / line).exists():
            (folder / line).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / line, folder / line, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    commit(folder, "All of it")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """hello-gbdx and what builds and tests it, in a repository of its own."""
    return copy_of_the_repository(tmp_path / "checkout", "ci", "hello-gbdx", "pyproject.toml", ".gitignore")


@pytest.fixture(scope="session")
def other_engine(engine: str, logged_in: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address (DOCKER_HOST) of a second Docker daemon, with a store that is empty."""
    install("iproute2")
    folder = tmp_path_factory.mktemp("engine")
    # A network of its own: with --bridge=none it would take the first daemon's away.
    bridge, network = f"gbdx{os.getpid()}", f"172.31.{os.getpid() % 250}.1/24"
    for command in (
        ["link", "add", bridge, "type", "bridge"],
        ["addr", "add", network, "dev", bridge],
        ["link", "set", bridge, "up"],
    ):
        subprocess.run([*AS_ROOT, "ip", *command], check=True)
    host = f"unix://{folder}/socket"
    options = {"data-root": folder / "data", "exec-root": folder / "exec", "pidfile": folder / "pid", "host": host}
    with (folder / "log").open("wb") as log:
        command = [*AS_ROOT, "dockerd", *(f"--{name}={value}" for name, value in options.items())]
        command += [f"--bridge={bridge}", "--iptables=false", "--ip-masq=false"]
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        return subprocess.run([engine, "--host", host, "version"], capture_output=True, check=False).returncode == 0

    wait_until(answers, daemon, folder / "log", 60)
    yield host
    subprocess.run([*AS_ROOT, "kill", str(daemon.pid)], check=True)
    daemon.wait(60)
    subprocess.run([*AS_ROOT, "ip", "link", "delete", bridge], check=True)
    subprocess.run([*AS_ROOT, "rm", "-rf", folder / "data", folder / "exec"], check=True)


@pytest.fixture(scope="session")
def platform(
    engine: str, other_engine: str, logged_in: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A platform whose engine has built nothing: the environment in which its command line talks to it."""
    state = tmp_path_factory.mktemp("platform")
    command = subprocess.check_output([ROOT / "gbdx-platform" / "install.sh"], text=True).strip()
    kept = {key: value for key, value in logged_in.items() if not key.startswith(("AWS_", "GBDX_", "DATABASE_"))}
    environment = {**kept, "GBDX_STATE": str(state)}
    log = state / "serve.log"
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [command, "serve", "--port", str(free_port())], stdout=output, stderr=output, start_new_session=True,
            env={**environment, "ENGINE": engine, "DOCKER_HOST": other_engine},
        )  # fmt: skip
    wait_until((state / "credentials.json").exists, serving, log, 120)
    yield environment
    serving.send_signal(signal.SIGTERM)
    serving.wait(90)


def ask_platform(environment: dict[str, str], *arguments: str | Path) -> str:
    """What a command of gbdx-platform prints."""
    command = ROOT / "gbdx-platform" / ".venv" / "bin" / "gbdx-platform"
    done = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def describe(environment: dict[str, str], task: str) -> Any:
    """A definition as the platform has it."""
    return json.loads(ask_platform(environment, "describe", task))
