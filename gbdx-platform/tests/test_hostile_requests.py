"""Requests that would stop the service for everybody, or break a name for good: refused at once, on both databases."""

from __future__ import annotations

import pytest
from gbdx_platform.storage import StorageError, parse
from gbdx_platform.workflow_request import BATCH_NAME
from live_service import API, Session, definition, port, script, task

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
