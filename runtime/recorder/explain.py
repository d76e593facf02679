"""`vla-run --explain` and `vla-run --replay`: from a recording to words, a picture, JSON and an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bundle.last import state_folder
from ..exit_codes import ExitCode, UsageError
from .account import Account, account_of, as_json
from .begin import recordings_folder
from .collect import SUFFIX, own_files, recover
from .kinds import RecordingError
from .plot import NoMatplotlib, draw
from .reading import read_recording
from .records import Recording
from .story import tell, verdict

_WIDTH = 118
NEWEST = True
"""`--explain` without a file."""


def explain(args: argparse.Namespace) -> int:
    """Tells the story of `args.explain` (or of the newest recording) and draws it beside the file.

    Returns the exit code; raises `UsageError` for what is no recording.
    """
    path = _newest(args.record) if args.explain is NEWEST else Path(args.explain)
    account = account_of(_read(path))
    picture, problem = _picture(account, path)
    if args.json:
        sections = [{"title": section.title, "lines": section.lines} for section in tell(account)]
        _print_json({**as_json(account), "story": sections, "plot": picture, "plot_problem": problem})
        return ExitCode.FINISHED
    for section in tell(account):
        print(section.title)
        print("\n".join(_wrapped(line, section.hang) for line in section.lines), end="\n\n")
    print(f"Plot: {picture}" if picture else f"No plot: {problem}")
    return ExitCode.FINISHED


def replay(args: argparse.Namespace) -> int:
    """Replays `args.replay`. Returns the exit code; raises `UsageError` for what cannot be replayed."""
    account = account_of(_read(Path(args.replay)))
    result = account.result
    if args.json:
        told: Mapping[str, Any] = as_json(account)
        _print_json({key: told[key] for key in ("schema", "schema_version", "recording", "replay")})
    else:
        print(f"{account.recording.path}: {len(account.recording.ticks)} ticks of control")
        for note in account.recording.notes:
            print(f"damaged or missing: {note}")
        print("\n".join(verdict(account)))
    if result.difference is None and not result.steps:
        raise UsageError(f"{args.replay}: no recorded state is left in it to start a replay from")
    return ExitCode.FINISHED if result.identical else ExitCode.DIFFERENT


def _read(path: Path) -> Recording:
    try:
        recording = read_recording(path)
    except RecordingError as error:
        raise UsageError(str(error)) from error
    if not recording.ticks:
        raise UsageError(f"{path} holds no tick of control: there is nothing to tell")
    return recording


def _newest(folder: Path | None) -> Path:
    """The newest recording; before that, what killed runs have left in memory is written out."""
    recordings = recordings_folder(folder)
    for recovered in recover(state_folder(), recordings):
        print(f"vla-run: {recovered.text}", file=sys.stderr)
    files = own_files(recordings)
    if not files:
        raise UsageError(
            f"there is no recording in {recordings}: one is written when a run stops; name a file with "
            f"--explain FILE{SUFFIX}"
        )
    return files[-1]


def _picture(account: Account, path: Path) -> tuple[str | None, str]:
    """Where the plot was written, or why there is none."""
    # The rings of a dead run lie in memory; their plot goes where the person is.
    target = path.with_suffix(".png") if path.is_file() else Path(f"{path.name}.png")
    try:
        draw(account, target)
    except (NoMatplotlib, OSError) as error:
        return None, str(error)
    return str(target), ""


def _wrapped(line: str, hang: int) -> str:
    """Indented; what is too long for the terminal goes on below."""
    return textwrap.fill(
        line, _WIDTH, initial_indent="  ", subsequent_indent=" " * hang, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, indent=2, default=str))
