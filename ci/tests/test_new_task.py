"""Forks of tasks: everything is renamed, what is the origin's stays, and the fork passes lint and its own test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from new_task import files_to_copy, renamer

CI = Path(__file__).parent.parent
REPOSITORY = CI.parent
INTERFACE = '''"""GbdxTaskInterface; the master copy lies in hello-gbdx/, used by HelloGbdxTask."""


class GbdxTaskInterface:
    def get_input_data_port(self, port_name):
        return port_name

    def get_output_data_port(self, port_name):
        return port_name
'''
SCRIPT = '''"""hello-gbdx: list files. Hello GBDX writes out.txt.

Run it with `make run TASK=hello-gbdx`. HELLO_GBDX is a word, too.
"""

from gbdx_task_interface import GbdxTaskInterface


class HelloGbdxTask(GbdxTaskInterface):
    def invoke(self):
        return self.get_input_data_port("data_in"), self.get_output_data_port("data_out")


if __name__ == "__main__":
    HelloGbdxTask().invoke()
'''
TEST = '''"""Test of hello-gbdx."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hello_gbdx
from hello_gbdx import HelloGbdxTask


class TestHelloGbdx:
    def test_hello_gbdx_has_its_ports(self):
        assert hello_gbdx.HelloGbdxTask is HelloGbdxTask
        assert HelloGbdxTask().invoke() == ("data_in", "data_out")
        definition = json.loads(Path(__file__).with_name("hello-gbdx_definition.json").read_text())
        assert f"{definition['name']}:{definition['version']}" == "hello-gbdx:1.2.0"
