"""Requests that would stop the service for everybody, or break a name for good: refused at once, on both databases."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gbdx_platform.storage import StorageError, parse
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


def test_two_tasks_of_gbdxtools_with_lists_for_one_port_get_each_its_own(
    service: Service, session: Session, fresh: str
) -> None:
    session.register(definition(fresh, [port("a", "string"), port("b", "string")], [], script("")))
    blocks = (
        "from gbdxtools import Interface\n"
        f"gbdx = Interface(); tasks = [gbdx.Task({fresh!r}, a=[n, n + '!'], b='x') for n in 'pq']\n"
        "tasks[0].inputs.b = ['only', 'here']\n"
        "print(gbdx.Workflow(tasks).execute())"
    )
    environment = {**service.environment, "GBDX_STATE": str(service.state)}
    done = subprocess.run([sys.executable, "-c", blocks], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batch = session.http.get(f"{API}/batch_workflows/{done.stdout.strip()}").json()
    found = [session.http.get(f"{API}/workflows/{one['workflow_id']}").json() for one in batch["workflows"]]
    values = [[[one["value"] for one in task["inputs"]] for task in workflow["tasks"]] for workflow in found]
    assert sorted(values) == [[["p", "only"], ["q", "x"]], [["p!", "here"], ["q!", "x"]]]
