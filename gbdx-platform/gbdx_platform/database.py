"""State in SQL: accounts, tokens, the registry, workflows with their tasks, and events. SQLite, or PostgreSQL."""

from __future__ import annotations

import datetime
import functools
import itertools
import re
import secrets
import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sql
from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, String, Table, Text

Row = dict[str, Any]
# Workflows that are deleted in one transaction, and that are added in one statement.
MOST_FORGOTTEN = 500
MOST_ADDED = 50
METADATA = sql.MetaData()

# Columns that always hold something: most of them.
Needed = functools.partial(Column, nullable=False)

ACCOUNTS = Table(
    "accounts", METADATA,
    Column("name", String(64), primary_key=True), Needed("password", Text),
    Needed("access_key", Text), Needed("secret_key", Text),
)  # fmt: skip
TOKENS = Table(
    "tokens", METADATA,
    Column("digest", String(64), primary_key=True), Needed("account", String(64)), Needed("kind", String(8)),
    Needed("expires", Float),
)  # fmt: skip
TASKS = Table(
    "tasks", METADATA,
    Column("key", String(255), primary_key=True), Column("version", String(64), primary_key=True),
    Needed("owner", String(64)), Needed("public", Boolean), Needed("definition", JSON),
    Needed("image_id", Text), Needed("entrypoint", JSON), Needed("command", JSON),
)  # fmt: skip
WORKFLOWS = Table(
    "workflows", METADATA,
    Column("id", String(19), primary_key=True), Needed("owner", String(64)), Needed("name", Text),
    Needed("state", String(16)), Needed("event", String(16)), Needed("submitted", Float), Column("completed", Float),
    Column("callback", Text), Needed("called_back", Boolean), Needed("canceling", Boolean),
    Column("batch", String(19)),
    Index("workflows_by_owner", "owner", "submitted"), Index("workflows_by_state", "state", "submitted"),
    Index("workflows_by_batch", "batch"),
)  # fmt: skip
WORKFLOW_TASKS = Table(
    "workflow_tasks", METADATA,
    Column("id", String(19), primary_key=True), Needed("workflow", String(19)), Needed("position", Integer),
    Needed("name", Text), Needed("state", String(16)), Needed("event", String(16)), Needed("note", Text),
    Column("started", Float), Column("container", Text), Needed("body", JSON),
    Index("workflow_tasks_by_workflow", "workflow", "position"),
)  # fmt: skip
EVENTS = Table(
    "events", METADATA,
    Column("number", Integer, primary_key=True), Needed("workflow", String(19)), Needed("task", Text),
    Needed("time", Float), Needed("state", String(16)), Needed("event", String(16)), Needed("note", Text),
    Index("events_by_workflow", "workflow", "number"),
)  # fmt: skip
BATCHES = Table(
    "batches", METADATA,
    Column("id", String(19), primary_key=True), Needed("owner", String(64)), Needed("name", Text),
    Needed("submitted", Float),
)  # fmt: skip


