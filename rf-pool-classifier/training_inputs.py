"""Everything that rf-pool-classifier needs, checked before any work; all problems are refused at once.

A problem has a stable code and a sentence: [image-bands] image/strip.tif: expected 8 bands ..., found 3. What is not
fatal, a few polygons outside the image say, is left out and reported in metrics.json.
"""

import json
import os
from typing import NamedTuple

import numpy as np
import shapely
from input_checks import (
    Problems,
    check_image,
    check_placement,
    collection_crs,
    find_geojson,
    find_images,
    named,
    probe_pixels,
)
from mltools.polygon_runs import geometry_fault, polygon_parts

GEOJSON_NAME = "train.geojson"
FEATURE_SETS = ("pool_basic", "pool_basic_whole_window")
MOST_TREES = 10_000  # about 200 MB of forest for 10,000 polygons
FEWEST_OF_A_CLASS = 5  # below that an out-of-bag estimate says nothing
MOST_VERTICES = 100_000  # of one polygon; parcels have tens


class Settings(NamedTuple):
    """The string ports, checked."""

    n_estimators: int
    seed: int
    class_names: tuple
    all_touched: bool
    features: str


class TrainingInputs(NamedTuple):
    """What is trained on. polygons: GeoJSON features, sorted by feature_id. left_out: [(feature_id, reason)]."""

    settings: Settings
    geojson: str
    crs: str
    images: dict
    polygons: list
    left_out: list


def check_training_inputs(image_folder, geojson_folder, texts):
    """TrainingInputs from the two directory ports and the string ports; ValueError lists all that is wrong."""
    problems = Problems()
    settings = check_settings(texts, problems)
    images = find_images(image_folder, problems)
    geojson = find_geojson("geojson", geojson_folder, GEOJSON_NAME, problems)
    features, crs = read_features(geojson, problems) if geojson else ([], None)
    check_identifiers(features, problems)
    polygons, left_out = usable_polygons(features, problems)
    if settings.class_names:
        polygons = labelled_polygons(polygons, settings.class_names, left_out, problems)
    used = check_images(images, polygons if polygons else features, problems)
    if crs and not problems:
        polygons = placed_polygons(used, polygons, crs, settings.all_touched, left_out, problems)
    if not problems:
        check_class_counts(polygons, settings.class_names, left_out, problems)
    problems.refuse()
    return TrainingInputs(settings, geojson, crs, images, sorted(polygons, key=order_of_polygon), left_out)


def order_of_polygon(feature):
    """Sorts by feature_id, numbers before texts, so that the order of the file does not matter."""
    key = feature["properties"]["feature_id"]
    return (1, 0, key) if isinstance(key, str) else (0, key, "")


# --- string ports ----------------------------------------------------------------------------------------------------


def check_settings(texts, problems):
    """Settings from the texts of the string ports; what is not as expected is reported, and None or empty."""
    return Settings(
        n_estimators=whole_number("n_estimators", texts, 1, MOST_TREES, problems),
        seed=whole_number("seed", texts, 0, 2**32 - 1, problems),
        class_names=class_names(texts["class_names"], problems),
        all_touched=one_of("all_touched", texts, ("false", "true"), problems) == "true",
        features=one_of("features", texts, FEATURE_SETS, problems),
    )


def whole_number(port, texts, least, most, problems):
    text = str(texts[port]).strip()
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    expected = f"a whole number from {least} to {most}"
    problems.add(port.replace("_", "-"), f"input port '{port}'", expected, repr(texts[port]))
    return None


def one_of(port, texts, choices, problems):
    text = str(texts[port]).strip().lower()
    if text not in choices:
        problems.add(port.replace("_", "-"), f"input port '{port}'", " or ".join(choices), repr(texts[port]))
    return text


def class_names(text, problems):
    names = tuple(name.strip() for name in str(text).split(","))
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        expected = "two or more different class names, separated by commas"
        problems.add("class-names", "input port 'class_names'", expected, repr(text))
        return ()
    return names


# --- train.geojson ---------------------------------------------------------------------------------------------------


def read_features(path, problems):
    """The features (dicts with a dict of properties) of a FeatureCollection, and its CRS."""
    place = f"geojson/{os.path.basename(path)}"
    try:
        with open(path, encoding="utf-8-sig") as file:
            collection = json.load(file)
    except (ValueError, RecursionError) as error:
        problems.add("geojson-not-json", place, "JSON in UTF-8", error)
        return [], None
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list):
        found = collection.get("type") if isinstance(collection, dict) else f"a {type(collection).__name__}"
        problems.add("geojson-not-collection", place, "a FeatureCollection with a list of features", found)
        return [], None
    if not features:
        problems.add("geojson-empty", place, "labelled polygons", "no feature")
    odd = [n for n, f in enumerate(features) if not isinstance(f, dict) or not isinstance(f.get("properties"), dict)]
    if odd:
        problems.add("feature-malformed", place, "features with properties", f"others at {named(odd)} (from 0)")
        return [], None
    return features, collection_crs(place, collection.get("crs"), problems)


def check_identifiers(features, problems):
    """Each feature has a feature_id of its own."""
    place, seen, twice, missing = f"geojson/{GEOJSON_NAME}", set(), [], []
    for number, feature in enumerate(features):
        key = feature["properties"].get("feature_id")
        if isinstance(key, (int, str)) and key != "":
            (twice if str(key) in seen else []).append(key)
            seen.add(str(key))
        else:
            missing.append(number)
    if missing:
        expected = "a feature_id, a number or a text, in each feature"
        problems.add("feature-id-missing", place, expected, f"none at {named(missing)} (from 0)")
    if twice:
        problems.add("feature-id-twice", place, "each feature_id once", f"several times: {named(twice)}")


