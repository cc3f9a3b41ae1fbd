"""Tests of the task interface, the file that every task carries a copy of.

Whatever concerns the end of a task runs as a process of its own, with real signals and real limits. What differs
between Python versions runs on each of Python 3.9 to 3.14 that this machine has; the test's name says which.
"""

import ast
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from abc import ABC, abstractmethod
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

INTERFACE = Path(__file__).resolve().parents[2] / "hello-gbdx" / "gbdx_task_interface.py"
UNFINISHED = "the task did not finish: it was killed, ran out of memory or left without a report"
TERMINATED = "terminated by the worker (SIGTERM), for example at its timeout"


def load_interface():
    spec = spec_from_file_location("gbdx_task_interface", INTERFACE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


interface: Any = load_interface()


class Task(interface.GbdxTaskInterface):
    """A task without a definition: none lies next to this file."""


def installed_pythons():
    """{"python3.9": path, ...} of the supported interpreters that answer; the one that runs the tests is among them."""
    pythons = {}
    candidates = [Path(sys.executable)]
    for minor in range(9, 15):
        candidates += sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        candidates += filter(None, [shutil.which(f"python3.{minor}")])
    for candidate in candidates:
        command = [str(candidate), "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if answer.returncode == 0:
            pythons.setdefault(answer.stdout.strip(), str(candidate))
    return pythons


PYTHONS = installed_pythons()
on_every_python = pytest.mark.parametrize("python", list(PYTHONS.values()), ids=list(PYTHONS))


@pytest.fixture
def work(tmp_path):
    """A work folder as the worker makes it, without any input."""
    for name in ("input", "output"):
        (tmp_path / "work" / name).mkdir(parents=True)
    return tmp_path / "work"


def write_script(work, script, definition=None):
    """Lays out a task folder next to the work folder: script, interface and perhaps a definition."""
    folder = work.parent / "task"
    folder.mkdir(exist_ok=True)
    shutil.copy(INTERFACE, folder)
    (folder / "task.py").write_text(textwrap.dedent(script), encoding="utf-8")
    if definition is not None:
        (folder / "task_definition.json").write_text(json.dumps(definition))
    return folder / "task.py"


def task_that(invoke):
    """A whole script around the lines of an invoke method."""
    return (
        "import os, signal, sys\n"
        "from gbdx_task_interface import GbdxTaskInterface\n"
        "class Task(GbdxTaskInterface):\n"
        "    def invoke(self):\n" + textwrap.indent(textwrap.dedent(invoke), " " * 8) + "\n"
        'if __name__ == "__main__":\n'
        "    with Task() as task:\n"
        "        task.invoke()\n"
    )


def start(work, script, python=sys.executable, definition=None, **environment):
    command = [python, str(write_script(work, script, definition))]
    variables = {**os.environ, "GBDX_WORK_DIR": str(work), "PYTHONUNBUFFERED": "1", **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=work.parent)


def finish(process):
    """Waits for the end; the result's returncode, stdout and stderr."""
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run(work, script, **options):
    return finish(start(work, script, **options))


def status(work):
    """status.json, after a look that nothing half-written lies next to it."""
    assert list(work.glob("**/*.tmp")) == []
    return json.loads((work / "status.json").read_text(encoding="utf-8"))


def failed(reason):
    return {"status": "failed", "reason": reason}


@pytest.fixture(scope="module", autouse=True)
def interrupts_are_heeded():
    """A shell starts what runs in the background with SIGINT ignored, and every process below inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SUCCEEDED = {"status": "success", "reason": ""}


# ---- what the published class does ----------------------------------------------------------------------------------


def test_the_current_python_is_among_those_tested():
    assert f"python3.{sys.version_info[1]}" in PYTHONS


def test_every_published_name_is_there_with_its_arguments():
    methods = {
        name: str(inspect.signature(member))
        for name, member in vars(interface.GbdxTaskInterface).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert methods == {
        "get_input_string_port": "(self, port_name, default=None)",
        "get_input_data_port": "(self, port_name, default=None)",
        "get_multiplex_input_data_port": "(self, port_name_prefix)",
        "get_output_data_port": "(self, port_name)",
        "set_output_string_port": "(self, port_name, value)",
        "get_runtime_info": "(self, runtime_attr, default=None)",
        "invoke": "(self)",
        "finalize": "(self, success_or_fail, message='')",
    }
    properties = {name for name, member in vars(interface.GbdxTaskInterface).items() if isinstance(member, property)}
    assert properties == {"base_path", "input_path", "output_path", "status", "reason"}


@on_every_python
def test_a_script_written_for_the_published_class_runs_unchanged(work, python):
    script = """
        import os
        from gbdx_task_interface import GbdxTaskInterface

        class HelloGbdxTask(GbdxTaskInterface):

            def invoke(self):

                input_dir = self.get_input_data_port('data_in')
                message = self.get_input_string_port('message', default='No message!')

                output_dir = self.get_output_data_port('data_out')
                os.makedirs(output_dir)

                with open(os.path.join(output_dir, 'out.txt'), 'w') as f:
                    input_contents = ','.join(os.listdir(input_dir))
                    f.write(input_contents + '\\n')
                    f.write(message)


        if __name__ == "__main__":
            with HelloGbdxTask() as task:
                task.invoke()
    """
    (work / "input" / "data_in").mkdir()
    (work / "input" / "data_in" / "data_file.txt").touch()
    (work / "input" / "ports.json").write_text('{"message": "This is my message!"}')
    result = run(work, script, python=python)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (work / "output" / "data_out" / "out.txt").read_text() == "data_file.txt\nThis is my message!"
    assert status(work) == SUCCEEDED


def test_the_example_in_the_docstring_runs(work):
    example = ast.get_docstring(ast.parse(INTERFACE.read_text())).split("three lines that run it:\n\n")[1]
    script = "from gbdx_task_interface import GbdxTaskInterface\n" + textwrap.dedent(example)
    assert run(work, script).stdout == "No message!\n"
    assert status(work) == SUCCEEDED


def test_only_the_standard_library_is_imported():
    imports = [node for node in ast.walk(ast.parse(INTERFACE.read_text())) if isinstance(node, ast.Import)]
    froms = [node for node in ast.walk(ast.parse(INTERFACE.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names} | {node.module for node in froms}
    assert names == {"abc", "json", "numbers", "os", "re", "signal", "sys"}


# ---- the work folder ------------------------------------------------------------------------------------------------


def test_the_paths_are_spelled_as_published(work):
    task = Task(work_path=f"{work}/")
    assert task.base_path == f"{work}/"
    assert task.input_path == f"{work}/input"
    assert task.output_path == f"{work}/output"
    assert task.get_output_data_port("data_out") == f"{work}/output/data_out"
    assert not (work / "output" / "data_out").exists()


def test_the_argument_goes_before_the_environment(work, tmp_path, monkeypatch):
    monkeypatch.setenv("GBDX_WORK_DIR", str(work))
    assert Task().base_path == str(work)
    assert Task(tmp_path).base_path == str(tmp_path)


def test_a_missing_work_folder_is_named(tmp_path):
    expected = f"work_path: expected a directory at {tmp_path}/none, found none; GBDX_WORK_DIR=<directory> runs"
    with pytest.raises(FileNotFoundError, match=re.escape(expected)):
        Task(tmp_path / "none")


def test_without_argument_and_environment_it_is_mnt_work(work):
    script = "import gbdx_task_interface; print(gbdx_task_interface._work_path(None))"
    assert run(work, script, GBDX_WORK_DIR="").stdout == "/mnt/work/\n"


def test_the_status_lands_in_the_work_folder_when_the_task_changes_directory(work):
    result = run(work, task_that("os.chdir('/')\nself.set_output_string_port('n', 1)"), GBDX_WORK_DIR="work")
    assert result.returncode == 0, result.stderr
    assert status(work) == SUCCEEDED
    assert json.loads((work / "output" / "ports.json").read_text()) == {"n": "1"}


# ---- input ports ----------------------------------------------------------------------------------------------------


def test_string_ports_come_unchanged_and_defaults_fill_in(work):
    (work / "input" / "ports.json").write_text(
        '{"n": "10", "flag": true, "empty": "", "name": "\u039d\u03af\u03ba\u03b7"}'
    )
    task = Task(work)
    assert task.get_input_string_port("n") == "10"
    assert task.get_input_string_port("flag") is True
    assert task.get_input_string_port("empty", default="x") == ""
    assert task.get_input_string_port("name") == "Νίκη"
    assert task.get_input_string_port("absent") is None
    assert task.get_input_string_port("absent", default="7") == "7"


def test_no_ports_json_means_no_string_ports(work):
    assert Task(work).get_input_string_port("n", default="7") == "7"


def test_a_byte_order_mark_in_ports_json_is_accepted(work):
    (work / "input" / "ports.json").write_bytes(b'\xef\xbb\xbf{"n": "10"}')
    assert Task(work).get_input_string_port("n") == "10"


CORRUPT = {
    "not JSON": (b'{"a": "b"\n "c": 1}', "Expecting ',' delimiter: line 2 column 2 (char 11)"),
    "empty": (b"", "Expecting value: line 1 column 1 (char 0)"),
    "cut short": (b'{"a": "b', "Unterminated string starting at: line 1 column 7 (char 6)"),
    "a list": (b'["a"]', "list"),
    "not UTF-8": (b'{"a": "\xff"}', "codec can't decode byte 0xff in position 7: invalid start byte"),
    "too deep": (b"[" * 100_000, "maximum recursion depth exceeded"),
}


@pytest.mark.parametrize(("content", "found"), CORRUPT.values(), ids=[*CORRUPT])
def test_a_corrupt_ports_json_is_a_sentence_in_the_status(work, content, found):
    path = work / "input" / "ports.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: expected a JSON object.*, found: .*{re.escape(found)}") as caught:
        Task(work)
    assert type(caught.value) is ValueError
    assert status(work) == failed(f"ValueError: {caught.value}")


@on_every_python
def test_a_corrupt_ports_json_ends_the_script(work, python):
    (work / "input" / "ports.json").write_text("{'n': 1}")
    result = run(work, task_that("print('invoked')"), python=python)
    assert (result.returncode, result.stdout) == (1, "")
    sentence = f"ValueError: {work}/input/ports.json: expected a JSON object in UTF-8, found: Expecting property name"
    assert status(work)["reason"].startswith(sentence)
    assert result.stderr.count("Traceback (most recent call last)") == 1


def test_runtime_info_is_read_when_asked(work):
    (work / "gbdx_runtime.json").write_text('{"user_token": "abc"}')
    task = Task(work)
    assert task.get_runtime_info("user_token") == "abc"
    assert task.get_runtime_info("absent", default="x") == "x"


def test_a_corrupt_runtime_file_matters_only_when_it_is_read(work):
    (work / "gbdx_runtime.json").write_text("[]")
    task = Task(work)
    with pytest.raises(ValueError, match=r"gbdx_runtime\.json: expected a JSON object, found: list"):
        task.get_runtime_info("user_token")


def test_a_data_port_is_a_path_when_it_is_a_directory_and_else_the_default(work):
    (work / "input" / "data_in").mkdir()
    (work / "input" / "file").touch()
    (work / "input" / "link").symlink_to("data_in")
    task = Task(work)
    assert task.get_input_data_port("data_in") == f"{work}/input/data_in"
    assert task.get_input_data_port("link") == f"{work}/input/link"
    assert task.get_input_data_port("file") is None
    assert task.get_input_data_port("absent") is None
    assert task.get_input_data_port("absent", default="/data") == "/data"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b", None, 3])
def test_a_port_name_with_a_path_in_it_is_refused(work, name):
    task = Task(work)
    calls = [
        task.get_input_string_port,
        task.get_input_data_port,
        task.get_multiplex_input_data_port,
        task.get_output_data_port,
        lambda port: task.set_output_string_port(port, "value"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(f"port {name!r}: expected a name without a path separator")):
            call(name)


# ---- declared ports -------------------------------------------------------------------------------------------------

READS_BOTH = task_that("print(self.get_input_data_port('data_in'), self.get_input_string_port('message'))")


def declares(*ports):
    return {"name": "task", "inputPortDescriptors": list(ports)}


def port(name, kind="directory", **facts):
    return {"name": name, "type": kind, **facts}


@on_every_python
def test_a_missing_required_directory_is_named_with_what_was_found(work, python):
    (work / "input" / "data_out_old").mkdir()
    (work / "input" / "ports.json").write_text("{}")
    result = run(work, READS_BOTH, python=python, definition=declares(port("data_in", required=True)))
    sentence = f"expected a directory at {work}/input/data_in, found: data_out_old, ports.json"
    assert result.returncode == 1
    assert status(work) == failed(f"FileNotFoundError: input port 'data_in': {sentence}")


def test_a_file_in_place_of_a_required_directory_is_named(work):
    (work / "input" / "data_in").touch()
    run(work, READS_BOTH, definition=declares(port("data_in", required=True)))
    sentence = f"expected a directory at {work}/input/data_in, found: a file with that name"
    assert status(work) == failed(f"FileNotFoundError: input port 'data_in': {sentence}")


@pytest.mark.parametrize(
    ("ports_json", "found"), [('{"b": "1", "a": "2"}', "a, b"), ("{}", "no string port"), (None, "no string port")]
)
def test_a_missing_required_string_is_named_with_what_was_found(work, ports_json, found):
    if ports_json:
        (work / "input" / "ports.json").write_text(ports_json)
    assert run(work, READS_BOTH, definition=declares(port("message", "string", required=True))).returncode == 1
    sentence = f"expected a value in {work}/input/ports.json, found: {found}"
    assert status(work) == failed(f"ValueError: input port 'message': {sentence}")


@pytest.mark.parametrize("required", [{}, {"required": False}])
def test_a_missing_port_that_is_not_required_is_none(work, required):
    definition = declares(port("data_in", **required), port("message", "string", **required))
    assert run(work, READS_BOTH, definition=definition).stdout == "None None\n"


def test_a_default_goes_before_the_definition(work):
    script = task_that("print(self.get_input_data_port('data_in', '/x'), self.get_input_string_port('message', 'y'))")
    definition = declares(port("data_in", required=True), port("message", "string", required=True))
    assert run(work, script, definition=definition).stdout == "/x y\n"


def test_with_two_definitions_next_to_the_script_neither_counts(work):
    write_script(work, READS_BOTH)
    (work.parent / "task" / "other_definition.json").write_text(json.dumps(declares(port("data_in", required=True))))
    assert run(work, READS_BOTH, definition=declares(port("data_in", required=True))).stdout == "None None\n"


def test_a_hidden_definition_next_to_the_script_does_not_count(work):
    write_script(work, READS_BOTH)
    (work.parent / "task" / "._task_definition.json").write_bytes(b"\x00\x05\x16\x07")  # macOS leaves such files
    assert run(work, READS_BOTH, definition=declares(port("data_in", required=True))).returncode == 1
    assert status(work)["reason"].startswith("FileNotFoundError: input port 'data_in':")


def test_a_corrupt_definition_next_to_the_script_is_a_sentence(work):
    assert run(work, READS_BOTH, definition=["not", "an", "object"]).returncode == 1
    path = work.parent / "task" / "task_definition.json"
    assert status(work) == failed(f"ValueError: {path}: expected a JSON object, found: list")


# ---- multiplex ports ------------------------------------------------------------------------------------------------


def make_inputs(work, *names):
    for name in names:
        (work / "input" / name).mkdir()


def multiplex(work, definition=None, prefix="data"):
    """The folder names that get_multiplex_input_data_port gives a script."""
    script = task_that(
        f"print(*[os.path.relpath(p, self.input_path) for p in self.get_multiplex_input_data_port({prefix!r})])"
    )
    result = run(work, script, definition=definition)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_multiplex_folders_come_in_natural_order_and_other_ports_stay_out(work):
    make_inputs(work, "data10", "data2", "data-03", "data_1", "data", "dataset", "data_mask", "mydata1", ".data1")
    (work / "input" / "data4").touch()
    (work / "input" / "data5").symlink_to("data")
    (work / "input" / "data6").symlink_to("nowhere")
    assert multiplex(work) == ["data2", "data5", "data10", "data-03", "data_1"]


def test_digits_of_any_script_are_sorted_as_numbers(work):
    make_inputs(work, "data10", "data٣", "data2", "data_4")
    assert multiplex(work) == ["data2", "data٣", "data10", "data_4"]


def test_multiplex_gives_full_paths(work):
    make_inputs(work, "data1")
    assert Task(work).get_multiplex_input_data_port("data") == [f"{work}/input/data1"]


def test_with_a_definition_any_suffix_is_a_member_but_another_declared_port(work):
    make_inputs(work, "data1", "data_red", "data_mask", "dataset", "dataset1", "dataset_blue")
    definition = declares(port("data", multiplex=True), port("data_mask"), port("dataset", multiplex=True))
    assert multiplex(work, definition) == ["data1", "data_red"]
    assert multiplex(work, definition, prefix="dataset") == ["dataset1", "dataset_blue"]


def test_a_declared_name_that_ends_in_a_number_is_its_own_port(work):
    make_inputs(work, "data1", "data2")
    assert multiplex(work, declares(port("data", multiplex=True), port("data2"))) == ["data1"]


def test_a_prefix_that_the_definition_does_not_declare_takes_numbers_only(work):
    make_inputs(work, "data1", "data_red", "data2")
    assert multiplex(work, declares(port("data2"), port("other", multiplex=True))) == ["data1"]


def test_an_empty_multiplex_port_is_an_empty_list(work):
    assert multiplex(work) == []
    assert multiplex(work, declares(port("data", multiplex=True))) == []
    (work / "input").rmdir()
    assert multiplex(work) == []


def test_a_required_multiplex_port_without_folders_is_named(work):
    make_inputs(work, "data")
    script = task_that("self.get_multiplex_input_data_port('data')")
    run(work, script, definition=declares(port("data", multiplex=True, required=True)))
    sentence = f"expected one or more directories named {work}/input/data..., found: data"
    assert status(work) == failed(f"FileNotFoundError: input port 'data': {sentence}")


# ---- string outputs -------------------------------------------------------------------------------------------------


@on_every_python
def test_string_outputs_alone_create_the_output_folder(work, python):
    (work / "output").rmdir()
    result = run(work, task_that("self.set_output_string_port('count', 3)"), python=python)
    assert result.returncode == 0, result.stderr
    assert json.loads((work / "output" / "ports.json").read_text()) == {"count": "3"}
    assert status(work) == SUCCEEDED


def test_strings_and_booleans_stay_and_numbers_become_strings(work):
    with Task(work) as task:
        for name, value in {"s": "Νίκη", "t": True, "f": False, "i": 3, "x": 0.5, "n": -1e-7}.items():
            task.set_output_string_port(name, value)
    ports = json.loads((work / "output" / "ports.json").read_text(encoding="utf-8"))
    assert ports == {"s": "Νίκη", "t": True, "f": False, "i": "3", "x": "0.5", "n": "-1e-07"}


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ([1], "list"), ({}, "dict"), (b"x", "bytes")])
def test_another_kind_of_string_output_is_a_type_error(work, value, kind):
    expected = f"output port 'out': expected a string, a boolean or a number, found {kind}"
    with pytest.raises(TypeError, match=re.escape(expected)):
        Task(work).set_output_string_port("out", value)


def test_no_string_outputs_leave_no_ports_json(work):
    with Task(work):
        pass
    assert list((work / "output").iterdir()) == []


def test_a_failed_task_keeps_the_string_outputs_it_set(work):
    run(work, task_that("self.set_output_string_port('n', 1)\nraise ValueError('no')"))
    assert json.loads((work / "output" / "ports.json").read_text()) == {"n": "1"}
    assert status(work) == failed("ValueError: no")


def test_string_outputs_that_cannot_be_written_fail_the_task(work):
    shutil.rmtree(work / "output")
    (work / "output").touch()
    result = run(work, task_that("self.set_output_string_port('n', 1)"))
    assert result.returncode == 1
    assert status(work)["reason"].startswith("string output ports: FileExistsError: [Errno 17] File exists:")


def test_string_outputs_that_cannot_be_written_do_not_hide_the_first_error(work):
    shutil.rmtree(work / "output")
    (work / "output").touch()
    result = run(work, task_that("self.set_output_string_port('n', 1)\nraise ValueError('first')"))
    assert result.returncode == 1
    assert status(work) == failed("ValueError: first")


# ---- the end of a task ----------------------------------------------------------------------------------------------

REASONS = {
    "raise ValueError(\"input port 'n': expected a number, found 'x'\")": (
        "ValueError: input port 'n': expected a number, found 'x'"
    ),
    "{}['data_in']": "KeyError: 'data_in'",
    "1 / 0": "ZeroDivisionError: division by zero",
    "bytearray(1 << 62)": "MemoryError",
    "assert False": "AssertionError",
    "import json; json.loads('[')": "json.decoder.JSONDecodeError: Expecting value: line 1 column 2 (char 1)",
}


@on_every_python
@pytest.mark.parametrize(("line", "reason"), REASONS.items())
def test_the_reason_is_the_last_line_of_the_traceback_which_is_printed_once(work, python, line, reason):
    result = run(work, task_that(line), python=python)
    assert result.returncode == 1
    assert status(work) == failed(reason)
    assert result.stderr.count("Traceback (most recent call last)") == 1
    assert result.stderr.endswith(f"{reason}\n")


SCRIPT_WITH_CONSTRUCTOR = """
    import sys
    from gbdx_task_interface import GbdxTaskInterface

    class Task(GbdxTaskInterface):
        def __init__(self, *arguments, **named):
            {before}
            super().__init__(*arguments, **named)
            {after}

    with Task({arguments}) as task:
        pass
"""


def constructor(before="pass", after="pass", arguments=""):
    return SCRIPT_WITH_CONSTRUCTOR.format(before=before, after=after, arguments=arguments)


@on_every_python
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_exception_in_a_constructor_is_reported(work, python, place):
    result = run(work, constructor(**{place: "raise ValueError('no model')"}), python=python)
    assert result.returncode == 1
    assert status(work) == failed("ValueError: no model")
    assert result.stderr.count("Traceback (most recent call last)") == 1


@pytest.mark.parametrize(
    ("place", "how"), [("before", "work_path={!r}"), ("after", "work_path={!r}"), ("after", "{!r}")]
)
def test_a_constructor_is_reported_in_the_folder_it_was_given(work, tmp_path, place, how):
    other = tmp_path / "other"
    other.mkdir()
    run(work, constructor(**{place: "raise ValueError('no')"}, arguments=how.format(str(other))))
    assert status(other) == failed("ValueError: no")
    assert not (work / "status.json").exists()


@pytest.mark.parametrize("place", ["before", "after"])
def test_leaving_from_a_constructor_is_not_a_success(work, place):
    assert run(work, constructor(**{place: "sys.exit(0)"})).returncode == 0
    assert status(work) == failed("the task called sys.exit(0)")


def test_a_constructor_that_does_not_call_ours_is_a_sentence(work):
    script = constructor().replace("super().__init__(*arguments, **named)", "pass")
    assert run(work, script).returncode == 1
    assert status(work) == failed("TypeError: Task.__init__: expected a call of super().__init__(), found none")


def test_a_task_may_also_be_an_abstract_class(work):
    class Abstract(ABC):
        @abstractmethod
        def invoke(self):
            pass

    class Concrete(Task, Abstract):
        def invoke(self):
            return "invoked"

    with Concrete(work) as task:
        assert task.invoke() == "invoked"
    assert status(work) == SUCCEEDED


EXITS = {
    "sys.exit()": (0, SUCCEEDED),
    "sys.exit(0)": (0, SUCCEEDED),
    "sys.exit(1)": (1, failed("the task called sys.exit(1)")),
    "sys.exit('no pools')": (1, failed("no pools")),
    "sys.exit('')": (1, failed("the task called sys.exit('')")),
    "sys.exit([1])": (1, failed("the task called sys.exit([1])")),
    "os._exit(0)": (0, failed(UNFINISHED)),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, failed(UNFINISHED)),
    "os.abort()": (-signal.SIGABRT, failed(UNFINISHED)),
    "os.kill(os.getpid(), signal.SIGINT)": (-signal.SIGINT, failed("interrupted")),
}


@on_every_python
@pytest.mark.parametrize(("line", "code", "expected"), [(line, *end) for line, end in EXITS.items()], ids=[*EXITS])
def test_every_way_out_leaves_a_truthful_status(work, python, line, code, expected):
    assert run(work, task_that(line), python=python).returncode == code
    assert status(work) == expected


def test_the_status_is_failed_while_the_task_runs(work):
    process = start(work, task_that("print('ready')\nsys.stdin.readline()"))
    assert process.stdout.readline() == "ready\n"
    assert status(work) == failed(UNFINISHED)
    assert finish(process).returncode == 0
    assert status(work) == SUCCEEDED


def test_a_status_of_an_earlier_run_does_not_survive(work):
    (work / "status.json").write_text('{"status": "success", "reason": "old"}')
    run(work, task_that("os._exit(0)"))
    assert status(work) == failed(UNFINISHED)


def test_an_exception_that_cannot_be_printed_is_still_reported(work):
    run(
        work,
        task_that("""
            class Silent(Exception):
                def __str__(self):
                    raise RuntimeError
            raise Silent
        """),
    )
    assert status(work) == failed("Task.invoke.<locals>.Silent: <its text cannot be printed>")


def test_a_long_reason_is_cut(work):
    run(work, task_that("raise ValueError('x' * 10_000)"))
    assert status(work) == failed("ValueError: " + "x" * 1985 + "...")


def test_a_reason_with_a_file_name_that_is_not_utf8_is_readable(work):
    run(work, task_that("raise ValueError(os.fsdecode(b'caf\\xe9.tif'))"))
    assert status(work) == failed("ValueError: caf\\udce9.tif")


def test_a_reason_of_many_lines_keeps_them(work):
    run(work, task_that("raise ValueError('2 problems:\\n first\\n second')"))
    assert status(work) == failed("ValueError: 2 problems:\n first\n second")


# ---- SIGTERM --------------------------------------------------------------------------------------------------------


@on_every_python
def test_sigterm_ends_the_task_with_a_reason_and_exit_code_143(work, python):
    process = start(work, task_that("print('ready')\nsys.stdin.readline()"), python=python)
    process.stdout.readline()
    process.terminate()
    result = finish(process)
    assert result.returncode == 143
    assert status(work) == failed(TERMINATED)
    assert result.stderr == f"Task: {TERMINATED}\n"


def test_a_second_sigterm_does_not_break_into_the_clean_up(work):
    invoke = """
        try:
            print('ready')
            sys.stdin.readline()
        finally:
            print('cleaning')
            sys.stdin.readline()
            print('cleaned')
    """
    process = start(work, task_that(invoke))
    process.stdout.readline()
    process.terminate()
    assert process.stdout.readline() == "cleaning\n"
    process.terminate()
    result = finish(process)
    assert (result.returncode, result.stdout) == (143, "cleaned\n")
    assert status(work) == failed(TERMINATED)


def test_sigterm_while_the_report_is_written_does_not_change_it(work):
    script = """
        import os, signal
        from gbdx_task_interface import GbdxTaskInterface

        class Task(GbdxTaskInterface):
            def finalize(self, *arguments):
                os.kill(os.getpid(), signal.SIGTERM)
                super().finalize(*arguments)

        with Task() as task:
            task.set_output_string_port("n", 1)
    """
    assert run(work, script).returncode == 0
    assert status(work) == SUCCEEDED
    assert json.loads((work / "output" / "ports.json").read_text()) == {"n": "1"}


def test_a_task_that_swallows_sigterm_still_ends_as_terminated(work):
    invoke = """
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                pass
        except BaseException:
            self.status = 'success'
    """
    assert run(work, task_that(invoke)).returncode == 143
    assert status(work) == failed(TERMINATED)


def test_the_previous_handler_of_sigterm_comes_back(work):
    before = signal.getsignal(signal.SIGTERM)
    with Task(work):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_task_runs_in_a_thread_where_signals_cannot_be_handled(work):
    script = """
        import threading
        from gbdx_task_interface import GbdxTaskInterface

        def work():
            with GbdxTaskInterface() as task:
                task.reason = "from a thread"

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    assert run(work, script).stderr == ""
    assert status(work) == {"status": "success", "reason": "from a thread"}


@pytest.mark.parametrize("line", ["sys.exit(0)", "sys.exit(1)", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_the_end_of_a_forked_child_is_not_reported_as_the_end_of_the_task(work, line):
    invoke = f"""
        child = os.fork()
        if child == 0:
            {line}
            while True:
                pass
        os.waitpid(child, 0)
        print(open(os.path.join(self.base_path, 'status.json')).read())
    """
    result = run(work, task_that(invoke))
    assert json.loads(result.stdout) == failed(UNFINISHED)
    assert status(work) == SUCCEEDED


# ---- status words and finalize --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "written"),
    [("success", "success"), ("Success", "success"), ("failed", "failed"), ("fail", "failed"), ("FAIL", "failed")],
)
def test_the_status_words_of_the_wild_are_written_as_two(work, word, written):
    with Task(work) as task:
        task.status = word
        task.reason = "as set"
        assert task.status == written
    assert status(work) == {"status": written, "reason": "as set"}
    task.finalize(word, "as given")
    assert status(work) == {"status": written, "reason": "as given"}


@pytest.mark.parametrize("word", ["banana", "", "succes", None, True])
def test_another_status_word_is_refused_and_the_status_on_disk_is_failed(work, word):
    sentence = f"status: expected 'success' or 'failed', found {word!r}"
    task = Task(work)
    task.finalize("success")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        task.finalize(word)
    assert status(work) == failed(sentence)
    task.finalize("success")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        task.status = word
    assert status(work) == failed(sentence)


def test_a_status_word_that_is_refused_ends_the_script(work):
    assert run(work, task_that("self.status = 'banana'")).returncode == 1
    assert status(work) == failed("ValueError: status: expected 'success' or 'failed', found 'banana'")


def test_finalize_works_without_the_context_manager(work):
    task = Task(work)
    task.set_output_string_port("n", 1)
    task.finalize("success", "all 3 scenes")
    assert status(work) == {"status": "success", "reason": "all 3 scenes"}
    assert json.loads((work / "output" / "ports.json").read_text()) == {"n": "1"}


def test_an_exception_after_finalize_is_the_truth(work):
    run(work, task_that("self.finalize('success')\nraise ValueError('later')"))
    assert status(work) == failed("ValueError: later")


def test_finalize_inside_the_with_block_is_kept(work):
    assert run(work, task_that("self.finalize('failed', 'no pools')")).returncode == 0
    assert status(work) == failed("no pools")


def test_a_task_without_invoke_is_named(work):
    with pytest.raises(NotImplementedError, match="Task: expected an invoke method, found none"):
        Task(work).invoke()


# ---- disks and folders that refuse ----------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full, the disk that is always full")
def test_on_a_full_disk_the_status_is_overwritten_in_place(work):
    task = Task(work)
    (work / "status.json.tmp").symlink_to("/dev/full")
    inode = (work / "status.json").stat().st_ino
    task.finalize("failed", "short")
    (work / "status.json.tmp").unlink()
    assert status(work) == failed("short")
    assert (work / "status.json").stat().st_ino == inode


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full, the disk that is always full")
def test_string_outputs_on_a_full_disk_fail_the_task(work):
    (work / "output" / "ports.json.tmp").symlink_to("/dev/full")
    result = run(work, task_that("self.set_output_string_port('n', 1)"))
    (work / "output" / "ports.json.tmp").unlink()
    assert result.returncode == 1
    assert status(work) == failed("string output ports: OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    ("limit", "reason"), [(500, "OSError: [Errno 27] File too large"), (0, UNFINISHED)], ids=["500 bytes", "nothing"]
)
def test_a_limit_on_file_size_leaves_a_truthful_status(work, limit, reason):
    invoke = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        with open(os.path.join(self.output_path, 'big'), 'wb') as file:
            file.write(bytes(100_000))
    """
    assert run(work, task_that(invoke)).returncode == 1
    assert status(work) == failed(reason)


def test_a_status_that_a_second_link_shows_is_replaced_not_changed(work):
    """The replacement is atomic: a reader that has the old file open goes on reading the old file."""
    task = Task(work)
    with (work / "status.json").open(encoding="utf-8") as reader:
        task.finalize("success")
        assert json.load(reader) == failed(UNFINISHED)
    assert status(work) == SUCCEEDED


def test_out_of_memory_in_earnest_leaves_a_truthful_status(work):
    invoke = """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
        kept = []
        while True:
            kept.append(bytearray(1 << 20))
    """
    assert run(work, task_that(invoke)).returncode == 1
    assert status(work) == failed("MemoryError")
