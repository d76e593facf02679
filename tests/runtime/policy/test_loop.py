"""The policy loop between real channels; the camera is scripted and the graph is a function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.backends.types import BackendError
from holdfast.runtime.budgets import Budgets
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.channel import Channel, channel_pair
from holdfast.runtime.messages import (
    Chunk,
    Event,
    Fault,
    Heartbeat,
    Histogram,
    Message,
    Phase,
    Quit,
    Reset,
    State,
    Task,
)
from holdfast.runtime.policy.action_space import ActionSpace
from holdfast.runtime.policy.cameras_in import Cameras, FrameLimits
from holdfast.runtime.policy.errors import InstructionError
from holdfast.runtime.policy.loop import PolicyLoop
from holdfast.runtime.policy.observer import JointHistory
from holdfast.runtime.policy.program import Program
from holdfast.runtime.recorder.in_policy import PolicyRecorder

from ..tiny_bundle import STEPS, tiny_spec
from .test_cameras_in import BLACK, ScriptedCamera

MS = 1_000_000
M = TypeVar("M")
POSITION = (0.1, -0.5, 0.6, 1.0, 0.2, 40.0)


def too_long() -> None:
    """What an instruction that holds the state may come to."""
    raise InstructionError("the instruction has 60 tokens, the policy takes at most 48")


class FunctionSession:
    """A backend whose graph is `self.function`."""

    description = "a function"

    def __init__(self) -> None:
        self.value = 0.25
        self.fed: Mapping[str, NDArray[Any]] = {}
        self.broken = False
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.meanwhile()
        if self.broken:
            raise BackendError("out of memory")
        self.fed = inputs
        assert inputs["image.front"].shape[-3:] == (96, 96, 3)
        assert inputs["tokens"].shape == (1, 8)
        return {"actions": np.full((1, STEPS, 6), self.value, np.float32)}


class Rig:
    """The loop in a thread; this side plays control, the supervisor and the camera."""

    def __init__(self, frame_age_ns: int = 300 * MS, history: dict[str, Any] | None = None) -> None:
        entry = {"bytes": 0, "sha256": "0" * 64}
        files = [{"path": p, **entry} for p in ("graphs/policy.onnx", "golden/observations.npz")]
        values = {**tiny_spec(), "history": history}
        if history is not None:
            for tensor in values["graphs"]["policy"]["inputs"]:
                if tensor["name"] != "tokens":
                    tensor["shape"] = [1, history["steps"], *tensor["shape"][1:]]
        spec = Bundle.model_validate({"format": "holdfast.bundle", "version": 2, "files": files, **values})
        robot = load_robot("sim_arm")
        space = ActionSpace(spec, JointUnits(robot, find_calibration(robot)))
        self.camera = ScriptedCamera("front")
        self.session = FunctionSession()
        steps, dt_s = (1, 0.0) if history is None else (history["steps"], history["dt_s"])
        cameras = Cameras(
            {"front": self.camera}, FrameLimits(frame_age_ns, 300 * MS, 5, 4.0), steps, round(dt_s * 1e9)
        )
        self.cameras = cameras
        control, control_loop = channel_pair()
        supervisor, supervisor_loop = channel_pair()
        self.control, self.supervisor = Channel(control, 1), Channel(supervisor, 1)
        self.loop = PolicyLoop(
            Program(spec, {"policy": self.session}, space),
            cameras,
            Channel(control_loop, 1),
            Channel(supervisor_loop, 1),
            JointHistory(10 * MS),
            joint_gap_ns=200 * MS,
            budgets=Budgets({"session_run": 150 * MS}, 0.05),
        )
        self.from_control: list[Message] = []
        self.from_supervisor: list[Message] = []
        self._sequence = 0
        self.frozen = False
        self.states = True
        self.pictures = True
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def turn(self) -> None:
        """One control tick, and a picture."""
        now = time.monotonic_ns()
        if self.states:
            zeros = (0.0,) * 6
            self.control.send(State(Phase.RUN, 1, 0, 0, 0, 0, now, 0, POSITION, zeros, POSITION))
        self._sequence += 1
        if self.pictures and not self.camera.lost:
            self.camera.put(self._sequence, now / MS, 7 if self.frozen else None)
        time.sleep(0.01)
        self.from_control += [envelope.message for envelope in self.control.receive_all()]
        self.from_supervisor += [envelope.message for envelope in self.supervisor.receive_all()]

    def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.turn()

    def got(self, kind: type[M]) -> list[M]:
        """Messages that the loop sent to control or the supervisor."""
        return [m for m in (*self.from_control, *self.from_supervisor) if isinstance(m, kind)]

    def start(self) -> None:
        self.supervisor.send(Task(3, "touch the red cube"))
        self.until(lambda: self.got(Chunk))

    def close(self) -> None:
        self.supervisor.close()
        self.control.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_it_beats_while_idle_and_sends_chunks_only_with_a_task(rig: Rig):
    rig.until(lambda: len(rig.got(Heartbeat)) >= 3)
    assert rig.got(Chunk) == []
    rig.start()
    rig.supervisor.send(Task(3, ""))
    rig.until(lambda: len(rig.got(Heartbeat)) >= 6)
    count = len(rig.got(Chunk))
    for _ in range(5):
        rig.turn()
    assert len(rig.got(Chunk)) == count


def test_a_chunk_carries_its_stamps_and_absolute_targets(rig: Rig):
    rig.start()
    rig.until(lambda: len(rig.got(Chunk)) >= 3)
    first, second = rig.got(Chunk)[:2]
    assert (first.chunk_id, second.chunk_id, first.task_id) == (1, 2, 3)
    assert first.dt_ns == 50 * MS
    assert first.observation_ns < first.frame_arrival_ns <= first.inference_start_ns + MS
    assert first.inference_start_ns <= first.inference_end_ns
    assert len(first.actions) == STEPS
    assert first.actions[0] == pytest.approx([0.35, -0.25, 0.85, 1.25, 0.45, 0.25], abs=1e-6)


def test_histograms_reach_the_supervisor(rig: Rig):
    rig.start()
    rig.until(lambda: any(h.stage == "session_run" and h.count for h in rig.got(Histogram)))


def test_a_stage_above_its_budget_is_told_to_control_and_inference_goes_on(rig: Rig):
    rig.session.meanwhile = lambda: time.sleep(0.16)
    rig.start()
    rig.until(lambda: rig.got(Fault))
    fault, count = rig.got(Fault)[0], len(rig.got(Chunk))
    assert fault.code == "over_budget"
    assert fault.text.startswith("session_run: ")
    assert "budget of 150 ms" in fault.text
    rig.until(lambda: len(rig.got(Chunk)) > count)
    newest = [h for h in rig.got(Histogram) if h.stage == "session_run"][-1]
    assert newest.budget_ns == 150 * MS
    assert newest.over == newest.count


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda rig: setattr(rig.session, "value", float("nan")), "non_finite"),
        (lambda rig: setattr(rig.session, "broken", True), "policy_error"),
        (lambda rig: setattr(rig.camera, "lost", True), "camera_lost"),
        (lambda rig: setattr(rig, "frozen", True), "frozen_camera"),
        (lambda rig: setattr(rig.camera, "picture", BLACK), "black_camera"),
        (lambda rig: setattr(rig, "states", False), "joint_state_stale"),
        (lambda rig: rig.supervisor.send(Task(4, "touch the purple cube")), "policy_error"),
        (lambda rig: setattr(rig.session, "meanwhile", too_long), "policy_error"),
    ],
)
def test_a_fault_is_told_once_and_ends_the_chunks(rig: Rig, damage: Callable[[Rig], Any], code: str):
    rig.start()
    damage(rig)
    rig.until(lambda: rig.got(Fault))
    assert [fault.code for fault in rig.got(Fault)] == [code]
    rig.until(lambda: [event for event in rig.got(Event) if event.code == "fault"])
    beats, chunks = len(rig.got(Heartbeat)), len(rig.got(Chunk))
    rig.until(lambda: len(rig.got(Heartbeat)) >= beats + 3)
    assert len(rig.got(Chunk)) == chunks
    assert len(rig.got(Fault)) == 1


def test_control_is_told_of_a_fault_before_it_is_recorded(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    told = threading.Event()
    waited: list[bool] = []
    monkeypatch.setattr(PolicyRecorder, "fault", lambda *_: waited.append(told.wait(20)))
    rig.start()
    rig.session.broken = True
    rig.until(lambda: rig.got(Fault))
    told.set()
    rig.until(lambda: waited)
    assert waited == [True]


def test_an_inference_longer_than_the_allowed_gap_of_joint_states_is_no_gap(rig: Rig):
    """While it lasts nobody reads, and what control says then may not fit into the channel's buffer."""

    def slow() -> None:
        rig.states = False
        time.sleep(0.25)
        rig.states = True

    rig.session.meanwhile = slow
    rig.start()
    rig.until(lambda: len(rig.got(Chunk)) >= 3)
    assert rig.got(Fault) == []


