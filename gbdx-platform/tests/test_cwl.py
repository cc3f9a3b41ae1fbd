"""Definitions and workflows as CWL: the round trip, documents that other runners take, names that CWL doesn't allow."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cwl_runner import cwltool, run
from gbdx_platform import cwl_tool
from gbdx_platform.cwl_workflow import Step, plan
from gbdx_platform.task_definition import container_properties
from live_service import API, IMAGE, ROOT, Session, definition, port, script, task

DEFINITIONS = sorted(ROOT.glob("*/*_definition.json"))


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.parent.name)
def test_a_definition_comes_back_from_cwl_as_it_was(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert cwl_tool.definition_of(json.loads(json.dumps(cwl_tool.tool(found)))) == found


def test_a_document_of_others_has_no_definition() -> None:
    with pytest.raises(
        ValueError, match="gbdx:definition: expected the definition that the tool was made of, found none"
    ):
        cwl_tool.definition_of({"class": "CommandLineTool"})


def test_ids_are_what_cwl_allows_and_no_two_are_equal() -> None:
    assert cwl_tool.cwl_ids(["a b", "a_b", "1", "a/b", "plain"]) == {
        "a b": "a_b", "a_b": "a_b_2", "1": "_1", "a/b": "a_b_3", "plain": "plain"
    }  # fmt: skip


def test_dollars_and_backslashes_of_a_command_are_no_expressions(session: Session, fresh: str) -> None:
    text = "print('$(inputs) ${x} \\\\ \\\\$(y) \"quoted\"')"
    session.register(definition(fresh, [port("a", "string", required=False)], [], script(text)))
    found = session.run(task("prints", fresh))
    printed = session.http.get(f"{API}/workflows/{found['id']}/tasks/prints/stdout").text
    assert printed == '$(inputs) ${x} \\ \\$(y) "quoted"\n', found


@pytest.mark.parametrize("text", ["C:\\new \\\\ path", "$(inputs) ${x} \\ \\$(y)", '"quoted" größe\n\t', ""])
def test_a_string_input_reaches_the_task_as_it_is(session: Session, fresh: str, text: str) -> None:
    same = "strings['b'] = json.load(open(work + 'input/ports.json'))['a']; assert len('a\\\\b') == 3"
    session.register(definition(fresh, [port("a", "string")], [port("b", "string")], script(same)))
    found = session.run(task("one", fresh, {"a": text}), task("two", fresh, {"a": ("one:b",)}))
    assert [one["outputs"][0]["value"] for one in found["tasks"]] == [text, text], found


def test_names_of_ports_may_be_any_and_an_input_and_an_output_may_share_one(session: Session, fresh: str) -> None:
    text = "strings['größe #1'] = json.load(open(work + 'input/ports.json'))['größe #1'] + '!'"
    session.register(definition(fresh, [port("größe #1", "string")], [port("größe #1", "string")], script(text)))
    first, second = task("a b", fresh, {"größe #1": "1"}), task("a_b", fresh, {"größe #1": ("a b:größe #1",)})
    found = session.run(first, second)
    assert [one["outputs"][0]["value"] for one in found["tasks"]] == ["1!", "1!!"], found


def test_an_exported_workflow_runs_in_cwltool_alone_with_equal_outputs(
    session: Session, hello: str, tmp_path: Path, fresh: str
) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    fail = "status = 'failed'; reason = 'no bands'"
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], script(fail)))
    found = session.run(
        task("first", hello, {"data_in": data}),
        task("second", hello, {"data_in": ("first:data_out",), "message": "m"}, {"data_out": f"{fresh}/out"}),
        task("bad", fresh),
        task("after", hello, {"data_in": ("bad:out",)}),
    )
    document = session.http.get(f"{API}/workflows/{found['id']}", params={"format": "cwl"}).json()
    (tmp_path / "workflow.cwl").write_text(json.dumps(document))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    job: dict[str, Any] = {"first.data_in": {"class": "Directory", "path": str(tmp_path / "in")}, "second.message": "m"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    ran = cwltool("--outdir", tmp_path / "out", tmp_path / "workflow.cwl", tmp_path / "job.json")
    assert ran.returncode == 0, ran.stderr
    outputs = json.loads(ran.stdout)
    kept = {name: outputs[f"{name}.gbdx_status"] for name in ("first", "second", "bad", "after")}
    assert kept == {"first": "success", "second": "success", "bad": "failed", "after": None}
    text = (tmp_path / "out" / "second.data_out" / "out.txt").read_text()
    assert text == session.text(f"{fresh}/out/out.txt") == "out.txt\nm"


def test_an_exported_task_is_valid_cwl_and_stops_its_command_at_the_timeout(
    session: Session, tmp_path: Path, fresh: str
) -> None:
    slow = copy.deepcopy(
        definition(fresh, [port("a", "string", required=False)], [port("out")], script("time.sleep(60)"))
    )
    slow["properties"]["timeout"] = 2
    session.register(slow)
    document = session.http.get(f"{API}/tasks/{fresh}", params={"format": "cwl"}).json()
    assert document["requirements"]["DockerRequirement"] == {"dockerPull": IMAGE, "dockerOutputDirectory": "/mnt/work"}
    assert document["requirements"]["ToolTimeLimit"] == {"timelimit": 62}
    (tmp_path / "task.cwl").write_text(json.dumps(document))
    ran = cwltool("--outdir", tmp_path / "out", tmp_path / "task.cwl")
    assert json.loads(ran.stdout)["gbdx_status"] == "timedout", ran.stderr


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("os.makedirs(work + 'output/folder'); strings['word'] = ''", "success"),
        ("os.makedirs(work + 'output/folder')", "broken contract"),
        ("strings['word'] = 'w'", "broken contract"),
        ("os.makedirs(work + 'output/folder'); strings = None", "broken contract"),
        ("os.makedirs(work + 'output/folder'); strings['word'] = '\\U0001f6f0 \\0'", "success"),
        ("os.makedirs(work + 'output/folder'); strings = {'word': '', 'other': '\\ude00'}", "broken contract"),
        ("os.makedirs(work + 'output/folder'); strings = {'word': '\\ud83d'}", "broken contract"),
    ],
    ids=["all there", "no string", "no folder", "no object in ports.json", "a whole pair", "half a pair", "a half"],
)
def test_a_declared_output_that_is_missing_breaks_the_contract_in_cwltool_alone(
    tmp_path: Path, hello_image: str, text: str, status: str
) -> None:
    outputs = [port("folder"), port("word", "string"), port("more", required=False), port("part", multiplex=True)]
    document = cwl_tool.tool(definition("one", [port("a", "string", required=False)], outputs, script(text)), [])
    assert run(document, "one", {}, tmp_path)["gbdx_status"] == status


def test_an_unknown_format_is_refused(session: Session, hello: str) -> None:
    answer = session.http.get(f"{API}/tasks/{hello}", params={"format": "pdf"})
    assert (answer.status_code, answer.json()["message"][:28]) == (400, "format: expected one of gbdx")


def test_an_application_package_runs_in_cwltool_without_the_platforms_layout(
    session: Session, hello: str, tmp_path: Path
) -> None:
    package = session.http.get(f"{API}/tasks/{hello}", params={"format": "eoap"}).json()
    workflow, tool = package["$graph"]
    assert (workflow["class"], tool["class"], package["s:softwareVersion"]) == ("Workflow", "CommandLineTool", "0.1.0")
    assert tool["requirements"]["DockerRequirement"] == {"dockerPull": IMAGE}
    (tmp_path / "package.cwl").write_text(json.dumps(package))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    job = {"data_in": {"class": "Directory", "path": str(tmp_path / "in")}, "message": "from a package"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    ran = cwltool("--outdir", tmp_path / "out", f"{tmp_path / 'package.cwl'}#{hello}", tmp_path / "job.json")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "data_out" / "out.txt").read_text() == "a.txt\nfrom a package"


def test_a_failing_status_is_a_failing_exit_code_in_an_application_package(
    session: Session, tmp_path: Path, fresh: str
) -> None:
    fail = script("status = 'failed'; os.makedirs(work + 'output/out')")
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], fail))
    package = session.http.get(f"{API}/tasks/{fresh}", params={"format": "eoap"}).json()
    (tmp_path / "package.cwl").write_text(json.dumps(package))
    ran = cwltool("--outdir", tmp_path / "out", f"{tmp_path / 'package.cwl'}#{fresh}")
    assert ran.returncode == 1, ran.stderr


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.parent.name)
def test_what_the_service_runs_of_a_task_is_valid_without_extensions_of_cwl(
    tmp_path: Path, path: Path, bare: bool
) -> None:
    found = json.loads(path.read_text("utf-8"))
    request = task("one", found["name"], {port["name"]: "s3://bucket/key" for port in found["inputPortDescriptors"]})
    step = Step("one", found, request, "image", 60, container_properties(found).get("domain", "default"), [])
    (tmp_path / "workflow.cwl").write_text(json.dumps(plan([step], bare=bare).document))
    checked = cwltool("--validate", tmp_path / "workflow.cwl")
    assert checked.returncode == 0, checked.stdout + checked.stderr
