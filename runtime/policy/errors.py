"""What keeps a policy from running, or from being acted upon."""

from __future__ import annotations


class ProgramError(Exception):
    """The bundle's program cannot be run, or its self-test fails; refused before torque."""


class NonFiniteAction(ValueError):
    """The policy's output holds NaN or infinity."""


class InstructionError(ValueError):
    """An instruction that the policy cannot have been trained on, or that does not fit."""
