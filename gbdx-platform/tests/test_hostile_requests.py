"""Requests that would stop the service for everybody, or break a name for good: refused at once, on both databases."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import sqlalchemy as sql
from gbdx_platform.api import listed, live
from gbdx_platform.database import WORKFLOWS, Store
from gbdx_platform.storage import StorageError, parse
from gbdx_platform.workflow_objects import new_workflow
from gbdx_platform.workflow_request import BATCH_NAME
from live_service import API, Service, Session, definition, port, script, task

MANY = 500_000


# A regular expression that is quadratic would take minutes for each of these, and hold up every other thread.
@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{{" + " " * MANY, f"({MANY + 4} characters): expected a URL of at most 4000 characters, found {MANY + 2}"),
        ("http://" + ".s3." * MANY, f"expected a URL of at most 4000 characters, found {4 * MANY + 7}"),
        ("https://" + "a.s3-" * 700, "expected s3://bucket/key, an http(s) URL of S3, or file:///path"),
        ("s3://bucket/" + "a" * MANY, f"expected a URL of at most 4000 characters, found {MANY + 12}"),
    ],
    ids=["blanks", "hosts", "a long host", "a long key"],
)
def test_a_long_value_for_a_directory_is_refused_at_once(value: str, found: str, session: Session, fresh: str) -> None:
    session.register(definition(fresh, [port("in")], [], script("")))
    request = {"name": "long", "tasks": [task("long", fresh, {"in": value})]}
    answer = session.http.post(f"{API}/workflows", json=request)
    assert (answer.status_code, len(answer.json()["errors"])) == (400, 1)
    assert answer.json()["errors"][0]["found"].endswith(found)


def test_a_host_of_many_parts_is_looked_through_once() -> None:
    for url in ("http://" + ".s3." * 990, "http://" + ".s3-a" * 790):
        for _ in range(1000):  # as many as one request may hold
            with pytest.raises(StorageError, match="expected s3://bucket/key, an http"):
                parse(url)


@pytest.mark.parametrize("text", ["{{" + " " * MANY, "{" * MANY, "{{ " * MANY, "$batch_value:" + "\n" * MANY])
def test_a_text_that_only_begins_as_a_placeholder_is_none(text: str) -> None:
    assert BATCH_NAME.search(text) is None


def test_a_batch_with_two_lists_of_one_name_is_refused_unless_they_are_the_same(session: Session, fresh: str) -> None:
    session.register(definition(fresh, [port("a", "string")], [], script("")))
    lists = [{"name": "n", "values": ["1", "2"]}, {"name": "n", "values": ["3", "4"]}]
    request = {"name": "two", "tasks": [task("one", fresh, {"a": "{{n}}"})], "batch_values": lists}
    answer = session.http.post(f"{API}/batch_workflows", json=request)
    said = 'batch_values[1].name: expected a name that no list of other values has, found "n"'
    assert (answer.status_code, answer.json()["message"]) == (400, said)
    same = session.http.post(f"{API}/batch_workflows", json={**request, "batch_values": [lists[0], lists[0]]})
    assert len(same.json()["workflows"]) == 2


def gbdxtools(service: Service, blocks: str) -> str:
    """What some lines of Python print that use the platform's gbdxtools as the default account."""
    line = [sys.executable, "-c", f"from gbdxtools import Interface\ngbdx = Interface()\n{blocks}"]
    environment = {**service.environment, "GBDX_STATE": str(service.state)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("timeout", [0, 172800])
def test_gbdxtools_launches_whatever_timeout_a_definition_may_have(
    timeout: int, service: Service, session: Session, fresh: str
) -> None:
    session.register(definition(fresh, [port("a", "string")], [], script(""), properties={"timeout": timeout}))
    found = session.wait(gbdxtools(service, f"print(gbdx.Workflow([gbdx.Task({fresh!r}, a='x')]).execute())"))
    assert (found["state"]["event"], found["tasks"][0]["timeout"]) == ("succeeded", timeout or 7200)
    changed = f"one = gbdx.Task({fresh!r}, a='x'); one.timeout = 50; print(gbdx.Workflow([one]).execute())"
    assert session.wait(gbdxtools(service, changed))["tasks"][0]["timeout"] == 50


def test_two_tasks_of_gbdxtools_with_lists_for_one_port_get_each_its_own(
    service: Service, session: Session, fresh: str
) -> None:
    session.register(definition(fresh, [port("a", "string"), port("b", "string")], [], script("")))
    launch = (
        f"tasks = [gbdx.Task({fresh!r}, a=[n, n + '!'], b='x') for n in 'pq']\n"
        "tasks[0].inputs.b = ['only', 'here']\n"
        "print(gbdx.Workflow(tasks).execute())"
    )
    batch = session.http.get(f"{API}/batch_workflows/{gbdxtools(service, launch)}").json()
    found = [session.http.get(f"{API}/workflows/{one['workflow_id']}").json() for one in batch["workflows"]]
    values = [[[one["value"] for one in task["inputs"]] for task in workflow["tasks"]] for workflow in found]
    assert sorted(values) == [[["p", "only"], ["q", "x"]], [["p!", "here"], ["q!", "x"]]]


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", "0.0." + "9" * 5000, "version: expected at most 64 characters, found 5004"),
        ("version", "0.0." + "9" * 61, "version: expected at most 64 characters, found 65"),
        ("name", "İ" * 200, "name: expected at most 200 characters, found 400"),  # whose small letter is i and a dot
    ],
    ids=["thousands of digits", "65 characters", "capitals"],
)
def test_a_name_or_a_version_that_a_database_can_not_keep_is_refused(
    key: str, value: str, said: str, session: Session, fresh: str
) -> None:
    answer = session.http.post(f"{API}/tasks", json={**definition(fresh, [port("a")], [], script("")), key: value})
    assert (answer.status_code, answer.json()["message"]) == (400, said)
    assert session.http.get(f"{API}/tasks/{fresh}").status_code == 404


