"""From the messages of both channels to one `Inbox` for the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..channel import Channel, ChannelClosed
from ..envelope import Envelope
from ..messages import Arm, Chunk, Fault, Heartbeat, MessageError, Quit, Reset, Stop
from ..parent import ending, orphaned
from .clock import Wake
from .deadlines import POLICY_FAULTS
from .state import Condition, Inbox
from .stop_inputs import Polled

_NOTHING = Inbox()
_SILENT = Polled()


@dataclass(slots=True)
class Requests:
    """What the supervisor asked for since the last tick, in order: a later word undoes an earlier one."""

    arm: Arm | None = None
    stop: Condition | None = None
    reset: bool = False
    quit: Literal["park", "here"] | None = None
    conditions: list[Condition] = field(default_factory=list)

    def take(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            match envelope.message:
                case Arm() as message:
                    self.arm, self.stop = message, None
                case Stop(latched=True, reason=reason):
                    self.conditions.append(Condition("requested", reason))
                case Stop(reason=reason):
                    self.arm, self.stop = None, Condition("requested", reason)
                case Reset():
                    # What was asked of a stopped arm is void; and at its end a run is not reset any more.
                    self.arm, self.reset = None, self.quit is None
                case Quit(park=park):
                    self.quit = "park" if park and self.quit != "here" else "here"
                case Heartbeat():
                    pass
                case other:
                    text = f"a {other.TYPE.name} from the supervisor"
                    self.conditions.append(Condition("protocol", text))


class Inboxes:
    """Drains both channels at every tick; of several chunks the newest counts."""

    def __init__(self, supervisor: Channel, policy: Channel, closed: set[str], parent: int = 0) -> None:
        """`parent`: the supervisor's process, which must have started this one; 0: it is not watched."""
        self._supervisor = supervisor
        self._policy = policy
        self._closed = closed
        self._parent = parent
        self.chunk_sent_ns = 0
        """When the newest chunk was sent."""

    def collect(
        self, wake: Wake, pending: Sequence[Condition], terminated: bool, polled: Polled | None = None
    ) -> Inbox:
        """`pending`: conditions noticed since the last tick. `terminated`: a signal asked control to end.
        `polled`: what the stop and reset inputs say."""
        polled = polled or _SILENT
        from_policy, conditions = self._receive("policy", self._policy)
        from_supervisor, more = self._receive("supervisor", self._supervisor)
        if self._parent_lost(any(condition.code == "policy_lost" for condition in conditions)):
            self._closed.add("supervisor")
            more = [*more, Condition("supervisor_lost", "the supervisor process has died")]
        # The supervisor's death takes the policy process with it, which is then no reason of its own.
        found = [*pending, *polled.conditions, *more, *conditions]
        slots = wake.run, wake.missed_late, wake.missed_overrun
        if slots == (1, 0, 0) and not (from_policy or from_supervisor or found or polled.reset or terminated):
            # Every other tick.
            return _NOTHING
        requests = Requests(conditions=found)
        chunk: Chunk | None = None
        superseded = 0
        for envelope in from_policy:
            match envelope.message:
                case Chunk() as message:
                    superseded += chunk is not None
                    chunk, self.chunk_sent_ns = message, envelope.stamp_ns
                case Fault(code=code, text=text) if code in POLICY_FAULTS:
                    requests.conditions.append(Condition(code, text))
                case Fault(code=code, text=text):
                    # A confused policy must not choose how control reacts.
                    text = f"a fault {code!r} from the policy, which is none of its own: {text}"
                    requests.conditions.append(Condition("protocol", text))
                case Heartbeat():
                    pass
                case other:
                    text = f"a {other.TYPE.name} from the policy"
                    requests.conditions.append(Condition("protocol", text))
        requests.take(from_supervisor)
        reset_line = polled.reset and not requests.reset
        if polled.reset:
            # As with a reset of the supervisor: an arm asked for before is void, and an end stays one.
            requests.arm, requests.reset = None, requests.reset or requests.quit is None
        if terminated:
            requests.conditions.append(Condition("requested", "control received a signal to end"))
            requests.quit = "here"
        return Inbox(
            chunk=chunk,
            superseded=superseded,
            arm=requests.arm,
            stop=requests.stop,
            reset=requests.reset,
            reset_line=reset_line and requests.reset,
            quit=requests.quit,
            heard_policy=bool(from_policy),
            heard_supervisor=bool(from_supervisor),
            conditions=tuple(requests.conditions),
            slots_run=wake.run,
            slots_late=wake.missed_late,
            slots_overrun=wake.missed_overrun,
        )

    def _parent_lost(self, policy_lost: bool) -> bool:
        if not self._parent or "supervisor" in self._closed:
            return False
        return orphaned(self._parent) or (policy_lost and ending(self._parent))

    def _receive(self, name: str, channel: Channel) -> tuple[list[Envelope], list[Condition]]:
        if name in self._closed:
            return [], []
        try:
            return channel.receive_all(), []
        except ChannelClosed:
            self._closed.add(name)
            return [], [Condition(f"{name}_lost", f"the {name} process has ended")]
        except MessageError as error:
            return [], [Condition("protocol", f"from the {name}: {error}")]
