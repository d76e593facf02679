"""From a decoded picture to the array that the graph takes: the one resize path of run time and training."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..bundle.schema import ImageSpec

_Value = TypeVar("_Value", np.uint8, np.float32)

_INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}


def prepare_image(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Crop, resize and normalise one picture.

    `image` is [height, width, 3] uint8 RGB. Returns [1, h, w, 3] or [1, 3, h, w] in `spec.dtype`. Raises
    `ValueError` for anything that is not such a picture.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a picture must be [h, w, 3] uint8, got {list(image.shape)} {image.dtype}")
    if spec.aspect == "centre_crop":
        image = _centre_crop(image, spec.width / spec.height)
    if image.shape[:2] != (spec.height, spec.width):
        size = (spec.width, spec.height)
        image = np.asarray(cv2.resize(image, size, interpolation=_INTERPOLATION[spec.resize]), np.uint8)
    if spec.channels == "bgr":
        image = image[:, :, ::-1]
    if spec.dtype == "float32":
        scaled = image.astype(np.float32) * np.float32(spec.scale)
        normalised = (scaled - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
        return _arrange(normalised.astype(np.float32, copy=False), spec)
    return _arrange(image, spec)


def _arrange(image: NDArray[_Value], spec: ImageSpec) -> NDArray[_Value]:
    if spec.layout == "chw":
        image = image.transpose(2, 0, 1)
    return np.ascontiguousarray(image)[None]


def _centre_crop(image: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if width > aspect * height:
        keep = round(aspect * height)
        start = (width - keep) // 2
        return image[:, start : start + keep]
    keep = round(width / aspect)
    start = (height - keep) // 2
    return image[start : start + keep]
