"""The linter of task folders, on a small task written here and spoilt in one place for each test."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from build_context import copied_sources, is_ignored

LINTER = Path(__file__).parent.parent / "lint_tasks.py"
DEFINITION = "count-pixels_definition.json"
SCRIPT = '''"""Count pixels."""

import os

from gbdx_task_interface import GbdxTaskInterface


class CountPixels(GbdxTaskInterface):
    def invoke(self):
        folder = self.get_input_data_port("images")
        unit = self.get_input_string_port("unit", default="pixel")
        output = self.get_output_data_port("counts")
        os.makedirs(output, exist_ok=True)
        with open(os.path.join(output, "counts.csv"), "w") as file:
            file.write(f"{len(os.listdir(folder))} {unit}")
        self.set_output_string_port("total", "3")


if __name__ == "__main__":
    with CountPixels() as task:
        task.invoke()
'''
README = """# count-pixels

| port | direction | type | required | description |
| --- | --- | --- | --- | --- |
| `images` | input | directory | yes | GeoTIFFs. |
| `unit` | input | string | no | A \\| B; defaults to "pixel". |
| `counts` | output | directory | - | counts.csv with a row for each image. |
| `total` | output | string | - | The sum. |

```python
task.inputs.images = "s3://bucket/images"
print(task.outputs.counts, task.outputs.total)
```
"""
DOCKERFILE = """FROM debian:trixie-slim
COPY gbdx_task_interface.py \\
     count_pixels.py count-pixels_definition.json /
CMD ["python", "/count_pixels.py"]
"""


def definition():
    return {
        "name": "count-pixels",
        "version": "0.1.0",
        "taskOwnerEmail": "owner@example.com",
        "properties": {"isPublic": True, "timeout": 60},
        "inputPortDescriptors": [
            {"name": "images", "type": "directory", "required": True, "description": "GeoTIFFs."},
            {"name": "unit", "type": "string", "required": False, "description": 'A | B; defaults to "pixel".'},
        ],
        "outputPortDescriptors": [
            {"name": "counts", "type": "directory", "description": "counts.csv with a row for each image."},
            {"name": "total", "type": "string", "description": "The sum."},
        ],
        "containerDescriptors": [
            {"type": "DOCKER", "command": "python /count_pixels.py", "properties": {"image": "count-pixels:0.1.0"}}
        ],
    }


class Task:
    """A correct task folder in a repository of its own."""

    def __init__(self, root):
        self.root, self.folder = root, root / "count-pixels"
        (self.folder / "test_inputs" / "images").mkdir(parents=True)
        self.write(DEFINITION, json.dumps(definition(), indent=4))
        self.write("count_pixels.py", SCRIPT)
        self.write("test_count_pixels.py", "")
        self.write("gbdx_task_interface.py", "# the interface\n")
        self.write("Dockerfile", DOCKERFILE)
        self.write(".dockerignore", "test_inputs\ntest_*.py\nREADME.md\n__pycache__\n**/*.pyc\n")
        self.write("README.md", README)
        self.write("test_inputs/ports.json", '{"unit": "pixel"}')
        self.write("test_inputs/images/a.tif", "not an image")

    def write(self, name, text):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, "utf-8")

    def replace(self, name, old, new):
        text = (self.folder / name).read_text("utf-8")
        assert old in text, f"{old!r} is not in {name}"
        self.write(name, text.replace(old, new))

    def define(self, *path_and_value):
        """Set one value in the definition, and the README's table to what belongs to it."""
        *path, last, value = path_and_value
        loaded = place = json.loads((self.folder / DEFINITION).read_text("utf-8"))
        for step in path:
            place = place[step]
        place[last] = value
        self.write(DEFINITION, json.dumps(loaded))
        table = lint("--port-table", self.folder).stdout
        head, _, tail = (self.folder / "README.md").read_text("utf-8").partition("| port |")
        self.write("README.md", head + table + "\n" + tail.partition("\n\n")[2])

    def findings(self):
        """Return the linter's lines about this folder, its path and the generation left out."""
        lines = lint("--root", self.root).stdout.splitlines()
        return [line.removeprefix("count-pixels/") for line in lines[:-1] if not line.endswith("generation 2")]


def lint(*arguments):
    command = [sys.executable, str(LINTER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60)


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def test_a_correct_folder_has_no_findings_and_its_generation_is_said(task):
    result = lint("--root", task.root)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "count-pixels/count-pixels_definition.json: generation 2",
        "1 definition checked: 0 errors, 0 warnings",
    ]


