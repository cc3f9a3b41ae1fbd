"""Features of one chip of pixels.

A chip is an array (bands, rows, cols) of any numeric type; a masked array's masked pixels lie outside the polygon and
do not count. Everything is computed in float64.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Mean spectra of open and of covered swimming pools in the eight WorldView-2 bands, as published with mltools 1.x
# (features.pool_basic): atmospherically compensated reflectance x 10,000 over Adelaide, Australia.
POOL_SIGNATURE: Floats = np.array([1179, 2295, 2179, 759, 628, 186, 270, 110], dtype=np.float64)
COVERED_POOL_SIGNATURE: Floats = np.array([1584, 1808, 1150, 1104, 1035, 995, 1659, 1741], dtype=np.float64)
POOL_SIGNATURES: Floats = np.stack([POOL_SIGNATURE, COVERED_POOL_SIGNATURE])
for _signature in (POOL_SIGNATURE, COVERED_POOL_SIGNATURE, POOL_SIGNATURES):
    _signature.setflags(write=False)

# Bands (from 1) of the two ratios: blue and green against red edge, where water and plants part (mltools 1.x).
POOL_RATIOS = ((2, 6), (3, 6))

# Added to a ratio's denominator so that two dark bands give 0 and no division by zero (mltools 1.1).
RATIO_EPSILON = 1e-6

POOL_FEATURE_NAMES = ("max_ratio_2_6", "max_ratio_3_6", "min_angle_pool", "min_angle_covered_pool")


def spectral_angles(data: ArrayLike, members: ArrayLike) -> Any:
    """Angle between every pixel's spectrum and each member's.

    data: (bands, rows, cols). members: (members, bands), or (bands,) for one; it is left as it is.
    Returns (members, rows, cols) float64 in radians, 0 to pi. A pixel whose bands are all zero has no direction: its
    angle is nan (mltools 1.x said 0, a perfect match). With a masked array the result is masked where any band is.
    Raises ValueError when the numbers of bands differ or the shapes are others.
    """
    pixels = _chip(data)
    spectra = np.atleast_2d(np.asarray(members, dtype=np.float64))
    if spectra.ndim != 2 or spectra.shape[1] != pixels.shape[0]:
        raise ValueError(
            f"members: expected shape (members, {pixels.shape[0]}) for data of {pixels.shape[0]} bands, "
            f"found {np.shape(members)}"
        )
    length = _norm(pixels)
    angles = np.empty((len(spectra), *pixels.shape[1:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        for angle, spectrum in zip(angles, spectra, strict=True):
            cosine = np.tensordot(spectrum, pixels, axes=1) / (length * _norm(spectrum))
            np.arccos(np.clip(cosine, -1, 1), out=angle)
    mask = _outside(data)
    return angles if mask is None else np.ma.MaskedArray(angles, np.broadcast_to(mask, angles.shape).copy())


def band_ratios(data: ArrayLike, band1: int, band2: int) -> Any:
    """(band1 - band2) / (band1 + band2 + 1e-6) for every pixel.

    data: (bands, rows, cols); band1 and band2 count from 1. Returns (rows, cols) float64, masked where data is masked.
    Raises ValueError for a band that is not there.
    """
    pixels = _chip(data)
    for band in (band1, band2):
        if not 1 <= band <= len(pixels):
            raise ValueError(f"band {band}: expected 1 to {len(pixels)}, the bands of the data")
    first, second = pixels[band1 - 1], pixels[band2 - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (first - second) / (first + second + RATIO_EPSILON)
    mask = _outside(data)
    return ratio if mask is None else np.ma.MaskedArray(ratio, mask)


def pool_basic(data: ArrayLike, whole_window_ratios: bool = False, nodata: float | None = None) -> list[float]:
    """The four features of a swimming pool: [max ratio 2/6, max ratio 3/6, min angle pool, min angle covered pool].

    data: (8, rows, cols) in WorldView-2's band order, scaled like the signatures for the ratios' sake only (angles do
    not depend on scale). Pixels that are masked, not finite, all zero, or nodata in any band are dropped first.
    whole_window_ratios: take the ratios over the whole window, masked pixels included, as mltools 1.x did; a
    neighbour's pool then counts. Angles are in radians.
    Raises ValueError when the data have other than 8 bands, or no usable pixel is left.
    """
    pixels = _chip(data)
    if len(pixels) != POOL_SIGNATURES.shape[1]:
        raise ValueError(f"pool_basic: expected 8 bands (WorldView-2's order), found {len(pixels)}")
    usable = usable_pixels(pixels, nodata)
    mask = _outside(data)
    inside = usable if mask is None else usable & ~mask
    if not inside.any():
        raise ValueError(f"pool_basic: no usable pixel: all {inside.size} are masked, nodata, not finite or zero")
    ratio_pixels = pixels[:, usable if whole_window_ratios else inside]
    ratios = [float(band_ratios(ratio_pixels[:, :, None], *bands).max()) for bands in POOL_RATIOS]
    angles = spectral_angles(pixels[:, inside][:, :, None], POOL_SIGNATURES)
    return ratios + [float(angle.min()) for angle in angles]


def usable_pixels(data: ArrayLike, nodata: float | None = None) -> Any:
    """Which pixels of a chip (bands, rows, cols) can be measured: (rows, cols) bool.

    Not those with a band that is nan, infinite or nodata, nor those whose bands are all zero.
    """
    pixels = _chip(data)
    with np.errstate(invalid="ignore", over="ignore"):
        power = (pixels**2).sum(axis=0)
    usable = (power > 0) & (power <= np.finfo(np.float64).max)
    if nodata is not None:
        usable &= ~(pixels == nodata).any(axis=0)
    return usable


def _chip(data: ArrayLike) -> Floats:
    """The chip's values as float64 (bands, rows, cols), without its mask."""
    pixels = np.asarray(np.ma.getdata(data), dtype=np.float64)
    if pixels.ndim != 3:
        raise ValueError(f"data: expected shape (bands, rows, cols), found {pixels.shape}")
    return pixels


def _outside(data: ArrayLike) -> Any:
    """Pixels (rows, cols) that are masked in any band, or None for a plain array."""
    if not isinstance(data, np.ma.MaskedArray):
        return None
    return np.ma.getmaskarray(data).any(axis=0)


def _norm(values: Floats) -> Any:
    """Length of the vectors along the first axis."""
    return np.sqrt((values**2).sum(axis=0))
