"""The graph of images, read from Dockerfiles of small repositories made here, and from this repository's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_graph import (
    ROOT,
    GraphError,
    affected,
    changed_files,
    from_references,
    image_name,
    lineage,
    matrix,
    read_graph,
    source_files,
    source_hash,
    task_folders,
)

OURS = {"REGISTRY": "localhost", "TAG": "dev"}
FROM_GDAL = "ARG REGISTRY=localhost\nARG TAG=dev\nFROM ${REGISTRY}/gdal:${TAG}\n"


def write(path: Path, text: str = "") -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two bases, gdal and, on top of it, mltools; two tasks, `classify` on mltools and `hello` on Debian alone."""
    write(tmp_path / "base-images" / "gdal" / "Dockerfile", "FROM debian:trixie-slim\n")
    write(tmp_path / "base-images" / "mltools" / "Dockerfile", FROM_GDAL + "COPY library.py /\n")
    write(tmp_path / "base-images" / "mltools" / "library.py", "x = 1\n")
    write(tmp_path / "classify" / "Dockerfile", FROM_GDAL.replace("gdal", "mltools"))
    write(tmp_path / "classify" / "classify_definition.json", "{}")
    write(tmp_path / "classify" / "classify.py", "y = 1\n")
    write(tmp_path / "hello" / "Dockerfile", "FROM debian:trixie-slim\n")
    write(tmp_path / "hello" / "hello_definition.json", "{}")
    write(tmp_path / "docs" / "Dockerfile", "FROM debian:trixie-slim\n")
    write(tmp_path / ".hidden" / "hidden_definition.json", "{}")
    return tmp_path


# --- one Dockerfile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("FROM debian:trixie-slim\n", ["debian:trixie-slim"]),
        ("from debian:trixie-slim as build\n", ["debian:trixie-slim"]),
        ("FROM --platform=linux/amd64 debian:trixie-slim AS build\n", ["debian:trixie-slim"]),
        ("ARG BASE=debian\nARG TAG=trixie-slim\nFROM $BASE:${TAG}\n", ["debian:trixie-slim"]),
        ("ARG TAG\nFROM debian:${TAG:-bookworm-slim}\n", ["debian:bookworm-slim"]),
        ("FROM scratch\n", []),
        ("FROM debian@sha256:0123\n", ["debian@sha256:0123"]),
        ("# FROM nothing\nFROM debian\nRUN echo FROM nothing\n", ["debian"]),
        ("FROM debian AS build\nFROM build\n", ["debian"]),
        ("FROM debian AS build\nFROM scratch\nCOPY --from=build /a /\nCOPY --from=0 /b /\n", ["debian"]),
        ("FROM debian\nCOPY --from=busybox:1 /bin/sh /\n", ["debian", "busybox:1"]),
        ("FROM debian AS a\nFROM debian AS b\n", ["debian"]),
        ("  FROM debian\n  # COPY --from=nothing /a /\nRUN echo --from=nothing\n", ["debian"]),
        ("FROM debian AS Build\nFROM build\n", ["debian"]),
        ("ARG TAG=1\nFROM debian:${TAG} AS a\nARG TAG\nFROM debian:${TAG}\n", ["debian:1"]),
        ('ARG A="1" B=2\nFROM debian:${A}.${B}\n', ["debian:1.2"]),
        (
            "FROM debian\nRUN --mount=type=bind,from=tools:1,target=/t cp /t/a / && \\\n    echo from=b\n",
            ["debian", "tools:1"],
        ),
        ("FROM debian\nCOPY --chmod=755 \\\n    --from=tools:1 /a /\n", ["debian", "tools:1"]),
        ("ARG TAG=1\nFROM debian\nCOPY --chmod=755 --from=tools:${TAG} /a /\n", ["debian", "tools:1"]),
    ],
)
def test_the_images_that_a_dockerfile_takes_from_are_found(tmp_path: Path, text: str, references: list[str]) -> None:
    assert from_references(write(tmp_path / "Dockerfile", text), {}) == references


def test_build_arguments_go_before_defaults(tmp_path: Path) -> None:
    dockerfile = write(tmp_path / "Dockerfile", FROM_GDAL)
    assert from_references(dockerfile, {}) == ["localhost/gdal:dev"]
    assert from_references(dockerfile, {"REGISTRY": "example.org:5000/team"}) == ["example.org:5000/team/gdal:dev"]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("localhost/gdal:dev", "gdal"),
        ("example.org:5000/team/gdal", "gdal"),
        ("debian:trixie-slim", "debian"),
        ("example.org:5000/gdal@sha256:0123", "gdal"),
    ],
)
def test_the_name_of_an_image_is_the_last_part_of_its_reference(reference: str, name: str) -> None:
    assert image_name(reference) == name


# --- the graph -------------------------------------------------------------------------------------------------------


def test_bases_and_tasks_are_images_and_come_after_what_they_are_built_from(repository: Path) -> None:
    images = read_graph(repository, OURS)
    assert list(images) == ["gdal", "mltools", "classify", "hello"]
    assert [name for name, image in images.items() if image.is_task] == ["classify", "hello"]
    assert (images["classify"].parents, images["classify"].external) == (("mltools",), ())
    assert (images["hello"].parents, images["hello"].external) == ((), ("debian:trixie-slim",))


