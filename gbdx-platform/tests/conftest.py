"""A live service with a real engine and a real S3, started once; every test is an HTTP client of it. Tests that bear
the mark `both_databases` have it once more, with its state in a real PostgreSQL.

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
from postgresql import cluster  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_databases: runs with SQLite and with PostgreSQL")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_databases"):
        # None is what the other tests have, so that they share the first service.
        metafunc.parametrize("service", [None, "postgresql"], ids=["sqlite", "postgresql"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """PostgreSQL last, so that each service is started once."""
    items.sort(key=lambda item: getattr(item, "callspec", None) is not None and "postgresql" in item.callspec.id)


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A PostgreSQL of the tests' own."""
    with cluster() as running:
        yield running.url


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
def service(
    request: pytest.FixtureRequest, hello_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One service for all tests. When they are done, none of its secrets may be in its log or in what it answered."""
    postgresql = getattr(request, "param", None) == "postgresql"
    environment = {"DATABASE_URL": request.getfixturevalue("database_url")} if postgresql else {}
    running = Service(tmp_path_factory.mktemp("service"), **environment)
    running.command("account", "alice")
    running.start()
    yield running
    running.check_secrets()
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
def own_service(hello_image: str, tmp_path: Path) -> Iterator[Service]:
    """A service of a test's own, which runs one workflow at a time; not started."""
    running = Service(tmp_path / "state", GBDX_WORKFLOWS="1")
    running.state.mkdir()
    yield running
    running.kill_all()


@pytest.fixture
def fresh() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def engine() -> str:
    """The container engine's command line."""
    return containers.engine()
