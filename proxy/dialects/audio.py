"""How long a recording lasts, at most: audio is billed by the second, or by the token, so many a second.

Pure, in bounded memory. No number in a file is believed that could make it look shorter than it plays: a WAV file is as
long as all bytes behind its header last, at the rate that the header gives in three ways, and an MP3 file is walked
frame by frame. What is not surely one of the two (other formats, compressed WAV, frames that do not follow each other,
two headers, a container in disguise) has no length here: the call is then not bounded by it.

WAV: Microsoft's "Multimedia Programming Interface and Data Specifications" 1.0; MP3: ISO/IEC 11172-3 and 13818-3.
"""

from __future__ import annotations

import binascii
import struct
from io import BytesIO
from typing import Any

_BLOCK = 65536
_MOST_CHUNKS = 32  # before the sound
_MOST_FRAMES = 150_000  # about an hour; walking more would hold every stream up


# What a request can call a recording: a format, a media type, the extension of a file name. Decoders may believe it
# rather than the bytes: a WAV file that is declared as 8-bit PCM of 8 kHz lasts much longer. So a recording has a
# length only where each name that it is given means the format of its bytes, or means no format at all.
_NAMES = {
    "wav": frozenset({"wav", "wave", "audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}),
    "mp3": frozenset({"mp3", "mpga", "audio/mp3", "audio/x-mp3", "audio/mpeg", "audio/mpeg3"}),
}
_NO_FORMAT = frozenset({"", "bin", "application/octet-stream"})


def extension(filename: str) -> str:
    """What the name of a file says of its format; ``""``: nothing."""
    _, dot, last = filename.rpartition(".")
    return last if dot else ""


def of_base64(data: str, start: int = 0, *declared: str) -> int | None:
    """Whole seconds, rounded up, of a recording in base64 from character ``start`` on; ``None`` where it is unsure.

    ``declared``: what the request calls it.
    """
    try:
        decoded = from_base64(data[start:])
    except ValueError:
        return None
    return of_file(BytesIO(decoded), len(decoded), *declared)


def from_base64(data: str) -> bytes:
    """Base64 in either alphabet (Google's SDK uses that of URLs), strictly: readers differ in what lax base64 means.

    Raises:
        ValueError: it is not well-formed.
    """
    return binascii.a2b_base64(data.replace("-", "+").replace("_", "/"), strict_mode=True)


def of_file(file: Any, size: int, *declared: str) -> int | None:
    """Whole seconds, rounded up, of an open file of ``size`` bytes; it is at position 0 before and afterwards.

    ``declared``: what the request calls it.
    """
    if file is None:
        return None
    try:
        file.seek(0)
        head = file.read(_BLOCK)
        is_wav = head[:4] == b"RIFF"
        if not {name.lower() for name in declared} <= _NAMES["wav" if is_wav else "mp3"] | _NO_FORMAT:
            return None
        return _wav(head, size) if is_wav else _mp3(file, size, _after_tag(head))
    except (struct.error, OSError, ValueError):
        return None
    finally:
        file.seek(0)


# WAV


def _wav(head: bytes, size: int) -> int | None:
    """All bytes from the sound on, at the rate of its only format, whatever its chunks say of their sizes."""
    claimed, form = struct.unpack_from("<I4s", head, 4)
    if form != b"WAVE" or not _fits(claimed, size - 8):
        return None
    at, bytes_a_second = 12, 0
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            sure = bytes_a_second and _fits(length, size - at)
            return -(-(size - at) // bytes_a_second) if sure else None
        if name == b"fmt ":
            rate = _pcm(head[at : at + length])
            if bytes_a_second or rate is None:
                return None
            bytes_a_second = rate
        at += length + length % 2
    return None


def _fits(claimed: int, there: int) -> bool:
    """Whether a size can be true; streams that do not know theirs say the highest number there is, or none."""
    return claimed <= there or claimed >= 0x7FFFFFFF - 1024


def _pcm(header: bytes) -> int | None:
    """Bytes a second of uncompressed sound; ``None`` where the header is not of one mind about it."""
    tag, channels, rate, bytes_a_second, block, bits = struct.unpack_from("<HHIIHH", header)
    if tag == 0xFFFE:  # extensible: the tag is the beginning of the subformat
        valid, tag = struct.unpack_from("<H4xH", header, 18)
        if valid != bits:  # readers differ in which of the two is a sample's size
            return None
    sane = tag in (1, 3) and 1 <= channels <= 8 and 1000 <= rate <= 384_000 and bits in (8, 16, 24, 32, 64)
    agreed = block * 8 == channels * bits and bytes_a_second == rate * block
    return bytes_a_second if sane and agreed else None


# MP3

_HEADER = 64  # bytes of a frame that hold its header, side information and the beginning of a Xing header
_TICKS = 7_056_000  # a second, in parts that every sample rate divides
_KBITS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the header's version bits


def _frames() -> dict[int, tuple[int, int]]:
    """Length in bytes and duration in ticks of a frame by the first three bytes of its header; no free format."""
    found = {}
    for version, rates in _RATES.items():
        first = version == 3
        for unprotected in (0, 1):
            second = 0xE0 | version << 3 | 0b01 << 1 | unprotected  # layer III
            for place, kbits in enumerate(_KBITS[1 if first else 2], start=1):
                for which, rate in enumerate(rates):
                    for padding in (0, 1):
                        length = (144 if first else 72) * kbits * 1000 // rate + padding
                        ticks = (1152 if first else 576) * _TICKS // rate
                        for private in (0, 1):
                            third = place << 4 | which << 2 | padding << 1 | private
                            found[0xFF0000 | second << 8 | third] = (length, ticks)
    return found


_FRAMES = _frames()


def _after_tag(head: bytes) -> int:
    """Where the sound begins: after an ID3v2 tag (id3.org, "ID3v2.4.0 structure" 3.1), if there is one."""
    if head[:3] != b"ID3":
        return 0
    version, flags, size = struct.unpack_from("<BxB4s", head, 3)
    if not 2 <= version <= 4 or max(size) > 0x7F:
        raise ValueError("no ID3v2 tag")
    length = size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]
    return 10 + length + (10 if flags & 0x10 else 0)


def _mp3(file: Any, size: int, start: int) -> int | None:
    """Every frame by its own header, one right behind the other up to the end (or an ID3v1 tag there)."""
    at, ticks, frames, claimed, base, block = start, 0, 0, 0, start, b""
    while size - at >= 4:
        place = at - base
        if not 0 <= place <= len(block) - _HEADER:
            file.seek(at)
            base, place, block = at, 0, file.read(_BLOCK)
        frame = _FRAMES.get(int.from_bytes(block[place : place + 3], "big"))
        if frame is None:
            if size - at == 128 and block[place : place + 3] == b"TAG":
                break
            return None
        if not frames:
            claimed = _claimed(block[place : place + _HEADER])
            _refuse_another_container(block)
        at += frame[0]
        ticks += frame[1]
        frames += 1
        if frames > _MOST_FRAMES:
            return None
    return -(-ticks // _TICKS) if frames > 0 and claimed <= frames else None


def _refuse_another_container(head: bytes) -> None:
    """Frames may be a wrapping: ffmpeg takes a file with an MPEG stream in their contents for that stream.

    Raises:
        ValueError: packets of a transport stream, or packs of a program stream.
    """
    for length in (188, 192, 204):
        enough = max(4, len(head) // length * 2 // 5)
        if any(head[start::length].count(b"G") >= enough for start in range(length)):
            raise ValueError("this may be a transport stream")
    if head.count(b"\0\0\1\xba") > 2:
        raise ValueError("this may be a program stream")


def _claimed(first: bytes) -> int:
    """The number of frames that a Xing header in the first one gives: a player may believe it. 0 without one.

    Raises:
        ValueError: a box of MP4 or QuickTime has its name where a frame has its side information.
    """
    if first[4:8].isalnum():
        raise ValueError("this may be another container")
    for name in (b"Xing", b"Info"):
        at = first.find(name)
        if at >= 0 and len(first) >= at + 12 and first[at + 7] & 1:
            return int.from_bytes(first[at + 8 : at + 12], "big")
    return 0
