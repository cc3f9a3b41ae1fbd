"""Exported definitions and workflows: what a validator says of them, and what they do in cwltool alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ap_validator.app_package import AppPackage
from cwl_runner import run
from gbdx_platform import containers, cwl_tool, export
from gbdx_platform.cwl_workflow import Step
from gbdx_platform.task_definition import problems
from gbdx_platform.workflow_request import RequestError, parsed
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from live_service import API, IMAGE, PLATFORM, ROOT, Session, definition, port, script, task

DEFINITIONS = {
    path.parent.name: json.loads(path.read_text("utf-8")) for path in sorted(ROOT.glob("*/*_definition.json"))
}
EXAMPLES = sorted((PLATFORM / "examples").glob("*.json"))
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
NAMES = WORDS.map(lambda word: "".join(word.split()).translate(str.maketrans("", "", "/\\:")).lstrip(".") or "a")
PORTS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "type": st.sampled_from(["string", "directory", "image"])},
        optional={"required": st.booleans(), "description": WORDS, "multiplex": st.booleans()},
    ),
    max_size=4,
)


@st.composite
def definitions(draw: Any) -> dict[str, Any]:
    """A definition of either generation without errors."""
    container = {"type": "DOCKER", "command": shlex.join(["python", *draw(st.lists(WORDS, max_size=3))])}
    found = {
        "name": draw(NAMES),
        "inputPortDescriptors": draw(PORTS),
        "outputPortDescriptors": draw(PORTS),
        "containerDescriptors": [{**container, "properties": {"image": "python:3", "domain": draw(WORDS)}}],
    }
    found |= draw(st.sampled_from([{}, {"version": "1.2.3", "taskOwnerEmail": "owner@example.com"}]))
    found |= draw(st.fixed_dictionaries({}, optional={"description": WORDS, "properties": st.none()}))
    assume(not [problem for problem in problems(found) if problem.severity == "error"])
    return found


def steps_of(path: Path) -> tuple[str, list[Step]]:
    """An example workflow, bound to the repository's definitions."""
    request = parsed(json.loads(path.read_text("utf-8")))
    tasks = request["tasks"]
    return request["name"], [
        Step(t["name"], DEFINITIONS[t["taskType"].split(":")[0]], t, "", 7200, own_command=[]) for t in tasks
    ]


def validated(package: dict[str, Any], entry: str | None = None) -> dict[str, Any]:
    """What OGC's validator says of a package, hints too; it gets the JSON that a server would get."""
    return dict(AppPackage(json.loads(json.dumps(package)), entry).check_all())


@given(definitions())
def test_any_definition_comes_back_from_cwl_as_it_was(found: dict[str, Any]) -> None:
    document = cwl_tool.tool(found)
    assert cwl_tool.definition_of(yaml.safe_load(json.dumps(document))) == found


@settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(definitions())
def test_any_definition_is_exported_as_a_compliant_package(found: dict[str, Any]) -> None:
    verdict = validated(export.definition_as("eoap", found, []))
    assert verdict["valid"], verdict["issues"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_task_of_the_repository_is_exported_as_a_compliant_package(name: str) -> None:
    package = export.definition_as("eoap", DEFINITIONS[name], [])
    assert validated(package, name) == {"valid": True, "issues": [], "requirements": {}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_workflow_is_exported_as_a_compliant_package(path: Path) -> None:
    label, steps = steps_of(path)
    package = export.workflow_as("eoap", label, steps)
    assert validated(package, label) == {"valid": True, "issues": [], "requirements": {}}


@pytest.mark.parametrize("name", ["train-cnn", "label-chips"])
@pytest.mark.parametrize("format", ["cwl", "eoap"])
def test_a_card_is_asked_for_as_a_hint_so_that_a_plain_runner_takes_the_document(name: str, format: str) -> None:
    document = export.definition_as(format, DEFINITIONS[name], [])
    tool = document["$graph"][1] if format == "eoap" else document
    assert tool["hints"] == {"cwltool:CUDARequirement": {"cudaVersionMin": "10.0", "cudaComputeCapability": "3.0"}}
    assert "cwltool:CUDARequirement" not in tool["requirements"]


def test_the_example_chain_runs_as_a_package_with_the_strings_it_was_launched_with(
    session: Session, hello: str, tmp_path: Path
) -> None:
    session.put("hello/in/data_file.txt")
    request = json.loads((PLATFORM / "examples" / "hello_chain.json").read_text("utf-8"))
    found = session.run(*request["tasks"], name="hello-chain")
    package = session.http.get(f"{API}/workflows/{found['id']}", params={"format": "eoap"}).json()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data_file.txt").write_text("x")
    written = run(package, "hello-chain", {"first.data_in": tmp_path / "in"}, tmp_path)
    assert sorted(written) == ["first.data_out", "second.data_out"]
    for name in ("first", "second"):
        text = (tmp_path / "out" / f"{name}.data_out" / "out.txt").read_text()
        assert text == session.text(f"hello/{name}/out.txt")


@pytest.mark.parametrize("format", ["cwl", "eoap"])
def test_multiplex_ports_are_lists_in_an_export(session: Session, fresh: str, tmp_path: Path, format: str) -> None:
    inputs = [port("image", multiplex=True), port("label", "string", multiplex=True)]
    outputs = [port("part", multiplex=True), port("word", "string", multiplex=True)]
    text = (
        "seen = json.load(open(work + 'input/ports.json'))\n"
        "for number in '12':\n"
        "    os.makedirs(work + 'output/part_' + number); strings['word_' + number] = seen['label' + number].upper()\n"
        "    names = os.listdir(work + 'input/image' + number)\n"
        "    open(work + 'output/part_' + number + '/names.txt', 'w').write(' '.join(names))"
    )
    session.register(definition(fresh, inputs, outputs, script(text)))
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.tif").touch()
    document = session.http.get(f"{API}/tasks/{fresh}", params={"format": format}).json()
    given = {"image": [tmp_path / "north", tmp_path / "south"], "label": ["a", "b"]}
    written = run(document, fresh, given, tmp_path)
    assert written["word"] == ["A", "B"]
    assert [folder["basename"] for folder in written["part"]] == ["part_1", "part_2"]
    assert (tmp_path / "out" / "part_2" / "names.txt").read_text() == "south.tif"


@pytest.mark.parametrize(("format", "expected"), [("cwl", [True, "2", None]), ("eoap", ["true", "2", None])])
def test_a_string_output_that_is_no_string_in_ports_json_comes_out_as_one(
    session: Session, fresh: str, tmp_path: Path, format: str, expected: list[Any]
) -> None:
    outputs = [port("sure", "string"), port("count", "string"), port("other", "string", required=False)]
    inputs = [port("a", "string", required=False)]
    session.register(definition(fresh, inputs, outputs, script("strings.update(sure=True, count=2, other=None)")))
    document = session.http.get(f"{API}/tasks/{fresh}", params={"format": format}).json()
    written = run(document, fresh, {}, tmp_path)
    assert [written[name] for name in ("sure", "count", "other")] == expected


@pytest.mark.parametrize("format", ["cwl", "eoap"])
def test_a_workflow_with_a_boolean_for_a_string_runs_as_an_export(
    session: Session, fresh: str, tmp_path: Path, format: str
) -> None:
    same = "strings['b'] = str(json.load(open(work + 'input/ports.json'))['a']).lower()"
    session.register(definition(fresh, [port("a", "string")], [port("b", "string")], script(same)))
    found = session.run(task("one", fresh, {"a": True}), task("two", fresh, {"a": ("one:b",)}), name="sure")
    assert [one["outputs"][0]["value"] for one in found["tasks"]] == ["true", "true"]
    document = session.http.get(f"{API}/workflows/{found['id']}", params={"format": format}).json()
    written = run(document, "sure", {}, tmp_path)
    if format == "eoap":
        assert written == {"one.b": "true", "two.b": "true"}
    else:
        assert (written["one.gbdx_status"], written["two.gbdx_status"]) == ("success", "success")


def test_an_image_with_an_entry_point_runs_as_cwl_and_is_refused_as_a_package(
    session: Session, fresh: str, tmp_path: Path
) -> None:
    image = f"localhost/{fresh}:1"
    (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\nENTRYPOINT ["python", "-c"]\n')
    built = containers.call("build", "--tag", image, str(tmp_path))
    assert built.returncode == 0, built.stderr
    try:
        entry = definition(fresh, [port("a", "string", required=False)], [], shlex.join(shlex.split(script(""))[2:]))
        entry["containerDescriptors"][0]["properties"]["image"] = image
        session.register(entry)
        document = session.http.get(f"{API}/tasks/{fresh}", params={"format": "cwl"}).json()
        assert run(document, fresh, {}, tmp_path)["gbdx_status"] == "success"
        refused = session.http.get(f"{API}/tasks/{fresh}", params={"format": "eoap"})
        assert (refused.status_code, refused.json()["message"]) == (
            400,
            "containerDescriptors[0]: expected a command, and an image without ENTRYPOINT: in a package the command "
            f"has a shell around it, found an entry point in {image}, which CWL can't replace",
        )
    finally:
        containers.call("rmi", image)


def test_a_port_may_have_the_name_of_the_packages_own_step() -> None:
    own = definition("own", [port("task")], [port("task_2")], "python /x.py")
    [workflow, _] = export.definition_as("eoap", own, [])["$graph"]
    assert list(workflow["steps"]) == ["task_3"]
    assert workflow["outputs"]["task_2"]["outputSource"] == "task_3/task_2"


def test_a_package_without_any_command_is_refused() -> None:
    silent = definition("silent", [port("a")], [], "")
    with pytest.raises(RequestError, match=r"containerDescriptors\[0\]: expected a command, .*, found no command"):
        export.definition_as("eoap", silent, [])


def test_a_workflow_in_an_unknown_format_is_refused() -> None:
    with pytest.raises(RequestError, match='format: expected one of gbdx, cwl, eoap, found "pdf"'):
        export.workflow_as("pdf", *steps_of(EXAMPLES[0]))


def test_a_command_line_that_can_not_be_read_is_refused_at_registration(session: Session, fresh: str) -> None:
    answer = session.http.post(f"{API}/tasks", json=definition(fresh, [port("a")], [], "python 'x"))
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        'containerDescriptors[0].command: expected a command line (no closing quotation), found "python \'x"',
    )
