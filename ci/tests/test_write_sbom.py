"""ci/write_sbom.py: a bill of materials that names what is in an image, and a report that does not claim too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT
from write_sbom import missing_packages, pending_updates

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def bill(engine: str, environment: dict[str, str]) -> Path:
    """The bill of materials of base-images/gdal, on a machine without grype."""
    command = [sys.executable, ROOT / "ci" / "write_sbom.py", "gdal"]
    done = subprocess.run(
        command, env={**environment, "GRYPE": "no-such-grype"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(".make/sbom/gdal.spdx.json: ")
    return ROOT / ".make" / "sbom" / "gdal.spdx.json"


def test_the_bill_of_materials_names_python_and_gdal_with_their_versions(engine: str, bill: Path) -> None:
    document = json.loads(bill.read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    command = [engine, "run", "--rm", "--network", "none", build_images.reference("gdal"), "dpkg-query", "--show"]
    installed = [line.split("\t") for line in subprocess.check_output(command, cwd="/", text=True).splitlines()]
    versions = {package["name"]: package.get("versionInfo") for package in document["packages"]}
    for name, version in installed:
        assert versions[name.partition(":")[0]] == version
    assert {"libgdal36", "python3.13", "python3-numpy"} <= {name.partition(":")[0] for name, _ in installed}


def test_a_package_that_the_bill_of_materials_lacks_is_found(engine: str, bill: Path, tmp_path: Path) -> None:
    document = json.loads(bill.read_text())
    document["packages"] = [package for package in document["packages"] if package["name"] != "libgdal36"]
    (tmp_path / "bill.json").write_text(json.dumps(document))
    assert missing_packages(engine, build_images.reference("gdal"), tmp_path / "bill.json") == ["libgdal36"]


def test_without_a_database_the_report_says_that_none_was_asked(bill: Path) -> None:
    report = bill.with_name("gdal.vulnerabilities.txt").read_text()
    assert "grype:\nno report: grype is not installed here, so that no vulnerability database was asked\n" in report


def test_a_python_package_from_an_index_is_in_the_bill_too(engine: str, bill: Path, hello_image: str) -> None:
    dockerfile = (
        f"FROM {hello_image}\nUSER 0\n"
        "RUN d=/usr/local/lib/python3.13/dist-packages/Some_Package-1.0.dist-info && mkdir -p $d && "
        "printf 'Metadata-Version: 2.1\\nName: Some_Package\\nVersion: 1.0\\n' >$d/METADATA"
    )
    image = "localhost/some-package:test"
    command = [engine, "build", "--quiet", "--tag", image, "-"]
    subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True)
    try:
        assert "Some_Package" in missing_packages(engine, image, bill)
    finally:
        subprocess.run([engine, "rmi", image], capture_output=True, check=True)


def test_updates_are_unknown_where_debians_lists_can_not_be_reached(engine: str, hello_image: str) -> None:
    image = "localhost/unreachable-lists:test"
    command = [engine, "build", "--quiet", "--tag", image, "-"]
    sources = "deb http://127.0.0.1:1/debian trixie main"
    change = f"rm -rf /etc/apt/sources.list.d && echo '{sources}' >/etc/apt/sources.list"
    dockerfile = f"FROM {hello_image}\nUSER 0\nRUN {change}\n"
    subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True)
    try:
        found = pending_updates(engine, image)
    finally:
        subprocess.run([engine, "rmi", image], capture_output=True, check=True)
    assert found == "not known: Debian's package lists can't be reached from a container here"
