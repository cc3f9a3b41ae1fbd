"""Tells the URL that a workflow names for it that the workflow has ended."""

from __future__ import annotations

import contextlib
import json
import threading

import httpx

from gbdx_platform.database import WORKFLOWS, Store
from gbdx_platform.workflow_objects import workflow_object

TRIES = 5
# Made once: it takes more time than a request, and a canceled batch has thousands of them.
TLS = httpx.create_ssl_context()


def deliver(store: Store, workflow: str, stopping: threading.Event) -> None:
    """POSTs the workflow object to its callback until one POST is answered well, five times at most.

    A redirection is no good answer: who launches a workflow names an address, and only that is asked.
    """
    row = store.workflow(workflow)
    if row is None:
        return
    body = json.dumps(workflow_object(row, store.tasks_of(workflow))).encode()
    headers = {"Content-Type": "application/json", "X-Gbdx-Workflow": workflow}
    for attempt in range(TRIES):
        with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
            if httpx.post(row["callback"], content=body, headers=headers, timeout=10, verify=TLS).is_success:
                break
        if stopping.wait(min(2**attempt, 30)):
            return  # the next start tries again
    store.write(WORKFLOWS.update().where(WORKFLOWS.c.id == workflow).values(called_back=True))
