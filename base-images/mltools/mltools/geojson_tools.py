"""Read, split, join, filter and balance GeoJSON files.

Files are FeatureCollections (RFC 7946); properties that matter here are feature_id, image_id and class_name. Every
function that picks or shuffles takes a seed, so that a result can be made again. Members of a collection beside its
features (a name, a crs) are kept. Output names without ".geojson" get it where mltools 1.x did so.
"""

import json
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import shapely
import shapely.geometry

from .image_blocks import describe_image
from .polygon_features import placed_windows

Path = str | os.PathLike[str]
READ_CHARACTERS = 4_000_000  # of a file that is streamed, held at once


# --- reading and writing ---------------------------------------------------------------------------------------------


def read_collection(input_file: Path) -> dict[str, Any]:
    """A FeatureCollection as a dict. ValueError: the file is not JSON, or not a FeatureCollection."""
    with open(input_file, encoding="utf-8-sig") as file:
        try:
            collection = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{input_file}: expected JSON: {error}") from None
    if not isinstance(collection, dict) or not isinstance(collection.get("features"), list):
        found = collection.get("type") if isinstance(collection, dict) else type(collection).__name__
        raise ValueError(f"{input_file}: expected a FeatureCollection with a list of features, found {found}")
    return collection


def write_collection(collection: dict[str, Any], output_file: Path) -> None:
    """Write a FeatureCollection."""
    with open(output_file, "w", encoding="utf-8") as file:
        json.dump(collection, file)


def iter_features(input_file: Path) -> Iterator[dict[str, Any]]:
    """The features of a FeatureCollection one by one: a file of any size in little memory.

    ValueError: the file has no features member, is not JSON, or ends early; a file may have been half read by then.
    """
    decoder = json.JSONDecoder()
    with open(input_file, encoding="utf-8-sig") as file:
        text = _after_features_bracket(file, input_file)
        at, ended = 0, False
        while True:
            at = _skip(text, at, " \t\r\n,")
            if at < len(text) and text[at] == "]":
                return
            try:
                feature, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                if ended:
                    raise ValueError(f"{input_file}: expected a feature or the end of the list: {error}") from None
                more = file.read(max(READ_CHARACTERS, len(text) - at))
                text, at, ended = text[at:] + more, 0, not more
                continue
            yield feature


def _after_features_bracket(file: Any, name: Path) -> str:
    """What was read of the file after the bracket that opens the top level's "features"."""
    text = ""
    while more := file.read(READ_CHARACTERS):
        text += more
        for match in re.finditer(r'"features"\s*:\s*\[', text):
            if _depth(text[: match.start()]) == 1:
                return text[match.end() :]
    raise ValueError(f"{name}: expected a FeatureCollection with a list of features, found none")


def _depth(text: str) -> int:
    """How many brackets are open at the end of a piece of JSON."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    return sum(bare.count(bracket) for bracket in "{[") - sum(bare.count(bracket) for bracket in "}]")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _with_suffix(name: Path) -> str:
    text = str(os.fspath(name))
    return text if text.endswith(".geojson") else f"{text}.geojson"


def _prefixed(prefix: str, name: Path) -> str:
    """The same file name with a prefix, in the same folder."""
    folder, base = os.path.split(os.fspath(name))
    return os.path.join(folder, prefix + base)


def _property(feature: dict[str, Any], name: str) -> Any:
    return (feature.get("properties") or {}).get(name)


# --- the public surface of mltools 1.x -------------------------------------------------------------------------------


def join(input_files: Sequence[Path], output_file: Path) -> None:
    """Join files into one; other members (crs) are those of the last file. ValueError: their crs members differ."""
    if not input_files:
        raise ValueError("join: expected at least one input file, found none")
    collections = [read_collection(name) for name in input_files]
    systems = {json.dumps(collection.get("crs"), sort_keys=True) for collection in collections}
    if len(systems) > 1:
        raise ValueError(f"join: expected files in one CRS, found {sorted(systems)}")
    features = [feature for collection in collections for feature in collection["features"]]
    write_collection({**collections[-1], "features": features}, output_file)


def split(input_file: Path, file_1: Path, file_2: Path, no_in_first_file: int) -> None:
    """The first no_in_first_file features go to file_1, the others to file_2."""
    collection = read_collection(input_file)
    features = collection["features"]
    if not 0 <= no_in_first_file <= len(features):
        raise ValueError(f"no_in_first_file: expected 0 to {len(features)} (all features), found {no_in_first_file}")
    write_collection({**collection, "features": features[:no_in_first_file]}, file_1)
    write_collection({**collection, "features": features[no_in_first_file:]}, file_2)


def get_from(input_file: Path, property_names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Values of some properties, a tuple for each feature; None where a feature lacks one."""
    features = read_collection(input_file)["features"]
    return [tuple(_property(feature, name) for name in property_names) for feature in features]


