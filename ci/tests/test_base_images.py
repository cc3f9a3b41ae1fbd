"""The layers under the tasks: what each promises in its Dockerfile's comments, tried in a container."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import build_images
import pytest
from image_graph import lineage, read_graph

pytestmark = pytest.mark.container

# A 4 x 4 image of 8 bands over Adelaide (UTM zone 54 south), in the format under test, made and read back.
ROUND_TRIP = """
import sys
import numpy as np
from osgeo import gdal, osr
gdal.UseExceptions()
driver, name = sys.argv[1:]
crs = osr.SpatialReference()
crs.ImportFromEPSG(32754)
pixels = (np.arange(8 * 64 * 64) % 251).astype("uint8").reshape(8, 64, 64)
memory = gdal.GetDriverByName("MEM").Create("", 64, 64, 8, gdal.GDT_Byte)
memory.SetProjection(crs.ExportToWkt())
memory.SetGeoTransform((280000, 2, 0, 6130000, 0, -2))
memory.WriteArray(pixels)
options = {"JP2OpenJPEG": ["QUALITY=100", "REVERSIBLE=YES"], "NITF": ["IC=NC"]}.get(driver, [])
gdal.GetDriverByName(driver).CreateCopy(name, memory, options=options)
again = gdal.Open(name)
assert again.GetDriver().ShortName == driver.replace("COG", "GTiff"), again.GetDriver().ShortName
assert (again.ReadAsArray() == pixels).all()
print("equal")
"""

# The corner of that image, from metres to degrees: x is a longitude, y a latitude (south is negative). By hand: it lies
# 220 km west of the meridian of 141 degrees, which at 34.95 degrees south is 220 / 0.9996 / (6385 cos 34.95) rad or
# 2.41 degrees, so at 138.59.
REPROJECT = """
from osgeo import osr
osr.UseExceptions()
utm, lonlat = osr.SpatialReference(), osr.SpatialReference()
utm.ImportFromEPSG(32754)
lonlat.ImportFromEPSG(4326)
lonlat.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
print(*(round(v, 3) for v in osr.CoordinateTransformation(utm, lonlat).TransformPoint(280000, 6130000)[:2]))
"""


@pytest.fixture(scope="session")
def gdal_image(engine: str) -> str:
    """base-images/gdal, built."""
    assert build_images.main(["gdal"]) == 0
    return build_images.reference("gdal")


def inside(engine: str, image: str, *words: str) -> str:
    """What a command prints in a container of the image, without network, on a read-only root."""
    command = [engine, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", image, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("driver", "name"), [("NITF", "a.ntf"), ("JP2OpenJPEG", "a.jp2"), ("COG", "a.tif")])
def test_gdal_writes_and_reads_back_the_formats_of_satellite_imagery(
    engine: str, gdal_image: str, driver: str, name: str
) -> None:
    assert inside(engine, gdal_image, "python", "-c", ROUND_TRIP, driver, f"/tmp/{name}") == "equal"


def test_gdal_reprojects_with_its_own_proj_database(engine: str, gdal_image: str) -> None:
    assert inside(engine, gdal_image, "python", "-c", REPROJECT) == "138.591 -34.949"


def test_the_command_line_tools_know_the_same_coordinates(engine: str, gdal_image: str) -> None:
    command = "echo 280000 6130000 | gdaltransform -s_srs EPSG:32754 -t_srs OGC:CRS84 -output_xy"
    longitude, latitude = inside(engine, gdal_image, "sh", "-c", command).split()
    assert (round(float(longitude), 3), round(float(latitude), 3)) == (138.591, -34.949)


@pytest.mark.parametrize("image", [i for i in read_graph() if "gdal" in [p.name for p in lineage(i, read_graph())]])
def test_there_is_one_gdal_and_one_proj_database_on_everything_built_on_gdal(engine: str, image: str) -> None:
    assert build_images.main([image]) == 0
    find = "find / -xdev \\( -name 'libgdal*.so.*' -o -name 'libgdal-*' -o -name proj.db \\) -type f 2>/dev/null"
    found = inside(engine, build_images.reference(image), "sh", "-c", find + " || true").splitlines()
    assert [path.rsplit("/", 1)[-1].split(".so")[0] for path in sorted(found)] == ["libgdal", "proj.db"]


@pytest.mark.parametrize("name", sorted({i.name for t in read_graph().values() if t.is_task for i in
                                        lineage(t.name, read_graph()) if not i.is_task}))  # fmt: skip
def test_a_base_image_has_labels_a_user_and_keeps_within_its_budget(engine: str, name: str) -> None:
    assert build_images.main([name]) == 0
    image = build_images.reference(name)
    inspected = subprocess.check_output([engine, "image", "inspect", "--format", "{{json .Config}}", image])
    config: dict[str, Any] = json.loads(inspected)
    assert config["Labels"]["org.opencontainers.image.title"] == name
    assert len(config["Labels"]["org.opencontainers.image.description"]) > 20
    assert config["User"] not in ("", "0", "root")
    budget = int(config["Labels"]["gbdx.image.budget-megabytes"]) * 10**6
    command = [engine, "run", "--rm", "--user", "0", "--network", "none", image, "du", "-sxb", "/"]
    assert int(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[0]) <= budget
