"""Chips of images: which pixels, in which order, with which labels."""

import json

import numpy as np
import pytest
import rasterio
import rasterio.mask

from mltools import data_extractors as de
from mltools import features

POOL, OTHER = "Swimming pool", "No swimming pool"
UTM = {"type": "name", "properties": {"name": "EPSG:32754"}}


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


@pytest.fixture
def folder(tmp_path, write_image, at):
    """An image strip.tif of 20 x 30 pixels, each with its own value, and a file of features on it."""
    values = np.arange(8 * 20 * 30, dtype=np.uint16).reshape(8, 20, 30) + 1
    write_image(values)

    def save(*features, name="train.geojson", crs=UTM):
        found = []
        for number, (shape, given) in enumerate(features):
            geometry = {"type": "Polygon", "coordinates": [at(shape)]} if isinstance(shape, list) else shape
            properties = {"feature_id": number, "image_id": "strip", **given}
            found.append({"type": "Feature", "properties": properties, "geometry": geometry})
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": found}))
        return str(tmp_path / name)

    save.values, save.folder = values, tmp_path
    return save


SQUARE = box(2.2, 3.2, 5.8, 6.8)  # rows 3 to 6, columns 2 to 5


def test_the_walkthroughs_call_gives_chips_ids_and_labels(folder, monkeypatch):
    folder((SQUARE, {"class_name": POOL}), (box(8.1, 8.1, 9.9, 9.9), {"class_name": OTHER}))
    monkeypatch.chdir(folder.folder)
    chips, ids, labels = de.get_data("train.geojson", return_labels=True, mask=True)
    assert (ids, labels) == ([0, 1], [POOL, OTHER])
    assert chips[0].shape == (8, 4, 4)
    assert np.array_equal(chips[0].data, folder.values[:, 3:7, 2:6])


def test_ids_may_be_left_out(folder):
    path = folder((SQUARE, {"class_name": POOL}))
    assert len(de.get_data(path, image_dir=folder.folder)) == 2
    _, labels = de.get_data(path, return_labels=True, return_id=False, image_dir=folder.folder)
    assert labels == [POOL]


def test_a_masked_chip_is_that_of_rasterio_mask(folder, at):
    triangle = [(2.2, 3.1), (14.9, 6.3), (4.4, 15.2), (2.2, 3.1)]
    (chip,), _ = de.get_data(folder((triangle, {})), mask=True, image_dir=folder.folder)
    with rasterio.open(folder.folder / "strip.tif") as source:
        shape = {"type": "Polygon", "coordinates": [at(triangle)]}
        expected, _ = rasterio.mask.mask(source, [shape], crop=True, filled=False)
    assert np.array_equal(chip.mask, expected.mask)
    assert np.array_equal(chip.data, expected.data)
    assert features.pool_basic(chip) == features.pool_basic(expected)


def test_chips_come_in_the_order_of_the_file_whatever_the_images(folder, write_image):
    write_image(np.full((8, 20, 30), 7, np.uint16), name="other.tif")
    path = folder((SQUARE, {"image_id": "strip"}), (SQUARE, {"image_id": "other"}), (SQUARE, {"image_id": "strip"}))
    chips, ids = de.get_data(path, image_dir=folder.folder)
    assert ids == [0, 1, 2]
    assert [bool((chip == 7).all()) for chip in chips] == [False, True, False]


def test_a_buffer_adds_pixels_on_each_side_and_stops_at_the_image(folder):
    path = folder((SQUARE, {}), (box(0.1, 0.1, 1.9, 1.9), {}))
    chips, _ = de.get_data(path, buffer=[1, 2], image_dir=folder.folder)
    assert np.array_equal(chips[0], folder.values[:, 1:9, 1:7])
    assert chips[1].shape == (8, 4, 3)


def test_a_points_chip_is_twice_the_buffer_wide(folder, at):
    point = {"type": "Point", "coordinates": at([(10.5, 12.5)])[0]}
    (chip,), _ = de.get_data(folder((point, {})), buffer=[3, 2], mask=True, image_dir=folder.folder)
    assert np.array_equal(chip, folder.values[:, 10:14, 7:13])


