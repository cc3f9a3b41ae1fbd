"""Chips of pixels from images: by polygon or point of a GeoJSON file, or at random places.

A chip is an array (bands, rows, cols) of the image's type. A feature's image is <image_dir>/<image_id>.tif. Geometries
are brought to the image's CRS; without a crs member they are longitude and latitude. Which pixels belong to a polygon:
those whose centre it holds, in the smallest window of whole pixels, as with rasterio.mask(crop=True). What lies outside
the image is cut off. Features that give no chip are reported, never dropped in silence.
"""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from .geojson_tools import collection_crs, features_by_image, image_file, iter_features, read_collection
from .image_blocks import Image, describe_image
from .polygon_features import WGS84, no_pixels_reason, placed_runs, projection, to_pixels

Path = str | os.PathLike[str]
LeftOut = list[tuple[Any, str]]


# --- chips of a file's features --------------------------------------------------------------------------------------


def get_data(
    shapefile: Path,
    return_labels: bool = False,
    return_id: bool = True,
    buffer: int | Sequence[int] = (0, 0),
    mask: bool = False,
    num_chips: int | None = None,
    image_dir: Path = ".",
    left_out: LeftOut | None = None,
) -> tuple[list[Any], ...]:
    """Chips of the features of a GeoJSON file: (chips, ids), or (chips, ids, labels) with return_labels.

    return_id False leaves the ids out, as mltools 1.1 did by default. buffer: pixels (x, y) around the feature; a
    Point's chip is 2 * buffer pixels wide and high. mask: chips are masked arrays whose pixels outside the polygon are
    masked. num_chips: stop after so many. left_out: a list to which (feature_id, reason) of what gave no chip is added;
    without it a warning sums them up.
    ids are the features' feature_id, labels their class_name (features without one are left out); chips come in the
    order of the file.
    Raises ValueError (not a FeatureCollection, no image_id, an image without CRS), FileNotFoundError (no such image).
    """
    collection = read_collection(shapefile)
    found, reasons = feature_chips(
        collection["features"], collection_crs(collection), image_dir, buffer, mask, return_labels, num_chips
    )
    _report(shapefile, len(collection["features"]), reasons, left_out)
    columns: list[list[Any]] = [[chip for _, chip in found]]
    if return_id:
        columns.append([_id(feature) for feature, _ in found])
    if return_labels:
        columns.append([feature["properties"]["class_name"] for feature, _ in found])
    return tuple(columns)


def feature_chips(
    features: Sequence[dict[str, Any]],
    crs: Any,
    image_dir: Path,
    buffer: int | Sequence[int],
    mask: bool,
    labelled: bool = False,
    most: int | None = None,
    bands: Sequence[int] | None = None,
) -> tuple[list[tuple[dict[str, Any], Any]], LeftOut]:
    """(feature, chip) pairs in the order of the features, and (feature_id, reason) of those without a chip."""
    pad = _pad(buffer)
    chips: dict[int, Any] = {}
    reasons: dict[int, str] = {}
    for image_id, numbers in features_by_image(features).items():
        image = describe_image(image_file(image_id, image_dir))
        wanted = []
        for number in numbers:
            if labelled and (features[number].get("properties") or {}).get("class_name") is None:
                reasons[number] = "no class_name"
            else:
                wanted.append(number)
        geometries = [features[number].get("geometry") for number in wanted]
        for place, chip in _image_chips(image, geometries, crs, pad, mask, bands, most):
            (reasons if isinstance(chip, str) else chips)[wanted[place]] = chip
    order = sorted(chips)[:most] if most is not None else sorted(chips)
    left = [(_id(features[number]), reasons[number]) for number in sorted(reasons)]
    return [(features[number], chips[number]) for number in order], left


