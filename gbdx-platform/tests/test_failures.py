"""What is out of the service's hands: a full disk, object storage that is gone, an image that is gone or another one.
Each ends in a note that says so; nothing stays running."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from gbdx_platform import containers
from gbdx_platform.cwltool_engine import run_client
from gbdx_platform.local_s3 import LocalS3
from live_service import API, IMAGE, Service, Session, definition, port, script, states, task
from waiting import wait_until

INPUTS = [port("data", required=False), port("a", "string", required=False)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 MB, in memory; mounting takes root."""
    folder = tmp_path / "small"
    folder.mkdir()
    as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
    subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", "size=256m,mode=1777", "tmpfs", folder], check=True)
    yield folder
    subprocess.run([*as_root, "umount", "--lazy", folder], check=True)


def storage_of(session: Session, **given: str) -> dict[str, str]:
    """The environment that lets a second service use this session's object storage."""
    keys = session.http.get("/s3creds/v1/prefix").json()
    return {
        "AWS_ENDPOINT_URL_S3": keys["endpoint"], "AWS_ACCESS_KEY_ID": keys["S3_access_key"],
        "AWS_SECRET_ACCESS_KEY": keys["S3_secret_key"], "AWS_DEFAULT_REGION": "us-east-1",
        "GBDX_S3_LEND": f"{keys['S3_access_key']}:{keys['S3_secret_key']}", **given,
    }  # fmt: skip


def test_the_engines_client_ends_by_itself_though_no_disk_takes_its_log(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "full").write_bytes(bytes(256 * 2**20 - 8192))
    ended = tmp_path / "ended"
    say = "import pathlib, sys; print('x' * 2**20, flush=True); pathlib.Path(sys.argv[1]).touch()"
    run_client([sys.executable, "-c", say, str(ended)], small_disk)
    assert ended.exists()


def test_a_full_disk_ends_tasks_with_a_note_and_the_service_lives_on(session: Session, small_disk: Path) -> None:
    service = Service(small_disk / "state", **storage_of(session))
    service.state.mkdir()
    service.start()
    try:
        own = Session(service.client())
        write = "os.makedirs(work + 'output/out')\nopen(work + 'output/out/x', 'wb').write(bytes(400_000_000))"
        keep = write.replace("open", "try: open") + "\nexcept OSError: time.sleep(600)"
        own.register(definition("writes", INPUTS, [port("out")], script(write)))
        own.register(definition("keeps-on", INPUTS, [port("out")], script(keep)))
        own.register(definition("idle", INPUTS, [], script("")))
        # The first fails by itself; the second doesn't, and is stopped.
        for name in ("writes", "keeps-on"):
            wait_until(lambda: shutil.disk_usage(small_disk).free > 200_000_000)
            one = own.run(task("fills", name))["tasks"][0]
            assert states({"tasks": [one]}) == {"fills": "complete/failed"}
            assert re.fullmatch(r"over limit: only \d+ MB are left on the disk of the outputs", one["note"])
        large = session.put("full-disk/large", bytes(300_000_000))
        fetched = own.run(task("idle", "idle", {"data": large}))
        assert fetched["tasks"][0]["note"].startswith("input port 'data': ")
        assert "No space left on device" in fetched["tasks"][0]["note"]
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(400_000_000))
        refused = own.http.post(f"{API}/workflows", json={"name": "w", "tasks": [task("idle", "idle")]})
        assert refused.status_code == 503, refused.text
        filler.unlink()
        # A task that takes over a second is ended for the small disk; that it is taken and ended is what counts.
        assert own.run(task("again", "idle"))["completed_time"]
    finally:
        service.stop()


@pytest.fixture
def other_storage(own_service: Service, tmp_path: Path) -> Iterator[LocalS3]:
    """Object storage that is not the service's own, so that nobody starts it again."""
    running = LocalS3(tmp_path, "gbdx-customer-data", [])
    running.launch()
    running.wait()
    access, secret = running.admin
    own_service.environment |= {
        "AWS_ENDPOINT_URL_S3": running.endpoint, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1", "GBDX_S3_LEND": f"{access}:{secret}",
    }  # fmt: skip
    yield running
    running.stop()


@pytest.fixture
def data_there(own_service: Service, other_storage: LocalS3) -> tuple[Session, str]:
    """A session with a service that has started on that storage, and the URL of a folder with one file in it."""
    own_service.start()
    session = Session(own_service.client())
    session.storage.client.create_bucket(Bucket=session.bucket)
    return session, session.put("in/a.txt")


def test_object_storage_that_goes_away_fails_what_needs_it_with_the_port(
    data_there: tuple[Session, str], other_storage: LocalS3
) -> None:
    session, data = data_there
    write = "time.sleep(2)\nos.makedirs(work + 'output/out')\nopen(work + 'output/out/x', 'w').write('x')"
    session.register(definition("writes", INPUTS, [port("out")], script(write)))
    workflow = session.launch(task("keeps", "writes", {"data": data}, {"out": "kept"}))
    later = session.launch(task("fetches", "writes", {"data": data}))
    wait_until(lambda: "started" in session.events(workflow, "keeps"))
    other_storage.stop()
    kept, fetched = session.wait(workflow), session.wait(later)
    assert (states(kept), states(fetched)) == ({"keeps": "complete/failed"}, {"fetches": "complete/failed"})
    assert kept["tasks"][0]["note"].startswith("output port 'out' could not be kept: Could not connect to the endpoint")
    assert fetched["tasks"][0]["note"].startswith("input port 'data': Could not connect to the endpoint URL")
    assert fetched["tasks"][0]["note"].endswith("(3 tries)")


