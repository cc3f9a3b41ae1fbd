"""The command line as a person uses it: what it prints, its exit codes, its help."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gbdx_platform.command_line import COMMANDS, arguments_parser
from gbdx_platform.database import TOKENS, now
from gbdx_platform.settings import read_credentials
from live_service import API, ROOT, Service, Session, definition, port, script, states, task
from waiting import wait_until


def test_the_command_line_goes_the_whole_way(service: Service, session: Session, fresh: str, tmp_path: Path) -> None:
    file, source = tmp_path / "definition.json", tmp_path / "in"
    file.write_text(
        json.dumps(
            definition(
                fresh,
                [port("data")],
                [port("out")],
                script(
                    "print('here'); os.makedirs(work + 'output/out')\n"
                    "open(work + 'output/out/n.txt', 'w').write(str(os.listdir(work + 'input/data')))"
                ),
            )
        )
    )
    source.mkdir()
    (source / "a.txt").write_text("a")
    assert service.command("register", str(file)).stdout == f"{fresh} successfully registered.\n"
    assert fresh in service.command("list").stdout.split()
    assert json.loads(service.command("describe", fresh).stdout)["name"] == fresh
    url = service.command("upload", str(source), f"{fresh}/in").stdout.strip()
    (tmp_path / "workflow.json").write_text(
        json.dumps({"name": "w", "tasks": [task("one", fresh, {"data": url}, {"out": f"{fresh}/out"})]})
    )
    launched = service.command("launch", str(tmp_path / "workflow.json"), "--watch").stdout
    workflow = launched.split()[0]
    assert re.search(r"complete/succeeded", launched)
    assert "complete/succeeded" in service.command("status", workflow).stdout
    assert service.command("logs", workflow).stdout == "--- one stdout\nhere\n\n--- one stderr\n<empty>\n"
    assert service.command("cancel", workflow).stdout == f"{workflow}: canceling what has not ended\n"
    service.command("download", f"{fresh}/out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "n.txt").read_text() == "['a.txt']"
    assert json.loads(service.command("export", fresh, "--format", "eoap").stdout)["cwlVersion"] == "v1.2"
    assert json.loads(service.command("export", workflow).stdout)["class"] == "Workflow"
    assert "export AWS_ENDPOINT_URL_S3=http://127.0.0.1:" in service.command("client-env").stdout
    assert service.command("delete", fresh).stdout == f"{fresh} successfully deleted.\n"


def test_a_refusal_is_a_line_for_each_problem_and_exit_code_2(
    service: Service, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text(
        json.dumps({"name": "x", "tasks": [{"name": "a", "taskType": "ghost"}, {"name": "a", "taskType": "ghost"}]})
    )
    refused = service.command("launch", str(tmp_path / "bad.json"), check=False)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        'tasks[0].taskType: expected a registered task that you may use, found "ghost"',
        'tasks[1].name: expected a name that no other task has, found "a"',
        'tasks[1].taskType: expected a registered task that you may use, found "ghost"',
    ]


@pytest.fixture
def echo(session: Session, fresh: str) -> str:
    """A task of one string, registered; `fail` fails, `wait` waits."""
    text = (
        "said = json.load(open(work + 'input/ports.json'))['text']; time.sleep(30 * (said == 'wait'))\n"
        "if said == 'fail': status = 'failed'"
    )
    return session.register(definition(fresh, [port("text", "string")], [], script(text)))


def workflow_file(folder: Path, kind: str, text: str, **more: object) -> str:
    """A file with a workflow of one task."""
    path = folder / "workflow.json"
    path.write_text(json.dumps({"name": "w", "tasks": [task("one", kind, {"text": text})], **more}))
    return str(path)


def test_a_batch_is_launched_watched_and_shown(service: Service, echo: str, tmp_path: Path) -> None:
    lists = [{"name": "text", "values": ["a", "b"]}]
    file = workflow_file(tmp_path, echo, "{{text}}", batch_values=lists, name="[/red]")
    launched = service.command("launch", file, "--watch")
    batch = launched.stdout.split()[0]
    assert f"batch {batch}" in launched.stdout
    assert "[/red]" in launched.stdout  # a name is text, no markup
    shown = service.command("status", batch).stdout
    assert (len(re.findall("│ succeeded", shown)), len(re.findall("2 succeeded", shown))) == (2, 1)


def test_a_workflow_that_fails_ends_the_command_with_1(service: Service, echo: str, tmp_path: Path) -> None:
    done = service.command("launch", workflow_file(tmp_path, echo, "fail"), "--watch", check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "complete/failed" in done.stdout


def test_a_workflow_and_a_batch_are_canceled(service: Service, session: Session, echo: str, tmp_path: Path) -> None:
    one = service.command("launch", workflow_file(tmp_path, echo, "wait")).stdout.strip()
    lists = [{"name": "text", "values": ["wait", "wait"]}]
    batch = service.command("launch", workflow_file(tmp_path, echo, "{{text}}", batch_values=lists)).stdout.strip()
    for identifier in (one, batch):
        assert service.command("cancel", identifier).stdout == f"{identifier}: canceling what has not ended\n"
    assert states(session.wait(one)) == {"one": "complete/canceled"}
    found = session.http.get(f"{API}/batch_workflows/{batch}").json()["workflows"]
    assert {session.wait(entry["workflow_id"])["state"]["event"] for entry in found} == {"canceled"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["describe", "ghost"], "task 'ghost' is not registered"),
        (["delete", "ghost"], "task 'ghost' is not registered"),
        (["status", "123"], "123: expected the id of a workflow or a batch of yours, found none that has it"),
        (
            ["status", "123", "--watch"],
            "123: expected the id of a workflow or a batch of yours, found none that has it",
        ),
        (["cancel", "123"], "123: expected the id of a workflow or a batch of yours, found none that has it"),
        (["status", "../tasks"], "../tasks: expected the id of a workflow or a batch of yours, found none that has it"),
        (["describe", ""], "/workflows/v1/tasks/, found 307"),
        (["logs", "123"], "123: expected the id of a workflow or a batch of yours, found none that has it"),
        (["export", "ghost"], "task 'ghost' is not registered"),
        (["launch", "missing.json"], "missing.json: expected a file, found none"),
        (["launch", "ci"], "ci: expected a file, found Is a directory"),
        (["serve", "--certificate", "missing.pem"], "No such file or directory: 'missing.pem'"),
        (
            ["register", "pyproject.toml"],
            "pyproject.toml: expected JSON, found Expecting value: line 1 column 1 (char 0)",
        ),
        (["upload", "missing", "a"], "missing: expected a file, or a folder with files in it, found none"),
        (
            ["upload", "ci", "../other"],
            "key '../other': expected a relative path without '..', found one that leaves its",
        ),
        (["download", "nothing/here", "never"], "nothing/here': expected at least one object there, found none"),
        (["download", "nothing/here", "README.md"], "README.md: expected a folder, found a file"),
        (["download", "../alice", "never"], "key '../alice': expected a relative path without '..', found one that"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_a_sentence_and_exit_code_2(arguments: list[str], said: str, service: Service) -> None:
    done = service.command(*arguments, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("never").exists()


def elsewhere(service: Service, **environment: str) -> str:
    """What `list` says in another environment, in which it must fail."""
    line = service.command_line("list")
    done = subprocess.run(line, env=service.environment | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    return done.stderr.strip()


def test_a_service_that_is_away_a_wrong_token_and_none_at_all_are_sentences(service: Service, tmp_path: Path) -> None:
    nowhere, own = "http://127.0.0.1:9", read_credentials(service.state)["url"]
    needed = "service: expected one that was started with `gbdx-platform serve`, or GBDX_URL and GBDX_TOKEN, found "
    found = elsewhere(service, GBDX_URL=nowhere, GBDX_TOKEN="x")
    assert found == f"service: expected an answer at {nowhere}, found [Errno 111] Connection refused"
    assert (
        elsewhere(service, GBDX_URL=own, GBDX_TOKEN="x")
        == "expected a valid bearer token, found one that is unknown or has expired"
    )
    found = elsewhere(service, GBDX_URL="http://127.0.0.1:8725x", GBDX_TOKEN="x")
    address = "'http://127.0.0.1:8725x'"
    assert found == f"GBDX_URL: expected the address of a service, found {address}: Invalid port: '8725x'"
    found = elsewhere(service, GBDX_URL=f"http://{'a' * 64}.example", GBDX_TOKEN="x")
    assert found.startswith(f"service: expected an answer at http://{'a' * 64}.example, found ")
    for token in ("tök", "a\nb"):
        found = elsewhere(service, GBDX_URL=own, GBDX_TOKEN=token)
        assert found == "GBDX_TOKEN: expected one line of ASCII text, found other characters"
    assert elsewhere(service, GBDX_URL=nowhere) == f"{needed}no token for {nowhere}"
    assert elsewhere(Service(tmp_path)) == f"{needed}neither"


def test_a_slash_at_the_end_of_an_address_changes_nothing(service: Service) -> None:
    own = read_credentials(service.state)["url"]
    line = service.command_line("list")
    done = subprocess.run(line, env={**service.environment, "GBDX_URL": f"{own}/"}, capture_output=True, check=False)
    assert done.returncode == 0


def test_an_upload_to_a_name_that_ends_with_a_slash_lies_in_that_folder(
    service: Service, session: Session, fresh: str, tmp_path: Path
) -> None:
    (tmp_path / "a b.txt").write_text("a")
    url = f"s3://{session.bucket}/{session.prefix}/{fresh}"
    assert service.command("upload", str(tmp_path), f"{fresh}/folder/").stdout == f"{url}/folder\n"
    assert service.command("upload", str(tmp_path / "a b.txt"), f"{fresh}/file/").stdout == f"{url}/file/a b.txt\n"
    assert session.names(fresh) == ["file/a b.txt", "folder/a b.txt"]


def test_status_without_an_id_lists_the_newest_workflows(service: Service, echo: str, tmp_path: Path) -> None:
    launched = [
        service.command("launch", workflow_file(tmp_path, echo, "a", name=name), "--watch").stdout.split()[0]
        for name in ("the first", "bell\a")
    ]
    newest = [line.split(maxsplit=3) for line in service.command("status").stdout.splitlines()[:2]]
    assert [line[0] for line in newest] == launched[::-1]
    assert [line[2:] for line in newest] == [["complete/succeeded", "bell"], ["complete/succeeded", "the first"]]
    refused = service.command("status", "--watch", check=False)
    said = "--watch: expected the id of a workflow or a batch, found none\n"
    assert (refused.returncode, refused.stderr) == (2, said)


def test_logs_and_export_of_a_batch_and_logs_of_no_task_of_the_workflow_are_sentences(
    service: Service, echo: str, tmp_path: Path
) -> None:
    lists = [{"name": "text", "values": ["a"]}]
    batch = service.command("launch", workflow_file(tmp_path, echo, "{{text}}", batch_values=lists)).stdout.strip()
    for command in ("logs", "export"):
        said = service.command(command, batch, check=False).stderr
        assert said == f"{batch}: expected a workflow, found a batch; `status` lists its workflows\n"
    workflow = service.command("launch", workflow_file(tmp_path, echo, "a"), "--watch").stdout.split()[0]
    said = service.command("logs", workflow, "two", check=False).stderr
    assert said == "two: expected a task of the workflow (one), found none of that name\n"


def test_a_reader_that_has_enough_is_no_error(service: Service, echo: str, tmp_path: Path) -> None:
    # `true` ends before anything is printed.
    line = ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "bash", *service.command_line("describe", echo)]
    done = subprocess.run(line, env=service.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_watch_that_is_interrupted_leaves_the_workflow_running(
    service: Service, session: Session, echo: str, tmp_path: Path
) -> None:
    # In the background of a shell, SIGINT comes ignored.
    line = [
        "env",
        "--default-signal=INT",
        *service.command_line("launch", workflow_file(tmp_path, echo, "wait"), "--watch"),
    ]
    process = subprocess.Popen(line, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    workflow = process.stdout.readline().strip()
    wait_until(lambda: states(session.http.get(f"{API}/workflows/{workflow}").json()) == {"one": "running/started"})
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert workflow in rest
    assert states(session.http.get(f"{API}/workflows/{workflow}").json()) == {"one": "running/started"}
    service.command("cancel", workflow)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused_before_anything_starts(port: str, tmp_path: Path) -> None:
    done = Service(tmp_path).command("serve", f"--port={port}", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"--port: expected a number from 1 to 65535, found '{port}'")
    assert list(tmp_path.iterdir()) == []


def test_every_command_says_what_it_does_and_gives_an_example_that_it_takes() -> None:
    parser = arguments_parser()
    for name, (function, parameters, example) in COMMANDS.items():
        assert function.__doc__
        assert [flag for flag, settings in parameters if not settings.get("help")] == []
        assert parser.parse_args(example.split("   #")[0].split()).command == name


@pytest.fixture
def empty_service(hello_image: str, tmp_path: Path) -> Iterator[Service]:
    """A service of its own, with nothing registered."""
    running = Service(tmp_path / "state")
    running.state.mkdir(mode=0o700)
    running.start()
    yield running
    assert running.stop() == 0


def test_register_sh_builds_and_registers_at_the_service_that_the_environment_names(empty_service: Service) -> None:
    known = read_credentials(empty_service.state)
    environment = {**empty_service.environment, "GBDX_URL": known["url"], "GBDX_TOKEN": known["token"]}
    line = [ROOT / "gbdx-platform" / "register.sh", "hello-gbdx"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("hello-gbdx successfully registered.\n")
    registered = json.loads(empty_service.command("describe", "hello-gbdx").stdout)
    assert registered["containerDescriptors"][0]["properties"]["image"] == "hello-gbdx:0.1.0"
    again = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 2
    assert again.stderr == "task 'hello-gbdx:0.1.0' is registered already: raise the definition's version\n"


def test_a_token_that_has_expired_is_replaced_by_another_for_its_password(empty_service: Service) -> None:
    known, listing = read_credentials(empty_service.state), empty_service.command_line("list")
    gbdxtools = [sys.executable, "-c", "from gbdxtools import Interface; print(Interface().task_registry.list())"]
    login = {"GBDX_TOKEN": known["token"], "GBDX_USERNAME": "gbdx", "GBDX_PASSWORD": known["password"]}

    def tried(line: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**empty_service.environment, "GBDX_STATE": str(empty_service.state), **more}
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)

    for line, environment in ((listing, login), (listing, {}), (gbdxtools, {})):
        empty_service.store().write(TOKENS.update().values(expires=now() - 1))
        assert tried(line, **environment).returncode == 0, environment
    renewed = read_credentials(empty_service.state)
    assert renewed == {**known, "token": renewed["token"]}
    assert empty_service.client(renewed["token"]).get(f"{API}/tasks").status_code == 200
    refused = tried(listing, GBDX_TOKEN=known["token"])
    assert (refused.returncode, refused.stderr) == (
        2, "expected a valid bearer token, found one that is unknown or has expired\n"
    )  # fmt: skip
    empty_service.store().write(TOKENS.update().values(expires=now() - 1))
    environment = tried(empty_service.command_line("client-env")).stdout
    assert f"export GBDX_TOKEN={read_credentials(empty_service.state)['token']}\n" in environment
    assert renewed["token"] not in environment


def test_a_new_password_of_the_default_account_is_the_one_that_was_shown(empty_service: Service) -> None:
    password = empty_service.command("account", "gbdx").stdout.split("password ")[1].split()[0]
    assert empty_service.command("list").returncode == 0
    assert empty_service.stop() == 0
    empty_service.start()
    form = {"grant_type": "password", "username": "gbdx", "password": password}
    assert empty_service.client().post("/auth/v1/oauth/token/", data=form).status_code == 200
    assert read_credentials(empty_service.state)["password"] == password
