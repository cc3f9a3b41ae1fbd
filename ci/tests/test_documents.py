"""Documents are code: their commands run, their tables and links are held against what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from image_graph import ROOT, task_folders
from task_verdict import EXIT_CODES

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VERB = re.compile(r"\bmake ([a-z][a-z-]+)")


def tracked(pattern: str) -> list[Path]:
    """Files of the repository that match, new ones included."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    return [ROOT / line for line in subprocess.check_output(command, text=True).splitlines() if (ROOT / line).exists()]


DOCUMENTS = tracked("*.md")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    return [text for name, text in FENCE.findall(document.read_text(encoding="utf-8")) if name == language]


def verbs() -> dict[str, str]:
    """The Makefile's verbs and what `make help` says of each."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def loosely(text: str) -> str:
    """A pattern for output in which numbers (seconds, days, counts) may differ."""
    return r"\d+(?:-\d+)*".join(map(re.escape, re.split(r"\d+(?:-\d+)*", text.strip())))


def console_sessions() -> list[tuple[Path, str, str]]:
    """Each command of a `console` block with the output that the document shows for it."""
    sessions = []
    for document in DOCUMENTS:
        for block in blocks(document, "console"):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                sessions.append((document, command, output))
    return sessions


@pytest.mark.container
@pytest.mark.parametrize(("document", "command", "output"), console_sessions())
def test_a_command_prints_what_the_document_shows(
    engine: str, environment: dict[str, str], document: Path, command: str, output: str
) -> None:
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0
    assert re.fullmatch(loosely(output), done.stdout.strip())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_verb_in_a_document_exists(document: Path) -> None:
    code = re.findall(r"`(make [^`\n]*)`", document.read_text(encoding="utf-8")) + blocks(document, "bash")
    named = {verb for text in code for verb in VERB.findall(text)}
    assert named <= set(verbs())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shell_block_is_valid_shell(document: Path) -> None:
    for block in blocks(document, "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize("verb", verbs())
def test_every_make_verb_is_documented_and_shown_by_help(verb: str) -> None:
    shown = subprocess.check_output(["make", "-C", ROOT, "--no-print-directory"], text=True)
    assert re.search(rf"^  make {verb} +\S", shown, re.MULTILINE)
    documents = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert verb == "help" or re.search(rf"make (?:[a-z-]+ )*{verb}\b", documents), f"no document shows make {verb}"


def test_help_lists_the_tasks() -> None:
    shown = subprocess.check_output(["make", "-C", ROOT, "--no-print-directory", "help"], text=True)
    assert f"Tasks: {' '.join(folder.name for folder in task_folders())}\n" in shown


def test_the_readme_lists_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word: int(code) for code, word in rows} == EXIT_CODES


def test_the_readme_lists_every_task_and_every_top_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [f.name for f in task_folders() if f"[{f.name}]({f.name}/README.md)" not in readme] == []
    tops = {path.relative_to(ROOT).parts[0] for path in tracked("*") if len(path.relative_to(ROOT).parts) > 1}
    assert [top for top in sorted(tops) if not top.startswith(".") and f"{top}/" not in readme] == []


@pytest.mark.parametrize("folder", task_folders(), ids=lambda folder: folder.name)
def test_a_task_readme_has_20_to_60_lines(folder: Path) -> None:
    assert 20 <= len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_the_readme_shows_what_a_task_sees_and_how_to_make_one_on_its_first_screen() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:56])
    for shown in ("make run TASK=hello-gbdx", "| task | what it does |", "make new NAME=", "/mnt/work/", "status.json"):
        assert shown in first_screen


def test_the_readme_test_command_is_what_ci_runs() -> None:
    assert "`make test` runs all the tests" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"


@pytest.mark.container
def test_a_readme_block_without_this_repository_works_in_a_copied_folder(engine: str, tmp_path: Path) -> None:
    folder = tmp_path / "hello-gbdx"
    subprocess.run(["cp", "-r", ROOT / "hello-gbdx", folder], check=True)
    container, plain = blocks(folder / "README.md", "bash")
    # The engine may be another than docker; a root caller needs a place that the container's user may write to.
    container = container.replace("docker ", f"{shlex.quote(engine)} ")
    for script in (container, plain):
        done = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (folder / "work" / "output" / "data_out" / "out.txt").read_text() == "data_file.txt\nThis is my message!"
