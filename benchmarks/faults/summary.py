"""What the trials come to: one JSON document, and a table for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..intervals import exact_upper, upper_rate
from .classes import BY_NAME, CLASSES, NIGHTLY, FaultClass

MEASURES = ("detect_ms", "last_command_ms", "standstill_ms", "overshoot_rad", "missed_ms", "speed_rad_s")
DIGITS = {"overshoot_rad": 4, "speed_rad_s": 2}
FEW_VOID, VOID_SHARE = 3, 0.05
"""A class with more void trials than both has not been tried fairly."""


def quantiles(values: Sequence[float], digits: int = 1) -> dict[str, float] | None:
    """p50, p99 (nearest rank), max and how many there were; None of nothing. The p99 of few is their max."""
    if not values:
        return None
    ranked = sorted(values)

    def rank(share: float) -> float:
        return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], digits)

    return {"p50": rank(0.5), "p99": rank(0.99), "max": round(ranked[-1], digits), "n": len(ranked)}


def summarise(
    rows: Iterable[Mapping[str, Any]],
    header: Mapping[str, Any],
    soak: Mapping[str, Any] | None = None,
    classes: Sequence[FaultClass] = CLASSES,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The document, in the order of the table; classes without a trial are left out. `left_out`: classes that
    cannot be tried on this machine, and why."""
    rows = list(rows)
    documents = []
    for each in classes:
        mine = [row for row in rows if row["class"] == each.name]
        if mine:
            documents.append(_of_class(each, mine))
    trials, escapes = (sum(doc[key] for doc in documents) for key in ("trials", "escapes"))
    worst = max(documents, key=lambda doc: doc["escape_rate_upper_95"], default=None)
    missing = [each.name for each in classes if each.name not in {doc["name"] for doc in documents}]
    short = [doc["name"] for doc in documents if doc["trials"] < NIGHTLY[BY_NAME[doc["name"]].restart]]
    hours = sum(row["seconds"] for row in rows) / 3600
    return {
        "classes": documents,
        "soak": dict(soak) if soak is not None else None,
        "seed": header["seed"],
        "machine": header["machine"],
        "configuration": header["configuration"],
        "complete": not missing,
        "nightly_size": not missing and not short,
        "left_out": dict(left_out or {}),
        "missing": missing,
        "trials": trials,
        "escapes": escapes,
        **{key: sum(doc[key] for doc in documents) for key in ("failures", "false_stops", "void")},
        "hours": round(hours, 3),
        "clean": _clean(rows),
        "worst_class": worst["name"] if worst else None,
        "escape_rate_upper_95_worst_class": worst["escape_rate_upper_95"] if worst else 1.0,
        "escape_rate_upper_95_of_this_mix": exact_upper(escapes, trials),
    }


