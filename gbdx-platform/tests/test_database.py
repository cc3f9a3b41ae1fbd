"""The database by itself: what an earlier version of the platform left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from gbdx_platform.database import WORKFLOWS, Store, connect
from gbdx_platform.workflow_objects import new_workflow
from postgresql import cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/old.sqlite"
    else:
        with cluster() as running:
            yield running.url


def test_a_database_that_kept_requests_in_a_column_of_their_own_takes_workflows(url: str) -> None:
    with connect(url).begin() as connection:
        connection.execute(sql.text("DROP TABLE workflows"))
        columns = [
            *("id VARCHAR(19) PRIMARY KEY", "owner VARCHAR(64) NOT NULL", "name TEXT NOT NULL"),
            *("state VARCHAR(16) NOT NULL", "event VARCHAR(16) NOT NULL", "submitted FLOAT NOT NULL"),
            *("completed FLOAT", "callback TEXT", "called_back BOOLEAN NOT NULL", "canceling BOOLEAN NOT NULL"),
            *("batch VARCHAR(19)", "request JSON NOT NULL"),
        ]
        connection.execute(sql.text(f"CREATE TABLE workflows ({', '.join(columns)})"))
    for _ in range(2):  # the second time the column is gone already
        store = Store(url)
        entry = new_workflow({"name": "w", "tasks": []}, "gbdx", {})
        store.write(WORKFLOWS.insert().values(**entry[0]))
        assert store.workflow(entry[0]["id"]) == entry[0]
