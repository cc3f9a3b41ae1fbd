"""A live service with a real engine and a real S3, started once; every test is an HTTP client of it.

The package is used from its folder, so that nothing has to be installed but what requirements.txt lists.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gbdx_platform import containers  # noqa: E402
from live_service import IMAGE, ROOT, Service, Session  # noqa: E402


@pytest.fixture(scope="session")
def hello_image() -> Iterator[str]:
    """The image of hello-gbdx, built when it is missing or out of date, under a tag of the tests."""
    built = subprocess.run(
        [sys.executable, ROOT / "ci" / "build_images.py", "hello-gbdx"], capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.fail(f"no image of hello-gbdx:\n{built.stderr}", pytrace=False)
    assert containers.call("tag", "localhost/hello-gbdx:dev", IMAGE).returncode == 0
    yield IMAGE
    containers.call("rmi", IMAGE)


@pytest.fixture(scope="session")
def service(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests."""
    running = Service(tmp_path_factory.mktemp("service"))
    running.command("account", "alice")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def session(service: Service) -> Session:
    """The default account."""
    return Session(service.client())


@pytest.fixture(scope="session")
def alice(service: Service) -> Session:
    """Another account."""
    password = service.command("account", "alice").stdout.split("password ")[1].split()[0]
    form = {"grant_type": "password", "username": "alice", "password": password}
    token = service.client().post("/auth/v1/oauth/token/", data=form).json()["access_token"]
    return Session(service.client(token))


@pytest.fixture(scope="session")
def hello(session: Session) -> str:
    """hello-gbdx, registered, with the image that was just built."""
    found = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
    found["containerDescriptors"][0]["properties"]["image"] = IMAGE
    return session.register(found)


@pytest.fixture
def fresh() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def engine() -> str:
    """The container engine's command line."""
    return containers.engine()
