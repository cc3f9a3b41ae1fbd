"""Copies of shared files: what differs is copied, and --check only says it."""

import subprocess
import sys
from pathlib import Path

import pytest

SYNC = Path(__file__).parent.parent / "sync_copies.py"
MASTER, COPY = "hello-gbdx/gbdx_task_interface.py", "my-task/gbdx_task_interface.py"


@pytest.fixture
def root(tmp_path):
    for name in ("hello-gbdx", "my-task", "no-task", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("hello-gbdx", "my-task", ".hidden"):
        (tmp_path / name / f"{name}_definition.json").write_text("{}")
    (tmp_path / MASTER).write_bytes(b"the interface\r\n")
    return tmp_path


def sync(root, *options):
    command = [sys.executable, str(SYNC), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_missing_copy_is_made_byte_for_byte_and_only_in_task_folders(root):
    result = sync(root)
    assert (result.returncode, result.stdout) == (0, f"copied {COPY} from {MASTER}\n")
    assert (root / COPY).read_bytes() == b"the interface\r\n"
    assert sorted(str(path.relative_to(root)) for path in root.rglob("gbdx_*.py")) == [MASTER, COPY]


def test_a_copy_that_differs_is_replaced_and_a_second_sync_does_nothing(root):
    (root / COPY).write_text("edited")
    assert sync(root).stdout == f"copied {COPY} from {MASTER}\n"
    made = (root / COPY).stat().st_mtime_ns
    result = sync(root)
    assert (result.returncode, result.stdout) == (0, "all copies equal their masters\n")
    assert (root / COPY).stat().st_mtime_ns == made


def test_check_lists_what_differs_and_changes_nothing(root):
    (root / COPY).write_text("edited")
    result = sync(root, "--check")
    assert (result.returncode, result.stdout) == (1, f"differs: {COPY} from {MASTER} (make sync copies it)\n")
    assert (root / COPY).read_text() == "edited"


def test_check_is_content_with_equal_copies(root):
    sync(root)
    result = sync(root, "--check")
    assert (result.returncode, result.stdout) == (0, "all copies equal their masters\n")


def test_a_link_is_replaced_by_a_file_as_the_folder_must_stand_alone(root):
    (root / COPY).symlink_to(root / MASTER)
    assert sync(root, "--check").returncode == 1
    assert sync(root).returncode == 0
    assert not (root / COPY).is_symlink()
    assert (root / MASTER).read_bytes() == (root / COPY).read_bytes() == b"the interface\r\n"


def test_a_missing_master_is_a_sentence(root):
    (root / MASTER).unlink()
    result = sync(root)
    assert (result.returncode, result.stderr) == (2, f"sync: expected the master copy {MASTER}, found none\n")


def test_the_copies_in_this_repository_equal_their_masters():
    result = subprocess.run([sys.executable, str(SYNC), "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
