"""What tells the weights of a model from others.

Best is a digest of every byte, which `kvstore weights-digest MODEL` makes once and keeps. Without it a large file is told by
samples of its bytes, and by what the kernel alone sets: its inode and its time of change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# A file up to this size is read whole: that takes no time worth sparing.
_WHOLE_BYTES_MAX = 16 << 20
_ENDS_BYTES = 1 << 16
_SAMPLE_BYTES = 1 << 14
_SAMPLES = 32
# llama.cpp names the parts of a model so.
_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
# The Hugging Face cache and Ollama's name a file of theirs by its SHA-256.
_HASH_NAME = re.compile(r"(?:sha256-)?([0-9a-f]{64})")


class IdentityUnknownError(ValueError):
    """Something that changes the bytes of the KV cannot be told."""


def weight_files(model: str, revision: str | None = None) -> list[Path]:
    """The weight files of a folder, a file, or a model in the Hugging Face cache; none if they are not there.

    Of a GGUF that was split: all its parts, whichever is given. `kvstore weights-digest` finds them by the same rules.
    """
    path = Path(model)
    if path.is_file():
        part = _PART.fullmatch(path.name)
        if not part:
            return [path]
        names = (f"{part[1]}-{number:05}-of-{part[2]}.gguf" for number in range(1, int(part[2]) + 1))
        return [path.with_name(name) for name in names if path.with_name(name).is_file()] or [path]
    if not path.is_dir():
        try:
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except Exception:  # whatever that library raises, the files are not there
            return []
    found = [
        Path(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(_SUFFIXES)
    ]
    return sorted((file for file in found if file.is_file()), key=lambda file: os.fsencode(file.relative_to(path)))


def files_digest(files: list[Path]) -> bytes:
    """A digest of the name, size and content of every file; of a large one that no digest is kept of, samples.

    Raises IdentityUnknownError where a file is written to meanwhile, and OSError where one cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        real = file.resolve()
        with real.open("rb") as opened:
            before = os.fstat(opened.fileno())
            content = _content(opened, real, before)
            if _mark(os.fstat(opened.fileno())) != _mark(before):
                raise IdentityUnknownError(f"kvstore: {real} was written to while it was read")
        name = os.fsencode(file.name)
        digest.update(b"%s %d %d:%s\n" % (content.encode(), before.st_size, len(name), name))
    return digest.digest()


def _content(opened: BinaryIO, real: Path, state: os.stat_result) -> str:
    if state.st_size <= _WHOLE_BYTES_MAX:
        return _whole(opened)
    kept = _kept(real, state)
    if kept is not None:
        return f"sha256 {kept}"
    named = _HASH_NAME.fullmatch(real.name) if real.parent.name == "blobs" else None
    if named:
        return f"named {named[1]} {_samples(opened, state.st_size)}"
    if not _is_noted_when_changed(state):
        logger.warning(
            "kvstore: the file system of %s does not note when a file is changed; reading it whole. Give the engine the "
            "digest that kvstore weights-digest prints, as weights_digest, to spare that",
            real,
        )
        return _whole(opened)
    return f"sampled {_samples(opened, state.st_size)} {state.st_ino} {state.st_ctime_ns}"


def _mark(state: os.stat_result) -> tuple[int, ...]:
    return state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _is_noted_when_changed(state: os.stat_result) -> bool:
    """False where times are those that an image was made with, or whole seconds: two contents may have equal ones."""
    return state.st_ctime_ns % 1_000_000_000 != 0


def _whole(opened: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := opened.read(1 << 20):
        digest.update(piece)
    return f"sha256 {digest.hexdigest()}"


def _samples(opened: BinaryIO, size: int) -> str:
    """A digest of both ends, and of samples in between at places that depend on the size."""
    places = [(0, _ENDS_BYTES), (size - _ENDS_BYTES, _ENDS_BYTES)]
    for number in range(_SAMPLES):
        word = hashlib.sha256(f"{size} {number}".encode()).digest()
        places.append((int.from_bytes(word[:8], "little") % (size - _SAMPLE_BYTES), _SAMPLE_BYTES))
    digest = hashlib.sha256()
    for place, length in sorted(places):
        opened.seek(place)
        digest.update(opened.read(length))
    return digest.hexdigest()


def _cache_folder() -> Path:
    chosen = os.environ.get("KVSTORE_CACHE")
    if chosen:
        return Path(chosen, "weights")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "kvstore", "weights")


def _kept(real: Path, state: os.stat_result) -> str | None:
    """The SHA-256 that `kvstore weights-digest` has kept, unless the file has changed since."""
    if not _is_noted_when_changed(state):
        return None
    record_file = _cache_folder() / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"
    try:
        with record_file.open("rb") as opened:
            owner = os.fstat(opened.fileno())
            # Who may write it could give one model another's name.
            if owner.st_uid not in (0, os.geteuid()) or owner.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            record = json.load(opened)
        if not isinstance(record, dict):
            return None
        noted = tuple(record[name] for name in ("size", "inode", "modifiedNanoseconds", "changedNanoseconds"))
        is_hash = re.fullmatch("[0-9a-f]{64}", record["sha256"])
        return record["sha256"] if is_hash and noted == _mark(state) and record["path"] == str(real) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
