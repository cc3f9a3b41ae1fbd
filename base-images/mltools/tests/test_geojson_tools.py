"""GeoJSON files in, GeoJSON files out."""

import json

import numpy as np
import pytest
import shapely

from mltools import geojson_tools as gt

POOL, OTHER = "Swimming pool", "No swimming pool"


def feature(number, **properties):
    ring = [[number, 0], [number + 1, 0], [number + 1, 1], [number, 0]]
    return {
        "type": "Feature",
        "properties": {"feature_id": number, **properties},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


@pytest.fixture
def save(tmp_path):
    def write(features, name="in.geojson", **members):
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}))
        return str(path)

    return write


def ids(path):
    return [found["properties"]["feature_id"] for found in gt.read_collection(path)["features"]]


def test_joined_files_have_all_features_in_order(save, tmp_path):
    first, second = save([feature(1), feature(2)], "a.geojson"), save([feature(3)], "b.geojson", title="last")
    gt.join([first, second], tmp_path / "out.geojson")
    assert ids(tmp_path / "out.geojson") == [1, 2, 3]
    assert gt.read_collection(tmp_path / "out.geojson")["title"] == "last"


def test_files_of_different_crs_are_not_joined(save, tmp_path):
    other = {"type": "name", "properties": {"name": "EPSG:32754"}}
    with pytest.raises(ValueError, match="expected files in one CRS"):
        gt.join([save([], "a.geojson"), save([], "b.geojson", crs=other)], tmp_path / "out.geojson")


def test_a_split_file_keeps_its_order_and_members(save, tmp_path):
    gt.split(save([feature(n) for n in range(5)], title="n"), tmp_path / "a", tmp_path / "b", 2)
    assert (ids(tmp_path / "a"), ids(tmp_path / "b")) == ([0, 1], [2, 3, 4])
    assert gt.read_collection(tmp_path / "a")["title"] == "n"


def test_more_features_than_there_are_cannot_be_split_off(save, tmp_path):
    with pytest.raises(ValueError, match=r"no_in_first_file: expected 0 to 1 .*, found 2"):
        gt.split(save([feature(1)]), tmp_path / "a", tmp_path / "b", 2)


def test_properties_come_as_tuples_with_none_for_missing_ones(save):
    path = save([feature(1, class_name=POOL), {"type": "Feature", "properties": None, "geometry": None}])
    assert gt.get_from(path, ["feature_id", "class_name"]) == [(1, POOL), (None, None)]


def test_tuples_are_written_as_features_with_holes_and_several_parts(tmp_path):
    ring = shapely.Polygon([(0, 0), (9, 0), (9, 9)], [[(3, 1), (4, 1), (4, 2)]])
    parts = shapely.MultiPolygon([ring, shapely.box(20, 20, 21, 21)])
    gt.write_to([(shapely.to_wkb(ring, hex=True), 1), (shapely.to_wkb(parts, hex=True), 2)], ["id"], tmp_path / "out")
    first, second = gt.read_collection(tmp_path / "out")["features"]
    assert len(first["geometry"]["coordinates"]) == 2
    assert second["geometry"]["type"] == "MultiPolygon"
    assert (first["properties"], second["properties"]) == ({"id": 1}, {"id": 2})


def test_a_tuple_of_another_length_than_the_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a geometry and 2 properties, found 2 entries"):
        gt.write_to([(shapely.Point(0, 0).wkb_hex, 1)], ["a", "b"], tmp_path / "out")


def test_properties_are_written_to_all_features_in_order(save, tmp_path):
    path = save([feature(1), {"type": "Feature", "properties": None, "geometry": None}])
    gt.write_properties_to([(0.1, "a"), (0.2, "b")], ["score", "note"], path, tmp_path / "out")
    assert gt.get_from(tmp_path / "out", ["score", "note"]) == [(0.1, "a"), (0.2, "b")]


def test_properties_are_written_to_the_features_that_the_filter_names(save, tmp_path):
    path = save([feature(1), feature(2), feature(3)])
    gt.write_properties_to([(30,), (10,)], ["x"], path, tmp_path / "out", filter={"feature_id": [3, 1]})
    assert gt.get_from(tmp_path / "out", ["feature_id", "x"]) == [(1, 10), (2, None), (3, 30)]


def test_as_many_tuples_as_features_are_expected(save, tmp_path):
    with pytest.raises(ValueError, match="expected 2 tuples of data, found 1"):
        gt.write_properties_to([(1,)], ["x"], save([feature(1), feature(2)]), tmp_path / "out")


def test_unique_values_are_sorted_and_none_where_the_property_is_missing(save):
    path = save([feature(1, image_id="b"), feature(2, image_id="a"), feature(3, image_id="b"), feature(4)])
    assert gt.find_unique_values(path, "image_id") == ["a", "b"]
    assert gt.find_unique_values(path, "class_name") is None