def write_to(data: Iterable[Sequence[Any]], property_names: Sequence[str], output_file: Path) -> None:
    """Write tuples (geometry as WKB in hex, property, property...) as features. All kinds of geometry, holes kept."""
    features = []
    for entry in data:
        if len(entry) != len(property_names) + 1:
            raise ValueError(
                f"write_to: expected a geometry and {len(property_names)} properties, found {len(entry)} entries"
            )
        geometry = shapely.geometry.mapping(shapely.from_wkb(entry[0]))
        properties = dict(zip(property_names, entry[1:], strict=True))
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    write_collection({"type": "FeatureCollection", "features": features}, output_file)


def write_properties_to(
    data: Sequence[Sequence[Any]],
    property_names: Sequence[str],
    input_file: Path,
    output_file: Path,
    filter: dict[str, Sequence[Any]] | None = None,
) -> None:
    """Write properties into features: the n-th tuple of data to the n-th feature.

    filter: {property: [value, value...]}: the n-th tuple goes to the features whose property has the n-th value.
    Values that were there are overwritten. ValueError: as many tuples as features (values) are expected.
    """
    collection = read_collection(input_file)
    features = collection["features"]
    if filter is None:
        wanted: Iterable[tuple[dict[str, Any], int]] = ((feature, number) for number, feature in enumerate(features))
        expected = len(features)
    else:
        if len(filter) != 1:
            raise ValueError(f"filter: expected one property, found {sorted(filter)}")
        ((name, values),) = filter.items()
        place = {_hashable(value): number for number, value in enumerate(values)}
        found = ((feature, place.get(_hashable(_property(feature, name)))) for feature in features)
        wanted = ((feature, number) for feature, number in found if number is not None)
        expected = len(values)
    if len(data) != expected:
        raise ValueError(f"write_properties_to: expected {expected} tuples of data, found {len(data)}")
    for feature, number in wanted:
        feature["properties"] = {
            **(feature.get("properties") or {}),
            **dict(zip(property_names, data[number], strict=True)),
        }
    write_collection(collection, output_file)


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def find_unique_values(input_file: Path, property_name: str) -> list[Any] | None:
    """Distinct values of a property, sorted (as text where they do not compare); None when no feature has it."""
    values = {_hashable(_property(feature, property_name)) for feature in iter_features(input_file)} - {None}
    if not values:
        return None
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=str)


def filter_by_property(input_file: Path, output_file: Path, property_name: str, values: Sequence[Any]) -> None:
    """Keep the features whose property has one of the values; those that lack it go."""
    if isinstance(values, str):
        raise ValueError(f"values: expected a list of values, found the text {values!r}")
    collection = read_collection(input_file)
    kept = [feature for feature in collection["features"] if _property(feature, property_name) in values]
    write_collection({**collection, "features": kept}, _with_suffix(output_file))


def create_train_test(
    input_file: Path, output_file: Path | None = None, test_size: float = 0.2, seed: int | None = None
) -> None:
    """Shuffle features into train_<output_file> and test_<output_file>, beside output_file (default: input_file).

    test_size: below 1 a share of the features, else how many. A size of 1 is one feature; mltools 1.x took it for all.
    """
    collection = read_collection(input_file)
    features = random.Random(seed).sample(collection["features"], len(collection["features"]))
    size = int(test_size * len(features)) if test_size < 1 else int(test_size)
    if not 0 <= size <= len(features):
        raise ValueError(f"test_size: expected a share below 1, or 1 to {len(features)} features, found {test_size}")
    name = input_file if output_file is None else _with_suffix(output_file)
    write_collection({**collection, "features": features[:size]}, _prefixed("test_", name))
    write_collection({**collection, "features": features[size:]}, _prefixed("train_", name))