@pytest.mark.both_databases
def test_the_longest_name_and_version_are_kept_found_and_deleted(session: Session, fresh: str) -> None:
    name = fresh + "İ" * ((200 - len(fresh)) // 2)
    asked = definition(name, [port("a")], [], script(""), version="0.0." + "9" * 60)
    session.register(asked)
    assert session.http.get(f"{API}/tasks/{name}:{asked['version']}").json()["version"] == asked["version"]
    assert session.http.delete(f"{API}/tasks/{name}").status_code == 200


@pytest.mark.both_databases
@pytest.mark.parametrize("key", ["state", "owner"])
def test_a_search_for_nul_is_refused(key: str, session: Session) -> None:
    answer = session.http.post(f"{API}/workflows/search", json={key: "a\0"})
    said = f'body.{key}: expected text without NUL, found "a\\u0000"'
    assert (answer.status_code, answer.json()["message"]) == (400, said)


def test_a_definition_of_a_hundred_thousand_ports_is_refused_at_once(session: Session, fresh: str) -> None:
    ports = [port(f"p{number}", "string", multiplex=True) for number in range(100_000)]
    answer = session.http.post(f"{API}/tasks", json=definition(fresh, ports, [], script("")))
    assert answer.status_code == 400
    assert "definition: expected at most 262144 characters of JSON, found 99" in answer.json()["message"]


def test_a_search_for_many_large_workflows_holds_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path}/state.sqlite")
    monkeypatch.setattr(live, "store", store, raising=False)
    command = "x" * 200_000
    row = {"definition": definition("t", [], [], command), "version": "0.1.0", "image_id": "i"}
    rows = {"t": {**row, "entrypoint": [], "command": []}}
    asked = {"name": "w", "tasks": [{"name": "a", "taskType": "t", "inputs": [], "outputs": []}]}
    store.add_workflows(new_workflow(asked, "gbdx", rows) for _ in range(100))
    found = store.rows(sql.select(WORKFLOWS))
    tracemalloc.start()
    try:
        lengths = [len(part) for part in listed(found)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(lengths) > 100 * len(command)
    assert peak < 20 * len(command)
    texts = json.loads("".join(listed(found)))["Workflows"]
    assert [one["id"] for one in texts] == [one["id"] for one in found]
