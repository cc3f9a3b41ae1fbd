"""The service itself: tokens, owners, what it answers to nonsense, its end and its new start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from gbdx_platform import settings
from gbdx_platform.local_s3 import free_ports
from gbdx_platform.service import bound
from gbdx_platform.settings import read_credentials
from live_service import API, Service, Session, definition, port, script, serving, states, task
from waiting import wait_until

PORTS = ([port("a", "string", required=False)], [])
NO_STORAGE = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1"}


def test_the_heartbeat_needs_no_token_and_everything_else_does(service: Service) -> None:
    http = service.client("not-a-token")
    assert http.get(f"{API}/heartbeat").json() == "ok"
    schema = http.get("/openapi.json").json()
    open_paths = {f"{API}/heartbeat", "/auth/v1/oauth/token/"}
    for path, methods in schema["paths"].items():
        for method in methods.keys() if path not in open_paths else ():
            answer = http.request(method, path.replace("{", "").replace("}", ""), json={})
            assert (answer.status_code, answer.json()["status"]) == (401, 401), (method, path)


def test_tokens_come_for_a_password_and_for_a_refresh_token(service: Service) -> None:
    http = service.client()
    known = json.loads((service.state / "credentials.json").read_text())
    form = {"grant_type": "password", "username": known["username"], "password": known["password"]}
    first = http.post("/auth/v1/oauth/token/", data=form).json()
    assert first.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert first["expires_in"] == 7 * 24 * 3600
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = http.post("/auth/v1/oauth/token/", data=form).json()
    assert service.client(second["access_token"]).get(f"{API}/tasks").status_code == 200
    assert service.client(first["refresh_token"]).get(f"{API}/tasks").status_code == 401
    wrong = http.post("/auth/v1/oauth/token/", data={"grant_type": "password", "username": "gbdx", "password": "no"})
    assert (wrong.status_code, wrong.json()["status"]) == (401, 401)


def test_a_grant_of_another_type_is_refused_with_400(service: Service) -> None:
    known = json.loads((service.state / "credentials.json").read_text())
    for grant_type in ("client_credentials", "Password"):
        form = {"grant_type": grant_type, "username": known["username"], "password": known["password"]}
        answer = service.client().post("/auth/v1/oauth/token/", data=form)
        expected = {"status": 400, "message": "grant_type: expected password or refresh_token"}
        assert (answer.status_code, answer.json()) == (400, expected)


def test_secrets_are_in_no_log_and_their_files_are_closed(service: Service, session: Session) -> None:
    known = json.loads((service.state / "credentials.json").read_text())
    keys = session.http.get("/s3creds/v1/prefix?duration=36000").json()
    log = (service.state / "serve.log").read_text()
    for secret in (known["token"], known["password"], keys["S3_secret_key"]):
        assert secret not in log
    for name in ("credentials.json", "s3/identities.json"):
        assert stat.S_IMODE((service.state / name).stat().st_mode) == 0o600
    assert keys["S3_session_token"] == ""


def test_another_account_can_not_see_cancel_or_read_a_workflow(session: Session, alice: Session, fresh: str) -> None:
    session.register(definition(fresh, *PORTS, script("print('mine')")))
    found = session.run(task("mine", fresh))
    where = f"{API}/workflows/{found['id']}"
    logs = f"{where}/tasks/{found['tasks'][0]['id']}/stdout"
    assert [alice.http.get(path).status_code for path in (where, f"{where}/events", logs)] == [404, 404, 404]
    assert alice.http.post(f"{where}/cancel").status_code == 404
    assert found["id"] not in alice.http.get(f"{API}/workflows").json()["workflows"]


@pytest.mark.parametrize("format", ["cwl", "eoap"])
def test_another_account_can_export_neither_a_workflow_nor_a_private_task(
    session: Session, alice: Session, fresh: str, format: str
) -> None:
    session.register(definition(fresh, *PORTS, script("print('mine')")))
    places = [f"{API}/workflows/{session.launch(task('mine', fresh))}", f"{API}/tasks/{fresh}"]
    for place, found in ((place, (session, alice)) for place in places):
        answers = [one.http.get(place, params={"format": format}) for one in found]
        assert [answer.status_code for answer in answers] == [200, 404], place
        assert "mine" not in answers[1].text


def test_another_account_can_neither_see_nor_cancel_a_batch(session: Session, alice: Session, fresh: str) -> None:
    session.register(definition(fresh, *PORTS, script("time.sleep(2)")))
    request = {"name": "mine", "tasks": [task("one", fresh, {"a": "{{n}}"})]}
    request["batch_values"] = [{"name": "n", "values": ["1", "2"]}]
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    place = f"{API}/batch_workflows/{batch['batch_workflow_id']}"
    refused = [alice.http.get(place), alice.http.post(f"{place}/cancel")]
    assert [answer.status_code for answer in refused] == [404, 404]
    assert [answer.json().keys() for answer in refused] == [{"status", "message"}] * 2
    for entry in batch["workflows"]:
        assert session.wait(entry["workflow_id"])["state"]["event"] == "succeeded"


def test_an_account_reads_and_keeps_nothing_below_anothers_prefix(
    session: Session, alice: Session, hello: str, fresh: str
) -> None:
    secret = session.put(f"{fresh}/in/secret.txt")
    found = alice.run(task("thief", hello, {"data_in": secret}))
    assert states(found) == {"thief": "complete/failed"}
    assert "expected a key below your prefix alice/" in found["tasks"][0]["note"]
    with pytest.raises(Exception, match=r"AccessDenied|Forbidden|403"):
        alice.storage.client.get_object(Bucket=alice.bucket, Key=f"{session.prefix}/{fresh}/in/secret.txt")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'{"tasks": []}', b'{"name": "\\u0000", "tasks": [{"name": 1}]}', b"\xff", b"[" * 5000],
)
def test_nonsense_is_answered_with_400_in_the_contracts_form(session: Session, body: bytes) -> None:
    for path in ("tasks", "workflows", "batch_workflows"):
        answer = session.http.post(f"{API}/{path}", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["status"]) == (400, 400), (path, answer.text)


def test_a_request_of_another_shape_is_told_what_was_expected_and_found(session: Session) -> None:
    body = {
        "name": "x" * 201,
        "tasks": [
            {"name": "", "timeout": 0, "inputs": [{"name": "a", "value": 5}]},
            {"name": "b", "taskType": "t", "timeout": 172800, "inputs": {}, "impersonation_allowed": 3},
            {"name": "c", "taskType": 1, "timeout": 1.5},
            4,
        ],
        "batch_values": [{"name": "n", "values": ["x"] * 5001}],
    }
    answer = session.http.post(f"{API}/workflows", json=body)
    assert {f"{one['key']}: expected {one['expected']}, found {one['found']}" for one in answer.json()["errors"]} == {
        f'name: expected at most 200 characters, found "{"x" * 79}... (203 characters)',
        'tasks[0].name: expected at least 1 characters, found ""',
        "tasks[0].taskType: expected a value, found nothing: the key is missing",
        "tasks[0].timeout: expected more than 0, found 0",
        "tasks[0].inputs[0].value: expected a string, true or false, found 5",
        "tasks[1].timeout: expected less than 172800, found 172800",
        "tasks[1].inputs: expected a list, found {}",
        "tasks[1].impersonation_allowed: expected true or false, found 3",
        "tasks[2].taskType: expected a string, found 1",
        "tasks[2].timeout: expected an integer, found 1.5",
        "tasks[3]: expected an object, found 4",
        "batch_values[0].values: expected a list of at most 5000, found 5001",
    }
    nothing = session.http.post(f"{API}/workflows", json={"name": "w", "tasks": []})
    assert nothing.json()["message"] == "tasks: expected a list of at least 1, found 0"


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("application/json", b'{"lookback_h": -1, "limit": 1001}',
         "body.lookback_h: expected at least 0.0, found -1; body.limit: expected at most 1000, found 1001"),
        ("application/json", b'{"lookback_h": "x"}', 'body.lookback_h: expected a number, found "x"'),
        ("application/json", b"[", "body[1]: expected JSON, found Expecting value"),
        ("text/plain", b"\xff", "body: expected an object, found \"b'\\\\xff'\""),
    ],
)  # fmt: skip
def test_a_parameter_that_does_not_fit_is_told_likewise(session: Session, kind: str, body: bytes, message: str) -> None:
    answer = session.http.post(f"{API}/workflows/search", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_a_token_that_is_wrong_is_not_called_none(service: Service) -> None:
    http = service.client("wrong")
    for found in ("one that is unknown or has expired", "none"):
        answer = http.get(f"{API}/tasks")
        assert (answer.status_code, answer.json()["message"]) == (401, f"expected a valid bearer token, found {found}")
        http.headers.pop("Authorization", None)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(session: Session) -> None:
    answer = session.http.post(f"{API}/tasks", content=b" " * (16 * 2**20 + 1))
    assert answer.status_code == 413


def test_no_service_without_tls_on_another_address_than_the_loopback(tmp_path: Path) -> None:
    refused = Service(tmp_path).command("serve", "--host", "0.0.0.0", check=False)
    assert refused.returncode == 2
    assert "host: expected a loopback address or a certificate, found 0.0.0.0 without TLS" in refused.stderr


def test_a_service_without_tls_on_another_address_serves_when_that_is_asked_for(tmp_path: Path) -> None:
    refused = Service(tmp_path).command("serve", "--host", "127.0.0.2", check=False)
    assert (refused.returncode, "found 127.0.0.2 without TLS" in refused.stderr) == (2, True)
    with serving(tmp_path, "--host", "127.0.0.2", "--plain-http", **NO_STORAGE) as running:
        assert read_credentials(tmp_path)["url"].startswith("http://127.0.0.2:")
        assert running.client().get(f"{API}/tasks").status_code == 200


def test_a_service_on_the_loopback_of_ipv6_leaves_an_address_that_works(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "::1", **NO_STORAGE) as running:
        assert read_credentials(tmp_path)["url"].startswith("http://[::1]:")
        assert running.client().get(f"{API}/heartbeat").json() == "ok"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_stopped_as_soon_as_it_says_where_it_is_ends_in_an_orderly_way(
    signum: signal.Signals, tmp_path: Path
) -> None:
    service = Service(tmp_path)
    line = service.command_line("serve", "--port", str(free_ports(1)[0]))
    # In the background of a shell, SIGINT comes ignored.
    begun = ["env", "--default-signal=INT", *line]
    with subprocess.Popen(begun, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"gbdx-platform: http://127.0.0.1:")
        process.send_signal(signum)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (0 if signum == signal.SIGTERM else 130)
    assert b"Traceback" not in said, said
    assert b"never awaited" not in said, said


def test_a_second_service_on_the_same_state_is_refused(service: Service) -> None:
    refused = service.command("serve", "--port", "1", check=False)
    assert (refused.returncode, "found another service on it" in refused.stderr) == (2, True)


BROKEN_STATES = [
    ({"ENGINE": "/nonexistent"}, {}, "container engine: expected one that answers, tried /nonexistent"),
    *(
        ({name: "two"}, {}, f"{name}: expected a number above 0, of six digits at most, found 'two'")
        for name in ("GBDX_SLOTS", "GBDX_WORKFLOWS", "GBDX_KEEP_DAYS", "GBDX_PULL_TIMEOUT", "GBDX_TASK_PROCESSES")
    ),
    *(
        ({name: "8 GB"}, {}, f"{name}: expected a size such as 512m or 8g, found '8 GB'")
        for name in ("GBDX_TASK_MEMORY", "GBDX_TASK_DISK", "GBDX_TASK_TMP")
    ),
    ({"GBDX_PULL_TIMEOUT": "1000000"}, {}, "GBDX_PULL_TIMEOUT: expected .* of six digits at most, found '1000000'"),
    ({"DATABASE_URL": "nonsense"}, {}, r"database: expected platform\.sqlite .* found: Could not parse"),
    ({}, {"platform.sqlite": "x" * 4096}, r"database: expected .* to be one, found: file is not a database"),
    ({}, {"credentials.json": "{"}, r"credentials\.json: expected what `serve` wrote, found another text"),
    ({}, {"credentials.json": "[]"}, r"credentials\.json: expected what `serve` wrote, found another text"),
]


@pytest.mark.parametrize(("environment", "files", "sentence"), BROKEN_STATES)
def test_a_start_that_can_not_be_is_refused_with_a_sentence(
    environment: dict[str, str], files: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    refused = Service(tmp_path, **environment).command("serve", check=False)
    assert refused.returncode == 2, refused.stderr
    assert re.search(sentence, refused.stderr), refused.stderr
    assert refused.stderr.count("\n") == 1, refused.stderr


def test_the_service_listens_with_a_socket_whose_answers_asyncio_does_not_hold_back(tmp_path: Path) -> None:
    # asyncio sets TCP_NODELAY on sockets that name their protocol, and on no others.
    with bound(settings.load(str(tmp_path), port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_port_that_another_program_has_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused = Service(tmp_path).command("serve", "--port", port, check=False)
    expected = f"address: expected 127.0.0.1, port {port}, to be this machine's and free, found: Address already in use"
    assert (refused.returncode, refused.stderr) == (2, f"{expected}\n")


def test_a_folder_of_state_is_closed_to_others_and_one_that_is_everybodys_is_refused(
    hello_image: str, tmp_path: Path
) -> None:
    state = tmp_path / "a, b%41#c?d"  # a path that lists of folders would take for two, and URLs for another
    state.mkdir(mode=0o755)
    with serving(state) as running:
        session = Session(running.client())
        session.register(definition("said", *PORTS, script("print('said')")))
        assert states(session.run(task("once", "said"))) == {"once": "complete/succeeded"}
    assert (stat.S_IMODE(state.stat().st_mode), (state / "platform.sqlite").is_file()) == (0o700, True)
    state.chmod(0o1777)
    refused = Service(state).command("serve", check=False)
    expected = f"state: expected a folder of your own, found {state}, which everybody may write to\n"
    assert (refused.returncode, refused.stderr) == (2, expected)
    assert stat.S_IMODE(state.stat().st_mode) == 0o1777


def test_local_object_storage_that_dies_comes_back_with_all_it_had_and_workflows_wait_for_it(
    own_service: Service,
) -> None:
    own_service.environment["GBDX_WORKFLOWS"] = "2"
    own_service.start()
    session = Session(own_service.client())
    before = session.http.get("/s3creds/v1/prefix").json()
    copy = "import shutil; time.sleep(1); shutil.copytree(work + 'input/data', work + 'output/out')"
    session.register(definition("copies", [port("data")], [port("out")], script(copy)))
    url = session.put("in/a.txt", b"kept")
    folder = own_service.state / "s3"
    # More often than files of its log are kept.
    for number in range(3):
        keeps = session.launch(task("keeps", "copies", {"data": url}, {"out": f"keeps/{number}"}))
        wait_until(lambda keeps=keeps: "started" in session.events(keeps, "keeps"))
        [dead] = own_service.object_stores()
        os.kill(int(dead), signal.SIGKILL)
        fetches = session.launch(task("fetches", "copies", {"data": url}, {"out": f"fetches/{number}"}))
        for workflow, name in ((keeps, "keeps"), (fetches, "fetches")):
            found = session.wait(workflow)
            assert states(found) == {name: "complete/succeeded"}, found["tasks"][0]["note"]
            assert session.text(f"{name}/{number}/a.txt") == "kept"
        assert dead not in own_service.object_stores()
    assert session.http.get("/s3creds/v1/prefix").json() == before
    assert (own_service.state / "serve.log").read_text().count("local S3 had ended and was started again") == 3
    assert len(own_service.object_stores()) == 1
    assert (own_service.stop(), own_service.object_stores()) == (0, [])
    levels = [path.name.split(".log.")[1].split(".")[0] for path in (folder / "logs").glob("weed.*.log.*")]
    assert 0 < max(levels.count(level) for level in levels) <= 2, levels