def test_all_findings_of_all_tasks_are_printed_and_counted(task):
    task.define("inputPortDescriptors", 0, "type", "strnig")
    (task.root / "other").mkdir()
    (task.root / "other" / "other_definition.json").write_text("{")
    result = lint("--root", task.root)
    assert result.returncode == 1
    wrong_type = 'inputPortDescriptors[0].type: expected one of "string", "directory", found "strnig"'
    assert f"count-pixels/count-pixels_definition.json: error: {wrong_type}" in result.stdout
    assert "other/other_definition.json: error: expected JSON, found a fault in line 1, column 2" in result.stdout
    errors = sum(": error: " in line for line in result.stdout.splitlines())
    assert result.stdout.splitlines()[-1] == f"2 definitions checked: {errors} errors, 0 warnings"


def test_warnings_alone_leave_the_exit_code_0(task):
    task.define("containerDescriptors", 0, "isPublic", True)
    result = lint("--root", task.root)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "1 definition checked: 0 errors, 1 warning"


def test_a_definition_alone_is_checked_without_its_folder(task):
    for name in ("README.md", "count_pixels.py"):
        (task.folder / name).unlink()
    assert lint(task.folder / DEFINITION).returncode == 0
    assert lint(task.folder).returncode == 1


def test_a_folder_is_found_from_within_it(task):
    command = [sys.executable, str(LINTER), "--root", "..", "."]
    result = subprocess.run(command, cwd=task.folder, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "1 definition checked: 0 errors, 0 warnings")


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path):
    result = lint(tmp_path / "nothing")
    assert result.returncode == 2
    assert "expected a task folder or a definition, found nothing at" in result.stderr


