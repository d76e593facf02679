"""A program that writes records into a ring until it is killed.

`writer.py RING PROGRESS SIZE PAUSE_S`: the first eight bytes of PROGRESS count the records whose write has
returned. With a pause of 0 it writes as fast as it can.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

from holdfast.runtime.recorder.ring import RingWriter


def payload(sequence: int) -> bytes:
    """Of a length and content that only its sequence has."""
    return sequence.to_bytes(8, "little") * (1 + sequence * 7919 % 97) + bytes(sequence % 8)


def main() -> None:
    ring, progress, size, pause_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    fd = os.open(progress, os.O_RDWR)
    counted = memoryview(mmap.mmap(fd, 8)).cast("Q")
    writer = RingWriter.create(ring, size, b"preamble")
    sequence = 0
    while True:
        writer.write(sequence % 5, sequence, payload(sequence))
        sequence += 1
        counted[0] = sequence
        if pause_s:
            time.sleep(pause_s)


if __name__ == "__main__":
    main()
