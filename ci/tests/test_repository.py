"""The repository's own rules: names, copies, what stays out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from image_graph import ROOT, image_folders, task_folders

TOP_LEVEL = {
    "LICENSE", "Makefile", "README.md", "CHANGELOG.md", "pyproject.toml", "base-images", "gbdx-platform", "ci", "docs",
}  # fmt: skip
VAGUE_NAMES = {"utils", "helpers", "common", "base", "manager", "misc", "tools"}
HOSTS = ("py" + "pi.org", "pythonhosted" + ".org", "deb.debian" + ".org", "npmjs" + ".org", "docker" + ".io/library")


def tracked() -> list[Path]:
    """Every file of the repository, new ones included, ignored ones not."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    return [ROOT / line for line in subprocess.check_output(command, text=True).splitlines() if (ROOT / line).exists()]


def texts() -> list[tuple[Path, str]]:
    """Every text file with its content."""
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:8000]:
            found.append((path, content.decode("utf-8", errors="replace")))
    return found


def test_the_top_level_tells_what_this_is() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    visible = {name for name in names if not name.startswith(".")}
    assert visible - TOP_LEVEL == {folder.name for folder in task_folders()}


def test_no_module_has_a_vague_name() -> None:
    assert [path for path in tracked() if path.suffix == ".py" and path.stem in VAGUE_NAMES] == []


def test_python_files_are_snake_case_and_image_folders_kebab_case() -> None:
    assert [p for p in tracked() if p.suffix == ".py" and not re.fullmatch(r"[a-z0-9_]+", p.stem)] == []
    assert [f for f in image_folders() if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", f.name)] == []


def test_no_registry_host_is_named() -> None:
    named = [(path, host) for path, text in texts() for host in HOSTS if host in text]
    assert named == []


def test_no_dockerfile_asks_for_a_frontend_from_docker_hub() -> None:
    dockerfiles = [(path, text) for path, text in texts() if path.name == "Dockerfile"]
    assert dockerfiles
    assert [path for path, text in dockerfiles if "# syntax=" in text] == []


def test_each_dockerfile_names_its_size_budget_and_clamps_file_times() -> None:
    for folder in image_folders():
        text = (folder / "Dockerfile").read_text()
        assert "gbdx.image.budget-megabytes=" in text, folder
        assert "\nRUN " not in text or "ARG SOURCE_DATE_EPOCH=" in text, folder


def test_the_interface_is_the_same_file_in_every_task() -> None:
    master = (ROOT / "hello-gbdx" / "gbdx_task_interface.py").read_bytes()
    assert [f.name for f in task_folders() if (f / "gbdx_task_interface.py").read_bytes() != master] == []


def test_the_makefile_stays_short() -> None:
    assert len((ROOT / "Makefile").read_text().splitlines()) <= 100


@pytest.mark.parametrize("folder", task_folders(), ids=lambda folder: folder.name)
def test_the_sample_inputs_stay_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in (folder / "test_inputs").rglob("*") if path.is_file()) < 10**6


def test_make_run_prints_nothing_of_the_environment() -> None:
    command = ["make", "-C", ROOT, "--no-print-directory", "run", "TASK=no-such-task", "SECRET_TOKEN=hunter2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "refused: no task is called 'no-such-task'; for example: make run TASK=hello-gbdx" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
