"""Starts and stops the whole service: state, accounts, S3, the runner, HTTP."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sql
import uvicorn
from botocore.exceptions import ClientError

from gbdx_platform import accounts
from gbdx_platform.accounts import DEFAULT_ACCOUNT
from gbdx_platform.api import app, live
from gbdx_platform.database import ACCOUNTS, Store
from gbdx_platform.local_s3 import LocalS3, stop_leftover
from gbdx_platform.runs import Runner
from gbdx_platform.settings import LOOPBACK, Settings, read_credentials, write_private
from gbdx_platform.storage import Storage

# Of every answer, an error of the server's own included.
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")]


class ServiceError(RuntimeError):
    """The service can't start; the message is a sentence."""


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Holds the folder of state, so that no second service works on it.

    Raises:
        ServiceError: another one does.
    """
    with (settings.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(f"state: expected {settings.state} to be free, found another service on it") from None
        yield


def default_credentials(settings: Settings, store: Store, url: str, endpoint: str) -> dict[str, Any]:
    """The first account, and what the command line of this user logs in with; a new token at each start."""
    known = read_credentials(settings.state)
    if not (known.get("password") and accounts.account_of_password(store, DEFAULT_ACCOUNT, known["password"])):
        known["password"] = accounts.add_account(store, DEFAULT_ACCOUNT)
    token = accounts.issue_tokens(store, DEFAULT_ACCOUNT)["access_token"]
    known.update({"url": url, "username": DEFAULT_ACCOUNT, "token": token, "endpoint": endpoint})
    return known


def external_s3() -> bool:
    """Whether the environment names object storage of its own."""
    return bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ACCESS_KEY_ID"))


def admin_keys(settings: Settings) -> tuple[str, str]:
    """The service's own keys to its local S3, made once."""
    path = settings.state / "s3-admin.json"
    if not path.is_file():
        write_private(path, json.dumps([secrets.token_hex(10).upper(), secrets.token_urlsafe(30)]))
    access, secret = json.loads(path.read_text("utf-8"))
    return access, secret


def make_storage(settings: Settings, local: LocalS3 | None) -> Storage:
    """Storage with its bucket."""
    if local is None:
        return Storage(settings.bucket, settings.file_roots)
    keys: dict[str, Any] = {"aws_access_key_id": local.admin[0], "aws_secret_access_key": local.admin[1]}
    storage = Storage(
        settings.bucket, settings.file_roots, endpoint_url=local.endpoint, region_name="us-east-1", **keys
    )
    try:
        storage.client.create_bucket(Bucket=settings.bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise
    return storage


class Server(uvicorn.Server):
    """uvicorn's server; once it listens, it leaves the credentials for the command line."""

    def __init__(self, config: uvicorn.Config, settings: Settings, credentials: dict[str, Any]) -> None:
        super().__init__(config)
        self.settings, self.credentials = settings, credentials

    async def startup(self, sockets: Any = None) -> None:
        """Listens, then says so."""
        await super().startup(sockets)
        if self.started:
            write_private(self.settings.state / "credentials.json", json.dumps(self.credentials))
            print(
                f"gbdx-platform: {self.credentials['url']}, state and credentials in {self.settings.state}", flush=True
            )


def ended(signum: int, frame: object) -> None:
    """SIGTERM ends the service in an orderly way; uvicorn raises the signal once more when it has stopped."""
    raise SystemExit(0)


def check_engine(settings: Settings) -> None:
    """Refuses an engine that could run nothing.

    Raises:
        ServiceError: Toil is not there, or not with those arguments.
    """
    if settings.engine != "toil":
        return
    from gbdx_platform import toil_engine

    try:
        toil_engine.check(settings.engine_arguments)
    except toil_engine.ToilError as error:
        raise ServiceError(str(error)) from None


def serve(settings: Settings, certificate: str | None = None, key: str | None = None, plain: bool = False) -> None:
    """Serves until SIGTERM or Ctrl-C; everything that was started ends with it.

    Raises:
        ServiceError: it can't start.
    """
    if settings.host not in LOOPBACK and not certificate and not plain:
        raise ServiceError(
            f"host: expected a loopback address or a certificate, found {settings.host} without TLS "
            "(--plain-http allows it, behind a proxy that does TLS)"
        )
    check_engine(settings)
    signal.signal(signal.SIGTERM, ended)
    with only_one(settings):
        store = Store(settings.database_url)
        store.row(sql.select(ACCOUNTS).limit(1))
        url = f"{'https' if certificate else 'http'}://{settings.host}:{settings.port}"
        credentials = default_credentials(settings, store, url, "")
        write_private(settings.state / "credentials.json", json.dumps({**credentials, "url": ""}))
        local = (
            None
            if external_s3()
            else LocalS3(settings.state, settings.bucket, accounts.all_accounts(store), admin_keys(settings))
        )
        if local:
            stop_leftover(settings.state)
            local.start()
        try:
            credentials["endpoint"] = local.endpoint if local else os.environ.get("AWS_ENDPOINT_URL_S3", "")
            runner = Runner(settings, store, make_storage(settings, local))
            live.store, live.runner = store, runner
            live.endpoint, live.own_s3 = credentials["endpoint"], local is not None
            runner.start()
            config = uvicorn.Config(
                app, settings.host, settings.port, log_level="warning", access_log=False, ssl_certfile=certificate,
                ssl_keyfile=key, timeout_graceful_shutdown=5, server_header=False, headers=HEADERS,
            )  # fmt: skip
            try:
                Server(config, settings, credentials).run()
            finally:
                runner.stop()
        finally:
            if local:
                local.stop()


def add_account(settings: Settings, name: str) -> str:
    """Makes an account, or a new password for it; a local S3 learns its keys at the service's next start."""
    return accounts.add_account(Store(settings.database_url), name)
