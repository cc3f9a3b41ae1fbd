"""Bad inputs are refused before any work, each with its code and sentence; good ones never are."""

import json
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from sound_inputs import LEFT, SIDE, TO_DEGREES, TOP, UTM, Inputs, in_degrees, ring_of, sample_pixels

VRT = '<VRTDataset rasterXSize="1" rasterYSize="1"><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>'


def port(name, value):
    """A change that gives a string port a value."""
    return lambda inputs: inputs.texts.update({name: value})


def features(change):
    """A change of the list of features, written to train.geojson."""

    def spoil(inputs):
        change(inputs.features)
        inputs.write_geojson()

    return spoil


def each(change):
    """A change of every feature."""
    return features(lambda found: [change(feature) for feature in found])


def rings(change):
    """A change of every polygon's ring of [longitude, latitude]."""
    return each(lambda feature: feature["geometry"].update(coordinates=[change(feature["geometry"]["coordinates"][0])]))


def properties(**values):
    return each(lambda feature: feature["properties"].update(values))


def without(name):
    return each(lambda feature: feature["properties"].pop(name))


def image(pixels=None, **profile):
    """Another strip in place of the sound one."""
    return lambda inputs: inputs.write_image(sample_pixels() if pixels is None else pixels, **profile)


def image_bytes(content, name="strip.tif"):
    def spoil(inputs):
        (inputs.image / "strip.tif").unlink()
        (inputs.image / name).write_bytes(content)

    return spoil


def geojson_text(text, encoding="utf-8"):
    return lambda inputs: (inputs.geojson / "train.geojson").write_text(text, encoding=encoding)


def collection(**members):
    def spoil(inputs):
        inputs.collection.update(members)
        inputs.write_geojson()

    return spoil


