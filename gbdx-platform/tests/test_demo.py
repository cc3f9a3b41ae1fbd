"""The demo and the command line, as a person runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from live_service import API, IMAGE, PLATFORM, ROOT, Service, Session, definition, port, script, task


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
    assert done.stdout.endswith("hello-gbdx successfully deleted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["hello.json"]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [command for command in commands if str(tmp_path).encode() in command] == []


def test_the_command_line_goes_the_whole_way(service: Service, session: Session, fresh: str, tmp_path: Path) -> None:
    file, source = tmp_path / "definition.json", tmp_path / "in"
    file.write_text(
        json.dumps(
            definition(
                fresh,
                [port("data")],
                [port("out")],
                script(
                    "print('here'); os.makedirs(work + 'output/out')\n"
                    "open(work + 'output/out/n.txt', 'w').write(str(os.listdir(work + 'input/data')))"
                ),
            )
        )
    )
    source.mkdir()
    (source / "a.txt").write_text("a")
    assert service.command("register", str(file)).stdout == f"{fresh} successfully registered.\n"
    assert fresh in service.command("list").stdout.split()
    assert json.loads(service.command("describe", fresh).stdout)["name"] == fresh
    url = service.command("upload", str(source), f"{fresh}/in").stdout.strip()
    (tmp_path / "workflow.json").write_text(
        json.dumps({"name": "w", "tasks": [task("one", fresh, {"data": url}, {"out": f"{fresh}/out"})]})
    )
    launched = service.command("launch", str(tmp_path / "workflow.json"), "--watch").stdout
    workflow = launched.split()[0]
    assert re.search(r"complete/succeeded", launched)
    assert "complete/succeeded" in service.command("status", workflow).stdout
    assert service.command("logs", workflow).stdout == "--- one stdout\nhere\n\n--- one stderr\n<empty>\n"
    assert service.command("cancel", workflow).stdout == "complete/succeeded\n"
    service.command("download", f"{fresh}/out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "n.txt").read_text() == "['a.txt']"
    assert json.loads(service.command("export", fresh, "--format", "eoap").stdout)["cwlVersion"] == "v1.2"
    assert json.loads(service.command("export", workflow).stdout)["class"] == "Workflow"
    assert "export AWS_ENDPOINT_URL_S3='http://127.0.0.1:" in service.command("client-env").stdout
    assert service.command("delete", fresh).stdout == f"{fresh} successfully deleted.\n"


def test_a_refusal_is_a_line_for_each_problem_and_exit_code_2(
    service: Service, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text(
        json.dumps({"name": "x", "tasks": [{"name": "a", "taskType": "ghost"}, {"name": "a", "taskType": "ghost"}]})
    )
    refused = service.command("launch", str(tmp_path / "bad.json"), check=False)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        'tasks[0].taskType: expected a registered task that you may use, found "ghost"',
        'tasks[1].name: expected a name that no other task has, found "a"',
        'tasks[1].taskType: expected a registered task that you may use, found "ghost"',
    ]


def test_the_package_ships_the_repositorys_own_schema_and_verdict() -> None:
    for name in ("task_definition.py", "task_definition.schema.json", "task_verdict.py"):
        assert (PLATFORM / "gbdx_platform" / name).read_bytes() == (ROOT / "ci" / name).read_bytes()


def test_temporary_folders_of_runs_are_gone_when_their_workflows_are(
    service: Service, session: Session, hello: str, fresh: str
) -> None:
    found = session.run(task("hello", hello, {"data_in": session.put(f"{fresh}/in/a.txt")}))
    folder = service.state / "runs" / found["id"]
    for _ in range(100):
        if not folder.exists():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert not folder.exists()
    assert [path.name for path in (service.state / "logs" / found["id"]).iterdir()] == ["hello"]


def test_no_process_of_a_workflow_is_left_in_the_service(service: Service, session: Session, fresh: str) -> None:
    session.register(definition(fresh, [port("a", "string")], [port("b", "string")], script("strings['b'] = 'B'")))
    found = session.run(task("one", fresh, {"a": "x"}), task("two", fresh, {"a": ("one:b",)}))
    while (service.state / "runs" / found["id"]).exists():
        subprocess.run(["sleep", "0.1"], check=True)
    assert service.process is not None
    listed = subprocess.run(
        ["ps", "--no-headers", "-o", "comm", "--ppid", str(service.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(listed.stdout.split()) <= {"weed", "docker", "podman"}


@pytest.mark.parametrize("path", sorted((PLATFORM / "examples").glob("*.json")), ids=lambda path: path.stem)
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
