"""ACT's graph stays small, and is refused where it cannot be built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from holdfast.export.graphs import export_graph
from holdfast.export.models.act import Act, ActSize, sine_positions
from holdfast.export.models.pictures import Camera
from holdfast.export.models.resnet import ResNetSize, resnet_size
from holdfast.export.sources.types import Component
from holdfast.runtime.bundle.schema import Tensor

pytestmark = pytest.mark.export
MAX_NODES = 400
"""One VGA camera; the picture's tokens one by one would be more than two thousand."""


def test_a_vga_camera_is_no_explosion_of_nodes(tmp_path: Path) -> None:
    """Depths and picture of LeRobot's default, widths of a toy: those do not change the nodes."""
    narrow = ResNetSize(False, (2, 2, 2, 2), 4, (4, 4, 4, 4), (4, 4, 4, 4))
    camera = Camera("top", 480, 640, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    size = ActSize(narrow, (camera,), 14, 14, 100, 16, 8, 32, 4, 1, 32, False, "relu")
    tensors = (
        Tensor(name="image.top", dtype="uint8", shape=[1, 480, 640, 3]),
        Tensor(name="state", dtype="float32", shape=[1, 14]),
    )
    actions = Tensor(name="actions", dtype="float32", shape=[1, 100, 14])
    component = Component(Act(size).eval().requires_grad_(False), tensors, (actions,))
    feed = {"image.top": np.zeros([1, 480, 640, 3], np.uint8), "state": np.zeros([1, 14], np.float32)}
    model = onnx.ModelProto.FromString(export_graph(component, feed, tmp_path, "policy").model)
    assert len(model.graph.node) <= MAX_NODES


def test_positions_of_a_picture_without_symmetry() -> None:
    """Rows in the first half, columns in the second, both 1-based."""
    places = sine_positions(2, 3, 8).reshape(2, 3, 8)
    assert torch.equal(places[0, :, :4], places[0, :1, :4].expand(3, -1))
    assert torch.equal(places[:, 1, 4:], places[:1, 1, 4:].expand(2, -1))
    assert torch.allclose(places[0, 0, 0], torch.sin(torch.tensor(np.pi)), atol=1e-5)
    assert torch.allclose(places[0, 0, 4], torch.sin(torch.tensor(2 * np.pi / 3)), atol=1e-5)


@pytest.mark.parametrize("pixels", [(480, 640), (36, 48), (45, 70), (51, 67), (1, 1)])
@pytest.mark.parametrize("dilate", [False, True])
def test_the_feature_map_has_the_size_that_is_computed(pixels: tuple[int, int], dilate: bool) -> None:
    from holdfast.export.models.resnet import ResNet

    size = ResNetSize(True, (1, 1, 1, 1), 2, (2, 2, 2, 2), (2, 2, 2, 2), dilate)
    with torch.inference_mode():
        found = ResNet(size)(torch.zeros(1, 3, *pixels))
    assert tuple(found.shape[2:]) == size.feature_map(*pixels)


def test_backbones_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="is not known"):
        resnet_size("resnext50_32x4d", {})
    with pytest.raises(ValueError, match="no blocks that can be dilated"):
        resnet_size("resnet18", {}, dilate_last=True)
    with pytest.raises(ValueError, match="lacks the weight"):
        resnet_size("resnet18", {})