'''
README = """# hello-gbdx

Hello GBDX lists files. Run `make run TASK=hello-gbdx`; fork it with `make new NAME=another FROM=hello-gbdx`.
The walkthrough calls it Hello GBDX, task hello-gbdx, in [its text](https://example.com/blob/hello-gbdx/hello_gbdx.py).
Served at http://localhost/tasks/hello-gbdx, copied from `hello-gbdx`, see ../hello-gbdx/README.md and my-hello-gbdx.

| port | direction | type | required | description |
| --- | --- | --- | --- | --- |
| `data_in` | input | directory | yes | What hello-gbdx lists. |
| `data_out` | output | directory | - | |

It is hello-gbdx:1.2.0 and needs gbdx_task_interface.py; hello-gbdx_definition.json says more.
"""
DOCKERFILE = """FROM debian:trixie-slim
ARG VERSION=1.2.0
LABEL org.opencontainers.image.title="hello-gbdx" org.opencontainers.image.version="1.2.0"
COPY gbdx_task_interface.py hello_gbdx.py hello-gbdx_definition.json /
"""


def definition():
    return {
        "name": "hello-gbdx",
        "version": "1.2.0",
        "taskOwnerEmail": "owner@example.com",
        "inputPortDescriptors": [
            {"name": "data_in", "type": "directory", "required": True, "description": "What hello-gbdx lists."}
        ],
        "outputPortDescriptors": [{"name": "data_out", "type": "directory"}],
        "containerDescriptors": [
            {"type": "DOCKER", "command": "python /hello_gbdx.py", "properties": {"image": "hello-gbdx:1.2.0"}}
        ],
    }


FILES = {
    "hello_gbdx.py": SCRIPT,
    "test_hello_gbdx.py": TEST,
    "gbdx_task_interface.py": INTERFACE,
    "README.md": README,
    "Dockerfile": DOCKERFILE,
    ".dockerignore": "*\n!gbdx_task_interface.py\n!hello_gbdx.py\n!hello-gbdx_definition.json\n",
    "hello-gbdx_definition.json": json.dumps(definition(), indent=2) + "\n",
    "test_inputs/data_in/data_file.txt": "hello-gbdx\n",
    "test_inputs/ports.json": "{}\n",
}
BINARY = b"PK\x03\x04 hello-gbdx hello_gbdx \x00\xff"


@pytest.fixture
def root(tmp_path):
    """A repository with hello-gbdx alone, not under git."""
    for name, text in FILES.items():
        path = tmp_path / "hello-gbdx" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "hello-gbdx" / "hello_gbdx.npz").write_bytes(BINARY)
    return tmp_path


def environment(**more):
    """The environment without a git user, unless one is given."""
    clean = {key: value for key, value in os.environ.items() if key not in ("NAME", "FROM") and "GIT_" not in key}
    return {**clean, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **more}


def new(root, *arguments, **variables):
    command = [sys.executable, str(CI / "new_task.py"), "--root", str(root), *arguments]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, check=False, timeout=60
    )


def fork(root, name, origin):
    result = new(root, NAME=name, FROM=origin)
    assert (result.returncode, result.stderr) == (0, "")
    return root / name


def git(root, *arguments):
    subprocess.run(["git", "-C", str(root), *arguments], env=environment(), check=True, capture_output=True)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_lint_passes(folder):
    command = [sys.executable, str(CI / "lint_tasks.py"), "--root", str(folder.parent), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def assert_its_own_test_passes(folder):
    script = folder.name.replace("-", "_")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, str(folder / f"test_{script}.py")]
    plain = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTHONDONTWRITEBYTECODE="1")
    result = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


# --- What a fork holds --------------------------------------------------------------------------------------------


def test_all_files_are_copied_under_the_new_name(root):
    assert files_in(fork(root, "my-task", "hello-gbdx")) == [
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "gbdx_task_interface.py",
        "my-task_definition.json",
        "my_task.npz",
        "my_task.py",
        "test_inputs/data_in/data_file.txt",
        "test_inputs/ports.json",
        "test_my_task.py",
    ]


def test_the_origin_stays_as_it_was(root):
    before = {path: path.read_bytes() for path in (root / "hello-gbdx").rglob("*") if path.is_file()}
    fork(root, "my-task", "hello-gbdx")
    assert {path: path.read_bytes() for path in (root / "hello-gbdx").rglob("*") if path.is_file()} == before


def test_each_form_of_the_name_is_replaced_in_the_script(root):
    text = (fork(root, "pool-counter", "hello-gbdx") / "pool_counter.py").read_text()
    assert text == SCRIPT.replace("hello-gbdx", "pool-counter").replace("HelloGbdxTask", "PoolCounterTask").replace(
        "Hello GBDX", "Pool Counter"
    ).replace("HELLO_GBDX", "POOL_COUNTER")


def test_a_name_that_ends_in_task_does_not_give_a_class_that_ends_in_task_twice(root):
    text = (fork(root, "my-task", "hello-gbdx") / "my_task.py").read_text()
    assert "class MyTask(GbdxTaskInterface):" in text
    assert "MyTaskTask" not in text


def test_the_interface_and_binary_files_are_copied_byte_for_byte(root):
    folder = fork(root, "my-task", "hello-gbdx")
    assert (folder / "gbdx_task_interface.py").read_text() == INTERFACE
    assert (folder / "my_task.npz").read_bytes() == BINARY


def test_links_and_mentions_of_the_origin_stay(root):
    assert (fork(root, "pool-counter", "hello-gbdx") / "README.md").read_text() == (
        """# pool-counter

Pool Counter lists files. Run `make run TASK=pool-counter`; fork it with `make new NAME=another FROM=hello-gbdx`.
The walkthrough calls it Hello GBDX, task hello-gbdx, in [its text](https://example.com/blob/hello-gbdx/hello_gbdx.py).
Served at http://localhost/tasks/pool-counter, copied from `hello-gbdx`, see ../hello-gbdx/README.md and my-hello-gbdx.

| port | direction | type | required | description |
| --- | --- | --- | --- | --- |
| `data_in` | input | directory | yes | What pool-counter lists. |
| `data_out` | output | directory | - | |

It is pool-counter:0.1.0 and needs gbdx_task_interface.py; pool-counter_definition.json says more.
"""
    )


def test_the_definition_begins_at_the_first_version_in_the_layout_it_had(root):
    text = (fork(root, "my-task", "hello-gbdx") / "my-task_definition.json").read_text()
    expected = definition()
    expected.update(name="my-task", version="0.1.0")
    expected["inputPortDescriptors"][0]["description"] = "What my-task lists."
    expected["containerDescriptors"][0].update(command="python /my_task.py", properties={"image": "my-task:0.1.0"})
    assert text == json.dumps(expected, indent=2) + "\n"


def test_the_dockerfile_begins_at_the_first_version(root):
    assert (fork(root, "my-task", "hello-gbdx") / "Dockerfile").read_text() == (
        "FROM debian:trixie-slim\nARG VERSION=0.1.0\n"
        'LABEL org.opencontainers.image.title="my-task" org.opencontainers.image.version="0.1.0"\n'
        "COPY gbdx_task_interface.py my_task.py my-task_definition.json /\n"
    )


def test_a_generation_1_definition_stays_one_and_its_image_gets_a_tag(root):
    old = {key: value for key, value in definition().items() if key not in ("version", "taskOwnerEmail")}
    old["containerDescriptors"][0]["properties"]["image"] = "localhost:5000/someone/hello-gbdx"
    (root / "hello-gbdx" / "hello-gbdx_definition.json").write_text(json.dumps(old))
    made = json.loads((fork(root, "my-task", "hello-gbdx") / "my-task_definition.json").read_text())
    assert "version" not in made
    assert made["containerDescriptors"][0]["properties"]["image"] == "localhost:5000/someone/my-task:0.1.0"


def test_files_keep_their_mode_and_links_stay_links(root):
    (root / "hello-gbdx" / "hello_gbdx.py").chmod(0o755)
    (root / "hello-gbdx" / "latest.py").symlink_to("hello_gbdx.py")
    (root / "hello-gbdx").chmod(0o755)
    folder = fork(root, "my-task", "hello-gbdx")
    assert (folder / "my_task.py").stat().st_mode & 0o777 == 0o755
    assert os.readlink(folder / "latest.py") == "my_task.py"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_line_ends_stay_as_they_are(root):
    (root / "hello-gbdx" / "notes.txt").write_bytes(b"hello-gbdx\r\nhello_gbdx\n")
    assert (fork(root, "my-task", "hello-gbdx") / "notes.txt").read_bytes() == b"my-task\r\nmy_task\n"


# --- Which files, and whose ---------------------------------------------------------------------------------------


def test_without_git_caches_and_results_are_left_out(root):
    for name in ("__pycache__/a.pyc", "runs/1/out.txt", "outputs/out.txt", ".DS_Store", ".pytest_cache/x", "a.pyc"):
        (root / "hello-gbdx" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "hello-gbdx" / name).write_text("junk")
    assert len(files_in(fork(root, "my-task", "hello-gbdx"))) == len(FILES) + 1


def test_with_git_tracked_files_and_those_that_it_would_track_are_copied(root):
    git(root, "init", "-q")
    (root / ".gitignore").write_text("*.log\n__pycache__/\n")
    folder = root / "hello-gbdx"
    for name in ("kept.log", "ignored.log", "new.txt", "__pycache__.txt"):
        (folder / name).write_text("x")
    git(root, "add", "-f", "hello-gbdx/kept.log")
    found = {str(path) for path in files_to_copy(folder)}
    assert found == {*FILES, "hello_gbdx.npz", "kept.log", "new.txt", "__pycache__.txt"}


def test_a_file_that_git_tracks_and_that_is_gone_is_left_out(root):
    git(root, "init", "-q")
    git(root, "add", ".")
    (root / "hello-gbdx" / "hello_gbdx.npz").unlink()
    assert "my_task.npz" not in files_in(fork(root, "my-task", "hello-gbdx"))


def test_a_folder_that_git_ignores_as_a_whole_is_copied_as_without_git(root):
    git(root, "init", "-q")
    (root / ".gitignore").write_text("*\n")
    assert len(files_in(fork(root, "my-task", "hello-gbdx"))) == len(FILES) + 1


@pytest.mark.parametrize(
    ("email", "owner"),
    [("me@example.org", "me@example.org"), ("nobody", "owner@example.com"), ('a"b@example.org', "owner@example.com")],
)
def test_gits_user_owns_the_fork_when_it_has_a_mail_address(root, email, owner):
    git(root, "init", "-q")
    git(root, "config", "user.email", email)
    made = json.loads((fork(root, "my-task", "hello-gbdx") / "my-task_definition.json").read_text())
    assert made["taskOwnerEmail"] == owner


# --- Forks work ---------------------------------------------------------------------------------------------------

CHAINS = [
    ["my-task"],
    ["my-hello-gbdx"],
    ["hello-gbdx-2"],
    ["task-2"],
    ["gbdx-task"],
    ["forest"],
    ["my-task", "other-thing"],
    ["my-hello-gbdx", "hello-gbdx-again"],
    ["task-2", "task-22", "task-2-b"],
    ["gbdx-task", "gbdx-task-2", "x"],
    ["forest", "grove", "my-grove"],
    ["x", "y", "task"],
    ["task", "image", "directory", "name"],
]


@pytest.mark.parametrize("chain", CHAINS, ids="-then-".join)
def test_a_fork_of_a_fork_passes_lint_and_its_own_test_without_an_edit(root, chain):
    origin = "hello-gbdx"
    for name in chain:
        folder = fork(root, name, origin)
        assert_lint_passes(folder)
        assert (folder / "gbdx_task_interface.py").read_text() == INTERFACE
        origin = name
    shutil.rmtree(root / "hello-gbdx")
    assert_its_own_test_passes(folder)


@pytest.mark.parametrize("chain", [["pool-counter"], ["my-task", "task-2", "forest", "grove"]], ids="-then-".join)
@pytest.mark.parametrize("task", sorted(path.parent.name for path in REPOSITORY.glob("*/*_definition.json")))
def test_a_fork_of_each_task_of_this_repository_passes_lint_without_an_edit(tmp_path, task, chain):
    shutil.copytree(REPOSITORY / task, tmp_path / task, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    origin = task
    for name in chain:
        folder = fork(tmp_path, name, origin)
        assert_lint_passes(folder)
        origin = name


def test_a_fork_of_hello_gbdx_passes_its_own_test_without_an_edit(tmp_path):
    shutil.copytree(REPOSITORY / "hello-gbdx", tmp_path / "hello-gbdx")
    assert_its_own_test_passes(fork(tmp_path, "pool-counter", "hello-gbdx"))


# --- Names that are one word --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("import forest\nforest.helper(1)", "import my_grove\nmy_grove.helper(1)"),
        ("from forest import ForestTask", "from my_grove import MyGroveTask"),
        ("forest = Forest()\nforest.fit(x)", "forest = Forest()\nforest.fit(x)"),
        ("a random forest and sklearn.forest", "a random forest and sklearn.forest"),
        ("COPY forest.py forest_definition.json /", "COPY my_grove.py my-grove_definition.json /"),
        ("python /forest.py", "python /my_grove.py"),
        ("make run TASK=forest", "make run TASK=my-grove"),
        ("localhost/forest:dev, forest:0.1.0", "localhost/my-grove:dev, my-grove:0.1.0"),
        ("# forest\nThe `forest` task", "# my-grove\nThe `my-grove` task"),
        ("TASK=forest-fire", "TASK=forest-fire"),
        ('{"name": "forest", "type": "forest"}', '{"name": "forest", "type": "forest"}'),
    ],
)
def test_a_name_of_one_word_is_replaced_only_where_it_is_the_task(text, renamed):
    rename = renamer("forest", "my-grove", "class ForestTask(GbdxTaskInterface):\n")
    assert rename(text) == renamed


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("np.array_split and array_split.py", "np.array_split and my_task.py"),
        ("array-split-image my-array-split", "array-split-image my-array-split"),
        ("ArraySplitter ArraySplitError TestArraySplit", "ArraySplitter MyTaskError TestMyTask"),
        ("test_array_split.py array_splitting", "test_my_task.py array_splitting"),
        ("array split, Array Split", "my task, My Task"),
        ("As in the walkthrough's array-split.", "As in the walkthrough's array-split."),
        ("## array-split of the walkthrough", "## my-task of the walkthrough"),
        ("make run TASK=array-split is the walkthrough's", "make run TASK=my-task is the walkthrough's"),
        ('assert name == "array-split"  # the walkthrough', 'assert name == "my-task"  # the walkthrough'),
    ],
)
def test_a_name_of_several_words_is_replaced_as_a_whole_only(text, renamed):
    assert renamer("array-split", "my-task", "")(text) == renamed


# --- What is refused ----------------------------------------------------------------------------------------------

REFUSED = {
    "": "NAME: expected small letters, digits and single dashes, a letter first, such as NAME=my-task; found nothing",
    "My-Task": "NAME: expected small letters",
    "my_task": "NAME: expected small letters",
    "my--task": "NAME: expected small letters",
    "my-task-": "NAME: expected small letters",
    "2-tasks": "NAME: expected small letters",
    "../my-task": "NAME: expected small letters",
    "my task": "NAME: expected small letters",
    "naïve": "NAME: expected small letters",
    "hello-gbdx": "NAME: hello-gbdx exists already",
    "notes": "NAME: notes exists already",
    "ci": "NAME: ci is a name that the repository needs for something else",
    "runs": "NAME: runs is a name that the repository needs for something else",
    "base-images": "NAME: base-images is a name that the repository needs for something else",
    "gbdx-task-interface": "NAME: gbdx-task-interface is a name that the repository needs",
    "test-hello": "NAME: test-hello is a name that the repository needs",
    "gdal": "NAME: gdal is the name of a base image",
    "lambda": "NAME: lambda is a word of the Python language, so that no script could be imported",
    "json": "NAME: json is a module of Python's standard library, which json.py would hide",
    "data-in": "NAME: data-in is the name of a port of hello-gbdx",
    "numpy": "NAME: numpy is a library that hello-gbdx imports, which numpy.py would hide",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_would_not_work_is_refused_with_a_sentence_and_nothing_is_made(root, name):
    (root / "notes").write_text("")
    (root / "base-images" / "gdal").mkdir(parents=True)
    (root / "hello-gbdx" / "more.py").write_text("import numpy as np\n")
    before = sorted(root.rglob("*"))
    result = new(root, NAME=name, FROM="hello-gbdx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"new: {REFUSED[name]}")
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(("origin", "found"), [("", "nothing"), ("helo", "helo"), ("../elsewhere", "../elsewhere")])
def test_an_unknown_origin_is_refused_and_the_tasks_are_listed(root, origin, found):
    fork(root, "my-task", "hello-gbdx")
    result = new(root, NAME="another", FROM=origin)
    assert result.returncode == 2
    assert f"new: FROM: expected one of the tasks (hello-gbdx, my-task), found {found}" in result.stderr


def test_all_reasons_are_said_at_once(root):
    result = new(root, NAME="json", FROM="helo")
    assert len([line for line in result.stderr.splitlines() if line.startswith(("new: NAME", "new: FROM"))]) == 2


def test_an_origin_whose_definition_is_no_json_is_refused(root):
    (root / "hello-gbdx" / "hello-gbdx_definition.json").write_text("{")
    result = new(root, NAME="my-task", FROM="hello-gbdx")
    assert result.returncode == 2
    assert "hello-gbdx_definition.json must be a JSON object first" in result.stderr


def test_a_fork_that_cannot_be_finished_leaves_nothing(root):
    # The name of a copied file grows too long for any file system.
    (root / "hello-gbdx" / f"{'x' * 230}_hello_gbdx").write_text("x")
    before = sorted(root.rglob("*"))
    result = new(root, NAME="a-name-that-is-quite-long-for-a-task", FROM="hello-gbdx")
    assert result.returncode == 1
    assert result.stderr.startswith("new: expected to write the folder a-name-that-is-quite-long-for-a-task, found: ")
    assert sorted(root.rglob("*")) == before


# --- The command --------------------------------------------------------------------------------------------------


def test_arguments_do_what_variables_do_and_a_trailing_slash_is_fine(root):
    result = new(root, "my-task", "--from", "hello-gbdx/")
    assert (result.returncode, result.stderr) == (0, "")
    assert (root / "my-task" / "my_task.py").is_file()


def test_it_ends_with_the_next_commands(root):
    result = new(root, NAME="my-task", FROM="hello-gbdx")
    assert result.stdout == (
        "my-task/ is a copy of hello-gbdx/ at version 0.1.0\nnext:\n  make run TASK=my-task\n  make lint\n"
    )


def test_it_needs_the_standard_library_only(root):
    command = [
        sys.executable,
        "-I",
        "-S",
        str(CI / "new_task.py"),
        "my-task",
        "--from",
        "hello-gbdx",
        "--root",
        str(root),
    ]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
