"""The desk between endpoint and sequence: carries out what is asked, and answers once it is known what came
of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .commands import COMMANDS, Outcome
from .endpoint import Endpoint, Request
from .messages import Event
from .sequence import Sequence
from .stages import Action, Child, Save

CONTROL_S = 2.0
"""How long an answer waits for control, which ticks many times a second."""
CAMERAS_S = 10.0
"""How long the answer to a reset waits for the cameras that are opened anew."""
ALWAYS = ("stop", "quit")
MOST_A_SECOND = 20
"""Other commands that are looked at; what is asked for on top of it is refused."""
_SECOND = 1_000_000_000


@dataclass(slots=True)
class _Waiting:
    request: Request
    outcome: Outcome
    since_ns: int
    said: Event | None = None
    """Control's word."""


class Desk:
    """Serves one endpoint. `about`: what stands in every answer; `do` carries out; `note` journals."""

    def __init__(
        self,
        endpoint: Endpoint,
        sequence: Sequence,
        about: Mapping[str, Any],
        do: Callable[[list[Action]], None],
        note: Callable[[str, str], None],
        recording: bool,
    ) -> None:
        self._endpoint = endpoint
        self._sequence = sequence
        self._about = about
        self._do = do
        self._note = note
        self._recording = recording
        self._waiting: list[_Waiting] = []
        self._second_ns = 0
        self._count = 0
        """Commands since `_second_ns`."""

    def turn(self, now_ns: int) -> None:
        """Takes what was asked, answers what is due. Does not block."""
        for request in self._endpoint.turn(now_ns):
            self._take(request, now_ns)
        stranger = self._endpoint.take_stranger(now_ns)
        if stranger:
            self._note("endpoint", stranger)
        for waiting in list(self._waiting):
            verdict = self._verdict(waiting, now_ns)
            if verdict is not None:
                self._waiting.remove(waiting)
                self._answer(waiting.request, *verdict, now_ns)

    def on_event(self, child: Child, event: Event) -> None:
        """An event of a child, after the sequence has taken it."""
        for waiting in self._waiting:
            if child == "control" and waiting.said is None and event.code in waiting.outcome.awaits:
                waiting.said = event

    def close(self, now_ns: int) -> None:
        """The run is over: whoever waits is told."""
        for waiting in self._waiting:
            self._answer(waiting.request, False, "the run is over", now_ns)
        self._waiting = []
        self._endpoint.close()

    def _take(self, request: Request, now_ns: int) -> None:
        name = request.command
        if name not in COMMANDS:
            self._answer(request, False, f"no such command; there are {', '.join(COMMANDS)}", now_ns)
            return
        if name == "status":
            self._answer(request, True, "", now_ns)
            return
        if name not in ALWAYS and self._too_many(now_ns):
            self._answer(request, False, f"more than {MOST_A_SECOND} commands in a second", now_ns)
            return
        by = f"process {request.pid} of user {request.uid}"
        outcome = self._sequence.ask(name, now_ns, by)
        refusal = outcome.refusal
        if not refusal and Save() in outcome.actions and not self._recording:
            refusal = "nothing is recorded in this run"
        if not refusal and outcome.actions:
            self._note("asked", f"{name}, by {by}")
        self._do(list(outcome.actions))
        if not refusal and outcome.awaits:
            self._waiting.append(_Waiting(request, outcome, now_ns))
        else:
            self._answer(request, not refusal, refusal or outcome.text, now_ns)

    def _too_many(self, now_ns: int) -> bool:
        if now_ns - self._second_ns >= _SECOND:
            self._second_ns, self._count = now_ns, 0
        self._count += 1
        return self._count > MOST_A_SECOND

    def _verdict(self, waiting: _Waiting, now_ns: int) -> tuple[bool, str] | None:
        """Whether it was done, and what came of it; None while that is not known."""
        waited_s = (now_ns - waiting.since_ns) / _SECOND
        said = waiting.said
        if said is None:
            if "control" not in self._sequence.alive:
                return False, "the control process has ended"
            late = waited_s > CONTROL_S
            return (False, f"control has not answered within {CONTROL_S:g} s") if late else None
        if said.text.startswith("refused: "):
            return False, said.text.removeprefix("refused: ")
        if said.code != waiting.outcome.awaits[0]:
            return False, f"{said.code}: {said.text}"
        if said.code != "reset":
            return True, f"{waiting.outcome.text}: {said.text}"
        latched = self._sequence.verdict.latched
        if latched:
            return False, f"it was reset, and stopped again: {latched}"
        if self._sequence.policy_asked and waited_s <= CAMERAS_S:
            return None
        ready = "" if self._sequence.policy_ready else "; the policy process is not ready"
        return True, f"{said.text}{ready}"

    def _answer(self, request: Request, ok: bool, text: str, now_ns: int) -> None:
        sequence, task = self._sequence, self._sequence.task
        latched = sequence.verdict.latched
        code, _, why = (latched or "").partition(": ")
        document: dict[str, Any] = {
            "ok": ok,
            "text" if ok else "error": text,
            "stage": sequence.stage.name.lower(),
            "phase": sequence.phase.name.lower(),
            "stop": {"code": code, "text": why} if latched else None,
            "ready": sequence.policy_ready,
            "task": {"id": task.task_id, "text": task.text, "outcome": task.outcome} if task else None,
            "tasks": len(sequence.records),
            **self._about,
        }
        self._endpoint.reply(request, document, now_ns)
