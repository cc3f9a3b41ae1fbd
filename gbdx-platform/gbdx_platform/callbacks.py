"""Tells the URL that a workflow names for it that the workflow has ended."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request

from gbdx_platform.database import WORKFLOWS, Store
from gbdx_platform.workflow_objects import workflow_object

TRIES = 5


def deliver(store: Store, workflow: str, stopping: threading.Event) -> None:
    """POSTs the workflow object to its callback until one POST is answered well, five times at most."""
    row = store.workflow(workflow)
    if row is None:
        return
    body = json.dumps(workflow_object(row, store.tasks_of(workflow))).encode()
    headers = {"Content-Type": "application/json", "X-Gbdx-Workflow": workflow}
    for attempt in range(TRIES):
        with contextlib.suppress(OSError, ValueError):
            request = urllib.request.Request(row["callback"], body, headers)  # noqa: S310 (http or https, checked)
            urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
            break
        if stopping.wait(min(2**attempt, 30)):
            return  # the next start tries again
    store.write(WORKFLOWS.update().where(WORKFLOWS.c.id == workflow).values(called_back=True))
