"""Every row of the table of HTTP requests in GBDX's contract, asked of the live service, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from gbdx_platform.accounts import digest, issue_tokens
from gbdx_platform.database import TOKENS, now
from live_service import API, Service, Session, definition, port, script, states, task

pytestmark = pytest.mark.both_databases

INPUTS, OUTPUTS = [port("a", "string", required=False)], [port("b", "string")]
FLAGS = {"required": "bool", "multiplex": "bool"}
STATE = {"state": "str", "event": "str"}
PORT = dict.fromkeys(["name", "type"], "str") | {"source": "NoneType", "dataflow_channel": "NoneType"}
TASK = {
    "id": "str", "name": "str", "taskType": "str", "note": "str", "callback": "NoneType", "start_time": "str",
    "timeout": "int", "state": STATE, "instance_info": {"domain": "str", "instance_id": "str"},
    "inputs": [{**PORT, "value": "str"}], "outputs": [{**PORT, "value": "str", "persistLocation": "NoneType"}],
    "run_parameters": {
        "image": "str", "tag": "str", "command": "str", "devices": [],
        "mounts": [{"local": "NoneType", "container": "str", "read_only": "bool"}],
        "subject_type": "NoneType", "subject_id": "NoneType",
    },
}  # fmt: skip
WORKFLOW = {
    "id": "str", "name": "str", "owner": "str", "state": STATE, "submitted_time": "str", "completed_time": "str",
    "callback": "NoneType", "tasks": [TASK],
}  # fmt: skip
WAITING_TASK = {
    **TASK, "start_time": "NoneType", "instance_info": {"domain": "str", "instance_id": "NoneType"},
    "outputs": [{**PORT, "value": "NoneType", "persistLocation": "NoneType"}],
}  # fmt: skip
WAITING = {**WORKFLOW, "completed_time": "NoneType", "tasks": [WAITING_TASK]}
BATCH = {
    "batch_workflow_id": "str", "workflow_name": "str", "owner": "str", "submitted_time": "str",
    "workflows": [{"workflow_id": "str", "state": "str"}],
}  # fmt: skip
EVENT = dict.fromkeys(["task", "timestamp", "note", "state", "event"], "str") | {"when": "float"}
DEFINITION = dict.fromkeys(["name", "version", "taskOwnerEmail", "description"], "str") | {
    "properties": {"isPublic": "bool", "timeout": "int"},
    "inputPortDescriptors": [dict.fromkeys(["name", "type", "description"], "str") | FLAGS],
    "outputPortDescriptors": [dict.fromkeys(["name", "type", "description"], "str") | FLAGS],
    "containerDescriptors": [{"type": "str", "command": "str", "properties": {"image": "str"}}],
}
CREDENTIALS = ["S3_access_key", "S3_secret_key", "S3_session_token", "bucket", "prefix", "endpoint"]
# Method and path of the contract's rows (the table's `<name>[:<version>]` is one path), what is sent, and the answer:
# the text of HTML, or the shape of JSON with the names of Python's types in it. Words in braces come from `places`.
ROWS: list[tuple[str, str, Any, Any]] = [
    ("GET", "/workflows/v1/heartbeat", None, "str"),
    ("GET", "/workflows/v1/tasks", None, {"tasks": ["str"]}),
    ("POST", "/workflows/v1/tasks", "new", "<html> {new} successfully registered."),
    ("GET", "/workflows/v1/tasks/{task_type}", None, DEFINITION),
    ("PUT", "/workflows/v1/tasks/{task_type}", "old", DEFINITION),
    ("DELETE", "/workflows/v1/tasks/{task_type}", None, "<html> {task_type} successfully deleted."),
    ("POST", "/workflows/v1/workflows", "request", WAITING),
    ("GET", "/workflows/v1/workflows", None, {"workflows": ["str"]}),
    ("GET", "/workflows/v1/workflows/{workflow}", None, WORKFLOW),
    ("GET", "/workflows/v1/workflows/{workflow}/events", None, {"Events": [EVENT]}),
    ("POST", "/workflows/v1/workflows/{workflow}/cancel", None, WORKFLOW),
    ("GET", "/workflows/v1/workflows/{workflow}/tasks/{task}/{stream}", None, "<html> <empty>"),
    ("POST", "/workflows/v1/workflows/search", "search", {"Workflows": [WORKFLOW]}),
    ("POST", "/workflows/v1/batch_workflows", "batch_request", BATCH),
    ("GET", "/workflows/v1/batch_workflows/{batch}", None, BATCH),
    ("POST", "/workflows/v1/batch_workflows/{batch}/cancel", None, BATCH),
    ("GET", "/s3creds/v1/prefix", None, dict.fromkeys(CREDENTIALS, "str")),
]


def shape(value: Any) -> Any:
    """JSON with the names of types for its values; of a list the first entry only."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value[:1]] if isinstance(value, list) else type(value).__name__


