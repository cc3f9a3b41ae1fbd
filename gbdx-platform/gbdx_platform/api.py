"""The HTTP interface: every row of the contract's table, a token endpoint, and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sql
from fastapi import Body, Depends, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, SkipValidation
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from gbdx_platform import __version__, accounts, export, registry
from gbdx_platform.cwl_tool import cwl_ids
from gbdx_platform.database import ACCOUNTS, BATCHES, EVENTS, TASKS, WORKFLOWS, Row, Store, new_id, now, timestamp
from gbdx_platform.runs import Runner, complain
from gbdx_platform.task_definition import Problem
from gbdx_platform.workflow_objects import new_workflow, workflow_object
from gbdx_platform.workflow_request import (
    RequestError,
    WorkflowRequest,
    batch_requests,
    parsed,
    problems_of,
    shape_problem,
    staged,
)

PAGE = Path(__file__).with_name("page")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What one answer holds at most of a list or a log.
LONGEST_LIST = 1000
LONGEST_LOG = 4 * 2**20
LARGEST_BODY = 16 * 2**20
Text = Annotated[str, Field(max_length=400)]
NoNul = Annotated[str, Field(max_length=400, pattern=r"^[^\x00]*$")]
AnyJson = Annotated[Any, Body()]
# Described by the model, but checked in `valid`, which knows the registry and says everything at once.
AnyWorkflow = Annotated[SkipValidation[WorkflowRequest], Body()]


class Search(BaseModel):
    """What workflows are looked for: submitted in the last hours, in a state or with an event, the newest so many."""

    lookback_h: float = Field(default=24, ge=0, le=24 * 366 * 100)
    state: NoNul | None = None
    owner: NoNul | None = None
    limit: int = Field(default=LONGEST_LIST, ge=1, le=LONGEST_LIST)


class Live:
    """What the routes work with; `serve` sets it before it listens. endpoint, own_s3: what clients are told of S3."""

    store: Store
    runner: Runner
    endpoint: str
    own_s3: bool


live = Live()


def account(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> str:
    """The account of the request's bearer token."""
    found = accounts.account_of_token(live.store, given.credentials) if given else None
    if found is None:
        said = "one that is unknown or has expired" if given else "none"
        raise HTTPException(401, f"expected a valid bearer token, found {said}", {"WWW-Authenticate": "Bearer"})
    return found


Account = Annotated[str, Depends(account)]


def own(kind: str, table: sql.Table, identifier: str, account: str) -> Row:
    """A row that is the account's; others' are as if they were not there."""
    row = live.store.row(sql.select(table).where(table.c.id == identifier, table.c.owner == account))
    if row is None:
        raise HTTPException(404, f"{kind} {identifier!r} is not there")
    return row


def own_workflow(account: Account, workflow: Text) -> Row:
    """The workflow of the address."""
    return own("workflow", WORKFLOWS, workflow, account)


def own_batch(account: Account, batch: Text) -> Row:
    """The batch of the address."""
    return own("batch", BATCHES, batch, account)


OwnWorkflow = Annotated[Row, Depends(own_workflow)]
OwnBatch = Annotated[Row, Depends(own_batch)]
# Offline: the page at /docs brings its scripts along, where FastAPI's own would load them from elsewhere.
app = FastAPIOffline(
    title="gbdx-platform", version=__version__, description="Registers GBDX tasks and runs workflows of them."
)
app.mount("/page", StaticFiles(directory=PAGE))


# --- errors and limits


