"""What the trials come to: one JSON document, and a table for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..intervals import exact_upper
from .classes import CLASSES, FaultClass

MEASURES = ("detect_ms", "last_command_ms", "standstill_ms", "overshoot_rad")
DIGITS = {"overshoot_rad": 4}


def quantiles(values: Sequence[float], digits: int = 1) -> dict[str, float] | None:
    """p50, p99 (nearest rank) and max; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)

    def rank(share: float) -> float:
        return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], digits)

    return {"p50": rank(0.5), "p99": rank(0.99), "max": round(ranked[-1], digits)}


def summarise(
    rows: Iterable[Mapping[str, Any]],
    header: Mapping[str, Any],
    soak: Mapping[str, Any] | None = None,
    classes: Sequence[FaultClass] = CLASSES,
) -> dict[str, Any]:
    """The document, in the order of the table; classes without a trial are left out."""
    rows = list(rows)
    documents = []
    for each in classes:
        mine = [row for row in rows if row["class"] == each.name]
        if mine:
            documents.append(_of_class(each, mine))
    trials, escapes = (sum(doc[key] for doc in documents) for key in ("trials", "escapes"))
    return {
        "classes": documents,
        "soak": dict(soak) if soak is not None else None,
        "seed": header["seed"],
        "machine": header["machine"],
        "configuration": header["configuration"],
        "trials": trials,
        "escapes": escapes,
        "false_stops": sum(doc["false_stops"] for doc in documents),
        "void": sum(doc["void"] for doc in documents),
        "escape_rate_upper_95": exact_upper(escapes, trials),
    }


def _of_class(each: FaultClass, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted = [row for row in rows if not row["void"]]
    verdicts = [row["verdict"] for row in counted]
    escaped = [row for row in counted if row["verdict"]["escapes"]]
    bounds = [v["bound_ms"] for v in verdicts if v["bound_ms"] is not None]
    document: dict[str, Any] = {
        "name": each.name,
        "outcome": each.outcome,
        "trials": len(counted),
        "escapes": len(escaped),
        "escape_rate_upper_95": exact_upper(len(escaped), len(counted)),
        # They differ by the inference time that each run has measured: the strictest counts.
        "bound_ms": min(bounds, default=None),
    }
    for name in MEASURES:
        values = [v[name] for v in verdicts if v[name] is not None]
        document[name] = quantiles(values, DIGITS.get(name, 1))
    stops = [row["stop"] for row in counted if row["stop"]]
    document |= {
        "reasons": {code: stops.count(code) for code in sorted(set(stops))},
        "false_stops": sum(bool(v["false_stop"]) for v in verdicts),
        "reset_refused": sum(bool(row["reset_refused"]) for row in counted),
        "void": len(rows) - len(counted),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "examples": [
            {"number": row["number"], "phase_s": row["phase_s"], "detail": row["detail"],
             "escapes": row["verdict"]["escapes"]}
            for row in escaped[:5]
        ],
        "voids": sorted({row["void"] for row in rows if row["void"]})[:5],
    }  # fmt: skip
    return document


def passed(summary: Mapping[str, Any]) -> bool:
    """No escape, no stop where none should be, and every p99 of detection within its bound."""
    in_time = all(
        row["bound_ms"] is None or row["detect_ms"] is None or row["detect_ms"]["p99"] <= row["bound_ms"]
        for row in summary["classes"]
    )
    soak = summary["soak"]
    return (
        in_time
        and not summary["escapes"]
        and not summary["false_stops"]
        and not (soak and soak["false_stops"])
    )


HEAD = (
    "class", "outcome", "trials", "escapes", "95 % <=", "bound ms", "noticed p50", "p99", "max",
    "at rest p50", "p99", "max", "on, rad p50", "p99", "max", "void",
)  # fmt: skip


def table(summary: Mapping[str, Any]) -> list[str]:
    """For people, as Markdown. Durations in ms from the fault; rad from the moment that it was noticed."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in summary["classes"]:
        cells = [
            row["name"],
            row["outcome"].replace("_", " "),
            str(row["trials"]),
            str(row["escapes"]) + (f" + {row['false_stops']} false stops" if row["false_stops"] else ""),
            f"{100 * row['escape_rate_upper_95']:.2g} %",
            f"{row['bound_ms']:.0f}" if row["bound_ms"] else "",
        ]
        for name, digits in (("detect_ms", 0), ("standstill_ms", 0), ("overshoot_rad", 3)):
            values = row[name] or {}
            cells += [f"{values[key]:.{digits}f}" if values else "" for key in ("p50", "p99", "max")]
        cells.append(str(row["void"] or ""))
        lines.append(f"| {' | '.join(cells)} |")
    upper = summary["escape_rate_upper_95"]
    lines += [
        "",
        f"{summary['escapes']} escapes in {summary['trials']} trials of {len(summary['classes'])} classes: "
        f"the exact upper 95 % bound of the escape rate is {100 * upper:.2g} %. {summary['void']} void ones "
        f"were made again. Seed {summary['seed']}, configuration {summary['configuration']}.",
    ]
    soak = summary["soak"]
    if soak:
        lines.append(
            f"Clean soak: {soak['hours']:.2f} h in {soak['time']} time, {soak['false_stops']} false stops, "
            "the same configuration."
        )
    return lines