@pytest.fixture
def places(session: Session, fresh: str) -> dict[str, Any]:
    """What the rows are asked about: a task, a finished workflow and a batch of it, and bodies to send."""
    old, new = (definition(name, INPUTS, OUTPUTS, script("strings['b'] = 'B'")) for name in (fresh, f"{fresh}-new"))
    session.register(old)
    request = {"name": "w", "tasks": [task("one", fresh, {"a": "x"})]}
    batch_request = {**request, "batch_values": [{"name": "n", "values": ["1"]}]}
    batch = session.http.post(f"{API}/batch_workflows", json=batch_request).json()
    finished = session.wait(batch["workflows"][0]["workflow_id"])
    return {
        "task_type": fresh, "new": f"{fresh}-new", "workflow": finished["id"], "task": finished["tasks"][0]["id"],
        "stream": "stdout", "batch": batch["batch_workflow_id"],
        "bodies": {
            "new": new, "old": old, "request": request, "batch_request": batch_request,
            "search": {"lookback_h": 1, "state": "succeeded"},
        },
    }  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "expected"), ROWS, ids=[" ".join(row[:2]) for row in ROWS])
def test_a_row_of_the_contract_is_answered_as_it_says(
    session: Session, places: dict[str, Any], method: str, path: str, body: str | None, expected: Any
) -> None:
    answer = session.http.request(method, path.format(**places), json=places["bodies"][body] if body else None)
    assert answer.status_code == 200, answer.text
    kind = answer.headers["content-type"].partition(";")[0]
    if isinstance(expected, str) and expected.startswith("<html> "):
        assert (kind, answer.text) == ("text/html", expected.removeprefix("<html> ").format(**places))
    else:
        assert (kind, shape(answer.json())) == ("application/json", expected)


def test_the_rows_are_what_the_service_describes_of_itself(session: Session) -> None:
    described = session.http.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, methods in described.items() for method in methods}
    rows = {(method, path) for method, path, _, _ in ROWS}
    assert {row for row in found if row[1].startswith("/workflows/v1/")} == {
        row for row in rows if "/s3creds/" not in row[1]
    }
    assert rows <= found
    assert ("POST", "/auth/v1/oauth/token/") in found


def test_an_expired_token_is_answered_with_401(service: Service) -> None:
    token = issue_tokens(service.store(), "gbdx")["access_token"]
    assert service.client(token).get(f"{API}/tasks").status_code == 200
    service.store().write(TOKENS.update().where(TOKENS.c.digest == digest(token)).values(expires=now() - 1))
    refused = service.client(token).get(f"{API}/tasks")
    assert (refused.status_code, refused.json()["status"]) == (401, 401)
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("seconds", "status"), [(0, 400), (1, 200), (172799, 200), (172800, 400)])
def test_the_timeout_of_a_workflows_task_is_above_0_and_below_172800(
    session: Session, fresh: str, seconds: int, status: int
) -> None:
    session.register(definition(fresh, INPUTS, OUTPUTS, script("strings['b'] = 'B'")))
    request = {"name": "w", "tasks": [task("one", fresh, timeout=seconds)]}
    answer = session.http.post(f"{API}/workflows", json=request)
    assert (answer.status_code, answer.json().get("errors", [{}])[0].get("key")) == (
        status, None if status == 200 else "tasks[0].timeout",
    )  # fmt: skip


def test_impersonation_is_taken_and_lends_the_task_no_token(session: Session, fresh: str) -> None:
    text = "strings['b'] = open(work + 'gbdx_runtime.json').read().strip()"
    session.register(definition(fresh, INPUTS, OUTPUTS, script(text)))
    found = session.run(task("one", fresh, impersonation_allowed=True))
    assert (states(found), found["tasks"][0]["outputs"][0]["value"]) == ({"one": "complete/succeeded"}, "{}")


def test_search_finds_by_time_state_and_owner(session: Session, alice: Session, fresh: str) -> None:
    session.register(definition(fresh, INPUTS, OUTPUTS, script("strings['b'] = 'B'")))
    workflow = session.run(task("one", fresh))["id"]

    def search(asking: Session = session, **body: Any) -> list[str]:
        answer = asking.http.post(f"{API}/workflows/search", json=body).json()
        return [one["id"] for one in answer["Workflows"]]

    assert workflow in search(lookback_h=1, state="succeeded")
    assert workflow in search(lookback_h=1, state="complete", owner="gbdx")
    assert workflow not in search(lookback_h=1, state="running")
    assert workflow not in search(lookback_h=0)
    assert search(lookback_h=1, owner="somebody-else") == []
    assert workflow not in search(alice, lookback_h=1)