def test_a_point_without_a_buffer_is_reported(folder, at):
    left_out = []
    path = folder(({"type": "Point", "coordinates": at([(10.5, 12.5)])[0]}, {}))
    assert de.get_data(path, image_dir=folder.folder, left_out=left_out) == ([], [])
    assert left_out == [(0, "outside the image, or a Point without a buffer")]


def test_features_without_label_polygon_or_pixels_are_reported_not_dropped_in_silence(folder):
    path = folder(
        (SQUARE, {"class_name": POOL}),
        (SQUARE, {}),
        (SQUARE, {"class_name": None}),
        (None, {"class_name": POOL}),
        (box(100, 100, 110, 110), {"class_name": POOL}),
        (box(4.6, 4.6, 5.2, 5.3), {"class_name": POOL}),
    )
    left_out = []
    _, ids, labels = de.get_data(path, return_labels=True, mask=True, image_dir=folder.folder, left_out=left_out)
    assert (ids, labels) == ([0], [POOL])
    assert left_out == [
        (1, "no class_name"),
        (2, "no class_name"),
        (3, "no geometry"),
        (4, "outside the image"),
        (5, "no pixel's centre lies inside (its box is 0.60 x 0.70 pixels)"),
    ]


def test_without_a_list_for_them_left_out_features_are_a_warning(folder):
    path = folder((None, {}), (SQUARE, {}))
    with pytest.warns(UserWarning, match="1 of 2 features gave no chip .0: no geometry"):
        de.get_data(path, image_dir=folder.folder)


def test_when_no_feature_has_a_label_three_empty_lists_come_back(folder):
    path = folder((SQUARE, {}))
    with pytest.warns(UserWarning, match="no class_name"):
        assert de.get_data(path, return_labels=True, image_dir=folder.folder) == ([], [], [])


def test_an_image_that_is_missing_is_named_with_those_that_are_there(folder):
    path = folder((SQUARE, {"image_id": 42}))
    with pytest.raises(FileNotFoundError, match=r"42.tif: expected the image of image_id 42, found \['strip.tif'\]"):
        de.get_data(path, image_dir=folder.folder)


def test_an_image_id_may_be_a_number(folder, write_image):
    write_image(np.full((8, 20, 30), 7, np.uint16), name="42.tif")
    (chip,), _ = de.get_data(folder((SQUARE, {"image_id": 42})), image_dir=folder.folder)
    assert (chip == 7).all()


def test_features_without_an_image_id_are_named(folder):
    with pytest.raises(ValueError, match=r"expected an image_id in every feature, found none in 1: \[0\]"):
        de.get_data(folder((SQUARE, {"image_id": None})), image_dir=folder.folder)


def test_no_more_chips_than_asked_for_are_read(folder):
    path = folder((None, {}), (SQUARE, {}), (SQUARE, {}), (SQUARE, {}))
    with pytest.warns(UserWarning, match="1 of 4 features gave no chip"):
        assert de.get_data(path, num_chips=2, image_dir=folder.folder)[1] == [1, 2]


def test_polygons_without_crs_are_longitude_and_latitude(folder, at):
    ring = at(SQUARE)
    lon, lat = rasterio.warp.transform("EPSG:32754", "OGC:CRS84", *zip(*ring, strict=True))
    shape = {"type": "Polygon", "coordinates": [list(zip(lon, lat, strict=True))]}
    (chip,), _ = de.get_data(folder((shape, {}), crs=None), image_dir=folder.folder)
    assert np.array_equal(chip, folder.values[:, 3:7, 2:6])


# --- chips of one size -----------------------------------------------------------------------------------------------


def test_uniform_chips_are_centred_in_zeros_and_scaled_by_the_bit_depth(folder, capsys):
    path = folder((SQUARE, {"class_name": POOL}), (box(8.1, 8.1, 9.9, 9.9), {"class_name": OTHER}))
    chips, ids, labels = de.get_uniform_chips(
        path, max_side_dim=7, bit_depth=16, return_id=True, image_dir=folder.folder
    )
    assert chips.shape == (2, 8, 7, 7)
    assert np.allclose(chips[0, :, 1:5, 1:5], folder.values[:, 3:7, 2:6] / 65535)
    assert chips[0].sum() == pytest.approx(folder.values[:, 3:7, 2:6].sum() / 65535)
    assert ids == [0, 1]
    assert labels.tolist() == [[0, 1], [1, 0]]
    assert "100.00 %" in capsys.readouterr().out


