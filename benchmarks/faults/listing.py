"""The table of classes for people: what is broken, what must come of it, by when, and why. Pure."""

from __future__ import annotations

from ...drivers.robots.schema import load_robot
from .bounds import BOUNDS, Configuration, configuration
from .classes import CLASSES

EXAMPLE = (
    "frame: 5 ms on its way + 34 ms period (measured) = at most 39 ms old when inference starts",
    "frame 39 ms + inference p99 3 ms + send and tick 15 ms = 57 ms old at a chunk's first use",
    "limits: a chunk at most 421 ms old on arrival, the policy silent for at most 500 ms, a picture at most "
    "400 ms old",
)
"""What vla-run prints for the campaign's policy; camera and inference are measured in each run."""


def example(robot: str = "sim_arm") -> Configuration:
    """The configuration that `EXAMPLE` makes."""
    file = load_robot(robot)
    return configuration(file, file.control.hz, [{"code": "schedule", "text": text} for text in EXAMPLE])


def listing() -> list[str]:
    """As Markdown."""
    c = example()
    lines = ["| class | what is broken | outcome | reasons | bound |", "|---|---|---|---|---|"]
    for row in CLASSES:
        bound = "" if row.bound == "none" else f"{BOUNDS[row.bound].of(c) / 1e6:.0f} ms ({row.bound})"
        codes = f", exit {' or '.join(map(str, row.exit_codes))}" if row.exit_codes else ""
        reasons = ", ".join(f"`{code}`" for code in row.reasons)
        outcome = row.outcome.replace("_", " ")
        restart = ", restart" if row.restart else ""
        lines.append(f"| {row.name} | {row.what} | {outcome}{codes}{restart} | {reasons} | {bound} |")
    lines += ["", "| bound | ms | what it is |", "|---|---|---|"]
    lines += [f"| {name} | {b.of(c) / 1e6:.0f} | {b.why} |" for name, b in BOUNDS.items()]
    lines += [
        "",
        f"Braking takes at most {c.stopping_ns / 1e6:.0f} ms, easing off after it {c.easing_ns / 1e6:.0f}.",
    ]
    return lines
