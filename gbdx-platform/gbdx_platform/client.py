"""The service as the command line sees it: HTTP with the token that `serve` left, and S3 with the account's keys."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gbdx_platform import transfers
from gbdx_platform.settings import read_credentials, state_folder, write_private
from gbdx_platform.storage import Storage, safe_relative

API = "/workflows/v1"
# A broken upload goes on when it is asked for again within this time.
UNFINISHED = timedelta(days=7)
ENDED = {"succeeded", "failed", "timedout", "canceled"}


def at(*parts: str) -> str:
    """An address of the interface below its root; each part may hold anything."""
    return "/".join([API, *(quote(part, safe="") for part in parts)])


def events_of(found: dict[str, Any]) -> set[str]:
    """The event that a workflow object has come to; of a batch object, those of its workflows, or their states."""
    return {one["state"] for one in found.get("workflows", [])} or {found["state"]["event"]}


class ClientError(RuntimeError):
    """The service refused, or isn't there; the message is its sentence. status: that of its answer, if there is one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A session with the service. GBDX_URL and GBDX_TOKEN name another one than this user's own.

    A token that has expired is replaced by means of the password beside it: that in credentials.json, or that of
    GBDX_USERNAME and GBDX_PASSWORD for GBDX_TOKEN.
    """

    def __init__(self, state: str | None = None) -> None:
        self.state = state_folder(state)
        self.known = known = read_credentials(self.state)
        url = (os.environ.get("GBDX_URL") or known.get("url") or "").rstrip("/")
        # The token that `serve` left is for that service alone.
        self.token = os.environ.get("GBDX_TOKEN") or (known.get("token") if url == known.get("url") else None)
        if not url or not self.token:
            raise ClientError(
                "service: expected one that was started with `gbdx-platform serve`, or GBDX_URL and GBDX_TOKEN, "
                f"found {f'no token for {url}' if url else 'neither'}"
            )
        if not (self.token.isascii() and self.token.isprintable()):
            raise ClientError("GBDX_TOKEN: expected one line of ASCII text, found other characters")
        try:
            self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=120)
        except httpx.InvalidURL as error:
            raise ClientError(f"GBDX_URL: expected the address of a service, found {url!r}: {error}") from None

    def renewed(self) -> bool:
        """Whether there is a password, and another token for it; credentials.json keeps that for the next command."""
        given = bool(os.environ.get("GBDX_TOKEN"))
        login = {
            name: os.environ.get(f"GBDX_{name.upper()}") if given else self.known.get(name)
            for name in ("username", "password")
        }
        answer = self.http.post("/auth/v1/oauth/token/", data={"grant_type": "password", **login})
        if answer.is_success:
            self.token = str(answer.json()["access_token"])
            self.http.headers["Authorization"] = f"Bearer {self.token}"
            if not given:
                self.known["token"] = self.token
                write_private(self.state / "credentials.json", json.dumps(self.known))
        return answer.is_success

    def ask(self, method: str, path: str, body: Any = None, **parameters: Any) -> httpx.Response:
        """One request, and once more when the token had expired and there is another; a refusal is an error.

        Raises:
            ClientError: no answer, or a status of 400 or more; the sentences of the answer.
        """
        try:
            answer = self.http.request(method, path, json=body, params=parameters or None)
            if answer.status_code == 401 and self.renewed():
                answer = self.http.request(method, path, json=body, params=parameters or None)
        except (httpx.HTTPError, UnicodeError) as error:  # the latter for a host that no name server can be asked for
            raise ClientError(f"service: expected an answer at {self.http.base_url}, found {error}") from None
        if answer.is_success:
            return answer
        if "json" not in answer.headers.get("content-type", ""):
            raise ClientError(f"service: expected its interface at {answer.url}, found {answer.status_code}")
        found = answer.json()
        lines = [f"{one['key']}: expected {one['expected']}, found {one['found']}" for one in found.get("errors") or []]
        raise ClientError("\n".join(lines) or str(found.get("message")), answer.status_code)

    def look(self, path: str) -> Any:
        """What is there, None when nothing is."""
        try:
            return self.ask("GET", path).json()
        except ClientError as error:
            if error.status != 404:
                raise
            return None

    def launch(self, request: Any) -> str:
        """Launches a workflow, or a batch when the request has its values; returns its id."""
        batch = isinstance(request, dict) and request.get("batch_values")
        kind, key = ("batch_workflows", "batch_workflow_id") if batch else ("workflows", "id")
        return str(self.ask("POST", at(kind), request).json()[key])

    def workflow_or_batch(self, identifier: str) -> Any:
        """The workflow object, or the batch object, that has an id.

        Raises:
            ClientError: none has.
        """
        for kind in ("workflows", "batch_workflows"):
            if found := self.look(at(kind, identifier)):
                return found
        raise ClientError(f"{identifier}: expected the id of a workflow or a batch of yours, found none that has it")

    def s3_credentials(self) -> dict[str, Any]:
        """The account's S3 keys, bucket, prefix and endpoint."""
        found: dict[str, Any] = self.ask("GET", "/s3creds/v1/prefix", duration=36000).json()
        return found

    def storage(self) -> tuple[Storage, str]:
        """S3 with the account's own keys, and its prefix."""
        given = self.s3_credentials()
        options: dict[str, Any] = {
            "aws_access_key_id": given["S3_access_key"],
            "aws_secret_access_key": given["S3_secret_key"],
            "aws_session_token": given["S3_session_token"] or None,
        }
        if given.get("endpoint"):
            options |= {"endpoint_url": given["endpoint"], "region_name": "us-east-1"}
        return Storage(given["bucket"], tell=lambda text: print(text, file=sys.stderr), **options), given["prefix"]

    def upload(self, source: Path, below: str) -> str:
        """Uploads a folder, or one file, below the account's prefix; returns its URL."""
        if source.is_file() and below.endswith("/"):
            below += source.name
        storage, prefix = self.storage()
        transfers.abort_unfinished(storage.client, storage.bucket, f"{prefix}/", UNFINISHED)
        key = f"{prefix}/{safe_relative(below.strip('/'))}"
        if source.is_file():
            storage.put(source, key)
        elif storage.keep(source, key) == 0:
            raise ClientError(f"{source}: expected a file, or a folder with files in it, found none")
        return f"s3://{storage.bucket}/{key}"

    def download(self, below: str, folder: Path) -> int:
        """Fetches what lies below the account's prefix; returns the number of files."""
        if folder.exists() and not folder.is_dir():
            raise ClientError(f"{folder}: expected a folder, found a file")
        storage, prefix = self.storage()
        return storage.fetch(f"s3://{storage.bucket}/{prefix}/{safe_relative(below.strip('/'))}", prefix, folder)