def test_a_repository_without_tasks_is_a_usage_error(tmp_path):
    result = lint("--root", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")


def test_the_port_table_is_printed_ready_to_paste(task):
    result = lint("--port-table", task.folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout in README


# --- Each fault, and the line that reports it ---------------------------------------------------------------------


def test_a_misspelt_definition_file_is_named_and_read_all_the_same(task):
    (task.folder / DEFINITION).rename(task.folder / "count-pixels-defintion.json")
    task.write("Dockerfile", "FROM debian:trixie-slim\nCOPY . /\n")
    assert task.findings() == [
        'count-pixels: error: expected one definition named "count-pixels_definition.json", '
        "found count-pixels-defintion.json"
    ]


def test_a_second_definition_is_reported(task):
    task.write("old_definition.json", "{}")
    assert task.findings() == [
        'count-pixels: error: expected one definition named "count-pixels_definition.json", found old_definition.json'
    ]


def test_a_folder_with_the_interface_and_no_definition_is_reported(task):
    (task.folder / DEFINITION).unlink()
    assert task.findings() == [
        'count-pixels: error: expected one definition named "count-pixels_definition.json", found none'
    ]


def test_a_folder_that_is_not_kebab_case_is_reported(task):
    task.folder.rename(task.root / "Count_pixels")
    lines = lint("--root", task.root).stdout.splitlines()
    assert any(line.startswith("Count_pixels: error: expected a folder name of small letters") for line in lines)


INPUTS, OUTPUTS, CONTAINERS = "inputPortDescriptors", "outputPortDescriptors", "containerDescriptors"
IMAGE = f"{CONTAINERS}[0].properties.image"
WRONG_DEFINITIONS = [
    (("name", "other"), 'name: expected the folder\'s name "count-pixels", found "other"'),
    (
        (CONTAINERS, 0, "properties", "image", "someone/count-pixels-docker-image:0.1.0"),
        f'{IMAGE}: expected an image named "count-pixels", found "someone/count-pixels-docker-image:0.1.0"',
    ),
    (
        (CONTAINERS, 0, "properties", "image", "someone/count-pixels:0.2.0"),
        f'{IMAGE}: expected the version "0.1.0" as tag, found "someone/count-pixels:0.2.0"',
    ),
    (
        (CONTAINERS, 0, "command", "python /count.py"),
        f'{CONTAINERS}[0].command: expected a script of the folder, such as "python /count_pixels.py", '
        'found "python /count.py"',
    ),
    (
        (CONTAINERS, 0, "command", "python '/count_pixels.py"),
        f'{CONTAINERS}[0].command: expected a command line, found "python \'/count_pixels.py": no closing quotation',
    ),
    (
        (INPUTS, 1, "description", "Defaults to 0.001."),
        f'{INPUTS}[1].description: expected the script\'s default "pixel", found the default "0.001"',
    ),
    (
        (OUTPUTS, 0, "description", "The model as model_arch.json."),
        f'{OUTPUTS}[0].description: expected names of files that the script writes, found "model_arch.json"',
    ),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_DEFINITIONS)
def test_a_definition_that_contradicts_its_folder_is_reported(task, change, sentence):
    task.define(*change)
    assert task.findings() == [f"{DEFINITION}: error: {sentence}"]


def test_an_image_with_a_registry_a_port_and_a_digest_keeps_its_name(task):
    task.define(CONTAINERS, 0, "properties", "image", "localhost:5000/team/count-pixels:0.1.0@sha256:" + "0" * 64)
    assert task.findings() == []


def test_a_command_that_is_left_to_the_image_is_fine(task):
    task.define(CONTAINERS, 0, "command", "")
    assert task.findings() == []


@pytest.mark.parametrize(
    "name", ["count_pixels.py", "test_count_pixels.py", "README.md", "Dockerfile", ".dockerignore"]
)
def test_a_missing_file_is_reported(task, name):
    (task.folder / name).unlink()
    assert f"{name}: error: expected this file in the folder, found none" in task.findings()


def test_a_script_that_python_3_cannot_read_is_reported_with_its_line(task):
    task.replace("count_pixels.py", '        folder = self.get_input_data_port("images")', '\tfolder = "tab"')
    (line,) = task.findings()
    assert re.match(r"count_pixels\.py:1[01]: error: expected Python 3, found: inconsistent use of tabs", line)


def test_a_class_with_another_name_is_reported(task):
    task.replace("count_pixels.py", "CountPixels", "Counter")
    assert task.findings() == [
        "count_pixels.py: error: expected a class CountPixels or CountPixelsTask "
        "that derives from GbdxTaskInterface, found Counter"
    ]


@pytest.mark.parametrize("name", ["CountPixelsTask", "CountPixels"])
def test_the_class_may_derive_through_another_and_end_in_task(task, name):
    task.replace("count_pixels.py", "class CountPixels(", "class Base(")
    task.replace("count_pixels.py", "\n\nif __name__", f"\n\nclass {name}(Base):\n    pass\n\n\nif __name__")
    assert task.findings() == []


WRONG_SCRIPTS = [
    (
        'self.get_input_string_port("unit", default="pixel")',
        'self.get_input_string_port("units", default="pixel")',
        [
            'count_pixels.py:11: error: get_input_string_port("units"): expected a declared string input port, '
            'found no such port (did you mean "unit"?)',
            f'{DEFINITION}: error: {INPUTS}[1].name: expected a port that the script reads, found "unit" '
            "and no call that names it",
        ],
    ),
    (
        'self.get_input_string_port("unit", default="pixel")',
        'self.get_input_data_port("unit")',
        [
            'count_pixels.py:11: error: get_input_data_port("unit"): expected a declared directory input port, '
            "found a string port"
        ],
    ),
    (
        'self.get_output_data_port("counts")',
        'self.get_output_data_port("images")',
        [
            'count_pixels.py:12: error: get_output_data_port("images"): expected a declared directory output port, '
            "found an input port",
            f'{DEFINITION}: error: {OUTPUTS}[0].name: expected a port that the script writes, found "counts" '
            "and no call that names it",
        ],
    ),
    (
        '        self.set_output_string_port("total", "3")\n',
        "",
        [
            f'{DEFINITION}: error: {OUTPUTS}[1].name: expected a port that the script writes, found "total" '
            "and no call that names it"
        ],
    ),
    (
        'self.get_input_data_port("images")',
        'self.get_multiplex_input_data_port("images")',
        [
            'count_pixels.py:10: error: get_multiplex_input_data_port("images"): '
            "expected a declared multiplex directory input port, found a port without multiplex"
        ],
    ),
    (
        'self.get_input_string_port("unit", default="pixel")',
        "self.get_input_string_port(input())",
        [
            "count_pixels.py:11: warning: get_input_string_port: expected a port name that can be read from "
            "the script, found one that cannot: not checked"
        ],
    ),
    (
        '("unit", default="pixel")',
        '("unit", default="meter")',
        [
            f'{DEFINITION}: error: {INPUTS}[1].description: expected the script\'s default "meter", '
            'found the default "pixel"'
        ],
    ),
]


@pytest.mark.parametrize(("old", "new", "lines"), WRONG_SCRIPTS)
def test_ports_that_script_and_definition_do_not_share_are_reported(task, old, new, lines):
    task.replace("count_pixels.py", old, new)
    assert task.findings() == lines


def test_ports_are_found_in_all_scripts_of_the_folder_but_not_in_its_tests(task):
    task.replace("count_pixels.py", '        self.set_output_string_port("total", "3")\n', "        finish(self)\n")
    task.write("test_count_pixels.py", 'def test(task):\n    task.set_output_string_port("nonsense", "3")\n')
    task.write("finishing.py", 'def finish(task):\n    task.set_output_string_port("total", "3")\n')
    assert task.findings() == []


def test_an_integer_port_with_a_fraction_as_default_is_reported(task):
    task.define(INPUTS, 1, "description", "Int: learning rate.")
    task.replace("count_pixels.py", 'default="pixel"', 'default="0.01"')
    assert task.findings() == [f'{DEFINITION}: error: {INPUTS}[1].description: expected a word for "0.01", found "Int"']


def test_a_multiplex_input_is_read_by_the_multiplex_method_only(task):
    task.define(INPUTS, 0, "multiplex", True)
    (task.folder / "test_inputs" / "images").rename(task.folder / "test_inputs" / "images_1")
    assert task.findings() == [
        'count_pixels.py:10: error: get_input_data_port("images"): expected a declared directory input port, '
        "found a multiplex port, whose name is only a prefix"
    ]
    task.replace("count_pixels.py", 'get_input_data_port("images")', 'get_multiplex_input_data_port("images")')
    assert task.findings() == []


def test_a_multiplex_output_is_written_under_longer_names(task):
    task.define(OUTPUTS, 0, "multiplex", True)
    task.replace("count_pixels.py", 'get_output_data_port("counts")', 'get_output_data_port(f"counts_{len(folder)}")')
    assert task.findings() == []


# --- Sample inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "sentence"),
    [
        ('{"classes": "2"}', 'classes: expected a declared string input port (unit), found "classes"'),
        ('{"images": "a"}', 'images: expected a declared string input port (unit), found "images"'),
        ('{"unit": 3}', "unit: expected a string or a boolean, found 3"),
        ('{"unit": null}', "unit: expected a string or a boolean, found null"),
        ('{"unit": "a", "unit": "b"}', 'expected each key once in an object, found "unit" 2 times in {"unit": "b"}'),
        ("[]", "expected a JSON object, found []"),
        ("{", "expected JSON, found a fault in line 1, column 2"),
    ],
)
def test_a_sample_ports_json_that_no_platform_would_write_is_reported(task, ports, sentence):
    task.write("test_inputs/ports.json", ports)
    (line,) = task.findings()
    assert line.startswith(f"test_inputs/ports.json: error: {sentence}")


def test_a_boolean_is_a_legal_sample_value(task):
    task.write("test_inputs/ports.json", '{"unit": true}')
    assert task.findings() == []


def test_a_required_string_port_needs_a_sample_value(task):
    task.define(INPUTS, 1, "required", True)
    task.write("test_inputs/ports.json", "{}")
    missing = "test_inputs/ports.json: error: unit: expected a value for the required port, found none"
    assert task.findings() == [missing]
    (task.folder / "test_inputs" / "ports.json").unlink()
    assert task.findings() == [
        "test_inputs/ports.json: error: expected a readable file, found: No such file or directory"
    ]


def test_an_optional_string_port_needs_no_ports_json(task):
    (task.folder / "test_inputs" / "ports.json").unlink()
    assert task.findings() == []


def test_a_required_directory_port_needs_a_sample_file(task):
    (task.folder / "test_inputs" / "images" / "a.tif").rename(task.folder / "test_inputs" / "images" / ".gitkeep")
    wanted = "test_inputs/images: error: expected a folder with files for the required port, found"
    assert task.findings() == [f"{wanted} an empty folder"]
    (task.folder / "test_inputs" / "images").rename(task.root / "elsewhere")
    assert task.findings() == [f"{wanted} none"]


def test_a_sample_folder_that_no_port_declares_is_reported(task):
    task.write("test_inputs/image/a.tif", "")
    task.write("test_inputs/unit/a.txt", "")
    expected = "expected folders of declared directory input ports (images)"
    assert task.findings() == [
        f'test_inputs/image: error: {expected}, found "image"',
        f'test_inputs/unit: error: {expected}, found "unit"',
    ]


# --- README -------------------------------------------------------------------------------------------------------


PASTE = " (paste the output of: python ci/lint_tasks.py --port-table count-pixels)"
HEAD = '"| port | direction | type | required | description |"'


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "| yes | GeoTIFFs.",
            "| no | GeoTIFFs.",
            ':5: error: port table, input port "images", required: expected "yes", found "no"',
        ),
        (
            "GeoTIFFs.",
            "TIFFs.",
            ':5: error: port table, input port "images", description: expected "GeoTIFFs.", found "TIFFs."',
        ),
        (
            "| `counts` | output | directory |",
            "| `counts` | output | string |",
            ':7: error: port table, output port "counts", type: expected "directory", found "string"',
        ),
        (
            "| `total` | output | string | - | The sum. |\n",
            "",
            ': error: port table, output port "total": expected a row, found none',
        ),
        (
            "The sum. |\n",
            "The sum. |\n| `mean` | output | string | - | |\n",
            ':9: error: port table: expected only declared ports, found "mean"',
        ),
        (
            "| port | direction |",
            "| name | direction |",
            f": error: port table: expected one table with the head {HEAD}, found none",
        ),
        (
            "# count-pixels\n",
            f"# count-pixels\n\n{HEAD[1:-1]}\n",
            f": error: port table: expected one table with the head {HEAD}, found 2 of them",
        ),
        (
            "The sum. |\n",
            "The sum. |\n| `total` | output | string | - | The sum. |\n",
            ": error: port table: expected each port once, in the definition's order, found another",
        ),
    ],
)
def test_a_port_table_that_differs_from_the_definition_is_reported(task, old, new, sentence):
    task.replace("README.md", old, new)
    assert task.findings() == [f"README.md{sentence}{PASTE}"]


