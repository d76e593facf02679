"""What can go wrong in an export; each class is one exit code of vla-export."""

from __future__ import annotations


class ExportError(Exception):
    """Root of the errors of an export. The message says what happened, what was expected, what to do."""


class SourceError(ExportError):
    """The checkpoint, or what must come with it, cannot be used (exit code 2)."""


class PrecisionError(ExportError):
    """The graph cannot be made in the asked precision safely (exit code 1)."""


class ParityError(ExportError):
    """The graph does not compute what the checkpoint computes (exit code 1)."""
