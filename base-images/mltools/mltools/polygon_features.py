"""The pool feature vector of very many polygons of one image.

The values are those of rasterio.mask (crop=True) and features.pool_basic, polygon by polygon; the work is done the
other way round: polygons become runs of pixels, runs are sorted by their place in the image, and every block that is
needed is read once. Memory stays below 500 MB whatever the size of the image and the number of polygons.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray

from .features import POOL_FEATURE_NAMES, POOL_RATIOS, POOL_SIGNATURES
from .image_blocks import Image, describe_image, measure_runs
from .polygon_runs import (
    MOST_CROSSINGS,
    TOO_MANY,
    Polygons,
    Runs,
    bounds,
    flatten,
    polygon_runs,
    replace_runs,
    runs_by_rasterio,
    window_runs,
)
from .run_statistics import pool_measure

WGS84 = "OGC:CRS84"  # longitude, latitude: what RFC 7946 says of GeoJSON
STEP = 8_192  # geometries that are turned into runs at once
CHUNK_RUNS = 4_000_000  # runs (12 bytes each) that are held at once
CHUNK_POLYGONS = 400_000

FEATURE_NAMES = POOL_FEATURE_NAMES


class PolygonFeatures(NamedTuple):
    """Features of polygons, in the order in which they were given.

    values: (n, 4) float64, columns as FEATURE_NAMES (ratios, then angles in radians); nan for a polygon left out.
    pixels: (n, 2) int64, pixels inside and pixels used. partly_outside: (n,) bool. left_out: number -> reason.
    """

    values: NDArray[np.float64]
    pixels: NDArray[np.int64]
    partly_outside: NDArray[np.bool_]
    left_out: dict[int, str]


class _Drawn(NamedTuple):
    """Polygons of one step: their runs, their windows (n, 4: rows, then columns), and what is known of them."""

    runs: Runs
    windows: NDArray[np.int64]
    boxes: NDArray[np.float64]
    partly_outside: NDArray[np.bool_]
    left_out: dict[int, str]


def polygon_features(
    image: str | os.PathLike[str],
    geometries: Iterable[Any],
    crs: Any = WGS84,
    all_touched: bool = False,
    whole_window_ratios: bool = False,
    threads: int | None = None,
    compiled: bool = True,
) -> PolygonFeatures:
    """Features of GeoJSON geometries (dicts: Polygon or MultiPolygon) over an 8-band image.

    crs: of the geometries, anything that pyproj takes, x (longitude) before y; None: that of the image.
    all_touched: take all pixels that a polygon touches, not those whose centre it holds; slower.
    whole_window_ratios: ratios over a polygon's whole window, as mltools 1.x did.
    threads: None: all cores. compiled: False: the numpy twins, for comparison.
    A polygon without usable pixels is left out with its reason; the others are not disturbed by it.
    Raises ValueError when the image has other than 8 bands, no CRS to bring the polygons to, or damaged pixels.
    """
    batches = list(stream_polygon_features(image, geometries, crs, all_touched, whole_window_ratios, threads, compiled))
    return join_batches(batches)


def join_batches(batches: list[PolygonFeatures]) -> PolygonFeatures:
    """One PolygonFeatures of several that follow each other."""
    if not batches:
        return PolygonFeatures(np.empty((0, 4)), np.empty((0, 2), np.int64), np.empty(0, bool), {})
    left_out, start = {}, 0
    for batch in batches:
        left_out.update({start + number: reason for number, reason in batch.left_out.items()})
        start += len(batch.values)
    values, pixels, partly = (np.concatenate([batch[field] for batch in batches]) for field in range(3))
    return PolygonFeatures(values, pixels, partly, left_out)


def stream_polygon_features(
    image: str | os.PathLike[str],
    geometries: Iterable[Any],
    crs: Any = WGS84,
    all_touched: bool = False,
    whole_window_ratios: bool = False,
    threads: int | None = None,
    compiled: bool = True,
) -> Iterator[PolygonFeatures]:
    """polygon_features in batches of up to some 100,000 polygons: `geometries` may be endless, memory is not."""
    source = describe_image(os.fspath(image))
    if source.bands != POOL_SIGNATURES.shape[1]:
        raise ValueError(f"{source.path}: expected 8 bands (WorldView-2's order), found {source.bands}")
    project = projection(source, crs)
    for drawn in _chunks(source, geometries, project, all_touched, compiled):
        yield _measure(source, drawn, whole_window_ratios, threads, compiled)


def projection(image: Image, crs: Any) -> pyproj.Transformer | None:
    """What brings x, y of `crs` to the image's CRS; None when they are the same."""
    if crs is None:
        return None
    if image.crs is None:
        raise ValueError(f"{image.path}: expected an image with a CRS, found none; the polygons cannot be placed on it")
    target = pyproj.CRS.from_wkt(image.crs.to_wkt())
    given = pyproj.CRS.from_user_input(crs)
    if given.equals(target, ignore_axis_order=True):
        return None
    return pyproj.Transformer.from_crs(given, target, always_xy=True)