def test_chips_of_unwanted_size_or_class_are_left_out_with_their_labels(folder):
    path = folder(
        (SQUARE, {"class_name": POOL}),
        (box(1, 1, 12, 3), {"class_name": POOL}),
        (box(1.2, 1.2, 2.8, 2.8), {"class_name": POOL}),
        (SQUARE, {"class_name": "dam"}),
    )
    left_out = []
    options = {"min_side_dim": 3, "max_side_dim": 10, "return_id": True, "image_dir": folder.folder}
    chips, ids, labels = de.get_uniform_chips(path, left_out=left_out, **options)
    assert (len(chips), ids, len(labels)) == (1, [0], 1)
    assert [reason.split(",")[0] for _, reason in left_out] == [
        "a chip of 2 x 11 pixels",
        "a chip of 2 x 2 pixels",
        "class_name 'dam' is none of ['No swimming pool'",
    ]


def test_one_invalid_polygon_is_an_error_when_all_must_be_valid(folder):
    path = folder((SQUARE, {"class_name": POOL}), (None, {"class_name": POOL}))
    with pytest.raises(AssertionError, match=r"1 of 2 features gave no chip, first .1, 'no geometry'."):
        de.get_uniform_chips(path, assert_all_valid=True, image_dir=folder.folder)


def test_only_the_bands_asked_for_are_read(folder):
    path = folder((SQUARE, {"class_name": POOL}))
    chips, _ = de.get_uniform_chips(path, bands=[3, 1], max_side_dim=4, normalize=False, image_dir=folder.folder)
    assert np.array_equal(chips[0], folder.values[[2, 0], 3:7, 2:6])


def test_a_resized_chip_keeps_the_mean_and_the_scale_of_its_values():
    chip = np.arange(16.0).reshape(1, 4, 4)
    assert de.uniform_chip(chip, 4, (1, 2, 2)).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert de.uniform_chip(chip, 4, (1, 3, 3)).mean() == pytest.approx(7.5)


def test_batches_cover_all_features_once(folder):
    path = folder(*[(SQUARE, {"class_name": POOL})] * 5)
    options = {"return_id": True, "show_percentage": False, "image_dir": folder.folder, "crs": "EPSG:32754"}
    batches = list(de.uniform_chip_generator(path, batch_size=2, max_side_dim=4, **options))
    assert [ids for _, ids, _ in batches] == [[0, 1], [2, 3], [4]]
    assert [chips.shape for chips, _, _ in batches] == [(2, 8, 4, 4), (2, 8, 4, 4), (1, 8, 4, 4)]


# --- whole images ----------------------------------------------------------------------------------------------------


def test_random_windows_lie_inside_the_image_and_repeat_with_their_seed(folder):
    path = folder.folder / "strip.tif"
    chips = de.random_window(path, [5, 3], no_chips=20, seed=1)
    assert {chip.shape for chip in chips} == {(8, 3, 5)}
    assert len({int(chip[0, 0, 0]) for chip in chips}) > 5
    again = de.random_window(path, [5, 3], no_chips=20, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(chips, again, strict=True))


def test_a_random_window_larger_than_the_image_is_refused(folder):
    with pytest.raises(ValueError, match=r"expected a chip_size \(columns, rows\) within 30 x 20, found \[31, 3\]"):
        de.random_window(folder.folder / "strip.tif", [31, 3])


def test_a_mask_keeps_the_images_type_and_values(folder, write_image):
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[0, 5:9, 4:20] = 3
    de.apply_mask(folder.folder / "strip.tif", write_image(mask, name="mask.tif"), folder.folder / "out.tif")
    with rasterio.open(folder.folder / "out.tif") as found:
        assert found.dtypes[0] == "uint16"
        assert np.array_equal(found.read(), folder.values * (mask > 0))


def test_a_mask_of_another_shape_is_refused(folder, write_image):
    path = write_image(np.ones((1, 20, 31), np.uint8), name="mask.tif")
    with pytest.raises(ValueError, match=r"mask.tif: expected the shape of .*strip.tif, \(20, 30\), found \(20, 31\)"):
        de.apply_mask(folder.folder / "strip.tif", path, folder.folder / "out.tif")
