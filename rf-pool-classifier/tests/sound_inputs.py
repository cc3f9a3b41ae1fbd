"""A small sound input that each test spoils in its own way: 24 squares of 4 x 4 pixels on a strip of 64 x 64."""

import json
import shutil

import numpy as np
import pyproj
import rasterio
from rasterio.transform import from_origin
from training_inputs import check_training_inputs

UTM = "EPSG:32754"
LEFT, TOP, PIXEL = 272_000.0, 6_118_000.0, 2.0  # Adelaide, metres
SIDE = 64  # pixels
TO_DEGREES = pyproj.Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
TEXTS = {
    "n_estimators": "100",
    "seed": "0",
    "class_names": "No swimming pool,Swimming pool",
    "all_touched": "false",
    "features": "pool_basic",
}


def ring_of(col, row, width=4, height=4):
    """A rectangle's ring in UTM: from the top left corner of pixel (col, row), so many pixels wide and high."""
    corners = [(col, row), (col + width, row), (col + width, row + height), (col, row + height), (col, row)]
    return [[LEFT + PIXEL * x, TOP - PIXEL * y] for x, y in corners]


def in_degrees(ring):
    return [list(TO_DEGREES.transform(x, y)) for x, y in ring]


def sample_features():
    """24 squares in longitude and latitude, a pixel off the grid's lines by a quarter, of both classes in turn."""
    found = []
    for number in range(24):
        ring = ring_of(2.25 + 10 * (number % 6), 2.25 + 10 * (number // 6))
        properties = {
            "feature_id": 100 + number,
            "image_id": "strip",
            "class_name": ("No swimming pool", "Swimming pool")[number % 2],
        }
        geometry = {"type": "Polygon", "coordinates": [in_degrees(ring)]}
        found.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return found


def sample_pixels():
    """(8, 64, 64) uint16, no pixel like another."""
    return np.random.default_rng(1).integers(300, 4000, (8, SIDE, SIDE)).astype(np.uint16)


class Inputs:
    """The ports of one run on disk. A test changes what it likes, then calls check."""

    def __init__(self, folder):
        self.image, self.geojson = folder / "image", folder / "geojson"
        self.image.mkdir(parents=True)
        self.geojson.mkdir()
        self.texts = dict(TEXTS)
        self.features = sample_features()
        self.collection = {"type": "FeatureCollection", "features": self.features}
        self.write_image(sample_pixels())
        self.write_geojson()

    def write_image(self, pixels, name="strip.tif", **profile):
        bands, rows, cols = pixels.shape
        place = from_origin(LEFT, TOP, PIXEL, PIXEL)
        whole = {"driver": "GTiff", "dtype": pixels.dtype, "crs": UTM, "transform": place, **profile}
        with rasterio.open(self.image / name, "w", count=bands, height=rows, width=cols, **whole) as target:
            target.write(pixels)

    def write_geojson(self, name="train.geojson"):
        (self.geojson / name).write_text(json.dumps(self.collection))

    def remove(self, port):
        shutil.rmtree(getattr(self, port))

    def check(self):
        return check_training_inputs(str(self.image), str(self.geojson), self.texts)