def _chunks(
    image: Image, geometries: Iterable[Any], project: Any, all_touched: bool, compiled: bool
) -> Iterator[_Drawn]:
    """Polygons as runs, in chunks of bounded size."""
    steps: list[_Drawn] = []
    iterator = iter(geometries)
    while step := list(islice(iterator, STEP)):
        steps.append(_draw(image, step, project, all_touched, compiled))
        runs = sum(len(drawn.runs.items) for drawn in steps)
        if runs > CHUNK_RUNS or len(steps) * STEP > CHUNK_POLYGONS:
            yield _join_drawn(steps)
            steps = []
    if steps:
        yield _join_drawn(steps)


def _draw(image: Image, geometries: list[Any], project: Any, all_touched: bool, compiled: bool) -> _Drawn:
    """Runs of some geometries, and why some have none."""
    polygons, faults = flatten(geometries)
    left_out = {number: fault for number, fault in enumerate(faults) if fault}
    polygons, placed = place(image, polygons, project)
    polygons, placed, boxes = _without_bad_points(polygons, placed, bounds(placed), left_out)
    runs = polygon_runs(placed, image.height, image.width, compiled)
    ties = np.arange(len(geometries)) if all_touched else np.flatnonzero(runs.states == 1)
    size = image.transform, image.height, image.width, all_touched
    runs = replace_runs(runs, ties.tolist(), lambda number: runs_by_rasterio(polygons, number, boxes[number], *size))
    for number in np.flatnonzero(runs.states == TOO_MANY).tolist() if not all_touched else []:
        left_out[number] = f"its boundary crosses more than {MOST_CROSSINGS:,} rows of pixels"
    partly = _outside(boxes, image, left_out)
    return _Drawn(runs, _windows(boxes, image), boxes, partly, left_out)


def to_pixels(points: NDArray[np.float64], image: Image) -> NDArray[np.float64]:
    """Points (n, 2) of the image's CRS as columns and rows of the image."""
    inverse = ~image.transform
    x, y = points[:, 0], points[:, 1]
    pixels = [x * inverse.a + y * inverse.b + inverse.c, x * inverse.d + y * inverse.e + inverse.f]
    return np.stack(pixels, axis=1)


def _without_bad_points(
    polygons: Polygons, placed: Polygons, boxes: NDArray[np.float64], left_out: dict[int, str]
) -> tuple[Polygons, Polygons, NDArray[np.float64]]:
    """Empty the polygons that have a point that is nowhere, or no ring of three points."""
    starts = placed.point_starts()
    finite = np.isfinite(placed.points).all(axis=1)
    owner = np.repeat(np.arange(placed.size), np.diff(starts))
    bad = set(owner[~finite].tolist())
    for number in bad:
        left_out[number] = "a coordinate is not finite, or cannot be brought to the image's CRS"
    # The runs of these are not drawn: their points move out of the image, which keeps all offsets.
    if bad:
        away = np.isin(owner, list(bad))
        placed = placed._replace(points=np.where(away[:, None], -10.0, placed.points))
        boxes = bounds(placed)
        polygons = polygons._replace(points=np.where(away[:, None], 0.0, polygons.points))
    for number in np.flatnonzero(np.isnan(boxes[:, 0])).tolist():
        left_out.setdefault(number, "empty geometry")
    return polygons, placed, np.where(np.isnan(boxes), -10.0, boxes)


def _outside(boxes: NDArray[np.float64], image: Image, left_out: dict[int, str]) -> NDArray[np.bool_]:
    """Which polygons lie partly outside the image; those that lie outside altogether are left out."""
    left, top, right, bottom = boxes.T
    outside = (left >= image.width) | (right <= 0) | (top >= image.height) | (bottom <= 0)
    for number in np.flatnonzero(outside).tolist():
        left_out.setdefault(number, "outside the image")
    partly = (left < 0) | (top < 0) | (right > image.width) | (bottom > image.height)
    return partly & ~outside