def _clean(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The arm's time in motion before the faults, and the protective stops in it: all false."""
    sure = [row for row in rows if not row["void"]]
    hours, stops = sum(row["clean_s"] for row in sure) / 3600, sum(row["early_stop"] for row in sure)
    return {
        "hours": round(hours, 4),
        "false_stops": stops,
        "upper_95_per_hour": upper_rate(stops, hours) if hours else None,
    }


def escapes_of(row: Mapping[str, Any]) -> list[str]:
    """All escapes of a trial that count. Of a void one only those in the bytes that the host has sent: these
    cannot be the doing of a simulated arm that fell behind."""
    verdict = row["verdict"]["escapes"] if row["verdict"] else []
    if row["void"]:
        verdict = [text for text in verdict if text.startswith("on the wire")]
    return [*row.get("wire", ()), *verdict]


def counts(row: Mapping[str, Any]) -> bool:
    """Whether a trial counts: it is not void, or something escaped all the same."""
    return not row["void"] or bool(escapes_of(row))


def _of_class(each: FaultClass, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted = [row for row in rows if counts(row)]
    verdicts = [row["verdict"] for row in counted if row["verdict"]]
    escaped = [row for row in counted if escapes_of(row)]
    failed = [row for row in counted if row.get("failure")]
    void = [row for row in rows if row["void"]]
    bounds = [v["bound_ms"] for v in verdicts if v["bound_ms"] is not None]
    document: dict[str, Any] = {
        "name": each.name,
        "outcome": each.outcome,
        "trials": len(counted),
        "escapes": len(escaped),
        "escape_rate_upper_95": exact_upper(len(escaped), len(counted)),
        "failures": len(failed),
        # They differ by the slots that were missed and by what each run has measured: the strictest.
        "bound_ms": min(bounds, default=None),
        "late": sum(v["bound_ms"] is not None and (v["detect_ms"] or 0) > v["bound_ms"] for v in verdicts),
    }
    for name in MEASURES:
        values = [v[name] for v in verdicts if v.get(name) is not None]
        document[name] = quantiles(values, DIGITS.get(name, 1))
    stops = [row["stop"] for row in counted if row["stop"]]
    document |= {
        "reasons": {code: stops.count(code) for code in sorted(set(stops))},
        "variants": {d: sum(row["detail"] == d for row in counted) for d in _details(each, counted)},
        "false_stops": sum(bool(v["false_stop"]) for v in verdicts),
        "reset_refused": sum(bool(row["reset_refused"]) for row in counted),
        "void": len(void),
        "too_many_void": len(void) > max(FEW_VOID, VOID_SHARE * len(rows)),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "examples": [
            {"number": row["number"], "phase_s": row["phase_s"], "detail": row["detail"],
             "escapes": escapes_of(row)}
            for row in escaped[:5]
        ],
        "failed": [{"number": row["number"], "failure": row["failure"]} for row in failed[:5]],
        "voids": sorted({row["void"] for row in void})[:5],
        "void_escapes": [
            {"number": row["number"], "void": row["void"], "escapes": row["verdict"]["escapes"]}
            for row in void if row["verdict"] and row["verdict"]["escapes"]
        ][:5],
    }  # fmt: skip
    return document


def _details(each: FaultClass, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["detail"] for row in rows}) if len(each.how) > 1 else []


def passed(summary: Mapping[str, Any]) -> bool:
    """No escape, no failure, no stop where none should be, every fault noticed in time, few voids."""
    soak = summary["soak"]
    return (
        not any(row["late"] or row["too_many_void"] or row["reset_refused"] for row in summary["classes"])
        and not any(summary[key] for key in ("escapes", "failures", "false_stops"))
        and not (soak and soak["false_stops"])
    )


HEAD = (
    "class", "outcome", "trials", "escapes", "95 % <=", "bound ms", "noticed n", "p50", "p99", "max",
    "at rest p50", "p99", "max", "on, rad p50", "p99", "max", "missed, max", "void",
)  # fmt: skip


def table(summary: Mapping[str, Any]) -> list[str]:
    """For people, as Markdown. Durations in ms from the fault; rad from the moment that it was noticed."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in summary["classes"]:
        cells = [
            row["name"],
            row["outcome"].replace("_", " "),
            str(row["trials"]),
            str(row["escapes"])
            + (f" + {row['false_stops']} false stops" if row["false_stops"] else "")
            + (f" + {row['failures']} failures" if row["failures"] else ""),
            f"{100 * row['escape_rate_upper_95']:.2g} %",
            f"{row['bound_ms']:.0f}" if row["bound_ms"] else "",
        ]
        for name, digits in (("detect_ms", 0), ("standstill_ms", 0), ("overshoot_rad", 3)):
            values = row[name] or {}
            if name == "detect_ms":
                cells.append(str(values["n"]) if values else "")
            cells += [f"{values[key]:.{digits}f}" if values else "" for key in ("p50", "p99", "max")]
        missed = row["missed_ms"]
        cells.append(f"{missed['max']:.0f}" if missed and missed["max"] else "")
        cells.append(str(row["void"] or ""))
        lines.append(f"| {' | '.join(cells)} |")
    worst, mix = (summary[f"escape_rate_upper_95_{of}"] for of in ("worst_class", "of_this_mix"))
    lines += [
        "",
        f"{summary['escapes']} escapes and {summary['failures']} failures in {summary['trials']} trials of "
        f"{len(summary['classes'])} classes. The exact upper 95 % bound of the escape rate is at most "
        f"{100 * worst:.2g} % in every class taken alone (the worst: {summary['worst_class']}), and "
        f"{100 * mix:.2g} % in this mix of them, which is no mix that any robot meets. {summary['void']} "
        f"void ones were made again. Seed {summary['seed']}, configuration {summary['configuration']}.",
        "",
        f"It took {summary['hours']:.2f} hours; of the faults that are to be ridden through "
        f"{summary['false_stops']} led to a false stop.",
    ]
    clean = summary["clean"]
    if clean["hours"]:
        lines.append(
            f"Before the faults the arm was in motion for {clean['hours']:.3f} h together, with "
            f"{clean['false_stops']} false stops: less than {clean['upper_95_per_hour']:.2g} per hour with "
            "95 % confidence."
        )
    if summary["missing"]:
        why = [f"{name} ({summary['left_out'].get(name, 'not asked for')})" for name in summary["missing"]]
        lines.append(f"Not complete: {', '.join(why)}.")
    elif not summary["nightly_size"]:
        lines.append("Not of the nightly size.")
    soak = summary["soak"]
    if soak:
        lines.append(soak_line(soak))
    return lines


def soak_line(document: Mapping[str, Any]) -> str:
    """For people."""
    what = "control's core alone, stepped" if document["time"] == "virtual" else "the whole system, real time"
    return (
        f"Clean soak ({what}): {document['hours']:.3f} h, {document['false_stops']} false stops: less than "
        f"{document['upper_95_per_hour']:.2g} per hour with 95 % confidence; configuration "
        f"{document['configuration']}."
    )
