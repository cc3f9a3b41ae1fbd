"""label-chips stands alone, with copies of two of train-cnn's modules: drift is a red test."""

from __future__ import annotations

import pytest
from image_graph import ROOT


@pytest.mark.parametrize("name", ["chip_arrays.py", "compute_device.py"])
def test_label_chips_has_train_cnns_own_modules(name: str) -> None:
    assert (ROOT / "label-chips" / name).read_bytes() == (ROOT / "train-cnn" / name).read_bytes()