def create_balanced_geojson(
    input_file: Path,
    classes: Sequence[str],
    output_file: Path = "balanced.geojson",
    samples_per_class: int | None = None,
    seed: int | None = None,
) -> None:
    """As many features of each class, picked and shuffled at random. samples_per_class None: the smallest class's size.

    ValueError names every class that has too few.
    """
    collection = read_collection(input_file)
    members: dict[Any, list[Any]] = {name: [] for name in classes}
    for feature in collection["features"]:
        if _property(feature, "class_name") in members:
            members[_property(feature, "class_name")].append(feature)
    size = min(len(found) for found in members.values()) if samples_per_class is None else samples_per_class
    short = {name: len(found) for name, found in members.items() if len(found) < max(size, 1)}
    if short:
        raise ValueError(f"{input_file}: expected at least {max(size, 1)} features of each class, found {short}")
    chooser = random.Random(seed)
    chosen = [feature for found in members.values() for feature in chooser.sample(found, size)]
    chooser.shuffle(chosen)
    write_collection({**collection, "features": chosen}, _with_suffix(output_file))


def filter_polygon_size(
    input_file: Path,
    output_file: Path,
    min_side_dim: int = 0,
    max_side_dim: int = 125,
    shuffle: bool = False,
    make_omitted_files: bool = False,
    image_dir: Path = ".",
    seed: int | None = None,
) -> dict[str, int]:
    """Keep the polygons whose window's sides are min_side_dim to max_side_dim pixels, of <image_dir>/<image_id>.tif.

    No pixel is read. make_omitted_files: also small_<output_file> and large_<output_file>. Returns how many features
    are kept, small, large, and outside their image (or without a polygon; these are in no file).
    Order is kept unless shuffle. Polygons are in the file's crs, by default longitude and latitude.
    """
    collection = read_collection(input_file)
    groups: dict[str, list[Any]] = {"kept": [], "small": [], "large": [], "outside": []}
    sizes = window_sizes(collection, image_dir)
    for feature, (rows, cols) in zip(collection["features"], sizes, strict=True):
        low, high = min(rows, cols), max(rows, cols)
        group = "outside" if low == 0 else "small" if low < min_side_dim else "large" if high > max_side_dim else "kept"
        groups[group].append(feature)
    if shuffle:
        random.Random(seed).shuffle(groups["kept"])
    name = _with_suffix(output_file)
    write_collection({**collection, "features": groups["kept"]}, name)
    if make_omitted_files:
        for group in ("small", "large"):
            write_collection({**collection, "features": groups[group]}, _prefixed(f"{group}_", name))
    return {group: len(features) for group, features in groups.items()}


def window_sizes(collection: dict[str, Any], image_dir: Path = ".") -> list[tuple[int, int]]:
    """Rows and columns of each feature's window on its image; (0, 0) where there is none."""
    features = collection["features"]
    sizes = [(0, 0)] * len(features)
    for image_id, numbers in features_by_image(features).items():
        image = describe_image(image_file(image_id, image_dir))
        geometries = [features[number].get("geometry") for number in numbers]
        windows, _ = placed_windows(image, geometries, collection_crs(collection))
        for number, (top, bottom, left, right) in zip(numbers, windows.tolist(), strict=True):
            sizes[number] = (bottom - top, right - left) if bottom > top and right > left else (0, 0)
    return sizes


# --- features and their images ---------------------------------------------------------------------------------------


def features_by_image(features: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Numbers of the features of each image_id (as text). ValueError names the features without one."""
    found: dict[str, list[int]] = {}
    missing = []
    for number, feature in enumerate(features):
        image_id = _property(feature, "image_id")
        if image_id is None or image_id == "":
            missing.append(number)
        found.setdefault(str(image_id), []).append(number)
    if missing:
        raise ValueError(f"expected an image_id in every feature, found none in {len(missing)}: {missing[:10]}")
    return found


def image_file(image_id: Any, image_dir: Path = ".") -> str:
    """<image_dir>/<image_id>.tif. FileNotFoundError says which images are there."""
    path = os.path.join(os.fspath(image_dir), f"{image_id}.tif")
    if not os.path.isfile(path):
        there = sorted(name for name in os.listdir(image_dir) if name.endswith(".tif"))
        raise FileNotFoundError(f"{path}: expected the image of image_id {image_id}, found {there or 'no .tif'}")
    return path


def collection_crs(collection: dict[str, Any]) -> str:
    """CRS of a collection: its crs member (GeoJSON 2008), else WGS84 longitude, latitude (RFC 7946)."""
    member = collection.get("crs")
    if not member:
        return "OGC:CRS84"
    name = (member.get("properties") or {}).get("name") if isinstance(member, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"crs: expected a named CRS, found {json.dumps(member)}")
    return name
