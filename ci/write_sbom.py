#!/usr/bin/env python3
"""Lists what is in an image: ci/write_sbom.py NAME ... (none: every task's)

.make/sbom/NAME.spdx.json is a software bill of materials (SPDX 2.3, by syft); it has to name every Debian package and
every installed Python package that the image itself knows of. Beside it NAME.vulnerabilities.txt tells what is known to
be wrong with them: Debian's updates that the image lacks, and grype's report. Where either can't be had, it says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import build_images
from build_images import BuildError
from image_graph import ROOT, GraphError, lineage, read_graph
from push_images import variant

SBOM = ROOT / ".make" / "sbom"
REQUIREMENTS = ROOT / "ci" / "requirements-sbom.txt"
# Debian's own Python packages are listed as what they are there: Debian packages.
PYTHON_PACKAGES = """
import importlib.metadata
for found in importlib.metadata.distributions():
    if not str(found.locate_file("")).startswith("/usr/lib/python3/"):
        print(found.metadata["Name"])
"""
PENDING_UPDATES = "apt-get update -qq 2>&1 && apt-get -s upgrade | grep ^Inst || true"


class SbomError(RuntimeError):
    """An image's contents can't be listed, or the list is not complete; the message says why."""


def installed_syft() -> Path:
    """syft's command line, installed into an environment of its own where it is missing or another version."""
    folder = ROOT / ".make" / "syft"
    stamp = folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
        print("sbom: installing syft", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(REQUIREMENTS)], check=True)
        shutil.copy(REQUIREMENTS, stamp)
    return folder / "bin" / "syft"


def lines_from(engine: str, image: str, *command: str, network: str = "none") -> list[str]:
    """What a command in a container of an image prints."""
    run = [engine, "run", "--rm", "--network", network, "--user", "0", "--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(run, cwd="/", capture_output=True, text=True, check=True).stdout.splitlines()


def write_spdx(engine: str, image: str, target: Path) -> None:
    """Writes an image's bill of materials with syft, which reads it from the engine's store."""
    kind = "podman" if "podman" in Path(engine).name else "docker"
    settings = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    command = [str(installed_syft()), "scan", "--quiet", f"{kind}:{image}", "--output", f"spdx-json={target}"]
    if subprocess.run(command, env=settings, check=False).returncode:
        raise SbomError(f"{image}: syft failed: see the lines above")


def plain(name: str) -> str:
    """A package's name as indexes compare it: `Foo_bar.baz` is `foo-bar-baz`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_packages(engine: str, image: str, bill: Path) -> list[str]:
    """The Debian and Python packages of an image that its bill of materials doesn't name."""
    listed = {plain(package["name"]) for package in json.loads(bill.read_text(encoding="utf-8"))["packages"]}
    installed = lines_from(engine, image, "dpkg-query", "--show", "--showformat", "${Package}\\n")
    installed += lines_from(engine, image, "python3", "-c", PYTHON_PACKAGES)
    return sorted(name for name in set(installed) if plain(name) not in listed)


def pending_updates(engine: str, image: str) -> str:
    """Debian's updates for what is in an image, one a line, or why that is not known."""
    found = lines_from(engine, image, "sh", "-c", PENDING_UPDATES, network="bridge")
    if any(not line.startswith("Inst ") for line in found):
        return "not known: Debian's package lists can't be reached from a container here"
    return "\n".join(found) or "none"


def grype_report(bill: Path) -> str:
    """grype's report on a bill of materials, or why there is none. GRYPE names its command."""
    grype = shutil.which(os.environ.get("GRYPE") or "grype")
    if not grype:
        return "no report: grype is not installed here, so that no vulnerability database was asked"
    done = subprocess.run([grype, "--quiet", f"sbom:{bill}"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"no report: grype failed: {done.stderr.strip()}"


def write(engine: str, name: str, image: str) -> None:
    """Writes both files for an image and prints a line about them."""
    SBOM.mkdir(parents=True, exist_ok=True)
    bill = SBOM / f"{name}.spdx.json"
    write_spdx(engine, image, bill)
    if missing := missing_packages(engine, image, bill):
        raise SbomError(f"{bill.name}: expected every package of {image}, found none of: {', '.join(missing)}")
    report = bill.with_name(f"{name}.vulnerabilities.txt")
    found = {"Debian's updates that it lacks": pending_updates(engine, image), "grype": grype_report(bill)}
    report.write_text("".join(f"{title}:\n{text}\n\n" for title, text in found.items()), encoding="utf-8")
    packages = len(json.loads(bill.read_text(encoding="utf-8"))["packages"])
    print(f"{bill.relative_to(ROOT)}: {packages} packages; what is known to be wrong with them: {report.name}")


def main(names: list[str]) -> int:
    """Builds what is missing, and lists what is in the images."""
    engine = build_images.find_engine()
    images = read_graph(arguments=build_images.asked_arguments())
    wanted = [lineage(name, images)[-1] for name in names] or [image for image in images.values() if image.is_task]
    build_images.bring_up_to_date(engine, [image.name for image in wanted])
    for image in wanted:
        write(engine, image.name + variant(image, images), build_images.reference(image.name))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (SbomError, BuildError, GraphError) as error:
        sys.exit(f"sbom: {error}")
