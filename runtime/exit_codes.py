"""The exit codes of vla-run, of the control process and of the policy process."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """128 + n is the shell's convention for an end by signal n; here it follows a controlled stop."""

    FINISHED = 0
    DIFFERENT = 1
    """A replay decided otherwise than what was recorded."""
    USAGE = 2
    REFUSED = 3
    """Something did not fit, before any torque."""
    PROTECTIVE_STOP = 4
    """The run ended in a protective stop that nobody reset."""
    INTERNAL = 5
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class AskCode(IntEnum):
    """Of `vla-run --ask`."""

    DONE = 0
    REFUSED = 1
    """The answer says why."""
    NOBODY = 3
    """No run listens, or it does not answer: whether anything was done is not known."""


class Refused(Exception):
    """The run may not start; the message says what happened, what was expected and what to do."""


class UsageError(Exception):
    """The command line is incomplete or contradicts itself."""
