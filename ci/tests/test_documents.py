"""Documents are code: their commands run, their tables and links are held against what is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from document_blocks import BLOCK, KINDS, RUNNABLE, Block, blocks, tracked
from image_graph import ROOT, task_folders
from task_verdict import EXIT_CODES

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VERB = re.compile(r"\bmake ([a-z][a-z-]+)")
ANYTHING, NUMBER = re.compile(r"\.\.\."), re.compile(r"\d+(?:[-.]\d+)*")
DOCUMENTS = tracked("*.md")
PLATFORM = ROOT / "gbdx-platform"
FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"


def named(path: Path) -> str:
    """A document's name in the list of tests."""
    return str(path.relative_to(ROOT))


def verbs() -> dict[str, str]:
    """The Makefile's verbs and what `make help` says of each."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def loosely(text: str) -> str:
    """A pattern for output in which numbers (seconds, days, counts) may differ, and `...` stands for anything."""
    parts = ANYTHING.split(text.strip())
    return ".*?".join(NUMBER.pattern.join(map(re.escape, NUMBER.split(part))) for part in parts)


# --- every block is run, page by page, each page in a copy of the repository


def steps(block: Block) -> Iterator[tuple[str, str | None]]:
    """(script, output that the page shows) of a block; None where it shows none."""
    inside = f"pushd {shlex.quote(block.text)} >/dev/null\n" if block.kind == "in" else ""
    outside = "\npopd >/dev/null\n" if inside else "\n"
    if block.language == "console":
        for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield inside + command + outside, output
    elif block.language == "python":
        yield f"{inside}python - <<'END OF BLOCK'\n{block.code}END OF BLOCK{outside}", None
    else:
        yield inside + block.code + outside, None


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A clone with the files as they are here, which a page may change; the tools' environments are lent."""
    target = tmp_path / "repository"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, target], check=True)
    subprocess.run(["git", "-C", target, "reset", "--quiet"], check=True)
    files = [str(path.relative_to(ROOT)) for path in tracked("*")]
    subprocess.run(["cp", "-a", "--parents", *files, target], cwd=ROOT, check=True)
    for environment in (".venv", "gbdx-platform/.venv"):
        (target / environment).symlink_to(ROOT / environment)
    return target


@pytest.fixture
def shell(engine: str, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a page's shell: the engine is called docker, the platform is on the path, on a free port."""
    programs = tmp_path / "bin"
    programs.mkdir()
    port = subprocess.check_output([sys.executable, "-c", FREE_PORT], text=True).strip()
    own_bin = PLATFORM / ".venv" / "bin"
    written = {
        "docker": f'exec {engine} "$@"',
        "python": f'exec {own_bin}/python "$@"',
        "gbdx-platform": f'[ "$1" != serve ] || set -- "$@" --port {port}\nexec {own_bin}/gbdx-platform "$@"',
    }
    for name, script in written.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    own = {name: value for name, value in environment.items() if not name.startswith(("AWS_", "GBDX_", "DATABASE_"))}
    path = f"{programs}:{os.environ['PATH']}"
    return {**own, "PATH": path, "GBDX_STATE": str(tmp_path / "state"), "COLUMNS": "100", "EDITOR": "true"}


@pytest.fixture
def no_new_images(engine: str, copy: Path) -> Iterator[None]:
    """Removes the images of the tasks that a page has made."""
    yield
    ours = {folder.name for folder in task_folders()}
    made = [f"localhost/{folder.name}" for folder in task_folders(copy) if folder.name not in ours]
    for name in made:
        listed = subprocess.check_output([engine, "images", "--format", "{{.Repository}}:{{.Tag}}", name], text=True)
        subprocess.run([engine, "rmi", *listed.split()], check=False, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def platform() -> None:
    """The platform's command, installed."""
    subprocess.run([PLATFORM / "install.sh"], check=True, stdout=subprocess.DEVNULL)


def run_in_one_shell(scripts: list[str], folder: Path, environment: dict[str, str], notes: Path) -> int:
    """Runs scripts one after the other, each with its own stdout and stderr in `notes`; returns how many ended well."""
    driver = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for number, script in enumerate(scripts):
        (notes / f"step-{number}").write_text(script)
        driver.append(f". {notes}/step-{number} >{notes}/out-{number} 2>{notes}/error-{number}")
        driver.append(f"echo {number} >>{notes}/done")
    subprocess.run(["bash", "-c", "\n".join(driver)], cwd=folder, env=environment, check=False, timeout=3600)
    return len((notes / "done").read_text().splitlines()) if (notes / "done").exists() else 0


@pytest.mark.container
@pytest.mark.usefixtures("platform", "no_new_images")
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b.is_run for b in blocks(d))], ids=named)
def test_a_page_works_from_top_to_bottom(document: Path, copy: Path, shell: dict[str, str], tmp_path: Path) -> None:
    walk = [(block, *step) for block in blocks(document) if block.is_run for step in steps(block)]
    done = run_in_one_shell([script for _, script, _ in walk], copy, shell, tmp_path)
    for number, (block, script, expected) in enumerate(walk):
        where, errors = f"{named(document)}:{block.line}", tmp_path / f"error-{number}"
        assert number < done, f"{where} fails: {script}{errors.read_text()}"
        printed = (tmp_path / f"out-{number}").read_text().strip()
        is_shown = expected is None or bool(re.fullmatch(loosely(expected), printed, re.DOTALL))
        assert is_shown, f"{where} shows another output than: {printed}"