def failure(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """An error in the contract's form."""
    return JSONResponse({"status": status, "message": message, **more}, status, headers)


@app.exception_handler(RequestError)
def bad_request(request: Request, error: RequestError) -> Response:
    """All problems of a definition or a workflow, as a text and each by itself."""
    listed = [{"key": one.key, "expected": one.expected, "found": one.found} for one in error.problems]
    return failure(400, str(error), errors=listed)


@app.exception_handler(HTTPException)
def http_error(request: Request, error: HTTPException) -> Response:
    """What a route refuses, and the framework."""
    return failure(error.status_code, str(error.detail), error.headers)


@app.exception_handler(RequestValidationError)
def bad_parameter(request: Request, error: RequestValidationError) -> Response:
    """Parameters or JSON that don't fit."""
    return bad_request(request, RequestError([shape_problem(one) for one in error.errors()]))


@app.exception_handler(OperationalError)
def database_away(request: Request, error: OperationalError) -> Response:
    """A database that doesn't answer, or a full disk below it; where it is, only the log says."""
    complain(request.url.path, error)
    return failure(503, "the service's database can't be used now; its log says more")


@app.exception_handler(Exception)
def crash(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has it, the answer has no insides."""
    return failure(500, "a fault of the service; its log says more")


@app.middleware("http")
async def limits(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Refuses bodies that are too large before they are read."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY or "chunked" in request.headers.get("transfer-encoding", ""):
        return failure(413, f"body: expected a Content-Length of at most {LARGEST_BODY} bytes")
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        return failure(400, "address: expected text without NUL")
    return await call_next(request)


def plain(body: Any) -> Any:
    """The JSON of a body, whatever its content type; only what any database can keep.

    Raises:
        RequestError: no JSON, or NaN, NUL or half a surrogate pair in it.
    """
    try:
        found = json.loads(body) if isinstance(body, bytes) else body
        text = json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise RequestError([Problem("body", "JSON in UTF-8", str(error)[:200])]) from None
    if b"\\u0000" in text.replace(rb"\\", b""):  # escaped backslashes first: behind one, u0000 is text
        raise RequestError([Problem("body", "text without NUL", "NUL")])
    return found


# --- tokens and credentials


@app.post("/auth/v1/oauth/token/", tags=["auth"])
@app.post("/auth/v1/oauth/token", include_in_schema=False)
def token(
    grant_type: Annotated[str, Form()] = "password",
    username: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    refresh_token: Annotated[str, Form()] = "",
) -> Any:
    """OAuth2 tokens for a password or a refresh token."""
    if grant_type == "password":
        found = accounts.account_of_password(live.store, username, password)
    elif grant_type == "refresh_token":
        found = accounts.account_of_token(live.store, refresh_token, "refresh")
    else:
        raise HTTPException(400, "grant_type: expected password or refresh_token")
    if found is None:
        raise HTTPException(401, "expected the credentials of an account, found others")
    return accounts.issue_tokens(live.store, found)


@app.get("/s3creds/v1/prefix", tags=["s3"])
def s3_credentials(account: Account, duration: Annotated[int, Query(ge=0, le=10**9)] = 36000) -> Any:
    """The account's S3 keys, bucket and prefix. The keys of the local server reach the account's prefix only."""
    row = live.store.row(sql.select(ACCOUNTS).where(ACCOUNTS.c.name == account))
    keys = row if live.own_s3 else accounts.lent_keys(account)
    if keys is None:
        raise HTTPException(
            403,
            f"object storage is not this service's own, and its operator has lent account {account!r} no keys "
            "(GBDX_S3_LEND=account=key:secret); s3:// inputs and outputs of tasks work without",
        )
    return {
        "S3_access_key": keys["access_key"],
        "S3_secret_key": keys["secret_key"],
        "S3_session_token": "",
        "bucket": live.runner.settings.bucket,
        "prefix": account,
        "endpoint": live.endpoint,
    }


# --- registry


@app.get("/workflows/v1/heartbeat", tags=["service"])
def heartbeat() -> str:
    """Alive; no authentication."""
    return "ok"


@app.get("/workflows/v1/tasks", tags=["registry"])
def list_tasks(account: Account) -> dict[str, list[str]]:
    """The names of the tasks that the account may use."""
    query = sql.select(TASKS).where((TASKS.c.owner == account) | TASKS.c.public).order_by(TASKS.c.key)
    rows = live.store.rows(query)
    return {"tasks": list(dict.fromkeys(row["definition"]["name"] for row in rows))}


@app.post("/workflows/v1/tasks", tags=["registry"])
def register_task(account: Account, definition: AnyJson) -> HTMLResponse:
    """Registers a task, or a higher version of one."""
    name = registry.register(live.store, plain(definition), account)
    return HTMLResponse(f"{name} successfully registered.", headers={"Content-Security-Policy": "default-src 'none'"})


@app.get("/workflows/v1/tasks/{task_type}", tags=["registry"])
def get_task(account: Account, task_type: Text, format: str = "gbdx") -> Any:
    """A definition, the newest without a version; format=cwl or eoap exports it."""
    row = registry.find(live.store, task_type, account)
    if row is None:
        raise HTTPException(404, f"task {task_type!r} is not registered")
    return export.definition_as(format, row["definition"], None if row["entrypoint"] else row["command"])


@app.put("/workflows/v1/tasks/{task_type}", tags=["registry"])
def update_task(account: Account, task_type: Text, definition: AnyJson) -> Any:
    """Replaces the definition of one version."""
    return registry.update(live.store, task_type, plain(definition), account)


@app.delete("/workflows/v1/tasks/{task_type}", tags=["registry"])
def delete_task(account: Account, task_type: Text) -> HTMLResponse:
    """Deletes a task."""
    name = registry.delete(live.store, task_type, account)
    return HTMLResponse(f"{name} successfully deleted.", headers={"Content-Security-Policy": "default-src 'none'"})


# --- workflows


def valid(account: str, body: Any) -> tuple[dict[str, Any], dict[str, Row]]:
    """A request with nothing wrong, and the registry's rows of its tasks."""
    found = parsed(plain(body))
    types = {task["taskType"] for task in found["tasks"]}
    rows = {name: row for name in types if (row := registry.find(live.store, name, account))}
    problems = problems_of(found, rows)
    if problems:
        raise RequestError(problems)
    return found, rows


def answer(row: Row) -> dict[str, Any]:
    """The workflow object."""
    return workflow_object(row, live.store.tasks_of(row["id"]))


@app.post("/workflows/v1/workflows", tags=["workflows"])
def launch(account: Account, workflow: AnyWorkflow) -> Any:
    """Launches a workflow; everything that is wrong with it is said at once."""
    asked, rows = valid(account, workflow)
    if asked.get("batch_values"):
        raise RequestError([Problem("batch_values", "none here: POST to /workflows/v1/batch_workflows", "some")])
    row, tasks = new_workflow(staged(asked, rows, live.runner.settings.bucket, account), account, rows)
    live.store.add_workflows([(row, tasks)])
    live.runner.wake.set()
    return workflow_object(row, tasks)


@app.get("/workflows/v1/workflows", tags=["workflows"])
def list_workflows(account: Account) -> dict[str, list[str]]:
    """The ids of the account's workflows, the newest first."""
    query = sql.select(WORKFLOWS.c.id).where(WORKFLOWS.c.owner == account).order_by(WORKFLOWS.c.submitted.desc())
    return {"workflows": [row["id"] for row in live.store.rows(query.limit(LONGEST_LIST))]}


@app.post("/workflows/v1/workflows/search", tags=["workflows"])
def search(account: Account, search: Search) -> Any:
    """The account's workflows of the last hours, by state (`running`) or event (`succeeded`)."""
    if search.owner not in (None, account):
        return {"Workflows": []}
    query = sql.select(WORKFLOWS).where(
        WORKFLOWS.c.owner == account, WORKFLOWS.c.submitted >= now() - search.lookback_h * 3600
    )
    # The original client asks for `all` when it means any.
    if search.state not in (None, "", "all"):
        query = query.where((WORKFLOWS.c.state == search.state) | (WORKFLOWS.c.event == search.state))
    rows = live.store.rows(query.order_by(WORKFLOWS.c.submitted.desc()).limit(search.limit))
    return StreamingResponse(listed(rows), media_type="application/json")


def listed(rows: list[Row]) -> Iterator[str]:
    """The JSON of workflow objects, made one by one: the tasks of a thousand may not fit into memory."""
    yield '{"Workflows":['
    for number, row in enumerate(rows):
        yield ("," if number else "") + json.dumps(answer(row))
    yield "]}"


@app.get("/workflows/v1/workflows/{workflow}", tags=["workflows"])
def get_workflow(workflow: OwnWorkflow, format: str = "gbdx") -> Any:
    """A workflow; format=cwl or eoap exports what it runs."""
    if format == "gbdx":
        return answer(workflow)
    steps = [live.runner.step(task) for task in live.store.tasks_of(workflow["id"])]
    return export.workflow_as(format, workflow["name"], steps)


@app.get("/workflows/v1/workflows/{workflow}/events", tags=["workflows"])
def events(workflow: OwnWorkflow) -> dict[str, Any]:
    """What happened to a workflow's tasks, in order."""
    query = sql.select(EVENTS.c.task, EVENTS.c.time.label("when"), EVENTS.c.note, EVENTS.c.state, EVENTS.c.event)
    rows = live.store.rows(query.where(EVENTS.c.workflow == workflow["id"]).order_by(EVENTS.c.number))
    return {"Events": [{**row, "timestamp": timestamp(row["when"])} for row in rows]}


@app.post("/workflows/v1/workflows/{workflow}/cancel", tags=["workflows"])
def cancel(account: Account, workflow: OwnWorkflow) -> Any:
    """Cancels a workflow."""
    live.runner.cancel(WORKFLOWS.c.id == workflow["id"])
    return answer(own_workflow(account, workflow["id"]))


@app.get("/workflows/v1/workflows/{workflow}/tasks/{task}/{stream}", tags=["workflows"])
def log(workflow: OwnWorkflow, task: Text, stream: Text) -> HTMLResponse:
    """What a task printed so far, its last 4 MiB; `stream` is stdout or stderr."""
    rows = live.store.tasks_of(workflow["id"])
    row = next((row for row in rows if task in (row["id"], row["name"])), None)
    if row is None or stream not in ("stdout", "stderr"):
        raise HTTPException(404, f"task {task!r} of this workflow has no {stream!r}")
    step = cwl_ids([one["name"] for one in rows])[row["name"]]
    text = tail(live.runner.settings.state / "logs" / workflow["id"] / step / f"{stream}.txt") or "<empty>"
    # As the contract has it, HTML; the policy keeps a browser from running what a task printed.
    return HTMLResponse(text, headers={"Content-Security-Policy": "sandbox; default-src 'none'"})


def tail(path: Path) -> str:
    """The end of a log, empty when there is none."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LONGEST_LOG, 0))
        return file.read(LONGEST_LOG).decode("utf-8", "replace")


# --- batches


def batch_object(row: Row) -> dict[str, Any]:
    """A batch with the state of each of its workflows."""
    query = sql.select(WORKFLOWS.c.id, WORKFLOWS.c.state, WORKFLOWS.c.event).where(WORKFLOWS.c.batch == row["id"])
    rows = live.store.rows(query.order_by(WORKFLOWS.c.submitted, WORKFLOWS.c.id))
    return {
        "batch_workflow_id": row["id"],
        "workflow_name": row["name"],
        "owner": row["owner"],
        "submitted_time": timestamp(row["submitted"]),
        "workflows": [
            {"workflow_id": one["id"], "state": one["event"] if one["state"] == "complete" else one["state"]}
            for one in rows
        ],
    }


@app.post("/workflows/v1/batch_workflows", tags=["batches"])
def launch_batch(account: Account, workflow: AnyWorkflow) -> Any:
    """Launches one workflow for each index of the lists; all or none."""
    asked, rows = valid(account, workflow)
    batch = {"id": new_id(), "owner": account, "name": asked["name"], "submitted": now()}
    live.store.add_workflows(batch_entries(asked, rows, batch), BATCHES.insert().values(**batch))
    live.runner.wake.set()
    return batch_object(batch)


def batch_entries(asked: dict[str, Any], rows: dict[str, Row], batch: Row) -> Iterator[tuple[Row, list[Row]]]:
    """The rows of a batch's workflows, made and checked one by one as they are taken."""
    for one in batch_requests(asked):
        problems = problems_of(one, rows)
        if problems:
            raise RequestError(problems)
        kept = staged(one, rows, live.runner.settings.bucket, batch["owner"])
        yield new_workflow(kept, batch["owner"], rows, batch["id"])


@app.get("/workflows/v1/batch_workflows/{batch}", tags=["batches"])
def get_batch(batch: OwnBatch) -> Any:
    """A batch."""
    return batch_object(batch)


@app.post("/workflows/v1/batch_workflows/{batch}/cancel", tags=["batches"])
def cancel_batch(batch: OwnBatch) -> Any:
    """Cancels every workflow of a batch."""
    live.runner.cancel(WORKFLOWS.c.batch == batch["id"])
    return batch_object(batch)


# --- the page


@app.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """Tasks and workflows for people; it asks for a token and uses the interface above."""
    return HTMLResponse((PAGE / "index.html").read_text("utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})
