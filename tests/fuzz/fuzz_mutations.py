"""Seeded damage to honest files: bytes, members of archives, leaves of JSON."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

#: What takes the place of a number or text.
EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**30, 0.5, 1e308, -0.0,
    float("nan"), float("inf"), "", "x", "input", "\x00", "é" * 300, "1/0", "9" * 5000, [], [0], [[]], [2**31] * 3, {},
    {"a": 1}, [None],
)  # fmt: skip
_TOKENS = (
    b"-1", b"NaN", b"1e999", b"9" * 30, b"9" * 5000, b"[" * 50, b"{}", b'"', b"\n", b"\x00", b"\xff\xfe", b"=", b"..",
    b"null", b"true", b"18446744073709551616",
)  # fmt: skip

Damage = Callable[[bytes, random.Random], bytes]


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of bits, blocks, lengths or text."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        place, length = rng.randrange(len(out)), min(rng.choice((1, 2, 4, 8, 64, 1000)), len(out))
        kind = rng.randrange(8)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place : place + length] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF))]) * len(out[place : place + length])
        elif kind == 2:
            del out[place:]
        elif kind == 3:
            del out[place : place + length]
        elif kind == 4:
            source = rng.randrange(len(out))
            out[place:place] = out[source : source + length]
        elif kind == 5:
            out[place:place] = rng.choice(_TOKENS)
        elif kind == 6:
            out[place : place + length] = rng.randbytes(length)
        else:
            token = rng.choice(_TOKENS)
            out[place : place + len(token)] = token
    return bytes(out)


def damaged_member(data: bytes, rng: random.Random) -> bytes:
    """A zip file, one member damaged under a checksum that fits."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, damaged_bytes(content, rng) if name == chosen else content)
    return buffer.getvalue()


def damaged_json(data: Any, rng: random.Random) -> Any:
    """A copy with one to three parts replaced, removed or doubled."""
    out = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(list(_places(out)))
        kind = rng.randrange(4)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key] = rng.choice(EXTREMES)
    return out


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested dictionaries and lists."""
    found: list[tuple[Any, Any]] = []
    pending = [data]
    while pending:
        holder = pending.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                pending.append(holder[key])
    return found