def connect(url: str) -> sql.Engine:
    """An engine with all tables made. postgres:// and postgresql:// mean psycopg 3."""
    url = re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)
    # A connection is tried before it is lent: a database that was away closed those it had.
    engine = sql.create_engine(url, pool_size=10, max_overflow=40, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":

        @sql.event.listens_for(engine, "connect")
        def set_up(connection: Any, record: Any) -> None:
            for pragma in ("journal_mode=WAL", "busy_timeout=30000", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}")

    METADATA.create_all(engine)
    if "request" in {column["name"] for column in sql.inspect(engine).get_columns("workflows")}:
        with engine.begin() as connection:  # of an early database: it was never read, and may not be empty
            connection.execute(sql.text("ALTER TABLE workflows DROP COLUMN request"))
    return engine


def new_id() -> str:
    """19 decimal digits, as the platform's ids were."""
    return str(10**18 + secrets.randbelow(9 * 10**18))


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def timestamp(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, None for None."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat() if seconds is not None else None


class Store:
    """The queries; each method is one transaction."""

    def __init__(self, url: str) -> None:
        self.engine = connect(url)

    def rows(self, query: Any) -> list[Row]:
        """All rows of a query."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def row(self, query: Any) -> Row | None:
        """The first row of a query, None when there is none."""
        return next(iter(self.rows(query.limit(1))), None)

    def write(self, *statements: Any) -> int:
        """Runs statements in one transaction; returns how many rows the first one touched."""
        with self.engine.begin() as connection:
            counts = [connection.execute(statement).rowcount for statement in statements]
        return counts[0] if counts else 0

    # registry

    def versions(self, name: str) -> list[Row]:
        """All versions of a task, the newest first; names are compared without case."""
        found = self.rows(sql.select(TASKS).where(TASKS.c.key == name.lower()))
        return sorted(found, key=lambda row: version_key(row["version"]), reverse=True)

    # workflows

    def add_workflows(self, entries: Iterable[tuple[Row, list[Row]]], *more: Any) -> None:
        """New workflows, each with its tasks and the events that they were submitted, and more; all or none.

        entries: taken some at a time, so that not all need to be in memory.
        """
        left = iter(entries)
        with self.engine.begin() as connection:
            while chunk := list(itertools.islice(left, MOST_ADDED)):
                tasks = [task for _, some in chunk for task in some]
                connection.execute(WORKFLOWS.insert(), [row for row, _ in chunk])
                connection.execute(WORKFLOW_TASKS.insert(), tasks)
                submitted = [event_of(task, "pending", "submitted", "") for task in tasks]
                connection.execute(EVENTS.insert(), submitted)
            for statement in more:
                connection.execute(statement)

    def workflow(self, workflow: str) -> Row | None:
        """One workflow's row."""
        return self.row(sql.select(WORKFLOWS).where(WORKFLOWS.c.id == workflow))

    def tasks_of(self, *workflows: str) -> list[Row]:
        """The tasks of workflows, in the order of their requests."""
        query = sql.select(WORKFLOW_TASKS).where(WORKFLOW_TASKS.c.workflow.in_(workflows))
        return self.rows(query.order_by(WORKFLOW_TASKS.c.position))

    def set_task(self, task: Row, state: str, event: str, note: str = "", again: bool = False, **values: Any) -> None:
        """A task's new state, with its event; what is complete stays as it is, but for one that is to run `again`."""
        changed = {"state": state, "event": event, "note": note, **values}
        update = WORKFLOW_TASKS.update().where(WORKFLOW_TASKS.c.id == task["id"])
        if not again:
            update = update.where(WORKFLOW_TASKS.c.state != "complete")
        with self.engine.begin() as connection:
            if connection.execute(update.values(**changed)).rowcount:
                connection.execute(EVENTS.insert().values(**event_of(task, state, event, note)))

    def starts(self, task: Row) -> int:
        """How often a task was started."""
        started = (EVENTS.c.workflow == task["workflow"], EVENTS.c.task == task["name"], EVENTS.c.event == "started")
        return len(self.rows(sql.select(EVENTS.c.number).where(*started)))

    def forget_workflows(self, oldest: float) -> list[str]:
        """Deletes some workflows that were complete before a time, and batches without any; returns their ids."""
        old = sql.select(WORKFLOWS.c.id).where(
            WORKFLOWS.c.state == "complete", WORKFLOWS.c.called_back, WORKFLOWS.c.completed < oldest
        )
        ids = [row["id"] for row in self.rows(old.limit(MOST_FORGOTTEN))]
        of_batch = sql.select(WORKFLOWS.c.id).where(WORKFLOWS.c.batch == BATCHES.c.id)
        self.write(
            EVENTS.delete().where(EVENTS.c.workflow.in_(ids)),
            WORKFLOW_TASKS.delete().where(WORKFLOW_TASKS.c.workflow.in_(ids)),
            WORKFLOWS.delete().where(WORKFLOWS.c.id.in_(ids)),
            BATCHES.delete().where(BATCHES.c.submitted < oldest, ~of_batch.exists()),
        )
        return ids

    def set_workflow(self, workflow: str, state: str, event: str, **values: Any) -> None:
        """A workflow's new state; what is complete stays as it is."""
        update = WORKFLOWS.update().where(WORKFLOWS.c.id == workflow, WORKFLOWS.c.state != "complete")
        self.write(update.values(state=state, event=event, **values))


def event_of(task: Row, state: str, event: str, note: str) -> Row:
    """The row of an event of a task now."""
    about = {"workflow": task["workflow"], "task": task["name"]}
    return {**about, "time": now(), "state": state, "event": event, "note": note}


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers, so that 0.10.0 comes after 0.9.0."""
    return tuple(int(part) for part in version.split("."))