def test_unique_values_of_mixed_types_do_not_fail(save):
    assert gt.find_unique_values(save([feature(1, x=2), feature(2, x="a")]), "x") == [2, "a"]


def test_a_filtered_file_is_really_written(save, tmp_path):
    gt.filter_by_property(save([feature(1, c=POOL), feature(2, c=OTHER), feature(3)]), tmp_path / "out", "c", [POOL])
    assert ids(tmp_path / "out.geojson") == [1]


def test_a_text_in_place_of_a_list_of_values_is_refused(save, tmp_path):
    with pytest.raises(ValueError, match="expected a list of values, found the text 'Swimming pool'"):
        gt.filter_by_property(save([]), tmp_path / "out", "class_name", POOL)


def test_train_and_test_files_share_no_feature_and_lie_beside_the_input(save, tmp_path):
    gt.create_train_test(save([feature(n) for n in range(10)]), seed=1)
    train, test = ids(tmp_path / "train_in.geojson"), ids(tmp_path / "test_in.geojson")
    assert (len(train), len(test)) == (8, 2)
    assert sorted(train + test) == list(range(10))


def test_the_same_seed_splits_alike_and_a_count_is_a_count(save, tmp_path):
    path = save([feature(n) for n in range(10)])
    for name in ("a", "b"):
        gt.create_train_test(path, tmp_path / name, test_size=1, seed=5)
    assert ids(tmp_path / "test_a.geojson") == ids(tmp_path / "test_b.geojson")
    assert len(ids(tmp_path / "test_a.geojson")) == 1


def test_a_balanced_file_has_as_many_of_each_class(save, tmp_path):
    features = [feature(n, class_name=POOL if n < 3 else OTHER) for n in range(12)] + [feature(99, class_name="dam")]
    gt.create_balanced_geojson(save(features), [POOL, OTHER], tmp_path / "out", seed=2)
    labels = [label for (label,) in gt.get_from(tmp_path / "out.geojson", ["class_name"])]
    assert (labels.count(POOL), labels.count(OTHER), len(labels)) == (3, 3, 6)
    assert labels != sorted(labels)


def test_a_class_that_is_too_small_is_named(save, tmp_path):
    features = [feature(n, class_name=POOL if n < 3 else OTHER) for n in range(12)]
    with pytest.raises(ValueError, match=r"expected at least 5 features of each class, found \{'Swimming pool': 3\}"):
        gt.create_balanced_geojson(save(features), [POOL, OTHER], tmp_path / "out", samples_per_class=5)


def test_polygons_are_filtered_by_size_on_their_own_image(write_image, at, save, tmp_path):
    """The library of old counted from nought in each image, and so kept wrong features of a second one."""
    for name in ("one.tif", "two.tif"):
        write_image(np.ones((1, 60, 60), np.uint16), name=name)
    sides = {1: ("one", 40), 2: ("two", 10), 3: ("one", 10), 4: ("two", 3), 5: ("two", 40)}
    features = []
    for number, (image_id, side) in sides.items():
        ring = at([(2.5, 2.5), (2.5 + side, 2.5), (2.5 + side, 2.5 + side), (2.5, 2.5)])
        shape = {"type": "Polygon", "coordinates": [ring]}
        properties = {"feature_id": number, "image_id": image_id}
        features.append({"type": "Feature", "properties": properties, "geometry": shape})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32754"}}
    path = save(features, crs=crs)
    out = tmp_path / "out.geojson"
    counts = gt.filter_polygon_size(path, out, 6, 30, make_omitted_files=True, image_dir=tmp_path)
    assert counts == {"kept": 2, "small": 1, "large": 2, "outside": 0}
    assert (ids(out), ids(tmp_path / "small_out.geojson"), ids(tmp_path / "large_out.geojson")) == ([2, 3], [4], [1, 5])


def test_a_file_that_is_no_feature_collection_is_refused_by_name(tmp_path):
    (tmp_path / "in.geojson").write_text('{"type": "Feature"}')
    with pytest.raises(
        ValueError, match=r"in\.geojson: expected a FeatureCollection with a list of features, found Feature"
    ):
        gt.read_collection(tmp_path / "in.geojson")


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path):
    (tmp_path / "in.geojson").write_text("{")
    with pytest.raises(ValueError, match=r"in\.geojson: expected JSON"):
        gt.read_collection(tmp_path / "in.geojson")


@pytest.mark.parametrize("text", ["{}", '{"features": [{"a": 1}, ', '{"features": [{"a": 1} x'])
def test_a_streamed_file_that_ends_early_is_an_error(tmp_path, text):
    (tmp_path / "in.geojson").write_text(text)
    with pytest.raises(ValueError, match=r"in\.geojson: expected"):
        list(gt.iter_features(tmp_path / "in.geojson"))
