"""The generator of strips and parcels: deterministic, true to its options, and the committed sample is its work."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.mask
from rasterio.warp import transform_geom

HERE = Path(__file__).parent
SAMPLE = HERE / "test_inputs"


def make(out, *options):
    """Run the generator as a person would; gives its folder."""
    command = [sys.executable, "-W", "ignore", str(HERE / "make_test_inputs.py"), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(out)


def pixels(folder):
    (path,) = (folder / "image").iterdir()
    with rasterio.open(path) as source:
        return source.read(), source.profile


def parcels(folder):
    return json.loads((folder / "geojson" / "train.geojson").read_text())["features"]


def test_the_committed_sample_is_what_the_generator_makes(tmp_path):
    made = make(tmp_path / "made", "--compress", "deflate")
    assert np.array_equal(pixels(made)[0], pixels(SAMPLE)[0])
    for name in ("geojson/train.geojson", "ports.json"):
        assert (made / name).read_text() == (SAMPLE / name).read_text()


def test_the_committed_sample_stays_under_a_megabyte():
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 1_000_000


def test_the_strip_has_8_bands_in_utm_and_the_parcels_lie_on_it_in_longitude_and_latitude():
    values, profile = pixels(SAMPLE)
    assert (profile["count"], profile["dtype"], profile["crs"].to_string()) == (8, "uint16", "EPSG:32754")
    left, bottom, right, top = rasterio.transform.array_bounds(*values.shape[1:], profile["transform"])
    for feature in parcels(SAMPLE):
        ring = transform_geom("OGC:CRS84", profile["crs"], feature["geometry"])["coordinates"][0]
        assert all(left < x < right and bottom < y < top for x, y in ring)
        assert 138 < feature["geometry"]["coordinates"][0][0][0] < 139


def test_both_classes_have_as_many_parcels_and_every_parcel_its_own_id():
    found = [feature["properties"] for feature in parcels(SAMPLE)]
    assert len({properties["feature_id"] for properties in found}) == len(found) == 180
    assert {properties["image_id"] for properties in found} == {next((SAMPLE / "image").iterdir()).stem}
    labels = [properties["class_name"] for properties in found]
    assert labels.count("Swimming pool") == labels.count("No swimming pool") == 90


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--layout", "striped"), {"tiled": False}),
        (("--compress", "lzw"), {"tiled": True, "compress": "lzw"}),
        (("--compress", "zstd", "--interleave", "band"), {"compress": "zstd", "interleave": "band"}),
    ],
    ids=str,
)
def test_the_layout_of_the_file_does_not_change_its_pixels(tmp_path, options, expected):
    values, profile = pixels(make(tmp_path / "made", *options))
    assert np.array_equal(values, pixels(SAMPLE)[0])
    assert {key: profile.get(key) for key in expected} == expected


def test_a_strip_under_given_parcels_shows_their_pools(tmp_path):
    """The same parcels in another CRS and order: the same ground, so that pools stay where labels say they are."""
    found = parcels(SAMPLE)[::-1]
    given = tmp_path / "given.geojson"
    given.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    made = make(tmp_path / "made", "--geojson", str(given), "--label-noise", "0")
    assert [feature["properties"]["feature_id"] for feature in parcels(made)] == [
        feature["properties"]["feature_id"] for feature in found
    ]
    (path,) = (made / "image").iterdir()
    ratios = {"Swimming pool": [], "No swimming pool": []}
    with rasterio.open(path) as source:
        for feature in found:
            shape = transform_geom("OGC:CRS84", source.crs, feature["geometry"])
            chip, _ = rasterio.mask.mask(source, [shape], crop=True, filled=False)
            blue, red_edge = chip[1].astype(float), chip[5].astype(float)
            ratios[feature["properties"]["class_name"]].append(((blue - red_edge) / (blue + red_edge)).max())
    assert np.median(ratios["Swimming pool"]) > 0.3 > np.median(ratios["No swimming pool"]) + 0.3


def test_clouds_cover_about_the_share_asked_for(tmp_path):
    values, _ = pixels(make(tmp_path / "made", "--clouds", "0.3", "--gigabytes", "0.05"))
    assert 0.2 < (values[0] > 4000).mean() < 0.4


def test_memory_does_not_grow_with_the_strip(tmp_path):
    """A strip of 0.3 GB is painted by a process that never holds it."""
    script = (
        "import resource, runpy, sys\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)\n"
    )
    code = (
        f"import sys; sys.argv = {[str(HERE / 'make_test_inputs.py'), str(tmp_path), '--gigabytes', '0.3']!r}\n{script}"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    size = next((tmp_path / "image").iterdir()).stat().st_size
    assert size == pytest.approx(0.3e9, rel=0.15)  # tiles at the edges are whole
    assert int(done.stdout.split()[-1]) < 1000


def test_a_wrong_option_is_refused_with_a_sentence():
    command = [sys.executable, str(HERE / "make_test_inputs.py"), "out", "--resolution", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected a number above 0, found 0" in done.stderr
