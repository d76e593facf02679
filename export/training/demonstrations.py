"""Demonstrations: the expert acts under noise; every recorded moment is labelled by a clean roll-out.

What is recorded is what the runtime would see: a rendered picture with sensor noise, JPEG-compressed, decoded
and resized by the runtime's own `prepare_image`, and the joint state rounded to servo ticks. A label is a
chunk: `action[0]` is the target commanded at the moment of the observation, `action[i + 1]` the expert's
decision `i * DT_S` later, in a branch of the simulation without noise.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...drivers.simulated.expert import Expert
from ...drivers.simulated.judge import TIMEOUT_S
from ...drivers.simulated.scene import JAW_OPENING_M
from ...drivers.simulated.world import Eye, World
from ...runtime.policy.preprocess import prepare_image
from ..models.demo.checkpoint import CAMERA
from ..workers import mapped
from .stepped import CHUNK_STEPS, DT_S, SteppedArm

NOISE_RAD = (0.0, 0.008, 0.016)
"""Standard deviations of the Ornstein-Uhlenbeck noise on the arm's targets; one is drawn per episode."""
NOISE_MEMORY = 0.85
ELSEWHERE = 0.25
"""Share of episodes that do not begin at the start pose."""
AFTER_SUCCESS_S = 0.5
"""Recording goes on that long after success, so that holding still is learnt too."""
EVERY = 2
"""One recorded moment per so many decisions."""
BLOCK = 20
MOST_FRAMES = 10_000
"""More pictures than any episode takes."""


