"""Shared by the scripts in which the original libraries write checkpoints and goldens.

Runs in an oracle environment (docs/development/oracles.md), never in CI; imports nothing of Holdfast.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import importlib.metadata

import numpy as np
import torch

library = torch.library.Library("torchvision", "DEF")  # torchvision without its compiled operators
for operator in ("nms", "qnms"):
    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402

torch.set_num_threads(1)
LEROBOT = next((found.version for found in importlib.metadata.distributions(name="lerobot")), "none")
RELATIVE_CHANGE = 1e-6
Arrays = dict[str, np.ndarray]


def narrow_resnets(widths: Sequence[int]) -> None:
    """Makes torchvision's own ResNets that have so few channels that a checkpoint of them can be committed.

    Only the widths differ: blocks, strides, dilation and names of the weights stay torchvision's.
    """

    class Narrow(ResNet):
        def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
            if planes == 64:
                self.inplanes = widths[0]
                norm = self._norm_layer
                self.conv1 = torch.nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
                self.bn1 = norm(widths[0])
            narrow = widths[{64: 0, 128: 1, 256: 2, 512: 3}[planes]]
            return super()._make_layer(block, narrow, blocks, stride, dilate)

    def build(block: type, layers: list[int]) -> Callable[..., ResNet]:
        def resnet(weights: None = None, **options: Any) -> ResNet:
            assert weights is None
            model = Narrow(block, layers, num_classes=1, **options)
            model.fc = torch.nn.Linear(widths[3] * block.expansion, 1)
            return model

        return resnet

    torchvision.models.resnet18 = build(BasicBlock, [2, 2, 2, 2])
    torchvision.models.resnet50 = build(Bottleneck, [3, 4, 6, 3])


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Gives every weight and buffer that initialisation left constant (norms, biases) a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point() or tensor.numel() < 2 or float(tensor.std()) > 0:
                continue
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor.copy_(0.7 + noise if name.endswith("running_var") else tensor + 0.6 * noise)


def liven(module: torch.nn.Module) -> None:
    """Gives matrices that were initialised to almost nothing a spread of 1 / sqrt(inputs): then all that goes
    in moves what comes out."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > 1:
                wanted = tensor[0].numel() ** -0.5
                if 0 < float(tensor.std()) < wanted:
                    tensor.mul_(wanted / tensor.std())