def test_a_parent_comes_first_whatever_the_names(repository: Path) -> None:
    write(repository / "base-images" / "a-first" / "Dockerfile", FROM_GDAL.replace("gdal", "z-last"))
    write(repository / "base-images" / "z-last" / "Dockerfile", "FROM debian:trixie-slim\n")
    names = list(read_graph(repository))
    assert names.index("z-last") < names.index("a-first")


def test_an_image_that_files_are_copied_from_is_a_parent_too(repository: Path) -> None:
    write(repository / "hello" / "Dockerfile", "FROM debian:trixie-slim\nCOPY --from=localhost/gdal:dev /a /\n")
    hello = read_graph(repository)["hello"]
    assert (hello.parents, hello.external) == (("gdal",), ("debian:trixie-slim",))


def test_a_public_image_stays_foreign_though_a_folder_has_its_name(repository: Path) -> None:
    write(repository / "base-images" / "debian" / "Dockerfile", "FROM scratch\n")
    assert read_graph(repository)["hello"].parents == ()


def test_a_task_without_a_dockerfile_is_a_task_but_no_image(repository: Path) -> None:
    write(repository / "sketch" / "sketch_definition.json", "{}")
    assert [folder.name for folder in task_folders(repository)] == ["classify", "hello", "sketch"]
    assert "sketch" not in read_graph(repository)


def test_lineage_holds_what_is_needed_and_nothing_else(repository: Path) -> None:
    images = read_graph(repository)
    assert [image.name for image in lineage("classify", images)] == ["gdal", "mltools", "classify"]
    assert [image.name for image in lineage("hello", images)] == ["hello"]
    with pytest.raises(GraphError, match=r"^no image is called 'helo'; there are: gdal, mltools, classify, hello$"):
        lineage("helo", images)


def test_images_that_are_built_from_each_other_are_named_in_their_circle(repository: Path) -> None:
    write(repository / "base-images" / "gdal" / "Dockerfile", FROM_GDAL.replace("gdal", "mltools"))
    with pytest.raises(GraphError, match=r"^images are built from each other: gdal <- mltools <- gdal$"):
        read_graph(repository)


def test_an_image_that_is_built_from_itself_is_a_circle(repository: Path) -> None:
    write(repository / "base-images" / "gdal" / "Dockerfile", FROM_GDAL)
    with pytest.raises(GraphError, match=r"^images are built from each other: gdal <- gdal$"):
        read_graph(repository)


def test_two_folders_of_one_name_are_refused(repository: Path) -> None:
    write(repository / "gdal" / "gdal_definition.json", "{}")
    write(repository / "gdal" / "Dockerfile", "FROM scratch\n")
    with pytest.raises(GraphError, match=r"^expected one folder for each image name, found several for: gdal$"):
        read_graph(repository)


# --- hashes ----------------------------------------------------------------------------------------------------------


def hash_of(repository: Path, name: str = "classify") -> str:
    """The hash of an image's sources."""
    return source_hash(name, read_graph(repository, OURS), OURS)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a script": lambda root: write(root / "classify" / "classify.py", "y = 2\n"),
    "a new file": lambda root: write(root / "classify" / "more.py"),
    "a new file in a folder": lambda root: write(root / "classify" / "data" / "more.csv"),
    "a file's name": lambda root: (root / "classify" / "classify.py").rename(root / "classify" / "other.py"),
    "an executable bit": lambda root: (root / "classify" / "classify.py").chmod(0o755),
    "a link": lambda root: (root / "classify" / "link").symlink_to("classify.py"),
    "the Dockerfile": lambda root: write(root / "classify" / "Dockerfile", "FROM debian:trixie-slim\n"),
    "the definition, which is a label": lambda root: write(root / "classify" / "classify_definition.json", "{ }"),
    "a parent's file": lambda root: write(root / "base-images" / "mltools" / "library.py", "x = 2\n"),
    "a grandparent": lambda root: write(root / "base-images" / "gdal" / "Dockerfile", "FROM debian:bookworm-slim\n"),
}
NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "a README": lambda root: write(root / "classify" / "README.md", "more words"),
    "test inputs": lambda root: write(root / "classify" / "test_inputs" / "image" / "a.tif"),
    "a test": lambda root: write(root / "classify" / "test_classify.py"),
    "a folder of tests": lambda root: write(root / "base-images" / "mltools" / "tests" / "conftest.py"),
    "compiled Python": lambda root: write(root / "classify" / "__pycache__" / "classify.pyc"),
    "a time": lambda root: write(root / "classify" / "classify.py", "y = 1\n"),
    "who may read": lambda root: (root / "classify" / "classify.py").chmod(0o600),
    "another task": lambda root: write(root / "hello" / "hello.py"),
    "an empty folder": lambda root: (root / "classify" / "empty").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_image_changes_its_hash(repository: Path, change: str) -> None:
    before = hash_of(repository)
    CHANGES[change](repository)
    assert hash_of(repository) != before


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_does_not_get_into_the_image_leaves_its_hash_alone(repository: Path, change: str) -> None:
    before = hash_of(repository)
    NO_CHANGES[change](repository)
    assert hash_of(repository) == before


