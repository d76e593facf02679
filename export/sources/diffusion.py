"""Diffusion policies of LeRobot (`type: diffusion`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ...runtime.bundle.schema import Diffusion, Scheduler, Tensor
from ..errors import SourceError
from ..models.diffusion import Condition, Denoise, DiffusionSize
from ..models.resnet import resnet_size
from .lerobot import ACTION, STATE, PolicyConfig, PolicyFolder, policy_type, read_folder
from .lerobot_policy import FRAME_OPTIONS, NO_LANGUAGE, contradiction, read_frame
from .types import Component, Policy, ReadOptions
from .weights import Tensors, below, build, renamed

MEANING = "LeRobot policy folders of type diffusion (formats 0.4 and before)"
OPTIONS = FRAME_OPTIONS
LAYERS = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
"""Position in the backbone, which is a sequence there -> torchvision's name of it."""
ENCODER = r"diffusion\.rgb_encoder\."
NAMES: tuple[tuple[str, str | None], ...] = (
    (rf"{ENCODER}.*\.num_batches_tracked$", None),
    *((rf"{ENCODER}(\d+)\.backbone\.{i}\.", rf"rgb_encoder.\1.backbone.{to}.") for i, to in LAYERS.items()),
    *((rf"{ENCODER}backbone\.{i}\.", f"rgb_encoder.0.backbone.{to}.") for i, to in LAYERS.items()),
    (rf"{ENCODER}(\d+)\.", r"rgb_encoder.\1."),
    (ENCODER, "rgb_encoder.0."),
    (r"diffusion\.unet\.", "unet."),
)
ONLY_TRAINING = r"pretrained_backbone_weights|crop_is_random|do_mask_loss_for_padding"
Width = Annotated[int, Field(gt=0, le=16384)]
Pixels = Annotated[int, Field(gt=0, le=8192)]
Steps = Annotated[int, Field(gt=0, le=1000)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class DiffusionConfig(PolicyConfig):
    horizon: Annotated[int, Field(gt=0, le=4096)]
    n_action_steps: Annotated[int, Field(gt=0, le=4096)]
    vision_backbone: str
    resize_shape: tuple[Pixels, Pixels] | None = None
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop_shape: tuple[Pixels, Pixels] | None = None
    use_group_norm: bool
    spatial_softmax_num_keypoints: Width
    use_separate_rgb_encoder_per_camera: bool
    down_dims: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
    kernel_size: Annotated[int, Field(gt=0, le=99)]
    n_groups: Width
    diffusion_step_embed_dim: Annotated[int, Field(ge=4, le=16384, multiple_of=2)]
    use_film_scale_modulation: bool
    noise_scheduler_type: Literal["DDPM", "DDIM"]
    num_train_timesteps: Steps
    num_inference_steps: Steps | None
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    beta_start: Fraction
    beta_end: Fraction
    prediction_type: Literal["epsilon", "sample"]
    clip_sample: bool
    clip_sample_range: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _fits(self) -> DiffusionConfig:
        if self.horizon % 2 ** len(self.down_dims):
            raise ValueError(f"a horizon of {self.horizon} cannot be halved {len(self.down_dims)} times")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"a kernel_size of {self.kernel_size} would change the horizon")
        return self

    @property
    def crop(self) -> tuple[int, int] | None:
        """What is cut out of the middle; with `resize_shape` it follows from `crop_ratio`."""
        if self.resize_shape is None:
            return self.crop_shape
        height, width = (int(size * self.crop_ratio) for size in self.resize_shape)
        return None if self.crop_ratio == 1 else (height, width)

    @property
    def scheduler(self) -> Scheduler:
        """Raises `ValidationError`."""
        return Scheduler(
            kind="ddpm" if self.noise_scheduler_type == "DDPM" else "ddim",
            train_steps=self.num_train_timesteps,
            inference_steps=self.num_inference_steps or self.num_train_timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.beta_schedule,
            prediction=self.prediction_type,
            clip_sample=self.clip_sample,
            clip_range=self.clip_sample_range,
        )


def recognise(path: Path) -> str | None:
    """By the folder's config.json."""
    return "config.json says type diffusion" if policy_type(path) == "diffusion" else None


def read(path: Path, options: ReadOptions) -> Policy:
    """Raises `SourceError`."""
    folder = read_folder(path)
    config, condition, denoise = read_networks(folder)
    size = condition.size
    try:
        frame = read_frame(folder, options, config.n_action_steps, size.history)
        given = Tensor(name="condition", dtype="float32", shape=[1, size.condition])
        chunk = [1, config.horizon, size.actions]
        x, prediction = (Tensor(name=name, dtype="float32", shape=chunk) for name in ("x", "prediction"))
        step = Tensor(name="step", dtype="int64", shape=[1])
        return Policy(
            family="diffusion",
            robot_type=frame.robot_type,
            components={
                "cond": Component(condition, frame.observed, (given,)),
                "denoise_step": Component(denoise, (x, step, given), (prediction,)),
            },
            program=Diffusion(
                kind="diffusion", scheduler=config.scheduler, horizon=config.horizon, first=size.history - 1
            ),
            cameras=frame.cameras,
            state=frame.state,
            action=frame.action,
            task=NO_LANGUAGE,
            observations=frame.observations,
            evidence=frame.evidence,
            notes=frame.notes,
            history=frame.history,
        )
    except ValidationError as error:
        raise contradiction(path, error) from error


def read_networks(folder: PolicyFolder) -> tuple[DiffusionConfig, Condition, Denoise]:
    """Its settings, and both networks with the folder's weights. Raises `SourceError`."""
    config = folder.settings(DiffusionConfig, ONLY_TRAINING)
    folder.check_steps()
    folder.check_interface(state=True)
    weights = renamed(folder.tensors, NAMES)
    try:
        size = _size(folder, config, weights)
    except ValueError as error:
        raise SourceError(f"{folder.path}: {error}") from error
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith("unet.")}
    condition = build(lambda: Condition(size), rest, folder.path)
    return config, condition, build(lambda: Denoise(size), below(weights, "unet."), folder.path)


def _size(folder: PolicyFolder, config: DiffusionConfig, weights: Tensors) -> DiffusionSize:
    cameras = folder.cameras
    if len({(camera.height, camera.width) for camera in cameras}) != 1:
        raise ValueError("its pictures have different sizes, which a diffusion policy cannot have")
    history = folder.config.get("n_obs_steps")
    if type(history) is not int or not 1 <= history <= 64:
        raise ValueError(f"n_obs_steps is {history!r}, expected 1 to 64")
    if history - 1 + config.n_action_steps > config.horizon:
        raise ValueError(
            f"{config.n_action_steps} actions after {history} observations do not fit into a horizon of "
            f"{config.horizon}"
        )
    encoders = len(cameras) if config.use_separate_rgb_encoder_per_camera else 1
    backbones = (below(weights, f"rgb_encoder.{i}.backbone.") for i in range(encoders))
    return DiffusionSize(
        backbones=tuple(resnet_size(config.vision_backbone, backbone) for backbone in backbones),
        cameras=cameras,
        state=folder.vector(STATE).shape[0],
        actions=folder.vector(ACTION).shape[0],
        history=history,
        resize=config.resize_shape,
        crop=config.crop,
        group_norm=config.use_group_norm,
        keypoints=config.spatial_softmax_num_keypoints,
        down=config.down_dims,
        kernel=config.kernel_size,
        groups=config.n_groups,
        step_width=config.diffusion_step_embed_dim,
        film_scale=config.use_film_scale_modulation,
    )
