"""A picture that shows nothing, and dark ones that show something."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from holdfast.runtime.policy.blank import spread
from holdfast.runtime.policy.config import Limits

NEEDED = Limits().blank_spread
SIZES = [(480, 640), (1080, 1920), (192, 192), (96, 96)]


def noisy(clean: NDArray[np.float64], sigma: float, seed: int = 0) -> NDArray[np.uint8]:
    """As a sensor delivers it: noise, clipped at both ends."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, clean.shape)
    return np.clip((clean + noise).round(), 0, 255).astype(np.uint8)


def through_jpeg(image: NDArray[np.uint8], quality: int = 90) -> NDArray[np.uint8]:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0, 16, 128, 255])
@pytest.mark.parametrize("sigma", [0.0, 2.5, 10.0])
def test_one_shade_is_blank_whatever_the_noise(size: tuple[int, int], level: int, sigma: float) -> None:
    if size == (96, 96):
        sigma /= 2  # too few pixels to average more
    image = noisy(np.full((*size, 3), float(level)), sigma)
    assert spread(image) < NEEDED
    assert spread(through_jpeg(image)) < NEEDED


@pytest.mark.parametrize("size", SIZES)
def test_a_cap_that_lets_light_in_at_its_rim_is_none(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3))
    image[: size[0] // 8] = 12.0
    assert spread(noisy(image, 2.5)) >= NEEDED


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [1.0, 2.5, 5.0])
def test_a_dark_scene_with_noise_is_not_blank(size: tuple[int, int], sigma: float) -> None:
    """A table at 6 of 255 levels with something a little brighter on it, an eighth of the picture wide."""
    scene = np.full((*size, 3), 6.0)
    scene[size[0] // 2 : size[0] * 3 // 4, size[1] // 2 : size[1] * 3 // 4] = 14.0
    assert spread(noisy(scene, sigma)) >= NEEDED


def test_two_colours_of_one_brightness_are_something() -> None:
    scene = np.full((96, 96, 3), 80.0)
    scene[:, 48:] = (104.0, 80.0, 16.0)
    assert spread(noisy(scene, 2.5)) >= NEEDED


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 3]))
def test_any_size_is_judged(height: int, width: int, channels: int) -> None:
    assert spread(np.full((height, width, channels), 9, np.uint8)) < 1e-3
    if height > 1 and width > 1:
        half = np.full((height, width, channels), 9, np.uint8)
        half[: height // 2] = 99
        assert spread(half) > 2 * NEEDED


def test_it_costs_little_even_for_large_pictures() -> None:
    image = noisy(np.full((1080, 1920, 3), 80.0), 10.0)
    fastest = min(_seconds(image) for _ in range(20))
    assert fastest < 0.005


def _seconds(image: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    spread(image)
    return time.perf_counter() - start