def test_a_table_in_a_code_block_is_not_the_port_table(task):
    task.write("README.md", "```\n" + README.replace("```python", "").replace("```", "") + "```\n")
    assert task.findings() == [
        f"README.md: error: port table: expected one table with the head {HEAD}, found none{PASTE}"
    ]


def test_a_table_may_be_padded_and_its_ports_written_without_backticks(task):
    task.replace("README.md", "| `images` | input | directory |", "|  images   |  input   | directory   |")
    assert task.findings() == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("print(task.outputs.classified_shapefile)", "expected declared ports, found outputs.classified_shapefile"),
        ("task.inputs.image = 3", "expected declared ports, found inputs.image"),
        ("register('count-pixels.json')", 'expected files that are in the folder, found "count-pixels.json"'),
        (
            "register('count-pixels_defintion.json')",
            'expected files that are in the folder, found "count-pixels_defintion.json"',
        ),
        (
            "docker run count-pixels:0.0.9",
            'expected the definition\'s image "count-pixels:0.1.0", found count-pixels:0.0.9',
        ),
        ("docker login -u me -p secret", "expected no password on a command line, found a login with one"),
    ],
)
def test_a_readme_that_names_what_is_not_there_is_reported(task, text, sentence):
    task.write("README.md", f"{README}\n{text}\n")
    assert task.findings() == [f"README.md: error: {sentence}"]