@pytest.mark.container
@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("document", ["docs/workflows.md", "gbdx-platform/README.md"])
def test_waiting_for_a_service_that_can_not_start_ends_with_the_reason(
    document: str, copy: Path, shell: dict[str, str]
) -> None:
    start = next(block.code for block in blocks(ROOT / document) if "gbdx-platform serve >" in block.code)
    done = subprocess.run(
        ["bash", "-eu"],
        input=start.partition("done\n")[0] + "done\n",
        capture_output=True,
        text=True,
        cwd=copy,
        env=shell | {"GBDX_SLOTS": "two"},
        check=False,
        timeout=300,
    )
    assert "GBDX_SLOTS: expected a number above 0" in done.stdout, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_block_that_is_not_run_says_why_and_quotes_are_true(document: Path) -> None:
    for block in blocks(document):
        where = f"{named(document)}:{block.line}"
        assert block.kind in ("", *KINDS), f"{where}: expected one of {KINDS}, found {block.kind}"
        assert block.kind != "in" or (ROOT / block.text).is_dir(), where
        assert block.kind != "file" or block.code in (ROOT / block.text).read_text(encoding="utf-8"), where


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_no_block_hides_from_the_tests(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    outside = BLOCK.sub("", text)
    assert not re.search(r"^\s*(?:```|~~~)", outside, re.MULTILINE)
    assert not re.search(r"\n\n(?: {4}|\t)\S", outside), "expected fenced code, found indented code"
    assert {block.language for block in blocks(document)}.isdisjoint({"sh", "shell", "python3", "py", "pycon"})
    # A comment that stands apart from its block, or is misspelled, would do nothing.
    assert not re.search(rf"^<!-- (?:{'|'.join(KINDS)})\b", outside, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_make_verb_in_a_document_exists(document: Path) -> None:
    code = re.findall(r"`(make [^`\n]*)`", document.read_text(encoding="utf-8"))
    code += [block.code for block in blocks(document) if block.language in RUNNABLE]
    assert {verb for text in code for verb in VERB.findall(text)} <= set(verbs())


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_shell_block_is_valid_shell(document: Path) -> None:
    for block in blocks(document):
        if block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)


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


def test_every_sentence_in_troubleshooting_is_said_by_the_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text("utf-8", "replace") for pattern in ("*.py", "*.sh") for path in tracked(pattern))
    sentences = [cell for _, cell in re.findall(r"^\| (`+) ?([^|]+?) ?\1 \|", text, re.MULTILINE)]
    assert len(sentences) > 20
    # What is quoted around three dots is a value; a word or two alone would be found anywhere.
    parts = [part.strip(" '`:") for cell in sentences for part in re.split(r"'?\.\.\.'?", cell)]
    assert [part for part in parts if len(part) > 9 and part not in code] == []


# --- the site


def test_the_pictures_are_what_the_script_draws() -> None:
    script = ROOT / "ci" / "draw_pictures.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("platform")
def test_the_tables_are_what_the_script_writes() -> None:
    script = ROOT / "ci" / "document_tables.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", contents, re.MULTILINE)
    pages = [path.name for path in tracked("docs/*.md") if path.parent.name == "docs" and path.name != "README.md"]
    assert set(pages) <= set(listed)


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built anew; a link or an anchor that leads nowhere fails the build."""
    done = subprocess.run([ROOT / "ci" / "docs.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "docs" / "_site"


def test_the_site_opens_at_its_start_page(site: Path) -> None:
    target = re.search(r"url=([^\"]+)", (site / "index.html").read_text(encoding="utf-8"))
    assert target
    assert "From the start" in (site / target[1]).read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    # What a browser fetches by itself: scripts, pictures, frames, fonts, style sheets; links are for people.
    fetched = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import )\s*["']?((?:https?:)?//[^"')\s>]+)""")
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    found = {match for file in files for match in fetched.findall(file.read_text(encoding="utf-8"))}
    assert len(files) > 20
    assert found == set()
