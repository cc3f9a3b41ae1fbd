"""The demo, the examples, and what a service leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_service import API, IMAGE, PLATFORM, ROOT, Service, Session, definition, port, script, task
from waiting import wait_until


def test_the_demo_ends_with_the_message_and_leaves_nothing(hello_image: str, tmp_path: Path) -> None:
    hello = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
    hello["containerDescriptors"][0]["properties"]["image"] = IMAGE
    (tmp_path / "hello.json").write_text(json.dumps(hello))
    line = [
        sys.executable,
        "-m",
        "gbdx_platform.command_line",
        "demo",
        tmp_path / "hello.json",
        ROOT / "hello-gbdx" / "test_inputs" / "data_in",
    ]
    environment = {**os.environ, "PYTHONPATH": str(PLATFORM), "TMPDIR": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out.txt:\nout.txt\nThis is my message!\n" in done.stdout
    assert "hello-gbdx successfully deleted.\n" in done.stdout
    assert "nothing of the demo is left" in done.stdout.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["hello.json"]
    assert [command for command in command_lines() if str(tmp_path).encode() in command] == []


def command_lines() -> Iterator[bytes]:
    """The command line of each process; one may end before it is read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes()


def test_the_package_ships_the_repositorys_own_schema_container_and_verdict() -> None:
    for name in ("hardened_container.py", "task_definition.py", "task_definition.schema.json", "task_verdict.py"):
        assert (PLATFORM / "gbdx_platform" / name).read_bytes() == (ROOT / "ci" / name).read_bytes()


def test_temporary_folders_of_runs_are_gone_when_their_workflows_are(
    service: Service, session: Session, hello: str, fresh: str
) -> None:
    found = session.run(task("hello", hello, {"data_in": session.put(f"{fresh}/in/a.txt")}))
    folder = service.state / "runs" / found["id"]
    wait_until(lambda: not folder.exists())
    assert [path.name for path in (service.state / "logs" / found["id"]).iterdir()] == ["hello"]


def test_no_process_of_a_workflow_is_left_in_the_service(service: Service, session: Session, fresh: str) -> None:
    session.register(definition(fresh, [port("a", "string")], [port("b", "string")], script("strings['b'] = 'B'")))
    found = session.run(task("one", fresh, {"a": "x"}), task("two", fresh, {"a": ("one:b",)}))
    wait_until(lambda: not (service.state / "runs" / found["id"]).exists())
    assert service.process is not None
    line = ["ps", "--no-headers", "-o", "comm", "--ppid", str(service.process.pid)]
    # The service asks the engine now and then, with a client that ends by itself.
    wait_until(lambda: subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() == ["weed"])


@pytest.mark.parametrize("path", sorted((PLATFORM / "examples").glob("hello*.json")), ids=lambda path: path.stem)
def test_an_example_runs_and_keeps_its_outputs(path: Path, service: Service, session: Session, hello: str) -> None:
    session.put("hello/in/data_file.txt")
    identifier = service.command("launch", str(path)).stdout.strip()
    batch = "batch_values" in json.loads(path.read_text("utf-8"))
    ids = [identifier]
    if batch:
        ids = [
            one["workflow_id"] for one in session.http.get(f"{API}/batch_workflows/{identifier}").json()["workflows"]
        ]
    assert [session.wait(one)["state"]["event"] for one in ids] == ["succeeded"] * (3 if batch else 1)
    if not batch:
        place = json.loads(path.read_text("utf-8"))["tasks"][-1]["outputs"][0]["persistLocation"]
        assert session.text(f"{place}/out.txt").endswith("\nThis is my message!")