def test_a_readme_may_name_links_and_the_definition(task):
    link = "https://example.com/count-pixels.json"
    names = "count-pixels_definition.json, count-pixels:0.1.0, hello-gbdx_definition.json"
    task.write("README.md", f"{README}\n{link}\n{names}\ndocker login --password-stdin\n")
    assert task.findings() == []


# --- Build context ------------------------------------------------------------------------------------------------


def test_a_dockerfile_that_does_not_copy_the_script_is_reported(task):
    task.replace("Dockerfile", "count_pixels.py count-pixels", "count-pixels")
    assert task.findings() == [
        'Dockerfile: error: expected a COPY of "count_pixels.py", '
        "found gbdx_task_interface.py, count-pixels_definition.json"
    ]


@pytest.mark.parametrize(
    "copy", ["COPY . /", "ADD ./ /", "COPY *.py /", 'COPY ["count_pixels.py", "gbdx_task_interface.py", "/"]']
)
def test_any_way_to_copy_the_script_will_do(task, copy):
    task.write("Dockerfile", f"FROM debian:trixie-slim\n# COPY nothing.py /\n{copy}\n")
    assert task.findings() == []


def test_copies_out_of_another_stage_are_no_sources():
    dockerfile = "FROM a AS b\nCOPY --from=b /x /y\ncopy --chown=1:1 --link one two /to\nADD $FILE /\n"
    assert copied_sources(dockerfile) == ["one", "two", "$FILE"]


