"""How a run ends: its exit code and the reason for a person. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from .exit_codes import ExitCode
from .stages import SIGNAL_EXITS, describe_status


@dataclass(slots=True)
class Verdict:
    """What has happened so far that decides the end. A stop counts more than a signal."""

    reason: str = ""
    """Why the run ends as it does."""
    code: ExitCode | None = None
    """Refused or internal; None: what follows decides."""
    stops: list[str] = field(default_factory=list)
    """Every protective stop."""
    stopped: bool = False
    """The last one has not been reset."""
    policy_lost: bool = False
    signal: int | None = None

    @property
    def latched(self) -> str | None:
        """The protective stop that nobody has reset, as control told it."""
        return self.stops[-1] if self.stopped and self.stops else None

    @property
    def exit_code(self) -> ExitCode:
        if self.code is not None:
            return self.code
        if self.stopped or self.policy_lost:
            return ExitCode.PROTECTIVE_STOP
        if self.signal is not None:
            return SIGNAL_EXITS[signal.Signals(self.signal)]
        return ExitCode.FINISHED

    def internal(self, text: str) -> None:
        self.reason = text
        self.code = ExitCode.INTERNAL

    def refuse(self, text: str) -> None:
        """Before torque; the first reason counts."""
        if self.code is None:
            self.code = ExitCode.REFUSED
            self.reason = text

    def stop(self, text: str) -> None:
        self.stops.append(text)
        self.stopped = True
        self.reason = f"protective stop: {text}"

    def reset(self) -> None:
        self.stopped = False
        self.reason = ""

    def control_ended(self, status: int, *, asked: bool) -> None:
        """`status`: as of `subprocess`. `asked`: whether the run was ending."""
        expected = {ExitCode.FINISHED, ExitCode.REFUSED, ExitCode.PROTECTIVE_STOP}
        if status == ExitCode.REFUSED and self.code is None:
            self.code = ExitCode.REFUSED
            self.reason = self.reason or "the control process refused to start"
        elif status == ExitCode.PROTECTIVE_STOP:
            if not self.stops:
                why = f" ({self.reason})" if self.code == ExitCode.REFUSED else ""
                self.reason = f"control could not take the torque back: motors may hold{why}"
            if self.code == ExitCode.REFUSED:
                # A refused start that left torque on is no refusal before torque.
                self.code = None
            self.stopped = True
        elif status not in expected or (status == 0 and not asked):
            self.internal(
                f"the control process ended unexpectedly ({describe_status(status)}); nothing holds or stops "
                "the arm in software now: the motors keep their last goal"
            )
