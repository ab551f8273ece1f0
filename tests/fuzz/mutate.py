"""Random changes of bytes, of documents and of protobufs; the same random numbers make the same change."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

JUNK: list[Any] = [None, True, 0, -1, 2**31, 2**63, 10**400, 1e308, 0.5, "", "x", "../x", "\0", [], [[]], {}, {"a": {}}]
_NUMBERS = (0, -1, 1, 2, 7, 99, 2**31 - 1, -(2**31), 2**40)
_TEXTS = ("", "x", "y", "Relu", "../../etc/passwd", "\0")


def bytes_of(seed: bytes, random: Random) -> bytes:
    """Some bytes changed, left out, put in or repeated; or the end cut off."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at, length = random.randrange(len(data)), random.choice((1, 1, 2, 4, 8, 64))
        how = random.randrange(20)
        if how < 6:
            data[at] ^= 1 << random.randrange(8)
        elif how < 10:
            data[at : at + length] = random.randbytes(length)
        elif how < 13:
            del data[at : at + length]
        elif how < 16:
            data[at:at] = random.choice((b"\xff", b"\0", b"\x80", bytes(data[at : at + length]))) * length
        elif how < 19:
            data[at : at + 8] = random.choice((b"\xff", b"\x7f", b"\0")) * 8
        else:
            del data[at:]
    return bytes(data)


def json_of(seed: object, random: Random) -> object:
    """A document with some of its values replaced or taken away, however deep they lie."""
    value = copy.deepcopy(seed)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places or random.random() < 0.01:
            return random.choice(JUNK)
        holder, key = random.choice(places)
        if random.random() < 0.3:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(random.choice(JUNK))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def message_of(seed: Any, random: Random) -> bytes:
    """A protobuf with some fields set to what nobody expects, cleared or repeated."""
    message = copy.deepcopy(seed)
    for _ in range(random.choice((1, 1, 2, 3))):
        owner, field = random.choice(
            [(owner, field) for owner in _messages(message) for field, _ in owner.ListFields()]
        )
        value = getattr(owner, field.name)
        if random.random() < 0.2:
            owner.ClearField(field.name)
        elif not field.is_repeated:
            if field.type != field.TYPE_MESSAGE:
                _set(owner, field, random)
        elif random.random() < 0.4:
            del value[random.randrange(len(value))]
        elif field.type == field.TYPE_MESSAGE:
            value.append(random.choice(list(value)))
        else:
            value.append(random.choice(_TEXTS if field.type == field.TYPE_STRING else _NUMBERS[:7]))
    return bytes(message.SerializeToString())


def _set(owner: Any, field: Any, random: Random) -> None:
    if field.type == field.TYPE_STRING:
        setattr(owner, field.name, random.choice(_TEXTS))
    elif field.type == field.TYPE_BYTES:
        setattr(owner, field.name, bytes_of(getattr(owner, field.name), random))
    else:
        numbers = list(_NUMBERS) if field.cpp_type == field.CPPTYPE_INT64 else list(_NUMBERS[:7])
        random.shuffle(numbers)
        for number in numbers:
            try:
                setattr(owner, field.name, number)
            except ValueError:  # an enumeration does not hold it
                continue
            break


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)