def make_statistics(features: Mapping[str, int], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Non-trivial statistics; a size of 0 marks a picture (3, 1, 1)."""
    random = np.random.default_rng(seed)
    out = {}
    for name, size in features.items():
        shape = (size,) if size else (3, 1, 1)
        centre = random.uniform(-2, 2, shape) if size else random.uniform(0.3, 0.6, shape)
        spread = random.uniform(0.2, 3, shape) if size else random.uniform(0.15, 0.3, shape)
        values = {"mean": centre, "std": spread}
        for low, high, width in (("min", "max", 2.5), ("q01", "q99", 2.0), ("q10", "q90", 1.2)):
            values[low] = centre - spread * random.uniform(0.8 * width, width, shape)
            values[high] = centre + spread * random.uniform(0.8 * width, width, shape)
        if not size:
            values["min"], values["max"] = np.zeros(shape), np.ones(shape)
        out[name] = {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}
    return out


def near_rest(statistics: dict[str, dict[str, torch.Tensor]]) -> None:
    """Statistics of small motions around the simulated arm's rest pose, so that it may carry them out."""
    pose = torch.tensor([0.0, -0.75, 0.75, 1.2, 0.0, 30.0])
    spread = torch.tensor([0.1, 0.05, 0.05, 0.05, 0.1, 5.0])
    for name in ("observation.state", "action"):
        statistics[name] |= {"mean": pose, "std": spread, "min": pose - spread, "max": pose + spread}


def make_observations(
    count: int, cameras: Mapping[str, tuple[int, int]], state: tuple[torch.Tensor, torch.Tensor], seed: int
) -> Arrays:
    """`image.<camera>` uint8 [count, h, w, 3], and `state` float32 [count, n] around its mean."""
    random = np.random.default_rng(seed)
    out = {}
    for camera, (height, width) in cameras.items():
        coarse = random.integers(0, 256, (count, height // 6 + 1, width // 6 + 1, 3))
        smooth = coarse.repeat(6, 1).repeat(6, 2)[:, :height, :width]
        out[f"image.{camera}"] = np.clip(
            smooth + random.integers(-30, 31, (count, height, width, 3)), 0, 255
        ).astype(np.uint8)
    mean, std = (value.numpy() for value in state)
    out["state"] = (mean + std * random.normal(size=(count, len(mean)))).astype(np.float32)
    return out


def lerobot_inputs(
    config_class: type, cameras: Mapping[str, tuple[int, int]], state: int, action: int,
    options: dict[str, Any], seed: int, samples: int, rest: bool = False,
) -> tuple[Any, dict[str, dict[str, torch.Tensor]], Arrays]:  # fmt: skip
    """A policy's configuration with its features, statistics, and `samples` raw observations. `rest`: of the
    simulated arm."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

    pictures = {
        f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, *size))
        for name, size in cameras.items()
    }
    if modes := options.get("normalization_mapping"):
        options = {**options, "normalization_mapping": {k: NormalizationMode(v) for k, v in modes.items()}}
    config = config_class(
        input_features={**pictures, "observation.state": PolicyFeature(FeatureType.STATE, (state,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action,))},
        device="cpu",
        push_to_hub=False,
        **options,
    )
    sizes = {**dict.fromkeys(pictures, 0), "observation.state": state, "action": action}
    statistics = make_statistics(sizes, seed)
    if rest:
        near_rest(statistics)
    spread = statistics["observation.state"]["mean"], statistics["observation.state"]["std"]
    return config, statistics, make_observations(samples, cameras, spread, seed + 1)


def feature_names(config: Any) -> dict[str, str]:
    """Array of the golden -> feature of the policy."""
    images = {f"image.{name.removeprefix('observation.images.')}": name for name in config.image_features}
    return {**images, "state": "observation.state"}


def load_newer(policy: torch.nn.Module, folder: Path) -> None:
    """Gives a policy of lerobot 0.3, which has its statistics already, the weights of a newer checkpoint."""
    from safetensors.torch import load_file

    missing, unexpected = policy.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unexpected
    assert all("normalize" in key for key in missing)


def batch_of(
    observations: Arrays, index: int | tuple[int, int], features: Mapping[str, str]
) -> dict[str, Any]:
    """One observation as LeRobot's robot loop hands it on: pictures [3, h, w] in 0..1, float32."""
    out: dict[str, Any] = {}
    for name, feature in features.items():
        value = torch.from_numpy(observations[name][index].copy())
        out[feature] = value.permute(2, 0, 1).float() / 255 if name.startswith("image.") else value
    return out


@contextmanager
def pinned_noise(draws: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Lets every normal draw of the library return the next of `draws`; yields how many were taken."""
    import diffusers.schedulers.scheduling_ddpm as ddpm

    taken = [0]

    def draw(*shape: Any, size: Any = None, **_: Any) -> torch.Tensor:
        wanted = tuple(size if size is not None else shape[0] if len(shape) == 1 else shape)
        value = torch.from_numpy(draws[taken[0]].copy()).reshape(wanted)
        taken[0] += 1
        return value

    originals = torch.randn, ddpm.randn_tensor
    torch.randn, ddpm.randn_tensor = draw, draw
    try:
        yield taken
    finally:
        torch.randn, ddpm.randn_tensor = originals


def sensitivity(
    policy: torch.nn.Module, run: Callable[[], np.ndarray], actions: np.ndarray, draws: int = 3
) -> np.ndarray:
    """[elements]: how far the policy's actions move when every weight changes by 1e-6 of itself."""
    saved = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    worst = np.zeros(actions.shape[-1])
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        changed = {}
        for name, tensor in saved.items():
            if not tensor.is_floating_point() or re.search(r"normalize_(in|tar|out)", name):
                changed[name] = tensor
                continue
            sign = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
            changed[name] = (tensor.double() * (1 + RELATIVE_CHANGE * sign)).to(tensor.dtype)
        policy.load_state_dict(changed)
        worst = np.maximum(worst, np.abs(run() - actions).reshape(-1, actions.shape[-1]).max(0))
    policy.load_state_dict(saved)
    assert np.array_equal(run(), actions), "the original is not deterministic"
    return worst


def exchange(observations: Arrays, name: str | None) -> Arrays:
    """The observations, each with one of its inputs from another sample."""
    return observations if name is None else {**observations, name: np.roll(observations[name], 1, axis=0)}


def check_influence(actions: np.ndarray, inputs: Mapping[str, np.ndarray]) -> None:
    """`inputs`: the actions after one input was exchanged for that of another sample, noise unchanged."""
    for name, other in inputs.items():
        share = (np.abs(other - actions) / actions.std((0, 1))).mean()
        print(f"  exchanging {name} moves the actions by {share:.2g} of their spread")
        assert share > 0.01, f"{name} hardly matters: this golden would prove little"


def save_case(folder: Path, save: Callable[[Path], Any], golden: Arrays) -> None:
    """Replaces the checkpoint `folder` and the golden `folder`.npz."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        save(Path(temporary))
        folder.mkdir(parents=True)
        for file in sorted(Path(temporary).iterdir()):
            if file.suffix in (".json", ".safetensors"):
                shutil.copyfile(file, folder / file.name)
    np.savez_compressed(folder.with_suffix(".npz"), **golden)
    size = sum(file.stat().st_size for file in folder.iterdir())
    actions, moved = golden["actions"], golden["sensitivity"]
    print(f"{folder.name}: {size // 1000} kB, actions {actions.shape} up to {np.abs(actions).max():.3g}")
    print(f"  sensitivity {moved.min():.2g}..{moved.max():.2g}")
