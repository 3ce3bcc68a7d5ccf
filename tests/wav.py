"""The header of a WAV file, true or not, for tests of what reads one."""

from __future__ import annotations

import struct


def header(*, channels: int = 1, rate: int = 16000, data: int = 0) -> bytes:
    """Return the 44 bytes before 16-bit samples of which they claim `data` bytes."""
    align = 2 * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + data, b"WAVE") + form + struct.pack("<4sI", b"data", data)
