"""Tells the URL that a workflow names for it that the workflow has ended."""

from __future__ import annotations

import asyncio
import json

import httpx

from gbdx_platform.database import Row
from gbdx_platform.workflow_objects import workflow_object

TRIES = 5
# Threads that tell, and of these the most that one account's receivers, which may never answer, hold.
CALLS, CALLS_OF_ONE = 16, 4
LONGEST_CALL = 10
# Made once: it takes more time than a request, and a canceled batch has thousands of them.
TLS = httpx.create_ssl_context()


def told(workflow: Row, tasks: list[Row]) -> bool:
    """POSTs the workflow object to its callback once; returns whether it was answered well.

    A redirection is no good answer: who launches a workflow names an address, and only that is asked.
    """
    body = json.dumps(workflow_object(workflow, tasks)).encode()
    try:
        return asyncio.run(answered_well(workflow["callback"], body, workflow["id"]))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError):  # UnicodeError: no name of a host
        return False


async def answered_well(address: str, body: bytes, workflow: str) -> bool:
    """Whether an address answers with a status of success in LONGEST_CALL seconds in all; what follows is not read."""
    headers = {"Content-Type": "application/json", "X-Gbdx-Workflow": workflow}
    async with (
        asyncio.timeout(LONGEST_CALL),
        httpx.AsyncClient(verify=TLS, timeout=LONGEST_CALL) as client,
        client.stream("POST", address, content=body, headers=headers) as answer,
    ):
        return answer.is_success