def _image_chips(
    image: Image, geometries: list[Any], crs: Any, pad: tuple[int, int], mask: bool, bands: Any, most: int | None
) -> Iterator[tuple[int, Any]]:
    """Number and chip, or the reason why there is none (a text), of geometries on one image."""
    points = [number for number, geometry in enumerate(geometries) if (geometry or {}).get("type") == "Point"]
    runs, windows, boxes, left_out = placed_runs(image, geometries, crs)
    for number in points:
        left_out.pop(number, None)
        windows[number] = _point_window(image, geometries[number], crs, pad)
    polygons = np.setdiff1d(np.arange(len(geometries)), points)
    windows[polygons] = _padded(windows[polygons], pad, image)
    with rasterio.open(image.path) as source:
        given = 0
        for number, (top, bottom, left, right) in enumerate(windows.tolist()):
            drawn = runs.items[runs.starts[number] : runs.starts[number + 1]]
            if most is not None and given >= most:
                return
            if number in left_out:
                yield number, left_out[number]
            elif top >= bottom or left >= right:
                yield number, "outside the image, or a Point without a buffer"
            elif mask and number not in points and not len(drawn):
                yield number, no_pixels_reason(0, boxes[number])
            else:
                chip = source.read(indexes=bands, window=Window(left, top, right - left, bottom - top))
                yield number, _masked(chip, drawn, top, left, number in points) if mask else chip
                given += 1


def _masked(chip: NDArray[Any], runs: NDArray[Any], top: int, left: int, whole: bool) -> Any:
    """A chip as a masked array with the pixels outside the runs masked (none of them when whole)."""
    outside = np.full(chip.shape[1:], not whole)
    for row, first, last in runs.tolist() if not whole else []:
        outside[row - top, first - left : last - left] = False
    return np.ma.MaskedArray(chip, np.broadcast_to(outside, chip.shape).copy())


def _pad(buffer: int | Sequence[int]) -> tuple[int, int]:
    """A buffer as pixels (x, y)."""
    x, y = (buffer, buffer) if isinstance(buffer, int) else tuple(buffer)
    if x < 0 or y < 0:
        raise ValueError(f"buffer: expected pixels of 0 or more, found {buffer}")
    return int(x), int(y)


def _padded(windows: NDArray[np.int64], pad: tuple[int, int], image: Image) -> NDArray[np.int64]:
    """Windows grown by a buffer on each side and cut to the image; empty ones stay empty."""
    empty = (windows[:, 0] >= windows[:, 1]) | (windows[:, 2] >= windows[:, 3])
    grown = windows + np.array([-pad[1], pad[1], -pad[0], pad[0]])
    grown = np.clip(grown, 0, [image.height, image.height, image.width, image.width])
    return np.where(empty[:, None], 0, grown)


def _point_window(image: Image, geometry: dict[str, Any], crs: Any, pad: tuple[int, int]) -> NDArray[np.int64]:
    """The window of a Point: its pixel in the middle, twice the buffer wide and high."""
    point = np.array([geometry["coordinates"][:2]], dtype=float)
    project = projection(image, crs)
    if project is not None:
        point = np.stack(project.transform(point[:, 0], point[:, 1]), axis=1)
    if not np.isfinite(point).all():
        return np.zeros(4, dtype=np.int64)
    col, row = np.floor(to_pixels(point, image)[0])
    window = np.array([row - pad[1], row + pad[1], col - pad[0], col + pad[0]])
    return np.clip(window, 0, [image.height, image.height, image.width, image.width]).astype(np.int64)


def _id(feature: dict[str, Any]) -> Any:
    """A feature's feature_id, or its GeoJSON id, or None."""
    return (feature.get("properties") or {}).get("feature_id", feature.get("id"))


def _report(name: Any, total: int, reasons: LeftOut, left_out: LeftOut | None) -> None:
    if left_out is not None:
        left_out.extend(reasons)
    elif reasons:
        first = "; ".join(f"{key}: {reason}" for key, reason in reasons[:3])
        warnings.warn(f"{name}: {len(reasons)} of {total} features gave no chip ({first}...)", stacklevel=3)


# --- chips of one size -----------------------------------------------------------------------------------------------


