"""The half-duplex servo bus: bytes in, replies with due times out (Feetech protocol 0). Pure: time is given.

Frames are `FF FF ID LEN INST params CHK`, replies `FF FF ID LEN ERR params CHK`; LEN counts what follows it;
CHK = ~(ID + LEN + ... ) & 0xFF. A frame with a bad checksum, with an unknown instruction, with parameters
that do not fit it, or for an id that nobody has, gets no answer. Broadcasts (id 254) are obeyed by all and
answered by none, but for ping, which all answer in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .faults import Faults
from .servos import Servo

HEADER = b"\xff\xff"
BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 0x82, 0x83
MAX_READ = 250
"""Longer reads do not fit a reply and are not answered."""
BITS_PER_BYTE = 10
RETURN_DELAY_UNIT_NS = 2_000
PARTIAL_TIMEOUT_NS = 50_000_000
"""An unfinished frame is forgotten after so long a silence. Real motors forget sooner; a pty stalls."""
PACKET_BYTES = 62
"""A USB serial adapter hands over at most so many bytes at once, and whatever it has when the line idles."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes that the host shall see at `due_ns`."""

    due_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """One servo's turn on the wire: its reply (None: it is missing and its turn passes in silence)."""

    delay_ns: int
    data: bytes
    silent: bool = False


def checksum(body: bytes) -> int:
    """The last byte of a frame; `body` is everything between header and checksum."""
    return ~sum(body) & 0xFF


def frame(servo_id: int, third: int, params: bytes = b"") -> bytes:
    """A whole frame; `third` is the instruction, or in replies the error byte."""
    body = bytes((servo_id, len(params) + 2, third)) + params
    return HEADER + body + bytes((checksum(body),))