def usable_polygons(features, problems):
    """Features with a sound polygon, and (feature_id, reason) of the others; malformed ones are problems."""
    polygons, left_out = [], []
    malformed, huge = [], []
    for feature in features:
        key, geometry = feature["properties"].get("feature_id"), feature.get("geometry")
        fault = geometry_fault(geometry, check=True)
        if fault in ("no geometry", "empty geometry"):
            left_out.append((key, fault))
        elif fault:
            malformed.append(f"{key} ({fault})")
        elif vertices(geometry) > MOST_VERTICES:
            huge.append(f"{key} ({vertices(geometry):,})")
        else:
            shape, reason = shape_of(geometry)
            (malformed if reason else polygons).append(f"{key} ({reason})" if reason else feature)
            if shape is not None and not shape.is_valid:
                polygons.pop()
                left_out.append((key, f"invalid polygon: {shapely.is_valid_reason(shape)}"))
    place = f"geojson/{GEOJSON_NAME}"
    if malformed:
        problems.add("geometry-malformed", place, "Polygons or MultiPolygons", f"others in feature {named(malformed)}")
    if huge:
        problems.add("geometry-huge", place, f"at most {MOST_VERTICES:,} vertices", f"more in feature {named(huge)}")
    return polygons, left_out


def vertices(geometry):
    return sum(len(ring) for part in polygon_parts(geometry) for ring in part)


def shape_of(geometry):
    """A shapely polygon, or None and the reason why there is none."""
    try:
        with np.errstate(invalid="ignore"):
            shape = shapely.geometry.shape(geometry)
    except (ValueError, shapely.errors.ShapelyError) as error:
        return None, str(error)
    return (shape, None) if np.isfinite(shapely.get_coordinates(shape)).all() else (None, "not finite")


def labelled_polygons(polygons, names, left_out, problems):
    """Features whose class_name is one of the names; without class_name they are left out, with another refused."""
    place = f"geojson/{GEOJSON_NAME}"
    labels = [feature["properties"].get("class_name") for feature in polygons]
    unknown = sorted({repr(label) for label in labels if label is not None and label not in names})
    if polygons and all(label is None for label in labels):
        found = f"none; the properties are {', '.join(sorted(polygons[0]['properties']))}"
        problems.add("class-name-missing", place, f"a class_name, one of {list(names)}", found)
    elif unknown:
        problems.add("class-name-unknown", place, f"a class_name of {list(names)}", named(unknown))
    for feature, label in zip(polygons, labels):
        if label is None:
            left_out.append((feature["properties"].get("feature_id"), "no class_name"))
    return [feature for feature, label in zip(polygons, labels) if label in names]


def check_class_counts(polygons, names, left_out, problems):
    """Enough polygons of each class."""
    labels = [feature["properties"]["class_name"] for feature in polygons]
    counts = {name: labels.count(name) for name in names}
    few = {name: count for name, count in counts.items() if count < FEWEST_OF_A_CLASS}
    if not few:
        return
    code = "class-missing" if 0 in few.values() else "class-too-few"
    found = f"{counts}; left out: {len(left_out)}" + "".join(f"; {key}: {reason}" for key, reason in left_out[:3])
    expected = f"at least {FEWEST_OF_A_CLASS} usable polygons of each class"
    problems.add(code, f"geojson/{GEOJSON_NAME}", expected, found)


# --- polygons on their images ----------------------------------------------------------------------------------------


def by_image(features):
    """{image_id as text: features}, in the order of the features; None for those without."""
    groups = {}
    for feature in features:
        key = feature["properties"].get("image_id")
        groups.setdefault(None if key in (None, "") else str(key), []).append(feature)
    return groups


def check_images(images, features, problems):
    """{image_id: mltools' description} of the images that the features name."""
    groups, place = by_image(features), f"geojson/{GEOJSON_NAME}"
    if without_id := groups.pop(None, None):
        keys = named([feature["properties"].get("feature_id") for feature in without_id])
        problems.add("image-id-missing", place, "an image_id in each feature", f"none in feature {keys}")
    without = sorted(set(groups) - set(images))
    if without and images:
        there = named(sorted(images))
        problems.add("image-id-without-file", place, f"image_ids of the port 'image' ({there})", named(without))
    # Without a readable GeoJSON the images are checked nevertheless: all problems at once.
    wanted = {key: path for key, path in images.items() if key in groups or not groups}
    found = {key: check_image(path, problems) for key, path in wanted.items()}
    return {key: image for key, image in found.items() if image is not None}


def placed_polygons(images, polygons, crs, all_touched, left_out, problems):
    """Features with pixels on their image; the others are added to left_out."""
    kept = []
    for image_id, features in by_image(polygons).items():
        image, geometries = images[image_id], [feature["geometry"] for feature in features]
        pixels, windows, reasons = check_placement(image, geometries, crs, problems)
        for number, feature in enumerate(features):
            without = None if pixels[number] or all_touched else "no pixel's centre lies inside"
            reason = reasons.get(number, without)
            if reason:
                left_out.append((feature["properties"]["feature_id"], reason))
            else:
                kept.append(feature)
        probe_pixels(image, windows, problems)
    return kept