def test_a_pause_of_the_camera_is_no_gap_of_joint_states():
    """The first picture after it is newer than any joint state for a moment, as pictures often are."""
    rig = Rig(frame_age_ns=10_000 * MS)
    try:
        rig.start()
        rig.pictures = False
        for _ in range(25):
            rig.turn()
        rig.pictures, rig.states = True, False
        for _ in range(3):
            rig.turn()
        rig.states = True
        count = len(rig.got(Chunk))
        rig.until(lambda: len(rig.got(Chunk)) > count + 2)
        assert rig.got(Fault) == []
    finally:
        rig.close()


def test_after_a_fault_only_a_reset_and_a_new_task_bring_chunks(rig: Rig):
    rig.start()
    rig.camera.lost = True
    rig.until(lambda: rig.got(Fault))
    rig.camera.lost = False
    rig.supervisor.send(Task(3, "touch the red cube"))
    rig.until(lambda: len(rig.got(Fault)) == 2)
    assert "not reset" in rig.got(Fault)[1].text
    chunks = len(rig.got(Chunk))
    rig.supervisor.send(Reset())
    rig.until(lambda: [event for event in rig.got(Event) if event.code == "ready"])
    assert rig.camera.starts == 1
    assert len(rig.got(Chunk)) == chunks
    rig.supervisor.send(Task(3, "touch the red cube"))
    rig.until(lambda: len(rig.got(Chunk)) > chunks)


