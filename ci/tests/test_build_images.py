"""ci/build_images.py: builds what is missing, in order, with labels, and leaves nothing of the machine in an image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT, Image, read_graph

pytestmark = pytest.mark.container

# Fails unless the CA file was lent; what it leaves is listed by the test.
READS_THE_CA = """# Reads the machine's CA file.
FROM localhost/hello-gbdx:dev
USER 0
RUN --mount=type=secret,id=ca,target=/dev/shm/ca.crt grep -q 'BEGIN CERTIFICATE' /dev/shm/ca.crt && touch /was-read
"""


def build_command(*names: str) -> subprocess.CompletedProcess[str]:
    """ci/build_images.py in a process of its own."""
    command = [sys.executable, ROOT / "ci" / "build_images.py", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def image_of(root: Path, dockerfile: str) -> Image:
    """A base image in a repository of its own."""
    folder = root / "base-images" / "made-for-a-test"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)
    return read_graph(root)["made-for-a-test"]


def test_a_second_build_does_nothing(engine: str) -> None:
    assert build_command("hello-gbdx").returncode == 0
    again = build_command("hello-gbdx")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_tag_that_was_moved_away_is_moved_back_without_a_build(engine: str, hello_image: str) -> None:
    right = build_images.image_ids(engine, hello_image)
    subprocess.run([engine, "tag", "debian:trixie-slim", hello_image], check=True)
    done = build_command("hello-gbdx")
    assert "building" not in done.stderr
    assert build_images.image_ids(engine, hello_image) == right


def test_an_unknown_name_is_answered_with_the_names_there_are(engine: str) -> None:
    done = build_command("no-such-task")
    assert done.returncode == 1
    assert "build: no image is called 'no-such-task'; there are: " in done.stderr
    assert "hello-gbdx" in done.stderr


def test_a_build_that_fails_shows_its_end_and_names_the_image(
    engine: str, hello_image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = image_of(tmp_path, "FROM localhost/hello-gbdx:dev\nRUN echo so far so good && false\n")
    with pytest.raises(build_images.BuildError, match="made-for-a-test: the build failed: see the lines above"):
        build_images.build(engine, image, ["localhost/made-for-a-test:test"], {})
    assert "so far so good" in capfd.readouterr().err


def test_the_ca_file_of_the_machine_is_lent_to_a_build_and_stays_in_no_layer(
    engine: str, hello_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nnot a real one\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    tag = "localhost/made-for-a-test:test"
    build_images.build(engine, image_of(tmp_path, READS_THE_CA), [tag], {})
    container = subprocess.check_output([engine, "create", tag, "true"], text=True).strip()
    try:
        files = subprocess.run(
            f"{engine} export {container} | tar t", shell=True, check=True, capture_output=True, text=True
        )
        history = subprocess.check_output([engine, "history", "--no-trunc", tag], text=True)
    finally:
        subprocess.run([engine, "rm", container], capture_output=True, check=True)
        subprocess.run([engine, "rmi", "--force", tag], capture_output=True, check=True)
    assert "was-read" in files.stdout
    assert "ca.crt" not in files.stdout
    assert "not a real one" not in history


def test_the_base_is_labelled_with_its_name_and_digest(engine: str, hello_image: str) -> None:
    found = subprocess.check_output([engine, "image", "inspect", "--format", "{{json .Config.Labels}}", hello_image])
    labels = json.loads(found)
    assert labels["org.opencontainers.image.base.name"] == "debian:trixie-slim"
    assert labels["org.opencontainers.image.base.digest"] == build_images.base_digest(engine, "debian:trixie-slim")
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")


def test_a_copied_context_is_the_same_for_every_umask_and_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, mode in (("script.py", 0o600), ("run.sh", 0o700)):
        (source / name).write_text(name)
        (source / name).chmod(mode)
    (source / "test_inputs").mkdir()
    build_images.copy_context(source, tmp_path / "context", 1754697600)
    found = {p.name: (oct(p.stat().st_mode)[-3:], int(p.stat().st_mtime)) for p in (tmp_path / "context").iterdir()}
    assert found == {"script.py": ("644", 1754697600), "run.sh": ("755", 1754697600)}
