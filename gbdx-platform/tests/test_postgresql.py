"""The same service with its state in a real PostgreSQL, and a crash of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gbdx_platform.local_s3 import free_ports
from live_service import API, Service, Session, definition, port, script, states, task


def programs() -> Path:
    """The folder of PostgreSQL's server programs; the test fails, and does not skip, without them."""
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/none").parent,
    ]
    found = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if found is None:
        pytest.fail(
            "PostgreSQL: expected its server programs (Debian: apt-get install postgresql), found none", pytrace=False
        )
    return found


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """A PostgreSQL cluster of our own on the loopback. It refuses to run as root, who lends it the user nobody."""
    as_user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    port_number, commands = free_ports(1)[0], programs()
    with tempfile.TemporaryDirectory(prefix="gbdx-postgresql-") as folder:
        if as_user:
            shutil.chown(folder, "nobody")
        data = f"{folder}/data"
        run([*as_user, commands / "initdb", "-D", data, "-A", "trust", "-U", "gbdx", "--no-sync"])
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={port_number} -c unix_socket_directories={folder} -c fsync=off"
        )
        control = [*as_user, commands / "pg_ctl", "-D", data, "-w"]
        run([*control, "-l", f"{folder}/log", "-o", options, "start"])
        yield f"postgresql://gbdx@127.0.0.1:{port_number}/postgres"
        run([*control, "-m", "immediate", "stop"])


def run(command: list[str | Path]) -> None:
    """One of PostgreSQL's programs, to its end; from / as it may not be able to enter the caller's folder."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr


def test_workflows_live_in_postgresql_and_survive_a_kill(
    hello_image: str, database_url: str, tmp_path: Path, fresh: str
) -> None:
    service = Service(tmp_path, DATABASE_URL=database_url)
    service.start()
    try:
        session = Session(service.client())
        session.register(definition(fresh, [port("a", "string")], [port("b", "string")], script("strings['b'] = 'B'")))
        found = session.run(task("one", fresh, {"a": "x"}), task("two", fresh, {"a": ("one:b",)}))
        assert states(found) == {"one": "complete/succeeded", "two": "complete/succeeded"}
        nul = json.dumps({"name": "\0", "tasks": [task("one", fresh, {"a": "x"})]})
        assert session.http.post(f"{API}/workflows", content=nul).status_code == 400
        assert session.http.get(f"{API}/tasks/%00").status_code == 400
        service.kill()
        service.start()
        again = Session(service.client())
        assert again.http.get(f"{API}/workflows/{found['id']}").json() == found
        assert states(again.run(task("three", fresh, {"a": "x"}))) == {"three": "complete/succeeded"}
        assert not (tmp_path / "platform.sqlite").exists()
    finally:
        service.stop()