def test_object_storage_that_is_away_for_ten_seconds_is_waited_for(
    data_there: tuple[Session, str], other_storage: LocalS3
) -> None:
    session, data = data_there
    session.register(definition("reads", INPUTS, [], script("assert os.listdir(work + 'input/data') == ['a.txt']")))
    other_storage.stop()
    workflow = session.launch(task("waits", "reads", {"data": data}))
    wait_until(lambda: "scheduled" in session.events(workflow, "waits"))
    time.sleep(12)  # longer than the retries of one request take
    other_storage.launch()
    found = session.wait(workflow)
    assert states(found) == {"waits": "complete/succeeded"}, found["tasks"][0]["note"]


@pytest.fixture
def own_tag(fresh: str) -> Iterator[str]:
    """A name of the tests' image that a test may move."""
    tag = f"localhost/{fresh}:1"
    assert containers.call("tag", IMAGE, tag).returncode == 0
    yield tag
    containers.call("rmi", tag)


def test_a_moved_tag_and_a_vanished_image_are_refused_at_run(session: Session, fresh: str, own_tag: str) -> None:
    image = [{"type": "DOCKER", "command": script(""), "properties": {"image": own_tag}}]
    session.register(definition(fresh, INPUTS, [], "", containerDescriptors=image))
    assert states(session.run(task("good", fresh))) == {"good": "complete/succeeded"}
    registered, other = (containers.inspect_image(name) for name in (own_tag, "debian:trixie-slim"))
    assert registered
    assert other
    assert containers.call("tag", "debian:trixie-slim", own_tag).returncode == 0
    moved = session.run(task("moved", fresh))
    expected = f"image '{own_tag}': expected {registered.id[:19]} as registered, found"
    assert (states(moved), moved["tasks"][0]["note"]) == (
        {"moved": "complete/failed"},
        f"{expected} {other.id[:19]}: the tag was moved; register a higher version",
    )
    assert containers.call("rmi", own_tag).returncode == 0
    gone = session.run(task("gone", fresh))
    assert (states(gone), gone["tasks"][0]["note"]) == ({"gone": "complete/failed"}, f"{expected} that it has vanished")


def test_an_engine_that_answers_nonsense_for_a_moment_stops_no_later_workflow(
    own_service: Service, tmp_path: Path
) -> None:
    engine = tmp_path / "docker"
    second = 'if [ "$1" = ps ]; then echo >>"$0.asked"; [ $(wc -l <"$0.asked") != 2 ] || exec printf "\\377"; fi'
    engine.write_text(f'#!/bin/sh\n{second}\nexec {containers.engine()} "$@"\n')
    engine.chmod(0o755)
    own_service.environment["ENGINE"] = str(engine)
    own_service.start()
    log = own_service.state / "serve.log"
    wait_until(lambda: "workflows that wait could not be looked after, it is tried again: 'utf-8'" in log.read_text())
    session = Session(own_service.client())
    session.register(definition("idle", INPUTS, [], script("")))
    assert states(session.run(task("later", "idle"))) == {"later": "complete/succeeded"}


@pytest.fixture
def engine_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The way to the engine for its command line: a socket that is not there."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.setattr(containers, "WAITS", (0.2, 0.2))
    return tmp_path / "engine.sock"


def test_an_engine_that_does_not_answer_is_not_called_a_vanished_image(engine_elsewhere: Path) -> None:
    for look in (lambda: containers.check_image(IMAGE, "sha256:1"), lambda: containers.bind_image(IMAGE)):
        with pytest.raises(containers.EngineError, match=f"about the image '{IMAGE}', found: Cannot connect to the"):
            look()


def test_an_engine_that_takes_a_connection_and_says_nothing_is_a_sentence(
    engine_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "call", partial(containers.call, timeout=1))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(engine_elsewhere))
        silent.listen()
        with pytest.raises(containers.EngineError, match=f"about the image '{IMAGE}', found: none within 1 s"):
            containers.check_image(IMAGE, "sha256:1")


def test_an_engine_that_is_starting_again_is_waited_for(
    hello_image: str, engine_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "WAITS", (1,) * 20)
    starting = threading.Timer(2, lambda: engine_elsewhere.symlink_to("/var/run/docker.sock"))
    starting.start()
    found = containers.inspect_image(hello_image)
    starting.join()
    assert found
    containers.check_image(hello_image, found.id)
    assert containers.inspect_image("localhost/no-such-image:1") is None


def test_an_engine_that_is_away_at_a_launch_is_waited_for_and_then_named_once_for_all_tasks(
    own_service: Service, tmp_path: Path
) -> None:
    engine, away = tmp_path / "docker", tmp_path / "away"
    engine.write_text(f'#!/bin/sh\n[ ! -e {away} ] || {{ echo away >&2; exit 1; }}\nexec {containers.engine()} "$@"\n')
    engine.chmod(0o755)
    own_service.environment["ENGINE"] = str(engine)
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("idle", INPUTS, [], script("")))
    away.touch()
    waits = session.launch(task("waits", "idle"))
    time.sleep(2)
    away.unlink()
    assert states(session.wait(waits)) == {"waits": "complete/succeeded"}
    away.touch()
    refused = session.http.post(f"{API}/tasks", json=definition("other", INPUTS, [], script("")))
    gone = session.run(task("one", "idle"), task("two", "idle"))
    note = f"container engine: expected an answer about the image '{IMAGE}', found: away"
    assert (refused.status_code, refused.json()["message"].endswith(note)) == (400, True)
    assert {one["note"] for one in gone["tasks"]} == {note}
    away.unlink()
