"""Pictures become what the graph takes; expected values are worked out here with numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.runtime.bundle.schema import ImageSpec
from holdfast.runtime.policy.preprocess import prepare_image

RANDOM = np.random.default_rng(0)


def spec(**changes: Any) -> ImageSpec:
    values: dict[str, Any] = {
        "name": "front",
        "height": 4,
        "width": 6,
        "channels": "rgb",
        "layout": "hwc",
        "dtype": "uint8",
        "resize": "area",
        "aspect": "stretch",
        "scale": 1.0,
        "mean": [],
        "std": [],
    }
    return ImageSpec.model_validate({**values, **changes})


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_of_the_right_size_is_only_given_a_batch_axis() -> None:
    image = picture(4, 6)
    out = prepare_image(image, spec())
    assert out.shape == (1, 4, 6, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out[0], image)


def test_area_is_the_mean_over_the_source_pixels() -> None:
    image = picture(8, 18)
    expected = image.reshape(4, 2, 6, 3, 3).mean((1, 3))
    assert np.abs(prepare_image(image, spec())[0] - expected).max() <= 0.5


def test_bilinear_takes_the_pixels_around_the_centre_without_antialiasing() -> None:
    """At half the size the centre of a target pixel lies between 2 x 2 source pixels; at a quarter it lies
    between the middle two of four, and the outer ones do not count."""
    image = picture(16, 24)
    middle = image.reshape(4, 4, 6, 4, 3).astype(float)[:, 1:3, :, 1:3].mean((1, 3))
    assert np.abs(prepare_image(image, spec(resize="bilinear"))[0] - middle).max() <= 1.0
    row = np.array([[[0] * 3, [100] * 3]], np.uint8)
    wide = prepare_image(row, spec(height=1, width=4, resize="bilinear"))
    assert wide[0, 0, :, 0].tolist() == [0, 25, 75, 100]


@pytest.mark.parametrize(
    ("shape", "cut"),
    [((4, 10), np.s_[:, 2:8]), ((8, 6), np.s_[2:6, :]), ((4, 6), np.s_[:, :])],
    ids=["too wide", "too high", "as it is"],
)
def test_a_centre_crop_keeps_the_middle(shape: tuple[int, int], cut: Any) -> None:
    image = picture(*shape)
    np.testing.assert_array_equal(prepare_image(image, spec(aspect="centre_crop"))[0], image[cut])


def test_stretching_keeps_the_whole_picture() -> None:
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, :2] = 255
    out = prepare_image(image, spec())
    assert (out[0, :, 0] == 255).all()
    assert (out[0, :, 1:] == 0).all()


def test_bgr_and_chw() -> None:
    image = picture(4, 6)
    out = prepare_image(image, spec(channels="bgr", layout="chw"))
    assert out.shape == (1, 3, 4, 6)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out[0, 0], image[:, :, 2])
    np.testing.assert_array_equal(out[0, 2], image[:, :, 0])


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_float_pictures_are_scaled_then_normalised_by_channel(channels: str) -> None:
    image = picture(4, 6)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    wanted = spec(dtype="float32", scale=1 / 255, mean=mean, std=std, channels=channels, layout="chw")
    out = prepare_image(image, wanted)
    assert out.dtype == np.float32
    # mean and std belong to the channels as the graph gets them.
    ordered = image if channels == "rgb" else image[:, :, ::-1]
    expected = (ordered / 255.0 - mean) / std
    np.testing.assert_allclose(out[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6, 3), np.float32)]
)
def test_what_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(ValueError, match="a picture must be"):
        prepare_image(image, spec())