def get_data_from_polygon_list(
    features: Sequence[dict[str, Any]],
    min_side_dim: int = 0,
    max_side_dim: int = 125,
    num_chips: int | None = None,
    classes: Sequence[str] = ("No swimming pool", "Swimming pool"),
    normalize: bool = True,
    return_id: bool = False,
    return_labels: bool = True,
    bit_depth: int = 8,
    mask: bool = True,
    show_percentage: bool = True,
    assert_all_valid: bool = False,
    resize_dim: Sequence[int] | None = None,
    bands: Sequence[int] | None = None,
    buffer: int | Sequence[int] = 0,
    image_dir: Path = ".",
    crs: Any = WGS84,
    left_out: LeftOut | None = None,
) -> list[Any]:
    """Chips of one size: [chips], then ids with return_id, then labels with return_labels.

    chips: (n, bands, max_side_dim, max_side_dim) float64, each in the middle of zeros; masked pixels are zeros too.
    Only chips whose sides are min_side_dim to max_side_dim pixels are given. labels: (n, classes) float64, one-hot in
    the order of classes. normalize: divide by 2**bit_depth - 1. resize_dim: (bands, rows, cols) after padding, by the
    mean over the area of each new pixel. bands: from 1. buffer, mask, image_dir, left_out: as in get_data.
    assert_all_valid: AssertionError when a feature gives no chip. show_percentage: progress on standard output.
    """
    found, reasons = feature_chips(features, crs, image_dir, buffer, mask, return_labels, None, bands)
    chips: list[Any] = []
    ids: list[Any] = []
    labels: list[Any] = []
    for number, (feature, chip) in enumerate(found):
        reason = _unfit(chip, feature, min_side_dim, max_side_dim, classes if return_labels else None)
        if reason:
            reasons.append((_id(feature), reason))
            continue
        chips.append(uniform_chip(chip, max_side_dim, resize_dim, 2.0**bit_depth - 1 if normalize else 1.0))
        ids.append(_id(feature))
        labels.append((feature.get("properties") or {}).get("class_name"))
        if show_percentage:
            sys.stdout.write(f"\r{100 * (number + 1) / len(found):.2f} %")
        if num_chips is not None and len(chips) == num_chips:
            break
    if assert_all_valid and reasons:
        raise AssertionError(f"{len(reasons)} of {len(features)} features gave no chip, first {reasons[0]}")
    _report("get_data_from_polygon_list", len(features), reasons, left_out)
    result: list[Any] = [_stack(chips, found, max_side_dim, resize_dim)]
    return result + ([ids] if return_id else []) + ([one_hot(labels, classes)] if return_labels else [])


def _unfit(chip: Any, feature: dict[str, Any], low: int, high: int, classes: Sequence[str] | None) -> str | None:
    """Why a chip is not wanted, or None."""
    rows, cols = chip.shape[1:]
    if min(rows, cols) < low or max(rows, cols) > high:
        return f"a chip of {rows} x {cols} pixels, expected sides of {low} to {high}"
    label = feature["properties"].get("class_name")
    if classes is not None and label not in classes:
        return f"class_name {label!r} is none of {list(classes)}"
    return None


def uniform_chip(chip: Any, side: int, resize_dim: Sequence[int] | None = None, divisor: float = 1.0) -> Any:
    """A chip (bands, rows, cols) in the middle of side x side pixels of zeros, as float64, perhaps resized."""
    values = np.ma.filled(chip, 0).astype(np.float64)
    top, left = (side - values.shape[1]) // 2, (side - values.shape[2]) // 2
    patch = np.zeros((len(values), side, side))
    patch[:, top : top + values.shape[1], left : left + values.shape[2]] = values
    if resize_dim is not None:
        rows, cols = resize_dim[-2:]
        patch = area_weights(side, rows) @ patch @ area_weights(side, cols).T
    return patch / divisor


