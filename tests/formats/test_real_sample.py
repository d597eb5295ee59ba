"""The real sample: its metadata, and that its file needs no other package and names its licence."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.sample import YEAST_MITOCHONDRIA


def test_it_has_the_voxel_size_of_the_original():
    image = open_image(YEAST_MITOCHONDRIA)
    assert (image.axes, image.data.shape, image.data.dtype) == ("zyx", (17, 192, 279), np.uint16)
    assert (image.voxel_size, image.unit) == ((0.25, 0.0655, 0.0655), "micrometer")
    assert acquisition_of(image).factor == pytest.approx(3.817, abs=5e-4)


def test_it_is_the_volume_that_the_page_describes():
    volume = open_image(YEAST_MITOCHONDRIA).volume().compute()
    assert (volume.min(), volume.max(), int(volume.sum(dtype=np.int64))) == (64, 196, 94_424_794)
    assert np.mean(volume > 130) < 0.05, "only a small part is bright"


def test_tifffile_reads_it_without_another_package_and_finds_its_licence():
    with tifffile.TiffFile(YEAST_MITOCHONDRIA) as file:
        assert {page.compression for page in file.pages} == {tifffile.COMPRESSION.ADOBE_DEFLATE}
        assert {page.predictor for page in file.pages} == {tifffile.PREDICTOR.NONE}
        assert "Austin E. Y. T. Lefebvre is licensed under CC BY 4.0" in file.ome_metadata