def test_it_ends_when_asked_and_when_a_peer_is_gone():
    asked = Rig()
    asked.supervisor.send(Quit())
    asked.thread.join(20)
    assert not asked.thread.is_alive()
    alone = Rig()
    alone.control.close()
    alone.thread.join(20)
    assert not alone.thread.is_alive()


def test_a_history_shows_the_pictures_and_joints_of_before():
    """The picture gets brighter all the time, and the first joint turns at 1 rad/s."""
    rig = Rig(history={"steps": 3, "dt_s": 0.1})
    rig.cameras.start()
    start_ns = time.monotonic_ns()

    def turn() -> None:
        now = time.monotonic_ns()
        zeros = (0.0,) * 6
        position = ((now - start_ns) / 1e9, *POSITION[1:])
        rig.control.send(State(Phase.RUN, 1, 0, 0, 0, 0, now, 0, position, zeros, POSITION))
        rig._sequence += 1
        level = min(200, (now - start_ns) // (20 * MS))
        rig.camera.picture = np.linspace(level, 255, 48, dtype=np.uint8).reshape(4, 4, 3)
        rig.camera.put(rig._sequence, now / MS)
        time.sleep(0.01)
        rig.from_control += [envelope.message for envelope in rig.control.receive_all()]

    rig.turn = turn  # pyright: ignore[reportAttributeAccessIssue]
    try:
        rig.start()
        rig.until(lambda: rig.got(Chunk)[-1].observation_ns - rig.got(Chunk)[0].observation_ns > 400 * MS)
        fed = rig.session.fed
    finally:
        rig.close()
        rig.cameras.close()
    assert fed["image.front"].shape == (1, 3, 96, 96, 3)
    assert (np.diff(fed["image.front"][0].min((1, 2, 3)).astype(int)) > 0).all()
    assert (np.diff(fed["state"][0, :, 0]) > 0.02).all()
    assert rig.got(Fault) == []