def test_a_pattern_of_dockerignore_that_matches_nothing_is_reported(task):
    task.write(".dockerignore", "test_inputs\ncount-pixels-defintion.json\n# a comment\n!missing.txt\nrun*.txt\n")
    expected = ".dockerignore: error: expected names of files that are in the folder, found"
    assert task.findings() == [
        f'{expected} "count-pixels-defintion.json"',
        f'{expected} "!missing.txt"',
        f'{expected} "run*.txt"',
    ]


def test_patterns_for_files_that_may_come_are_fine(task):
    task.write(
        ".dockerignore", "test_inputs/\n.git\n**/.DS_Store\n**/__pycache__/\n*.pyc\nruns\n/outputs\n*~\n./README.md\n"
    )
    assert task.findings() == []


def test_a_dockerignore_that_lists_what_stays_is_fine(task):
    task.write(".dockerignore", "*\n!gbdx_task_interface.py\n!count_pixels.py\n!count-pixels_definition.json\n")
    assert task.findings() == []


def test_sample_inputs_in_the_build_context_are_a_warning(task):
    task.write(".dockerignore", "README.md\n")
    assert task.findings() == [
        ".dockerignore: warning: expected test_inputs, which would go into every build context, found it not"
    ]


def test_a_copied_file_that_dockerignore_leaves_out_is_reported(task):
    task.write(".dockerignore", "*\n!gbdx_task_interface.py\n!count_pixels.py\n")
    assert task.findings() == [
        ".dockerignore: error: expected what the Dockerfile copies in the build context, "
        'found "count-pixels_definition.json" left out'
    ]


def test_the_last_pattern_that_fits_decides():
    assert is_ignored("a.txt", ["*", "!a.txt"]) is False
    assert is_ignored("a.txt", ["!a.txt", "*"]) is True
    assert is_ignored("a.txt", ["b.txt"]) is False


def test_a_package_without_a_version_is_a_warning(task):
    run = "RUN pip install --no-cache-dir -r requirements.txt keras==1.2.2 tensorflow-gpu && echo pip install done"
    task.replace("Dockerfile", "COPY", f"{run}\nCOPY")
    warning = 'Dockerfile: warning: pip install: expected a version, as in "{}==1.2.3", found none'
    assert task.findings() == [warning.format("tensorflow-gpu"), warning.format("done")]


# --- Old habits, copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "start"),
    [
        ("os.makedirs(output)", "expected os.makedirs(..., exist_ok=True), found it without"),
        ("first = os.listdir(folder)[0]", "expected one file chosen by its name, found the first of a listing"),
        ("shutil.move(folder, output)", "expected inputs that stay as they are, found shutil.move"),
        ("os.chdir(folder)", "expected inputs that stay as they are, found os.chdir"),
        ('stem = unit.strip(".tif")', "expected os.path.splitext, found strip('.tif')"),
        ('os.system("gdalinfo " + folder)', "expected a list of arguments, found a shell command"),
        ("subprocess.run(unit, shell=True)", "expected a list of arguments, found a shell command"),
    ],
)
def test_the_published_tasks_habits_are_warnings(task, statement, start):
    task.replace("count_pixels.py", "        os.makedirs(output, exist_ok=True)", f"        {statement}")
    (line,) = task.findings()
    assert line.startswith(f"count_pixels.py:13: warning: {start}")


def test_a_copy_of_the_interface_that_differs_from_the_master_names_make_sync(task):
    (task.root / "hello-gbdx").mkdir()
    (task.root / "hello-gbdx" / "gbdx_task_interface.py").write_text("# another\n")
    result = lint("--root", task.root, task.folder)
    assert result.stdout.splitlines()[1] == (
        "count-pixels/gbdx_task_interface.py: error: expected a copy of hello-gbdx/gbdx_task_interface.py, "
        "found a difference (make sync copies it)"
    )


def test_findings_with_letters_of_any_language_can_be_printed_in_an_ascii_terminal(task):
    task.define("name", "Καλημέρα")
    command = [sys.executable, str(LINTER), str(task.folder)]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    result = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (1, b"")


def test_every_task_of_this_repository_is_free_of_errors():
    result = lint()
    assert result.returncode == 0, result.stdout + result.stderr
