"""Features of many polygons: against hand-counted pixels, against rasterio.mask, and on the known traps."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltools import _scan, features
from mltools.geojson_tools import iter_features
from mltools.image_blocks import describe_image
from mltools.polygon_features import polygon_features, stream_polygon_features
from mltools.polygon_runs import merge_runs, window_runs

GREY = np.full(8, 100)


def polygon(*rings):
    return {"type": "Polygon", "coordinates": [list(ring) for ring in rings]}


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def image_of(spectra):
    """An image (8, rows, cols) uint16 of rows of spectra."""
    return np.array(spectra, dtype=np.uint16).transpose(2, 0, 1)


def by_rasterio(path, shapes, nodata=None, whole=False, all_touched=False):
    """The reference: rasterio.mask and pool_basic polygon by polygon; nan and pixels 0 where there is nothing."""
    values, pixels = np.full((len(shapes), 4), np.nan), np.zeros(len(shapes), dtype=int)
    with rasterio.open(path) as source:
        for number, shape in enumerate(shapes):
            try:
                chip, _ = rasterio.mask.mask(source, [shape], crop=True, filled=False, all_touched=all_touched)
                inside = rasterio.mask.raster_geometry_mask(source, [shape], crop=True, all_touched=all_touched)[0]
            except ValueError:
                continue
            pixels[number] = (~inside).sum()
            chip = np.ma.MaskedArray(chip.data, np.broadcast_to(inside, chip.shape))
            if (features.usable_pixels(chip, nodata) & ~inside).any():
                values[number] = features.pool_basic(chip, whole_window_ratios=whole, nodata=nodata)
    return values, pixels


@pytest.fixture(params=["compiled", "numpy"])
def compiled(request):
    return request.param == "compiled"


def test_the_compiled_part_is_installed_where_the_tests_run():
    assert _scan is not None, "build it: python setup.py build_ext --inplace"


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_of_a_3_by_3_image_a_polygon_gets_the_pixels_whose_centres_it_holds(write_image, at, compiled):
    spectra = [[GREY, GREY, GREY], [GREY, features.POOL_SIGNATURE, GREY], [GREY, GREY, GREY]]
    path = write_image(image_of(spectra))
    around_centre, beside_it = polygon(at(box(0.6, 0.6, 2.4, 2.4))), polygon(at(box(0.2, 0.2, 1.4, 2.9)))
    found = polygon_features(path, [around_centre, beside_it], crs="EPSG:32754", compiled=compiled)
    assert found.pixels.tolist() == [[1, 1], [3, 3]]
    assert found.values[0] == pytest.approx([2109 / 2481, 1993 / 2365, 0, angle(features.POOL_SIGNATURE, 1)], abs=1e-7)
    assert found.values[1] == pytest.approx([0, 0, angle(GREY, 0), angle(GREY, 1)])
    assert found.left_out == {}


def angle(spectrum, member):
    signature = features.POOL_SIGNATURES[member]
    return math.acos(spectrum @ signature / math.sqrt((spectrum @ spectrum) * (signature @ signature)))


def test_ratios_come_from_the_whole_window_only_when_asked(write_image, at, compiled):
    spectra = [[GREY, GREY, features.POOL_SIGNATURE], [GREY, GREY, GREY], [GREY, GREY, GREY]]
    path = write_image(image_of(spectra))
    triangle = polygon(at([(0.1, 0.1), (2.9, 2.9), (0.1, 2.9), (0.1, 0.1)]))  # the pool's corner is not in it
    own = polygon_features(path, [triangle], crs=None, compiled=compiled)
    whole = polygon_features(path, [triangle], crs=None, compiled=compiled, whole_window_ratios=True)
    assert own.values[0, :2].tolist() == [0, 0]
    assert whole.values[0, :2] == pytest.approx([2109 / 2481, 1993 / 2365])
    assert whole.values[0, 2:].tolist() == own.values[0, 2:].tolist()


def test_a_hole_takes_its_pixels_out(write_image, at, compiled):
    path = write_image(np.full((8, 3, 3), 5, np.uint16))
    ring = polygon(at(box(0.1, 0.1, 2.9, 2.9)), at(box(0.8, 0.8, 2.2, 2.2)))
    assert polygon_features(path, [ring], crs=None, compiled=compiled).pixels.tolist() == [[8, 8]]


def test_a_pixel_in_two_parts_of_a_multipolygon_counts_once(write_image, at, compiled):
    path = write_image(np.full((8, 3, 3), 5, np.uint16))
    parts = [[at(box(0.1, 0.1, 1.9, 1.9))], [at(box(0.8, 0.8, 2.9, 2.9))]]
    shape = {"type": "MultiPolygon", "coordinates": parts}
    assert polygon_features(path, [shape], crs=None, compiled=compiled).pixels.tolist() == [[7, 7]]


def test_runs_that_overlap_or_touch_become_one():
    runs = window_runs(np.array([[0, 1, 4, 6], [0, 1, 0, 2], [0, 1, 1, 3], [1, 2, 3, 4], [0, 1, 6, 7]])).items
    assert merge_runs(runs).tolist() == [(0, 0, 3), (0, 4, 7), (1, 3, 4)]


# --- the traps of the original ---------------------------------------------------------------------------------------


def test_all_pixels_touched_can_be_asked_for(write_image, noise, at):
    path, shape = write_image(noise), polygon(at([(3.2, 3.3), (9.7, 4.1), (6.2, 11.8), (3.2, 3.3)]))
    found = polygon_features(path, [shape], crs=None, all_touched=True)
    values, pixels = by_rasterio(path, [shape], all_touched=True)
    assert found.pixels[0, 0] == pixels[0] > polygon_features(path, [shape], crs=None).pixels[0, 0]
    assert np.array_equal(found.values, values)


@pytest.mark.parametrize(
    ("nodata", "bad", "dtype"),
    [(None, 0, "uint16"), (65535, 65535, "uint16"), (None, np.nan, "float32"), (-9999, -9999, "float32")],
)
def test_bad_pixels_are_dropped_and_a_polygon_of_bad_pixels_is_left_out(write_image, at, compiled, nodata, bad, dtype):
    values = np.full((8, 3, 3), 100, dtype)
    values[:, :, 1:] = bad
    path = write_image(values, nodata=nodata)
    shapes = [polygon(at(box(0.1, 0.1, 2.9, 2.9))), polygon(at(box(1.1, 0.1, 2.9, 2.9)))]
    found = polygon_features(path, shapes, crs=None, compiled=compiled)
    assert found.pixels.tolist() == [[9, 3], [6, 0]]
    assert found.values[0] == pytest.approx([0, 0, angle(GREY, 0), angle(GREY, 1)])
    assert np.isnan(found.values[1]).all()
    assert found.left_out == {1: "no usable pixel: all 6 inside are nodata, not finite or zero in all bands"}


def test_a_masked_pixel_of_an_image_with_a_mask_of_its_own_is_not_used(write_image, at, compiled):
    path = write_image(np.full((8, 2, 2), 100, np.uint16))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(np.array([[True, False], [True, True]]))
    found = polygon_features(path, [polygon(at(box(0.1, 0.1, 1.9, 1.9)))], crs=None, compiled=compiled)
    assert found.pixels.tolist() == [[4, 3]]


def test_a_polygon_that_holds_no_pixels_centre_is_left_out_with_its_size(write_image, noise, at, compiled):
    found = polygon_features(write_image(noise), [polygon(at(box(4.6, 4.6, 5.1, 5.2)))], crs=None, compiled=compiled)
    assert found.left_out == {0: "no pixel's centre lies inside (its box is 0.50 x 0.60 pixels)"}


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84"])
def test_polygons_in_longitude_and_latitude_find_an_image_in_degrees(write_image, noise, crs):
    path = write_image(noise, crs=crs, transform=(2e-5, 0, 138.5, 0, -2e-5, -35.0))
    ring = [(138.5 + 2e-5 * col, -35.0 - 2e-5 * row) for col, row in box(10.2, 20.2, 30.8, 41.3)]
    found = polygon_features(path, [polygon(ring)])
    assert found.left_out == {}
    assert found.pixels[0, 0] == 21 * 21


def test_polygons_in_longitude_and_latitude_are_brought_to_an_image_in_utm(write_image, noise, at):
    path, ring = write_image(noise), at(box(10.2, 20.2, 30.8, 41.3))
    lon, lat = rasterio.warp.transform("EPSG:32754", "OGC:CRS84", *zip(*ring, strict=True))
    found = polygon_features(path, [polygon(list(zip(lon, lat, strict=True)))])
    assert found.pixels[0, 0] == 21 * 21
    assert np.array_equal(found.values, polygon_features(path, [polygon(ring)], crs=None).values)


def test_an_image_without_crs_is_refused_because_polygons_cannot_be_placed(write_image, noise):
    path = write_image(noise, crs=None)
    with pytest.raises(ValueError, match="expected an image with a CRS, found none"):
        polygon_features(path, [])


def test_partly_outside_is_measured_on_its_true_pixels_and_said(write_image, noise, at, compiled):
    path = write_image(noise)
    shapes = [polygon(at(box(-5.3, -4.2, 6.4, 7.7))), polygon(at(box(120.2, 80.3, 140.1, 95.2)))]
    found = polygon_features(path, shapes, crs=None, compiled=compiled)
    values, pixels = by_rasterio(path, shapes)
    assert found.partly_outside.tolist() == [True, True]
    assert found.pixels[:, 0].tolist() == pixels.tolist() == [6 * 8, 10 * 10]
    assert np.array_equal(found.values, values)


def test_what_lies_outside_or_is_no_polygon_is_left_out_with_its_reason(write_image, noise, at, compiled):
    shapes = [
        polygon(at(box(200, 10, 210, 20))),
        None,
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": []},
        polygon(at(box(1, 1, 1, 1))),
        polygon([(float("nan"), 0), (1, 1), (2, 2), (float("nan"), 0)]),
        {"type": "Polygon", "coordinates": [[["a", "b"]]]},
        polygon(at(box(10.2, 10.2, 20.1, 20.1))),
    ]
    found = polygon_features(write_image(noise), shapes, crs=None, compiled=compiled)
    assert found.left_out[0] == "outside the image"
    assert found.left_out[1] == "no geometry"
    assert found.left_out[2] == "expected a Polygon or MultiPolygon, found Point"
    assert found.left_out[3] == "empty geometry"
    assert found.left_out[4].startswith("no pixel's centre lies inside")
    assert found.left_out[5] == "a coordinate is not finite, or cannot be brought to the image's CRS"
    assert found.left_out[6].startswith("coordinates are not lists of positions")
    assert sorted(found.left_out) == [0, 1, 2, 3, 4, 5, 6]
    assert np.isfinite(found.values[7]).all()


@pytest.mark.parametrize("bands", [3, 4, 9])
def test_an_image_of_other_than_8_bands_is_refused_with_its_name(write_image, bands):
    path = write_image(np.ones((bands, 4, 4), np.uint16))
    with pytest.raises(ValueError, match=rf"strip.tif: expected 8 bands \(WorldView-2's order\), found {bands}"):
        polygon_features(path, [])


def test_a_rotated_image_gives_the_pixels_under_the_polygon(write_image, noise, compiled):
    transform = (1.6, 1.2, 272_000.0, 1.2, -1.6, 6_118_000.0)
    path = write_image(noise, transform=transform)
    place = rasterio.Affine(*transform)
    ring = [place * corner for corner in [(40.3, 30.1), (71.2, 44.6), (50.9, 60.7), (40.3, 30.1)]]
    found = polygon_features(path, [polygon(ring)], crs=None, compiled=compiled)
    values, pixels = by_rasterio(path, [polygon(ring)])
    assert found.pixels[0, 0] == pixels[0] > 300
    assert np.array_equal(found.values, values)


def test_positions_with_a_height_are_read_without_it(write_image, noise, at):
    path, ring = write_image(noise), at(box(10.2, 20.2, 30.8, 41.3))
    high = polygon([(*point, 12.5) for point in ring])
    assert polygon_features(path, [high], crs=None).pixels[0, 0] == 21 * 21


def test_a_polygon_of_200_000_vertices_is_measured(write_image, noise, at, compiled):
    turn = np.linspace(0, 2 * np.pi, 200_000)
    radius = 35 + 3 * np.sin(turn * 400)
    ring = np.stack([65 + radius * np.cos(turn), 45 + radius * np.sin(turn)], axis=1)
    shape = polygon(at(ring.tolist()))
    path = write_image(noise)
    found = polygon_features(path, [shape], crs=None, compiled=compiled)
    values, pixels = by_rasterio(path, [shape])
    assert found.pixels[0, 0] == pixels[0]
    assert np.array_equal(found.values, values)


def test_a_boundary_that_crosses_too_many_rows_is_left_out_with_its_reason(write_image, noise, at, compiled):
    zigzag = [(65 + (number % 2) * 1e-3, 1.3 if number % 2 else 88.7) for number in range(150_000)]
    found = polygon_features(write_image(noise), [polygon(at(zigzag))], crs=None, compiled=compiled)
    assert found.left_out == {0: "its boundary crosses more than 10,000,000 rows of pixels"}


# --- every layout of the file ----------------------------------------------------------------------------------------

LAYOUTS = [
    {},
    {"blockysize": 1},
    {"interleave": "band"},
    {"tiled": True, "blockxsize": 32, "blockysize": 16},
    {"tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "band"},
    {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"},
    {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "predictor": 2},
    {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "predictor": 2, "interleave": "band"},
    {"compress": "deflate", "predictor": 2},
    {"compress": "lzw", "predictor": 2},
    {"compress": "zstd", "tiled": True, "blockxsize": 32, "blockysize": 32},
    {"BIGTIFF": "YES"},
    {"BIGTIFF": "YES", "compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"ENDIANNESS": "BIG"},
    {"NBITS": 12},
    {"driver": "PNG"},
]


@pytest.fixture(scope="module")
def crowd():
    """Forty polygons over an image of 130 x 90 pixels, some of them partly outside, as pixel positions."""
    rng = np.random.default_rng(3)
    rings = []
    for _ in range(40):
        turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        radius = rng.uniform(1, 25)
        ring = rng.uniform([0, 0], [130, 90]) + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        rings.append([*ring.tolist(), ring[0].tolist()])
    return rings


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "driver" not in layout], ids=str)
def test_every_layout_of_a_tiff_gives_the_values_of_rasterio_mask(write_image, noise, at, crowd, compiled, layout):
    path = write_image(noise, **layout)
    shapes = [polygon(at(ring)) for ring in crowd]
    found = polygon_features(path, shapes, crs=None, compiled=compiled, threads=2)
    values, pixels = by_rasterio(path, shapes)
    assert np.array_equal(found.pixels[:, 0], pixels)
    assert np.array_equal(found.values, values, equal_nan=True)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64", "int64"]
)
def test_every_type_of_pixel_gives_the_values_of_rasterio_mask(write_image, noise, at, crowd, compiled, dtype):
    values = noise.astype(float) % 127 + 1 if dtype.endswith("8") else noise.astype(float) * 1.5
    path = write_image(values.astype(dtype), tiled=True, blockxsize=32, blockysize=32)
    shapes = [polygon(at(ring)) for ring in crowd]
    found = polygon_features(path, shapes, crs=None, compiled=compiled)
    assert np.allclose(found.values, by_rasterio(path, shapes)[0], rtol=0, atol=1e-12, equal_nan=True)


def test_an_image_that_is_no_tiff_is_read_by_gdal(write_image, noise, at, crowd, tmp_path, compiled):
    path = write_image(noise)
    other = str(tmp_path / "strip.img")
    with rasterio.open(path) as source, rasterio.open(other, "w", **{**source.profile, "driver": "HFA"}) as target:
        target.write(source.read())
    shapes = [polygon(at(ring)) for ring in crowd]
    assert describe_image(other).layout is None
    found = polygon_features(other, shapes, crs=None, compiled=compiled)
    assert np.array_equal(found.values, by_rasterio(path, shapes)[0], equal_nan=True)


def test_a_block_that_was_never_written_is_no_data(write_image, at, tmp_path, compiled):
    path = str(tmp_path / "sparse.tif")
    profile = {"driver": "GTiff", "count": 8, "dtype": "uint16", "height": 32, "width": 64, "crs": "EPSG:32754"}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "SPARSE_OK": "TRUE"}
    place = rasterio.Affine(2, 0, 272_000, 0, -2, 6_118_000)
    with rasterio.open(path, "w", **profile, **tiles, transform=place) as target:
        target.write(np.full((8, 32, 32), 100, np.uint16), window=rasterio.windows.Window(0, 0, 32, 32))
    shapes = [polygon(at(box(30.2, 4.2, 34.2, 6.2))), polygon(at(box(40.2, 4.2, 44.2, 6.2)))]
    found = polygon_features(path, shapes, crs=None, compiled=compiled)
    assert found.pixels.tolist() == [[8, 4], [8, 0]]
    assert list(found.left_out) == [1]


@pytest.mark.parametrize("layout", [{}, {"compress": "deflate"}, {"compress": "lzw"}], ids=str)
def test_a_truncated_image_is_an_error_and_no_feature(write_image, noise, at, compiled, layout):
    path = Path(write_image(noise, **layout))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((ValueError, rasterio.errors.RasterioError)):
        polygon_features(str(path), [polygon(at(box(1, 60, 120, 89)))], crs=None, compiled=compiled)


@pytest.mark.parametrize("predictor", [1, 2])
def test_zlib_and_libdeflate_inflate_to_the_same_values(write_image, noise, at, crowd, monkeypatch, predictor):
    path = write_image(noise, compress="deflate", predictor=predictor, tiled=True, blockxsize=32, blockysize=32)
    shapes = [polygon(at(ring)) for ring in crowd]
    either = polygon_features(path, shapes, crs=None)
    monkeypatch.setattr("mltools.inflate.LIBDEFLATE", None)
    assert np.array_equal(polygon_features(path, shapes, crs=None).values, either.values, equal_nan=True)


# --- properties ------------------------------------------------------------------------------------------------------

pixel = st.floats(-8, 48, allow_nan=False, width=64)
half_pixel = st.integers(-16, 96).map(lambda number: number / 2)
vertex = st.one_of(st.tuples(pixel, pixel), st.tuples(half_pixel, half_pixel))
rings = st.lists(vertex, min_size=3, max_size=12).map(lambda points: [*points, points[0]])
shapes_of_rings = st.one_of(
    st.lists(rings, min_size=1, max_size=3).map(lambda found: ("Polygon", found)),
    st.lists(st.lists(rings, min_size=1, max_size=2), min_size=1, max_size=3).map(
        lambda found: ("MultiPolygon", found)
    ),
)


@pytest.fixture(scope="module")
def small_image(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("small") / "small.tif")
    values = np.random.default_rng(1).integers(1, 3000, (8, 40, 40)).astype(np.uint16)
    place = rasterio.Affine(2, 0, 272_000, 0, -2, 6_118_000)
    profile = {"driver": "GTiff", "count": 8, "dtype": "uint16", "height": 40, "width": 40, "crs": "EPSG:32754"}
    with rasterio.open(path, "w", **profile, transform=place, tiled=True, blockxsize=16, blockysize=16) as target:
        target.write(values)
    return path


def in_metres(kind, coordinates):
    def place(ring):
        return [[272_000 + 2 * col, 6_118_000 - 2 * row] for col, row in ring]

    if kind == "Polygon":
        return {"type": kind, "coordinates": [place(ring) for ring in coordinates]}
    return {"type": kind, "coordinates": [[place(ring) for ring in part] for part in coordinates]}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(shapes_of_rings, min_size=1, max_size=6), whole=st.booleans())
def test_any_polygons_get_the_pixels_and_values_of_rasterio_mask(small_image, found, whole):
    shapes = [in_metres(*shape) for shape in found]
    values, pixels = by_rasterio(small_image, shapes, whole=whole)
    for compiled in (True, False):
        ours = polygon_features(small_image, shapes, crs=None, whole_window_ratios=whole, compiled=compiled, threads=1)
        assert ours.pixels[:, 0].tolist() == pixels.tolist()
        assert np.array_equal(ours.values, values, equal_nan=True)
        assert sorted(ours.left_out) == np.flatnonzero(np.isnan(values[:, 0])).tolist()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(shapes_of_rings, min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_neither_order_nor_neighbours_change_a_polygons_features(small_image, found, seed):
    shapes = [in_metres(*shape) for shape in found]
    order = np.random.default_rng(seed).permutation(len(shapes))
    together = polygon_features(small_image, [shapes[number] for number in order], crs=None)
    for place, number in enumerate(order):
        alone = polygon_features(small_image, [shapes[number]], crs=None)
        assert np.array_equal(together.values[place], alone.values[0], equal_nan=True)
        assert together.left_out.get(place) == alone.left_out.get(0)


# --- streaming -------------------------------------------------------------------------------------------------------


def test_a_stream_gives_batches_in_order_that_join_to_the_whole(write_image, noise, at, crowd, monkeypatch):
    shapes = [polygon(at(ring)) for ring in crowd] + [None]
    path = write_image(noise)
    whole = polygon_features(path, shapes, crs=None)
    monkeypatch.setattr("mltools.polygon_features.STEP", 4)
    monkeypatch.setattr("mltools.polygon_features.CHUNK_RUNS", 100)
    batches = list(stream_polygon_features(path, iter(shapes), crs=None))
    assert len(batches) > 5
    assert np.array_equal(np.concatenate([batch.values for batch in batches]), whole.values, equal_nan=True)
    joined = polygon_features(path, iter(shapes), crs=None)
    assert joined.left_out == whole.left_out


def test_no_polygons_give_no_features(write_image, noise):
    found = polygon_features(write_image(noise), [])
    assert found.values.shape == (0, 4)
    assert found.left_out == {}


def test_memory_does_not_grow_with_the_number_of_polygons(write_image, tmp_path):
    """A process that measures 150,000 polygons from a file stays far below 500 MB."""
    path = write_image(np.random.default_rng(1).integers(1, 3000, (8, 1200, 1200)).astype(np.uint16))
    listing = tmp_path / "many.geojson"
    rng = np.random.default_rng(2)
    with listing.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, (col, row) in enumerate(rng.uniform(20, 1180, (150_000, 2))):
            x, y = 272_000 + 2 * col, 6_118_000 - 2 * row
            ring = [[x, y], [x + 20, y + 3], [x + 18, y - 30], [x - 2, y - 28], [x, y]]
            feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
            file.write(("," if number else "") + json.dumps(feature))
        file.write("]}")
    script = (
        "import resource, sys\n"
        "from mltools.geojson_tools import iter_features\n"
        "from mltools.polygon_features import stream_polygon_features\n"
        "given = (feature['geometry'] for feature in iter_features(sys.argv[2]))\n"
        "count = sum(len(batch.values) for batch in stream_polygon_features(sys.argv[1], given, crs=None))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)\n"
    )
    library = str(Path(features.__file__).parents[1])
    command = [sys.executable, "-c", script, path, str(listing)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": library}, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 150_000
    assert megabytes < 500


def test_a_files_features_are_read_one_by_one_whatever_their_layout(tmp_path, monkeypatch):
    monkeypatch.setattr("mltools.geojson_tools.READ_CHARACTERS", 7)
    listing = tmp_path / "odd.geojson"
    features_given = [{"properties": {"features": [1], "note": ']}\\"{'}, "geometry": None}, {"geometry": {"a": [1.5]}}]
    text = {"name": 'with "features": [ inside', "nested": {"features": [9]}, "features": features_given, "after": 1}
    listing.write_text(json.dumps(text, indent=1))
    assert list(iter_features(listing)) == features_given