def test_the_hash_is_the_same_wherever_the_repository_lies(repository: Path, tmp_path: Path) -> None:
    before = hash_of(repository)
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    repository.rename(moved)
    assert hash_of(moved) == before
    assert len(before) == 12
    int(before, 16)


def test_other_build_arguments_make_another_hash(repository: Path) -> None:
    images = read_graph(repository, OURS)
    assert source_hash("hello", images, OURS) != source_hash("hello", images, {**OURS, "TAG": "other"})


def test_moving_content_from_one_file_to_another_changes_the_hash(repository: Path) -> None:
    write(repository / "classify" / "a.txt", "12")
    write(repository / "classify" / "b.txt", "3")
    before = hash_of(repository)
    write(repository / "classify" / "a.txt", "1")
    write(repository / "classify" / "b.txt", "23")
    assert hash_of(repository) != before


# --- what a change touches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["docs/more.md", "README.md"], []),
        (["hello/hello.py"], ["hello"]),
        (["hello-two/hello.py"], []),
        (["base-images/mltools/library.py"], ["mltools", "classify"]),
        (["base-images/gdal/Dockerfile", "hello/x"], ["gdal", "mltools", "classify", "hello"]),
        (["ci/build_images.py"], ["gdal", "mltools", "classify", "hello"]),
        (["Makefile"], ["gdal", "mltools", "classify", "hello"]),
        ([".github/workflows/test.yml"], ["gdal", "mltools", "classify", "hello"]),
    ],
)
def test_a_change_touches_an_image_and_all_that_is_built_from_it(
    repository: Path, paths: list[str], names: list[str]
) -> None:
    assert affected(paths, read_graph(repository), repository) == names


def test_the_matrix_has_the_tasks_with_what_each_needs(repository: Path) -> None:
    images = read_graph(repository)
    assert matrix(list(images), images) == {
        "include": [{"task": "classify", "needs": "gdal mltools"}, {"task": "hello", "needs": ""}]
    }
    assert matrix(["gdal"], images) == {"include": []}


def test_changed_files_are_those_of_commits_of_the_working_tree_and_new_ones(repository: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=repository, capture_output=True, check=True)

    git("init", "--initial-branch=main")
    git("add", ".")
    git("commit", "--message=first")
    write(repository / "hello" / "committed.py")
    git("add", ".")
    git("commit", "--message=second")
    write(repository / "classify" / "classify.py", "y = 3\n")
    write(repository / "docs" / "new.md")
    assert changed_files("HEAD~1", repository) == ["classify/classify.py", "hello/committed.py", "docs/new.md"]
    assert changed_files("HEAD", repository) == ["classify/classify.py", "docs/new.md"]
    with pytest.raises(GraphError, match="git diff --name-only no-such-revision"):
        changed_files("no-such-revision", repository)


# --- this repository -------------------------------------------------------------------------------------------------


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One question to the graph of this repository."""
    command = [sys.executable, str(ROOT / "ci" / "image_graph.py"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_the_repository_s_own_graph_is_complete_and_in_order() -> None:
    images = read_graph(arguments=OURS)
    names = ask("list").stdout.split()
    assert sorted(names) == sorted(images)
    for image in images.values():
        assert all(names.index(parent) < names.index(image.name) for parent in image.parents)
        unknown = [reference for reference in image.external if reference.startswith("localhost/")]
        assert unknown == [], f"{image.name} is built from an image that no folder here makes"
    tasks = {path.parent.name for path in ROOT.glob("*/*_definition.json")}
    assert tasks == set(ask("tasks").stdout.split())
    assert "hello-gbdx" in tasks


def test_the_questions_are_answered_from_any_folder() -> None:
    assert ask("deps", "hello-gbdx").stdout == "hello-gbdx\n"
    assert ask("hash", "hello-gbdx").stdout.strip() == source_hash("hello-gbdx", read_graph())
    entries = json.loads(ask("matrix").stdout)["include"]
    assert {"task": "hello-gbdx", "needs": ""} in entries


def test_a_question_that_makes_no_sense_shows_the_usage_and_an_unknown_image_a_sentence() -> None:
    for arguments in ((), ("deps",), ("colour", "hello-gbdx")):
        done = ask(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "python3 ci/image_graph.py list" in done.stderr
    done = ask("deps", "helo")
    assert done.returncode == 1
    assert done.stderr.startswith("image graph: no image is called 'helo'; there are: ")


def test_only_files_that_can_get_into_the_image_are_its_sources() -> None:
    names = {path.name for path in source_files(ROOT / "hello-gbdx")}
    assert {"Dockerfile", "hello_gbdx.py", "gbdx_task_interface.py", "hello-gbdx_definition.json"} <= names
    assert names.isdisjoint({"README.md", "ports.json", "data_file.txt", "test_hello_gbdx.py"})
