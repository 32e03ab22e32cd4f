"""Files → the parts of a message. What a file is, its first bytes say; its name says nothing.

Images, PDF, WAV and MP3 go as they are, text as text under its name. Anything else, and whatever is too large or cannot
be read, is a `UsageError` before anything is sent. `-` is standard input.
"""

from __future__ import annotations

import base64
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.canon.events import Text
from penstock.canon.request import Audio, File, Image
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.canon.request import ContentPart

#: No provider takes more in one request (2026-11), and base64 makes a third more of it.
MAX_BYTES = 20 * 1024 * 1024
STDIN = "-"


def attachments(files: Sequence[str], images: Sequence[str]) -> list[ContentPart]:
    """Those of `--image` and of `--file`, in that order."""
    if (*files, *images).count(STDIN) > 1:
        raise UsageError("Standard input is read once.", fix="Write `-` for one of them.")
    return [*(_image(name) for name in images), *(_file(name) for name in files)]


def piped() -> str | None:
    """What stands before the command in a pipe or behind `<`; None where there is no such thing, or nothing in it."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or none
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return None
    return stdin_text() or None


def stdin_text() -> str:
    data = _read(STDIN)
    text = _text(data)
    if text is None:
        raise UsageError("Standard input is no text.", fix="Attach it: --file -.")
    return text


def named(name: str, text: str) -> Text:
    """A text and whose it is, in the form that every dialect can say."""
    line_end = "" if text.endswith("\n") else "\n"
    return Text(f'<file name="{name}">\n{text}{line_end}</file>\n')


def _image(name: str) -> Image:
    if name.startswith(("http://", "https://")):
        return Image(url=name)
    data = _read(name)
    kind = _image_type(data)
    if kind is None:
        raise UsageError(f"{_shown(name)} is no PNG, JPEG, GIF or WebP.", fix="Convert it, or attach it with --file.")
    return Image(data=_base64(data), media_type=kind)


def _file(name: str) -> ContentPart:
    data = _read(name)
    if (kind := _image_type(data)) is not None:
        return Image(data=_base64(data), media_type=kind)
    if data.startswith(b"%PDF-"):
        return File(data=_base64(data), media_type="application/pdf", name=Path(name).name if name != STDIN else "file")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return Audio(_base64(data), "wav")
    if data.startswith(b"ID3") or data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return Audio(_base64(data), "mp3")
    text = _text(data)
    if text is None:
        raise UsageError(f"{_shown(name)} is neither text nor an image, a PDF, WAV or MP3.", fix="Convert it first.")
    if not text.strip():
        raise UsageError(f"{_shown(name)} is empty.", fix="Leave it out.")
    return named(_shown(name), text)


def _read(name: str) -> bytes:
    try:
        if name == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"Cannot read {_shown(name)}: {error.strerror or error}.", fix="Check its name.") from error
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{_shown(name)} is larger than {MAX_BYTES // 2**20} MiB, which no model takes.", fix="Attach a part of it."
        )
    return data


def _shown(name: str) -> str:
    return "Standard input" if name == STDIN else name


def _image_type(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def _text(data: bytes) -> str | None:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
