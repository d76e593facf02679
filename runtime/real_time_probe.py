"""`python -m holdfast.runtime.real_time_probe [CORE]`: tries control's real-time set-up and prints its steps.

A process of its own, because the set-up cannot be undone: priority, locked memory and the core end with it.
It has control's imports, since what they take must be locked, too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from .control import process, realtime


def main(arguments: list[str]) -> int:
    assert process  # Imported for its size alone.
    result = realtime.set_up(int(arguments[0]) if arguments else None)
    print(json.dumps([asdict(step) for step in result.steps]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