def area_weights(old: int, new: int) -> NDArray[np.float64]:
    """Weights (new, old) of the old pixels in each new one: the share of its length that they cover."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)[None, :]
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * (new / old)


def _stack(chips: list[Any], found: list[Any], side: int, resize_dim: Sequence[int] | None) -> NDArray[np.float64]:
    """Chips (n, bands, rows, cols); of that shape too when there is none."""
    if chips:
        return np.stack(chips)
    rows, cols = resize_dim[-2:] if resize_dim is not None else (side, side)
    return np.empty((0, found[0][1].shape[0] if found else 0, rows, cols))


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.float64]:
    """Labels as rows with a one in the column of their class: (labels, classes)."""
    place = {name: column for column, name in enumerate(classes)}
    rows = np.zeros((len(labels), len(classes)))
    rows[np.arange(len(labels)), [place[label] for label in labels]] = 1
    return rows


def get_uniform_chips(input_file: Path, num_chips: int | None = None, **kwargs: Any) -> list[Any]:
    """get_data_from_polygon_list for a GeoJSON file; stops after num_chips chips."""
    collection = read_collection(input_file)
    kwargs.setdefault("crs", collection_crs(collection))
    return get_data_from_polygon_list(collection["features"], num_chips=num_chips, **kwargs)


def uniform_chip_generator(input_file: Path, batch_size: int = 32, **kwargs: Any) -> Iterator[list[Any]]:
    """get_data_from_polygon_list for batch_size features at a time of a GeoJSON file of any size.

    A batch has fewer chips where features give none. The file's crs member is not read: give crs for another CRS than
    longitude and latitude. ValueError: batch_size below 1, or num_chips given.
    """
    if batch_size < 1 or "num_chips" in kwargs:
        raise ValueError(f"expected a batch_size of 1 or more and no num_chips, found {batch_size}, {sorted(kwargs)}")
    features: Iterable[dict[str, Any]] = iter(iter_features(input_file))
    while batch := list(islice(features, batch_size)):
        yield get_data_from_polygon_list(batch, **kwargs)


# --- whole images ----------------------------------------------------------------------------------------------------


def random_window(
    image: Path, chip_size: Sequence[int], no_chips: int = 10000, seed: int | None = None
) -> list[NDArray[Any]]:
    """no_chips chips (bands, rows, cols) of chip_size (columns, rows) at random places inside an image.

    ValueError: the image is smaller than a chip.
    """
    cols, rows = (int(size) for size in chip_size)
    chooser = np.random.default_rng(seed)
    with rasterio.open(image) as source:
        if not (0 < cols <= source.width and 0 < rows <= source.height):
            raise ValueError(
                f"{image}: expected a chip_size (columns, rows) within {source.width} x {source.height}, "
                f"found {chip_size}"
            )
        lefts = chooser.integers(0, source.width - cols + 1, no_chips).tolist()
        tops = chooser.integers(0, source.height - rows + 1, no_chips).tolist()
        return [source.read(window=Window(left, top, cols, rows)) for left, top in zip(lefts, tops, strict=True)]


def apply_mask(input_file: Path, mask_file: Path, output_file: Path) -> None:
    """Write a GeoTIFF that is the image where the mask's first band is above 0, and 0 elsewhere.

    The image's type is kept (mltools 1.x cut all to 8 bits). ValueError: shape, CRS or position of the two differ.
    """
    with rasterio.open(input_file) as source, rasterio.open(mask_file) as mask:
        for what in ("shape", "crs", "transform"):
            here, there = getattr(source, what), getattr(mask, what)
            if not (here.almost_equals(there) if what == "transform" else here == there):
                raise ValueError(f"{mask_file}: expected the {what} of {input_file}, {here}, found {there}")
        profile = {**source.profile, "driver": "GTiff", "BIGTIFF": "IF_SAFER"}
        with rasterio.open(output_file, "w", **profile) as target:
            for top in range(0, source.height, 512):
                window = Window(0, top, source.width, min(512, source.height - top))
                keep = mask.read(1, window=window) > 0
                target.write(source.read(window=window) * keep.astype(source.dtypes[0]), window=window)
