"""Features of one chip: values worked out by hand."""

import math

import numpy as np
import pytest

from mltools import features
from mltools.features import band_ratios, pool_basic, spectral_angles, usable_pixels


def chip(*pixels):
    """A chip (bands, 1, pixels) of pixels given band by band."""
    return np.array(pixels, dtype=float).T[:, None, :]


def test_the_angle_between_equal_directions_is_zero_and_between_orthogonal_ones_a_right_angle():
    angles = spectral_angles(chip([1, 0], [5, 0], [0, 2], [1, 1]), np.array([3, 0]))
    assert angles.shape == (1, 1, 4)
    assert np.allclose(angles[0, 0], [0, 0, math.pi / 2, math.pi / 4])


def test_members_are_not_reshaped_in_the_callers_hands():
    members = np.array([1.0, 2.0])
    spectral_angles(chip([1, 2]), members)
    assert members.shape == (2,)


def test_members_of_another_number_of_bands_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(members, 2\) for data of 2 bands, found \(3,\)"):
        spectral_angles(chip([1, 2]), np.ones(3))


def test_a_pixel_of_zeros_has_no_angle_instead_of_a_perfect_one():
    assert math.isnan(spectral_angles(chip([0, 0]), np.ones(2))[0, 0, 0])


def test_masked_pixels_stay_masked_in_angles_and_ratios():
    data = np.ma.MaskedArray(chip([1, 2], [3, 4]), mask=[[[False, True]], [[False, False]]])
    assert spectral_angles(data, np.ones(2)).mask.tolist() == [[[False, True]]]
    assert band_ratios(data, 1, 2).mask.tolist() == [[False, True]]


def test_a_band_ratio_counts_bands_from_one_and_two_dark_bands_give_zero():
    assert np.allclose(band_ratios(chip([3, 1], [0, 0]), 1, 2), [[0.5, 0.0]])


def test_a_band_ratio_of_unsigned_bands_may_be_negative():
    data = np.array([[[1]], [[3]]], dtype=np.uint16)
    assert band_ratios(data, 1, 2)[0, 0] == pytest.approx(-0.5)


@pytest.mark.parametrize("band", [0, 3])
def test_a_ratio_of_a_band_that_is_not_there_is_refused(band):
    with pytest.raises(ValueError, match=f"band {band}: expected 1 to 2"):
        band_ratios(chip([1, 2]), 1, band)


def test_the_pool_features_of_the_signatures_themselves_have_angles_of_zero():
    ratio26, ratio36, pool, covered = pool_basic(chip(features.POOL_SIGNATURE, features.COVERED_POOL_SIGNATURE))
    assert (pool, covered) == pytest.approx((0, 0), abs=1e-7)
    assert ratio26 == pytest.approx((2295 - 186) / (2295 + 186))
    assert ratio36 == pytest.approx((2179 - 186) / (2179 + 186))


def test_the_signatures_are_those_of_the_published_library():
    assert features.POOL_SIGNATURE.tolist() == [1179, 2295, 2179, 759, 628, 186, 270, 110]
    assert features.COVERED_POOL_SIGNATURE.tolist() == [1584, 1808, 1150, 1104, 1035, 995, 1659, 1741]


@pytest.mark.parametrize("bands", [3, 4, 9])
def test_pool_features_of_another_number_of_bands_are_refused(bands):
    with pytest.raises(ValueError, match=f"expected 8 bands .*, found {bands}"):
        pool_basic(np.ones((bands, 2, 2)))


def neighbours_pool():
    """Two pixels of eight bands: the polygon's own grey one, and a masked one with a pool."""
    data = chip([100] * 8, features.POOL_SIGNATURE)
    return np.ma.MaskedArray(data, mask=np.broadcast_to([False, True], data.shape))


def test_ratios_are_taken_over_the_polygons_own_pixels():
    assert pool_basic(neighbours_pool())[:2] == [0, 0]


def test_ratios_may_be_taken_over_the_whole_window_as_before():
    whole = pool_basic(neighbours_pool(), whole_window_ratios=True)
    assert whole[0] == pytest.approx((2295 - 186) / (2295 + 186))
    assert whole[2:] == pool_basic(neighbours_pool())[2:]  # angles are never the neighbour's


def test_a_pixel_that_is_not_a_number_does_not_spoil_the_others():
    spoilt = chip([100] * 8, [np.nan] * 8, [100] * 7 + [np.inf])
    assert pool_basic(spoilt) == pool_basic(chip([100] * 8))


def test_pixels_of_zeros_do_not_count_as_a_perfect_pool():
    assert pool_basic(chip([100] * 8, [0] * 8)) == pool_basic(chip([100] * 8))


def test_a_pixel_with_one_band_of_nodata_is_not_usable():
    data = chip([1, 2], [9, 2], [0, 0])
    assert usable_pixels(data).tolist() == [[True, True, False]]
    assert usable_pixels(data, nodata=9).tolist() == [[True, False, False]]


def test_a_chip_without_usable_pixels_is_refused_instead_of_being_a_pool():
    with pytest.raises(ValueError, match="no usable pixel: all 4 are masked, nodata, not finite or zero"):
        pool_basic(np.zeros((8, 2, 2)))


def test_float32_chips_are_computed_in_float64():
    data = np.array(chip(features.POOL_SIGNATURE * 1.7), dtype=np.float32)
    assert pool_basic(data)[2] < 1e-6
