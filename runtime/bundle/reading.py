"""Reading a bundle: nothing is used that has not been verified.

The trust order: `bundle.sha256` vouches for `bundle.json`; `bundle.json` lists every other file with size and
sha256. Files are opened without following links, and `LoadedBundle.read` hashes the very bytes that it
returns, so that a file changed after `load_bundle` is noticed, not run. A graph too large for that, or with
weights in files of their own, is opened by the backend itself, by its path: `check_unchanged` then compares
the identity of its files (inode, size, times) with those that were hashed. Who writes into a file while the
backend has it mapped is not noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from .errors import BundleError
from .schema import FORMAT, VERSION, Bundle, File, Graph

JSON_NAME = "bundle.json"
SUM_NAME = "bundle.sha256"
RESERVED = (JSON_NAME, SUM_NAME)
MAX_JSON_BYTES = 4 << 20
MAX_TOTAL_BYTES = 64 << 30
MAX_ENTRIES = 1024
"""Most files and folders that are looked at before a folder is refused as no bundle."""
MAX_DEPTH = 32
MAX_IN_MEMORY_BYTES = 1_500_000_000
"""Graphs up to this size are given to the backend as verified bytes (an ONNX file ends at 2 GB anyway)."""
_BLOCK = 1 << 20

Identity = tuple[int, ...]
"""Device, inode, size and times of a file: another one means that it may have other contents."""


@dataclass(frozen=True)
class LoadedBundle:
    """A verified bundle. `spec` is its contents, `sha256` (of bundle.json) its identity for reports."""

    path: Path
    spec: Bundle
    sha256: str
    identities: Mapping[str, Identity] = field(default_factory=dict)
    """Listed file -> what it was when it was hashed."""

    def read(self, relative: str) -> bytes:
        """The bytes of a listed file; the bytes returned are the bytes hashed. Raises `BundleError`."""
        entry = self._entry(relative)
        with _open(self.path, relative) as file:
            data = file.read(entry.bytes + 1)
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise _damaged(self.path, relative, "has changed since the bundle was loaded")
        return data

    def graph(self, name: str) -> bytes | Path:
        """What a backend loads: the verified bytes of a graph, or its path where it has data files or is too
        large to hold twice; then `check_unchanged` must follow."""
        graph = self._graph(name)
        if graph.data or self._entry(graph.file).bytes > MAX_IN_MEMORY_BYTES:
            self.check_unchanged(name)
            return self.path / graph.file
        return self.read(graph.file)

    def check_unchanged(self, name: str) -> None:
        """Raises `BundleError` unless all files of a graph are those that were hashed."""
        graph = self._graph(name)
        for relative in (graph.file, *graph.data):
            with _open(self.path, relative) as file:
                if _identity(file) != self.identities.get(relative):
                    raise _damaged(self.path, relative, "has changed since the bundle was loaded")

    def _graph(self, name: str) -> Graph:
        if name not in self.spec.graphs:
            raise BundleError(
                f"bundle {self.path} has no graph {name!r}; it has {', '.join(self.spec.graphs)}"
            )
        return self.spec.graphs[name]

    def _entry(self, relative: str) -> File:
        for entry in self.spec.files:
            if entry.path == relative:
                return entry
        raise BundleError(f"bundle {self.path} does not list the file {relative!r}, so it must not be used")


def load_bundle(path: Path | str) -> LoadedBundle:
    """Reads a bundle and verifies all of it. Raises `BundleError` (one line) unless it is intact."""
    path = Path(path)
    if not path.is_dir():
        what = "is a file, not a bundle folder" if path.exists() else "does not exist"
        raise BundleError(f"bundle {path} {what}; expected the folder NAME.vla that vla-export wrote")
    raw, digest = _read_json(path)
    try:
        spec = parse_spec(raw)
    except BundleError as error:
        raise BundleError(f"bundle {path}: {error}") from error
    _check_listing(path, spec)
    return LoadedBundle(path, spec, digest, {entry.path: _verify(path, entry) for entry in spec.files})


def parse_spec(raw: bytes) -> Bundle:
    """The contents of a `bundle.json`. Raises `BundleError` naming the key at fault."""
    data = _parse(raw)
    found = {key: data.get(key) for key in ("format", "version")}
    if found["format"] != FORMAT:
        raise BundleError(f"{JSON_NAME} has format {found['format']!r}, not {FORMAT!r}: this is no bundle")
    if type(found["version"]) is not int or found["version"] != VERSION:
        raise BundleError(
            f"bundle version {found['version']!r} is not version {VERSION}, which this Holdfast reads; "
            "export the checkpoint again with this version, or install the Holdfast that made it"
        )
    try:
        return Bundle.model_validate(data)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc'])) or JSON_NAME}: {e['msg']}" for e in error.errors()]
        more = f" (and {len(rows) - 5} more)" if len(rows) > 5 else ""
        raise BundleError(
            f"{JSON_NAME} is not valid: {'; '.join(rows[:5])}{more}; export it again"
        ) from error


def sum_line(digest: str) -> bytes:
    """The contents of `bundle.sha256`, in the format of sha256sum."""
    return f"{digest}  {JSON_NAME}\n".encode()


def _read_json(path: Path) -> tuple[bytes, str]:
    with _open(path, JSON_NAME) as file:
        raw = file.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise BundleError(
            f"bundle {path}: {JSON_NAME} is larger than {MAX_JSON_BYTES >> 20} MiB: this is no bundle"
        )
    digest = hashlib.sha256(raw).hexdigest()
    with _open(path, SUM_NAME) as file:
        line = file.read(256)
    if line != sum_line(digest):
        raise _damaged(path, JSON_NAME, f"does not have the sha256 that {SUM_NAME} states")
    return raw, digest


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_values(data, 0)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BundleError(f"{JSON_NAME} cannot be parsed: {reason}; export it again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{JSON_NAME} is a {type(data).__name__}, expected an object; export it again")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _check_values(value: object, depth: int) -> None:
    """Refuses what JSON can say but a bundle must not: too deep, not finite (1e999), lone surrogates."""
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, depth)
            _check_values(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, depth + 1)
    elif isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")


def _check_listing(path: Path, spec: Bundle) -> None:
    """Refuses reserved names, absurd totals, and any file, link or folder that is not listed."""
    listed = {entry.path for entry in spec.files}
    if reserved := listed.intersection(RESERVED):
        raise BundleError(f"bundle {path}: `files` lists {min(reserved)}, which cannot vouch for itself")
    total = sum(entry.bytes for entry in spec.files)
    if total > MAX_TOTAL_BYTES:
        raise BundleError(f"bundle {path} claims {total} bytes, over the {MAX_TOTAL_BYTES >> 30} GiB allowed")
    allowed = listed | set(RESERVED)
    folders = {name.split("/")[0] for name in listed if "/" in name}
    for count, (relative, entry) in enumerate(_entries(path)):
        if count >= MAX_ENTRIES:
            raise BundleError(f"{path} holds more than {MAX_ENTRIES} files: this is no bundle")
        if entry.is_symlink():
            raise BundleError(f"bundle {path}: {relative} is a link; a bundle holds plain files only")
        if relative not in (folders if entry.is_dir(follow_symlinks=False) else allowed):
            raise BundleError(
                f"bundle {path}: {relative} is not listed in {JSON_NAME}; remove it or export again"
            )


def _entries(path: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(path) as outer:
            for entry in outer:
                yield entry.name, entry
                if entry.is_dir(follow_symlinks=False):
                    with os.scandir(entry.path) as inner:
                        for below in inner:
                            yield f"{entry.name}/{below.name}", below
    except OSError as error:
        raise BundleError(f"bundle {path} cannot be read: {error.strerror}; check its permissions") from error


def _verify(path: Path, entry: File) -> Identity:
    digest = hashlib.sha256()
    with _open(path, entry.path) as file:
        identity = _identity(file)
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise _damaged(path, entry.path, f"has {size} bytes, {JSON_NAME} lists {entry.bytes}")
        while block := file.read(_BLOCK):
            digest.update(block)
        if _identity(file) != identity:
            raise _damaged(path, entry.path, "changed while it was read")
    if digest.hexdigest() != entry.sha256:
        raise _damaged(path, entry.path, f"does not have the sha256 that {JSON_NAME} lists")
    return identity


def _identity(file: BinaryIO) -> Identity:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _open(path: Path, relative: str) -> Iterator[BinaryIO]:
    """Opens a file of the bundle without following a link in its name; refuses all but regular files.

    Relative to an open folder, so that a folder exchanged for a link in between is refused too.
    """
    folder_name, _, name = relative.rpartition("/")
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if folder_name:
                outer, folder = folder, os.open(
                    folder_name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder
                )  # fmt: skip
                os.close(outer)
            # O_NONBLOCK: a named pipe must be refused, not waited for.
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BundleError(f"bundle {path}: {relative} is not a plain file")
            yield file
    except OSError as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        )
        raise _damaged(path, relative, reason) from error


def _damaged(path: Path, relative: str, what: str) -> BundleError:
    return BundleError(f"bundle {path} is damaged: {relative} {what}; copy it again or export it again")
