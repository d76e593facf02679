"""What can go wrong with the simulator itself."""

from __future__ import annotations

from ..errors import DriverError


class SimulatorError(DriverError):
    """The simulated robot cannot start or cannot do what was asked."""
