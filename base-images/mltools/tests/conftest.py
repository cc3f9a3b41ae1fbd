"""Small images and polygons whose values can be worked out by hand."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

if find_spec("mltools") is None:  # not installed: the library of this folder, built in place
    sys.path.insert(0, str(Path(__file__).parents[1]))

UTM = "EPSG:32754"
ORIGIN = (272_000.0, 6_118_000.0)  # Adelaide, metres


@pytest.fixture
def write_image(tmp_path):
    """Write an array (bands, rows, cols) as a GeoTIFF with 2 m pixels and give its path."""

    def write(values, name="strip.tif", crs=UTM, transform=None, **profile):
        path = tmp_path / name
        bands, rows, cols = values.shape
        place = from_origin(*ORIGIN, 2, 2) if transform is None else Affine(*transform)
        profile = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "transform": place, **profile}
        with rasterio.open(path, "w", count=bands, height=rows, width=cols, **profile) as target:
            target.write(values)
        return str(path)

    return write


@pytest.fixture
def noise():
    """An image (8, 90, 130) uint16 of random values from 1."""
    return np.random.default_rng(7).integers(1, 4000, (8, 90, 130)).astype(np.uint16)


@pytest.fixture
def at():
    """Ring of (column, row) pixel positions as x, y of the image in UTM."""

    def place(ring):
        return [[ORIGIN[0] + 2 * col, ORIGIN[1] - 2 * row] for col, row in ring]

    return place
