"""What may happen to the core in one tick, or in a stretch of alike ones: the events of `stop_model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.deadlines import REACTIONS
from holdfast.runtime.control.state import Condition, Inbox

from .world import MS, arm

DT_NS = 20 * MS
GAP_NS = 3_000 * MS
KINDS = {code: row.kind for code, row in REACTIONS.items()}
"""As they stood before a test made a mistake in them."""
Sample = Literal[
    "fresh",
    "missing",
    "faulty",
    "hot",
    "sagging",
    "stuck",
    "pushed",
    "torn",
    "loaded",
    "overcurrent",
    "gripping",
]
AT_ONCE = {"faulty": "motor_fault", "hot": "temperature", "sagging": "voltage", "torn": "following_error"}
"""Samples that are a stop in the tick in which they come."""
STRAINS: dict[Sample, str] = {"loaded": "load", "overcurrent": "current", "gripping": "gripper_force"}
"""Samples that are a stop when they last for longer than `STRAIN_NS`."""
STRAIN_NS = 200 * MS


@dataclass(frozen=True)
class Event:
    """What one tick, or a stretch of alike ones, brings."""

    name: str
    inbox: Inbox = field(default_factory=Inbox)
    sample: Sample = "fresh"
    rows: Literal["none", "near", "far", "nan", "stale", "other", "again"] = "none"
    """The chunk that comes, if any."""
    step_ns: int = DT_NS
    policy: bool = True
    supervisor: bool = True
    """Whether they are heard."""
    lasts: bool = False
    """Goes on until something discrete changes."""
    basic: bool = False
    """Also for states that differ from another one only in what the stop was for."""

    @property
    def stop_codes(self) -> list[str]:
        return [c.code for c in self.inbox.conditions if KINDS.get(c.code, "stop") == "stop"]


def every_event(core_config: CoreConfig) -> list[Event]:
    """Requests alone, in pairs, beside a chunk or a faulty sample; every row; samples, chunks, time."""
    wish = {
        "follow": {"arm": arm()},
        "return": {"arm": arm(back=True, follow=False)},
        "hold": {"arm": arm(follow=False)},
        "stop": {"stop": Condition("requested", "end of the task")},
        "latch": {"conditions": (Condition("requested", "a person"),)},
        "reset": {"reset": True},
        "reset line": {"reset": True, "reset_line": True},
        "park": {"quit": "park"},
        "here": {"quit": "here"},
    }
    wishes: dict[str, dict[str, Any]] = dict(wish)
    for (a, first), (b, second) in combinations(wish.items(), 2):
        if not first.keys() & second.keys():
            wishes[f"{a}+{b}"] = {**first, **second}
    made = [Event(name, Inbox(**fields), basic=name in wish) for name, fields in wishes.items()]
    for name in wish:
        inbox = Inbox(**wishes[name])
        made += [
            Event(f"{name}+faulty", inbox, sample="faulty"),
            Event(f"{name}+missing", inbox, sample="missing"),
            Event(f"{name}+pushed", inbox, sample="pushed"),
            Event(f"{name}+near", inbox, rows="near"),
            Event(f"{name}+nan", inbox, rows="nan"),
        ]
    for code in (*REACTIONS, "a code that nobody knows"):
        made.append(Event(code, Inbox(conditions=(Condition(code, "noticed"),))))
    made += [Event(f"reset+{sample}", Inbox(reset=True), sample=sample) for sample in ("hot", "sagging")]
    pressed = (Condition("stop_input", "pressed"),)
    made.append(Event("reset+pressed", Inbox(reset=True, conditions=pressed)))
    made += [Event(sample, sample=sample) for sample in get_args(Sample) if sample != "fresh"]
    chunks = ("near", "far", "nan", "stale", "other", "again")
    made += [Event(f"chunk {rows}", rows=rows, basic=rows == "near") for rows in chunks]
    made += [
        Event("tick", basic=True),
        Event("gap", step_ns=GAP_NS),
        Event("gap alone", step_ns=GAP_NS, policy=False, supervisor=False, sample="missing"),
        Event("gap without policy", step_ns=GAP_NS, policy=False),
        Event("gap without supervisor", step_ns=GAP_NS, supervisor=False),
        Event("slots", Inbox(slots_late=core_config.max_missed_in_a_row)),
        Event("on", lasts=True, basic=True),
        Event("on, stuck", lasts=True, sample="stuck"),
        Event("on, missing", lasts=True, sample="missing"),
        Event("on, alone", lasts=True, policy=False, supervisor=False),
        Event("on, without policy", lasts=True, policy=False),
        Event("on, without supervisor", lasts=True, supervisor=False),
        *(Event(f"on, {sample}", lasts=True, sample=sample) for sample in STRAINS),
        Event("on, chunks", lasts=True, rows="near"),
    ]
    return made