class ServoBus:
    """All servos on one wire. `feed` what the host sent, deliver the replies when they are due."""

    def __init__(self, servos: Sequence[Servo], faults: Faults | None = None, baud: int = 1_000_000) -> None:
        self.servos = list(servos)
        self.faults = faults or Faults()
        self.byte_ns = BITS_PER_BYTE * 1_000_000_000 // baud
        self.bad_checksums = 0
        self.answered = 0
        self.damaged = 0
        """Answers that a fault has changed or delayed."""
        self._buffer = bytearray()
        self._last_byte_ns = 0
        self._free_ns = 0
        """When the wire falls silent."""
        self._late_until_ns = 0
        self._instructions: dict[int, Callable[[int, bytes], list[_Answer]]] = {
            PING: self._ping,
            READ: self._read,
            WRITE: self._write,
            REG_WRITE: self._reg_write,
            ACTION: self._action,
            SYNC_READ: self._sync_read,
            SYNC_WRITE: self._sync_write,
        }
        self._damages: dict[str, Callable[[bytes], bytes]] = {
            "wrong_id_every": self._with_wrong_id,
            "corrupt_every": _with_flipped_bit,
            "drop_byte_every": lambda data: data[:-1],
            "duplicate_every": lambda data: data + data,
        }
        """Attribute of `Faults` -> what it does to a reply, in this order."""

    def feed(self, data: bytes, now_ns: int) -> list[Reply]:
        """Takes bytes of the host that arrived at `now_ns`; returns the replies in order of time."""
        if self._buffer and now_ns - self._last_byte_ns > PARTIAL_TIMEOUT_NS:
            self._buffer.clear()
        self._last_byte_ns = now_ns
        self._buffer += data
        for servo in self.servos:
            servo.suffer(self.faults.ailment(servo.id))
        replies: list[Reply] = []
        while (request := self._next_frame()) is not None:
            start_ns = max(now_ns, self._free_ns)
            self._free_ns = start_ns + len(request) * self.byte_ns
            if self.faults.power_lost or checksum(request[2:-1]) != request[-1]:
                self.bad_checksums += not self.faults.power_lost
                continue
            handler = self._instructions.get(request[4])
            if handler is not None:
                replies += self._transmit(handler(request[2], request[5:-1]))
        return replies

    def _next_frame(self) -> bytes | None:
        """Cuts the next complete frame from the buffer, skipping what cannot be one."""
        buffer = self._buffer
        while True:
            start = buffer.find(HEADER)
            if start < 0:
                del buffer[: len(buffer) - 1 if buffer.endswith(b"\xff") else len(buffer)]
                return None
            del buffer[:start]
            if len(buffer) < 4:
                return None
            if buffer[2] == 0xFF or buffer[3] < 2:
                del buffer[0]
                continue
            length = buffer[3] + 4
            if len(buffer) < length:
                return None
            whole = bytes(buffer[:length])
            del buffer[:length]
            return whole

    def _listening(self, servo_id: int) -> list[Servo]:
        """The servos that hear a frame for `servo_id`, in order of their ids.

        Baud code 0 is 1 Mbaud; a servo set to another rate hears nothing here.
        """
        named = [s for s in self.servos if servo_id in (BROADCAST, s.id)]
        hearing = [s for s in named if s.id not in self.faults.silent and s.get("baud") == 0]
        return sorted(hearing, key=lambda servo: servo.id)

    def _answer(self, servo: Servo, params: bytes = b"") -> _Answer:
        delay_ns = servo.get("return_delay") * RETURN_DELAY_UNIT_NS
        return _Answer(delay_ns, frame(servo.id, servo.status, params))

    def _acknowledge(self, servo_id: int, servos: list[Servo]) -> list[_Answer]:
        """Replies to a write: none to a broadcast, none from servos told to answer reads only."""
        if servo_id == BROADCAST:
            return []
        return [self._answer(servo) for servo in servos if servo.get("response_level")]

    def _ping(self, servo_id: int, params: bytes) -> list[_Answer]:
        return [] if params else [self._answer(servo) for servo in self._listening(servo_id)]

    def _read(self, servo_id: int, params: bytes) -> list[_Answer]:
        if servo_id == BROADCAST or len(params) != 2 or not 1 <= params[1] <= MAX_READ:
            return []
        return [self._answer(servo, servo.read(*params)) for servo in self._listening(servo_id)]

    def _write(self, servo_id: int, params: bytes) -> list[_Answer]:
        if len(params) < 2:
            return []
        servos = self._listening(servo_id)
        answers = self._acknowledge(servo_id, servos)
        for servo in servos:
            servo.write(params[0], params[1:])
        return answers

    def _reg_write(self, servo_id: int, params: bytes) -> list[_Answer]:
        if len(params) < 2:
            return []
        servos = self._listening(servo_id)
        for servo in servos:
            servo.hold(params[0], params[1:])
        return self._acknowledge(servo_id, servos)

    def _action(self, servo_id: int, params: bytes) -> list[_Answer]:
        if params:
            return []
        servos = self._listening(servo_id)
        answers = self._acknowledge(servo_id, servos)
        for servo in servos:
            servo.act()
        return answers

    def _sync_read(self, servo_id: int, params: bytes) -> list[_Answer]:
        if servo_id != BROADCAST or len(params) < 3 or not 1 <= params[1] <= MAX_READ:
            return []
        address, length = params[0], params[1]
        answers: list[_Answer] = []
        for wanted in params[2:]:
            servos = self._listening(wanted) if wanted != BROADCAST else []
            if servos:
                answers += [self._answer(servo, servo.read(address, length)) for servo in servos]
            else:
                answers.append(_Answer(0, bytes(length + 6), silent=True))
        return answers if any(not answer.silent for answer in answers) else []

    def _sync_write(self, servo_id: int, params: bytes) -> list[_Answer]:
        if servo_id != BROADCAST or len(params) < 2:
            return []
        address, length = params[0], params[1]
        rows = params[2:]
        if length < 1 or len(rows) % (length + 1):
            return []
        for start in range(0, len(rows), length + 1):
            if rows[start] != BROADCAST:
                for servo in self._listening(rows[start]):
                    servo.write(address, rows[start + 1 : start + 1 + length])
        return []

    def _transmit(self, answers: list[_Answer]) -> list[Reply]:
        """Puts answers on the wire one after another and packs them as an adapter hands them over."""
        if not answers:
            return []
        self.answered += 1
        damaged = self._damage(answers)
        replies: list[Reply] = []
        packet = bytearray()
        packet_due_ns = 0
        for answer, data in zip(answers, damaged, strict=True):
            gap = answer.delay_ns > 0 or answer.silent or len(packet) + len(data) > PACKET_BYTES
            if packet and gap:
                replies.append(Reply(packet_due_ns, bytes(packet)))
                packet.clear()
            # A byte that is dropped has taken its time all the same.
            self._free_ns += answer.delay_ns + max(len(answer.data), len(data)) * self.byte_ns
            if not answer.silent:
                packet += data
                packet_due_ns = self._free_ns
        if packet:
            replies.append(Reply(packet_due_ns, bytes(packet)))
        return self._delay(replies)

    def _damage(self, answers: list[_Answer]) -> list[bytes]:
        """The replies after the faults that change every n-th answer; which reply of it is hit varies."""
        datas = [answer.data for answer in answers]
        spoken = [index for index, answer in enumerate(answers) if not answer.silent]
        for name, damage in self._damages.items():
            every = getattr(self.faults, name)
            if every and self.answered % every == 0:
                self.damaged += 1
                hit = spoken[self.answered // every % len(spoken)]
                datas[hit] = damage(datas[hit])
        return datas

    def _with_wrong_id(self, data: bytes) -> bytes:
        """The same reply, complete and with a good checksum, from the next motor."""
        ids = sorted(servo.id for servo in self.servos)
        other = next((i for i in ids if i > data[2]), ids[0])
        return frame(other, data[4], data[5:-1])

    def _delay(self, replies: list[Reply]) -> list[Reply]:
        """The adapter is a queue: while it is late, everything behind waits too."""
        faults = self.faults
        late_ns = 0
        if faults.late_count:
            faults.late_count -= 1
            self.damaged += 1
            late_ns = round(faults.late_ms * 1e6)
        out: list[Reply] = []
        for reply in replies:
            self._late_until_ns = max(self._late_until_ns, reply.due_ns + late_ns)
            out.append(replace(reply, due_ns=self._late_until_ns))
        return out


def _with_flipped_bit(data: bytes) -> bytes:
    broken = bytearray(data)
    broken[-2] ^= 0x40
    return bytes(broken)