def _windows(boxes: NDArray[np.float64], image: Image) -> NDArray[np.int64]:
    """Windows in whole pixels, as rasterio.features.geometry_window gives them: rows, then columns."""
    left, top, right, bottom = boxes.T
    rows = np.floor(top).clip(0, image.height), np.ceil(bottom).clip(0, image.height)
    cols = np.floor(left).clip(0, image.width), np.ceil(right).clip(0, image.width)
    return np.stack([*rows, *cols], axis=1).astype(np.int64)


def placed_windows(image: Image, geometries: list[Any], crs: Any = WGS84) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Windows (n, 4: first row, last row, first column, last column; last ones excluded) of geometries on an image.

    No pixel is read. Also number -> reason of those that have none.
    """
    polygons, faults = flatten(geometries)
    left_out = {number: fault for number, fault in enumerate(faults) if fault}
    polygons, placed = place(image, polygons, projection(image, crs))
    _, _, boxes = _without_bad_points(polygons, placed, bounds(placed), left_out)
    _outside(boxes, image, left_out)
    return _windows(boxes, image), left_out


def placed_runs(
    image: Image, geometries: list[Any], crs: Any = WGS84
) -> tuple[Runs, NDArray[np.int64], NDArray[np.float64], dict[int, str]]:
    """Runs and windows of geometries on an image, their boxes in pixels, and number -> reason of those without."""
    drawn = _draw(image, geometries, projection(image, crs), all_touched=False, compiled=True)
    return drawn.runs, drawn.windows, drawn.boxes, drawn.left_out


def place(image: Image, polygons: Polygons, project: pyproj.Transformer | None) -> tuple[Polygons, Polygons]:
    """Polygons in the image's CRS, and the same in its pixels."""
    if project is not None and len(polygons.points):
        x, y = project.transform(polygons.points[:, 0], polygons.points[:, 1])
        polygons = polygons._replace(points=np.stack([x, y], axis=1))
    return polygons, polygons._replace(points=to_pixels(polygons.points, image))


def _join_drawn(steps: list[_Drawn]) -> _Drawn:
    """One _Drawn of several that follow each other."""
    if len(steps) == 1:
        return steps[0]
    counts = np.concatenate([np.diff(step.runs.starts) for step in steps])
    starts = np.concatenate([[0], np.cumsum(counts)])
    items = np.concatenate([step.runs.items for step in steps])
    runs = Runs(items, starts, np.concatenate([step.runs.states for step in steps]))
    left_out, start = {}, 0
    for step in steps:
        left_out.update({start + number: reason for number, reason in step.left_out.items()})
        start += len(step.windows)
    windows, boxes, partly = (np.concatenate([step[field] for step in steps]) for field in (1, 2, 3))
    return _Drawn(runs, windows, boxes, partly, left_out)


def _measure(image: Image, drawn: _Drawn, whole_window: bool, threads: int | None, compiled: bool) -> PolygonFeatures:
    """Features of one chunk."""
    measure, ratios = pool_measure(image.nodata), len(POOL_RATIOS)
    best, counts = measure_runs(image, drawn.runs, measure, threads, compiled)
    if whole_window:
        everywhere, _ = measure_runs(image, window_runs(drawn.windows), measure, threads, compiled)
        best[:, :ratios] = everywhere[:, :ratios]
    best[:, ratios:] = np.arccos(np.clip(best[:, ratios:], -1, 1))
    left_out = dict(drawn.left_out)
    for number in np.flatnonzero(counts[:, 1] == 0).tolist():
        left_out.setdefault(number, no_pixels_reason(int(counts[number, 0]), drawn.boxes[number]))
    best[list(left_out)] = np.nan
    return PolygonFeatures(best, counts, drawn.partly_outside, left_out)


def no_pixels_reason(seen: int, box: NDArray[np.float64]) -> str:
    """Why a polygon on the image has no usable pixel."""
    if seen:
        return f"no usable pixel: all {seen} inside are nodata, not finite or zero in all bands"
    return f"no pixel's centre lies inside (its box is {box[2] - box[0]:.2f} x {box[3] - box[1]:.2f} pixels)"