def cut_image(**profile):
    """A strip of which the last third is missing."""

    def spoil(inputs):
        inputs.write_image(sample_pixels(), **profile)
        path = inputs.image / "strip.tif"
        os.truncate(path, path.stat().st_size * 2 // 3)

    return spoil


def damaged_image(inputs):
    """A compressed strip with other bytes in its middle."""
    inputs.write_image(sample_pixels(), compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    path = inputs.image / "strip.tif"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 8_000 : middle + 8_000] = b"\xa5" * 16_000
    path.write_bytes(content)


def link_to_elsewhere(inputs):
    path = inputs.image / "strip.tif"
    target = inputs.image.parent / "elsewhere.tif"
    path.rename(target)
    path.symlink_to(target)


def only_hidden_files(inputs):
    (inputs.image / "strip.tif").rename(inputs.image / ".strip.tif")


def the_same_strip_twice(inputs):
    inputs.write_image(sample_pixels(), name="strip.tiff")


def renamed_geojson(inputs):
    (inputs.geojson / "train.geojson").rename(inputs.geojson / "parcels.geojson")


def second_geojson(inputs):
    inputs.write_geojson("another.geojson")


def no_geojson(inputs):
    (inputs.geojson / "train.geojson").unlink()


def ids_twice(found):
    found[3]["properties"]["feature_id"] = found[5]["properties"]["feature_id"] = 100


def one_without_id(found):
    del found[7]["properties"]["feature_id"]


def four_pools(found):
    pools = [feature for feature in found if feature["properties"]["class_name"] == "Swimming pool"]
    for feature in pools[4:]:
        found.remove(feature)


def misspelt(found):
    found[2]["properties"]["class_name"] = "Swiming pool"


def a_point(found):
    found[0]["geometry"] = {"type": "Point", "coordinates": [138.5, -35.0]}


def two_corners(found):
    found[1]["geometry"]["coordinates"][0] = found[1]["geometry"]["coordinates"][0][:2]


def text_coordinate(found):
    found[1]["geometry"]["coordinates"][0][1] = ["138.5", "south"]


def nan_coordinate(found):
    found[1]["geometry"]["coordinates"][0][1] = [float("nan"), -35.0]


def huge_polygon(found):
    angles = np.linspace(0, 2 * np.pi, 200_001)
    x, y = LEFT + 40 + 20 * np.cos(angles), TOP - 40 + 20 * np.sin(angles)
    ring = np.stack(TO_DEGREES.transform(x, y), axis=1)
    ring[-1] = ring[0]
    found[0]["geometry"]["coordinates"] = [ring.tolist()]


def bow_tie(ring):
    return [ring[0], ring[2], ring[1], ring[3], ring[0]]


def shrunk(ring):
    """A hundredth of a pixel, beside all pixel centres."""
    x, y = ring[0]
    return [[x, y], [x + 2e-7, y], [x + 2e-7, y - 2e-7], [x, y]]


LOCAL_CRS = 'LOCAL_CS["building site",UNIT["metre",1]]'
THREE, NINE = sample_pixels()[:3], np.concatenate([sample_pixels(), sample_pixels()[:1]])

CASES = {
    # String ports
    "no trees": (port("n_estimators", "0"), "n-estimators", "a whole number from 1 to 10000, found '0'"),
    "less than no trees": (port("n_estimators", "-5"), "n-estimators", "found '-5'"),
    "trees as a float": (port("n_estimators", "1e3"), "n-estimators", "found '1e3'"),
    "trees as a word": (port("n_estimators", "ten"), "n-estimators", "input port 'n_estimators': expected .* 'ten'"),
    "an empty text": (port("n_estimators", ""), "n-estimators", "found ''"),
    "too many trees": (port("n_estimators", "1000000"), "n-estimators", "found '1000000'"),
    "Arabic digits": (port("n_estimators", "\u0661\u0660"), "n-estimators", "found .\u0661\u0660."),
    "a seed as a word": (port("seed", "random"), "seed", "a whole number from 0 to 4294967295, found 'random'"),
    "one class name": (port("class_names", "Swimming pool"), "class-names", "two or more different class names"),
    "a class twice": (port("class_names", "a,b,a"), "class-names", "two or more different class names"),
    "maybe": (port("all_touched", "maybe"), "all-touched", "false or true, found 'maybe'"),
    "other features": (port("features", "all"), "features", "pool_basic or pool_basic_whole_window, found 'all'"),
    # Files
    "no image port": (lambda i: i.remove("image"), "image-missing", "a directory with a .tif file, found no file"),
    "hidden files only": (only_hidden_files, "image-missing", "found no file"),
    "no tif": (image_bytes(b"text", "notes.txt"), "image-missing", "found notes.txt"),
    "a VRT": (image_bytes(VRT.encode(), "strip.vrt"), "image-vrt", "a VRT, which points elsewhere: strip.vrt"),
    "a VRT called tif": (image_bytes(VRT.encode()), "image-not-tiff", "image/strip.tif: .* begins with b'<VRT'"),
    "a text called tif": (image_bytes(b"not an image"), "image-not-tiff", "a GeoTIFF, found a file that begins with"),
    "an empty tif": (image_bytes(b""), "image-not-tiff", "begins with b''"),
    "a TIFF header alone": (image_bytes(b"II*\0" + bytes(40)), "image-unreadable", "a GeoTIFF that GDAL can read"),
    "a link out of the port": (link_to_elsewhere, "file-outside-port", "a file of the port itself, found a link to"),
    "two files of one id": (the_same_strip_twice, "image-twice", "one file for image_id strip, found strip.tif, strip"),
    "no geojson port": (lambda i: i.remove("geojson"), "geojson-missing", "one file, train.geojson, found no file"),
    "an empty geojson port": (
        no_geojson,
        "geojson-missing",
        "input port 'geojson': expected a directory with one",
    ),
    "another name": (renamed_geojson, "geojson-name", "train.geojson, found parcels.geojson"),
    "two GeoJSONs": (second_geojson, "geojson-several", "found another.geojson, train.geojson"),
    # The image
    "three bands": (image(THREE), "image-bands", "expected 8 bands in WorldView-2's order, found 3"),
    "nine bands": (image(NINE), "image-bands", "found 9"),
    "8 bits": (image(sample_pixels().astype(np.uint8)), "image-8-bit", "11 bits or more, found uint8"),
    "8-bit values in 16 bits": (image(sample_pixels() % 256), "image-8-bit-values", "above 255 in an image of uint16"),
    "8-bit values in 11 bits": (image(sample_pixels() % 256, nbits=11), "image-8-bit-values", "found none above 255"),
    "complex numbers": (image(sample_pixels().astype(np.complex64)), "image-complex", "real numbers, found complex64"),
    "no CRS": (image(crs=None), "image-crs-missing", "a CRS, to put the polygons on it, found none"),
    "a CRS of a building site": (image(crs=LOCAL_CRS), "image-crs-unknown", "a CRS that PROJ can project to"),
    "no geotransform": (image(transform=Affine.identity()), "image-transform-missing", "a geotransform"),
    "another UTM zone": (
        image(crs="EPSG:32755"),
        "no-overlap",
        "found none; the polygons are at",
    ),
    "a cut strip": (cut_image(), "image-truncated", "bytes, where its last block ends"),
    "a cut LZW strip": (cut_image(compress="lzw"), "image-truncated", "image/strip.tif: expected"),
    "damaged blocks": (damaged_image, "image-damaged", "readable pixels under the polygons, found"),
    # train.geojson as a file
    "cut JSON": (geojson_text('{"type": "Feat'), "geojson-not-json", "geojson/train.geojson: expected JSON in UTF-8"),
    "UTF-16": (geojson_text('{"features": []}', "utf-16"), "geojson-not-json", "JSON in UTF-8"),
    "nested without end": (geojson_text("[" * 100_000), "geojson-not-json", "JSON in UTF-8"),
    "a lone Feature": (
        geojson_text('{"type": "Feature"}'),
        "geojson-not-collection",
        "a list of features, found Feature",
    ),
    "a list": (geojson_text("[]"), "geojson-not-collection", "found a list"),
    "no features": (collection(features=[]), "geojson-empty", "labelled polygons, found no feature"),
    "no properties": (
        each(lambda f: f.pop("properties")),
        "feature-malformed",
        "others at 0, 1, 2, 3, 4 and 19 oth",
    ),
    "an unknown crs": (collection(crs={"properties": {"name": "EPSG:1"}}), "geojson-crs", "a crs that PROJ knows"),
    "a linked crs": (collection(crs={"type": "link"}), "geojson-crs", "a crs that PROJ knows, or none"),
    # Features
    "no feature_id": (features(one_without_id), "feature-id-missing", r"in each feature, found none at 7 \(from 0\)"),
    "a feature_id thrice": (
        features(ids_twice),
        "feature-id-twice",
        "found several times: 100, 100",
    ),
    "no image_id": (without("image_id"), "image-id-missing", "an image_id in each feature"),
    "an image_id without file": (properties(image_id="other"), "image-id-without-file", r"\(strip\), found other"),
    "no class_name": (
        without("class_name"),
        "class-name-missing",
        "none; the properties are feature_id, image_id",
    ),
    "a misspelt class_name": (features(misspelt), "class-name-unknown", "found 'Swiming pool'"),
    "one class only": (properties(class_name="Swimming pool"), "class-missing", "'No swimming pool': 0"),
    "four of a class": (features(four_pools), "class-too-few", "at least 5 usable polygons of each class, found"),
    # Geometries
    "a point": (
        features(a_point),
        "geometry-malformed",
        "a Polygon or MultiPolygon, found Point",
    ),
    "two corners": (
        features(two_corners),
        "geometry-malformed",
        "found others in feature 101",
    ),
    "a text in a ring": (features(text_coordinate), "geometry-malformed", "in feature 101 .coordinates are not lists"),
    "a coordinate that is NaN": (features(nan_coordinate), "geometry-malformed", "in feature 101 .not finite"),
    "200,000 vertices": (
        features(huge_polygon),
        "geometry-huge",
        r"100,000 vertices, found more in feature 100",
    ),
    "all crossing themselves": (
        rings(bow_tie),
        "class-missing",
        "24; 100: invalid polygon: Self-intersection",
    ),
    "all empty": (each(lambda f: f.update(geometry=None)), "class-missing", "left out: 24; 100: no geometry"),
    "latitude first": (rings(lambda r: [p[::-1] for p in r]), "coordinates-swapped", "longitude before latitude"),
    "metres without a crs": (
        rings(lambda r: ring_of(5, 5)),
        "coordinates-not-degrees",
        "crs member, found x 27201",
    ),
    "polygons elsewhere": (rings(lambda r: [[x + 1, y] for x, y in r]), "no-overlap", r"the image at x 138\."),
    "all below a pixel": (rings(shrunk), "polygons-too-small", "pixel centres inside, found none in 24 polygons"),
}


def refusal(inputs):
    with pytest.raises(ValueError, match="with the inputs, nothing was done") as caught:
        inputs.check()
    return str(caught.value)


@pytest.mark.parametrize(("spoil", "code", "sentence"), CASES.values(), ids=CASES)
def test_a_bad_input_is_refused_with_its_code_and_sentence(inputs, spoil, code, sentence):
    spoil(inputs)
    text = refusal(inputs)
    assert re.findall(r"^\[([a-z0-9-]+)\]", text, re.MULTILINE) == [code], text
    assert re.search(rf"^\[{code}\] .*{sentence}", text, re.MULTILINE), text


def test_there_are_at_least_thirty_cases_and_the_sound_input_passes(inputs):
    assert len(CASES) >= 30
    assert len(inputs.check().polygons) == 24


def test_all_problems_are_reported_at_once(inputs):
    for case in ("trees as a word", "a seed as a word", "three bands", "a feature_id thrice", "a misspelt class_name"):
        CASES[case][0](inputs)
    text = refusal(inputs)
    assert text.startswith("5 problems with the inputs")
    codes = re.findall(r"^\[([a-z0-9-]+)\]", text, re.MULTILINE)
    assert codes == ["n-estimators", "seed", "feature-id-twice", "class-name-unknown", "image-bands"]


# --- what is left out, and what is fine ------------------------------------------------------------------------------


def first_ring(change):
    def spoil(inputs):
        geometry = inputs.features[0]["geometry"]
        geometry["coordinates"] = [change(geometry["coordinates"][0])]
        inputs.write_geojson()

    return spoil


def first(**members):
    return features(lambda found: found[0].update(members))


LEFT_OUT = {
    "outside": (first_ring(lambda r: [[x + 1, y] for x, y in r]), "outside the image"),
    "below a pixel": (first_ring(shrunk), "no pixel's centre lies inside"),
    "crossing itself": (first_ring(bow_tie), "invalid polygon: Self-intersection"),
    "no geometry": (first(geometry=None), "no geometry"),
    "an empty geometry": (first(geometry={"type": "Polygon", "coordinates": []}), "empty geometry"),
    "no class_name": (features(lambda found: found[0]["properties"].pop("class_name")), "no class_name"),
}


@pytest.mark.parametrize(("spoil", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_one_polygon_that_cannot_be_used_is_left_out_with_its_reason(inputs, spoil, reason):
    spoil(inputs)
    found = inputs.check()
    assert [polygon["properties"]["feature_id"] for polygon in found.polygons] == list(range(101, 124))
    ((key, said),) = found.left_out
    assert key == 100
    assert said.startswith(reason)


def with_hidden_files(inputs):
    for folder in (inputs.image, inputs.geojson):
        (folder / ".DS_Store").write_bytes(b"\0")


def in_utm(inputs):
    inputs.collection["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32754"}}
    for number, feature in enumerate(inputs.features):
        feature["geometry"]["coordinates"] = [ring_of(2.25 + 10 * (number % 6), 2.25 + 10 * (number // 6))]
    inputs.write_geojson()


def two_images(inputs):
    inputs.write_image(sample_pixels(), name="second.tif")
    for feature in inputs.features[::3]:
        feature["properties"]["image_id"] = "second"
    inputs.write_geojson()


def multipolygons(feature):
    feature["geometry"] = {"type": "MultiPolygon", "coordinates": [feature["geometry"]["coordinates"]]}


def third_coordinate(ring):
    return [[x, y, 12.5] for x, y in ring]


def geographic_image(inputs):
    west, north = TO_DEGREES.transform(LEFT, TOP)
    inputs.write_image(sample_pixels(), crs="EPSG:4326", transform=Affine(2.2e-5, 0, west, 0, -1.9e-5, north))


def with_byte_order_mark(inputs):
    (inputs.geojson / "train.geojson").write_text(json.dumps(inputs.collection), encoding="utf-8-sig")


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}
FINE = {
    "hidden files": with_hidden_files,
    "polygons in UTM": in_utm,
    "two images": two_images,
    "numbers as image_id": lambda i: (i.write_image(sample_pixels(), "7.tif"), properties(image_id=7)(i)),
    "texts as feature_id": each(lambda f: f["properties"].update(feature_id=f"p{f['properties']['feature_id']}")),
    "multipolygons": each(multipolygons),
    "three coordinates": rings(third_coordinate),
    "an image in degrees": geographic_image,
    "a byte order mark": with_byte_order_mark,
    "floats": image(sample_pixels().astype(np.float32) / 10_000),
    "LZW": image(compress="lzw", **TILED),
    "ZSTD, band by band": image(compress="zstd", interleave="band", **TILED),
    "nodata": image(nodata=0),
    "extra files": lambda i: (i.image / "strip.imd").write_text("version = 1"),
    "other properties": properties(owner="somebody"),
    "numbers in ports.json": port("n_estimators", 100),
    "a true of JSON": port("all_touched", True),
}


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_an_unusual_but_sound_input_is_taken(inputs, change):
    change(inputs)
    found = inputs.check()
    assert (len(found.polygons), found.left_out) == (24, [])


SQUARES = st.lists(
    st.tuples(st.floats(0, SIDE - 9), st.floats(0, SIDE - 9), st.floats(2, 8), st.floats(2, 8)), min_size=5, max_size=12
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pools=SQUARES,
    others=SQUARES,
    kind=st.sampled_from(["uint16", "int16", "uint32", "float32", "float64"]),
    crs=st.sampled_from([UTM, "OGC:CRS84"]),
    trees=st.integers(1, 10_000),
    low=st.integers(1, 300),
)
def test_no_good_input_is_refused(tmp_path_factory, pools, others, kind, crs, trees, low):
    inputs = Inputs(tmp_path_factory.mktemp("good") / "input")
    inputs.write_image(np.random.default_rng(low).integers(low, low + 4000, (8, SIDE, SIDE)).astype(kind))
    inputs.features.clear()
    for number, square in enumerate(pools + others):
        name = "Swimming pool" if number < len(pools) else "No swimming pool"
        ring = ring_of(*square) if crs == UTM else in_degrees(ring_of(*square))
        inputs.features.append(
            {
                "type": "Feature",
                "properties": {"feature_id": number, "image_id": "strip", "class_name": name},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    if crs == UTM:
        inputs.collection["crs"] = {"type": "name", "properties": {"name": UTM}}
    inputs.write_geojson()
    inputs.texts["n_estimators"] = str(trees)
    assert len(inputs.check().polygons) == len(pools) + len(others)