class DemonstrationError(ValueError):
    """A file that does not hold demonstrations."""


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Recorded moments, N of them."""

    image: NDArray[np.uint8]
    """[N, 96, 96, 3] RGB"""
    state: NDArray[np.float32]
    """[N, 6]: rad, gripper percent"""
    text: NDArray[np.str_]
    """[N]"""
    action: NDArray[np.float32]
    """[N, 16, 6]: absolute, rad, gripper percent"""
    cube: NDArray[np.float32]
    """[N, 2]: where the named cube lies (m); privileged, for training only"""
    episode: NDArray[np.int64]
    """[N]: the episode's seed"""

    def digest(self) -> str:
        """sha256 over all arrays."""
        digest = hashlib.sha256()
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name))
            digest.update(f"{field.name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


class Sensor:
    """The camera's path: render, compress, decode."""

    def __init__(self) -> None:
        self._eye = Eye()
        self._frame = 0

    def begin(self, seed: int) -> None:
        """Starts an episode: its noise depends on `seed` alone."""
        self._frame = seed * MOST_FRAMES

    def picture(self, world: World) -> NDArray[np.uint8]:
        """What arrives from the simulated camera: [192, 192, 3] RGB."""
        return self.picture_of(world.snapshot())

    def picture_of(self, snapshot: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The picture of a world as it was when `World.snapshot` was taken."""
        self._frame += 1
        data = self._eye.jpeg(self._eye.render(snapshot, self._frame))
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise ValueError("the camera's own picture cannot be decoded")
        return np.asarray(decoded[:, :, ::-1], np.uint8)


def collect(
    episodes: int, seed: int, processes: int, progress: Callable[[int, int], None]
) -> tuple[Demonstrations, float]:
    """Records episodes `seed .. seed + episodes`; returns them and the share in which the expert succeeded.

    The result depends on `episodes` and `seed` only, not on `processes`. `progress(done, episodes)` is
    called now and then.
    """
    blocks = [range(i, min(i + BLOCK, seed + episodes)) for i in range(seed, seed + episodes, BLOCK)]
    parts: list[tuple[Demonstrations, int]] = []
    with mapped(record_block, blocks, processes) as recorded:
        for part in recorded:
            parts.append(part)
            progress(sum(len(block) for block in blocks[: len(parts)]), episodes)
    return _join([part for part, _ in parts]), sum(count for _, count in parts) / episodes


def record_block(seeds: Sequence[int]) -> tuple[Demonstrations, int]:
    """Records the episodes of `seeds`; also counts the expert's successes."""
    world = World(0)
    arm, expert, sensor = SteppedArm(world), Expert(world), Sensor()
    parts, successes = [], 0
    for seed in seeds:
        part, success = _record_episode(seed, arm, expert, sensor)
        parts.append(part)
        successes += success
    return _join(parts), successes


def _record_episode(
    seed: int, arm: SteppedArm, expert: Expert, sensor: Sensor
) -> tuple[Demonstrations, bool]:
    world, rng = arm.world, np.random.default_rng([seed, 1])
    low, high = np.array(arm.config.low[:5]), np.array(arm.config.high[:5])
    episode = world.reset(seed, task="touch" if seed % 5 < 2 else "pick")
    if rng.uniform() < ELSEWHERE:
        world.place_arm(_anywhere(rng, expert, world.joints(), (low, high)))
    arm.rest()
    sensor.begin(seed)
    sigma = rng.choice(NOISE_RAD)
    noise = np.zeros(5)
    target = arm.motion.position
    phase = int(rng.integers(EVERY))
    moments: list[tuple[NDArray[np.generic], ...]] = []
    left_s = TIMEOUT_S[episode.task]
    decision = 0
    while left_s > 0:
        if world.judge().success:
            left_s = min(left_s, AFTER_SUCCESS_S)
        if decision % EVERY == phase:
            picture = prepare_image(sensor.picture(world), CAMERA)[0]
            cube = world.sight().cubes[episode.colour][:2]
            state = np.array(arm.measured(), np.float32)
            moments.append((picture, state, label(arm, expert, target), cube.astype(np.float32)))
        wanted = expert.decide(target)
        fresh = np.sqrt(1 - NOISE_MEMORY**2) * rng.normal(0.0, 1.0, 5) * (1, 1, 1, 1, 0.7)
        noise = NOISE_MEMORY * noise + sigma * fresh
        wanted[:5] = np.clip(wanted[:5] + noise, low, high)
        arm.follow_line(target, tuple(wanted))
        target = tuple(wanted)
        left_s -= DT_S
        decision += 1
    images, states, actions, cubes = zip(*moments, strict=True)
    n = len(moments)
    recorded = Demonstrations(
        np.stack(images).astype(np.uint8),
        np.stack(states).astype(np.float32),
        np.array([episode.instruction] * n),
        np.stack(actions).astype(np.float32),
        np.stack(cubes).astype(np.float32),
        np.full(n, seed, np.int64),
    )
    return recorded, world.judge().success


def label(arm: SteppedArm, expert: Expert, target: tuple[float, ...]) -> NDArray[np.float32]:
    """The chunk [16, 6] that a noiseless expert would command from here on; the arm is left as it was.

    `target` is what is being commanded now.
    """
    saved = arm.save()
    chunk = [target]
    for _ in range(CHUNK_STEPS - 1):
        wanted = tuple(expert.decide(chunk[-1]))
        arm.follow_line(chunk[-1], wanted, judged=False)
        chunk.append(wanted)
    arm.restore(saved)
    return np.array(chunk, np.float32)


def _anywhere(
    rng: np.random.Generator,
    expert: Expert,
    start: NDArray[np.float64],
    limits: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Joints (rad, jaw in m) with the tip somewhere over the table, hand about vertical."""
    radius, bearing, height = rng.uniform(0.12, 0.24), rng.uniform(-0.8, 0.8), rng.uniform(0.055, 0.15)
    point = np.array([radius * np.cos(bearing), radius * np.sin(bearing), height])
    arm = expert.inverse(start[:5], point, iterations=40) + rng.normal(0.0, 0.05, 5)
    return np.append(np.clip(arm, *limits), rng.choice([0.0, rng.uniform(0.0, JAW_OPENING_M)]))


def _join(parts: Sequence[Demonstrations]) -> Demonstrations:
    return Demonstrations(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(parts[0])))


def save_demonstrations(path: Path, demonstrations: Demonstrations) -> None:
    """Writes them as a NumPy archive, by way of a temporary file."""
    temporary = path.with_suffix(".partial.npz")
    np.savez(temporary, **{f.name: getattr(demonstrations, f.name) for f in fields(demonstrations)})
    temporary.replace(path)


def load_demonstrations(path: Path) -> Demonstrations:
    """Reads them; raises `DemonstrationError` saying what is wrong with the file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Demonstrations(**{field.name: archive[field.name] for field in fields(Demonstrations)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DemonstrationError(
            f"{path} does not hold demonstrations ({error}); make some with: vla-train demos --out {path}"
        ) from error
