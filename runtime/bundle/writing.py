"""Writing a bundle: all of it or nothing of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BundleError
from .reading import JSON_NAME, MAX_JSON_BYTES, RESERVED, SUM_NAME, load_bundle, parse_spec, sum_line
from .schema import FORMAT, VERSION

SUFFIX = ".vla"
_BLOCK = 1 << 20


def write_bundle(
    folder: Path, spec: Mapping[str, Any], files: Mapping[str, bytes | Path], *, replace: bool = False
) -> Path:
    """Writes `folder` (by convention `NAME.vla`) atomically and returns it.

    `spec` holds the JSON values of `schema.Bundle` without `format`, `version` and `files`, which are made
    here; `files` maps relative paths (at most one folder deep) to contents, or to a file that has them. The
    bundle is written to a hidden folder beside the target, flushed to disk, read back through `load_bundle`,
    and renamed. On any error, Ctrl-C included, nothing is left. Raises `BundleError` when `folder` exists
    (with `replace`: when it is no bundle), when the contents do not make a valid bundle, or when the disk
    refuses.
    """
    raw = _json(spec, files)
    check_target(folder, replace=replace)
    hidden: Path | None = None
    try:
        hidden = _hidden_folder(folder)
        fresh, old = hidden / "new", hidden / "old"
        fresh.mkdir()
        everything: dict[str, bytes | Path] = {
            **files,
            JSON_NAME: raw,
            SUM_NAME: sum_line(hashlib.sha256(raw).hexdigest()),
        }
        for name in sorted({name.split("/")[0] for name in files if "/" in name}):
            (fresh / name).mkdir()
        for name, data in everything.items():
            _write(fresh / name, data)
        _flush_folders(fresh)
        load_bundle(fresh)
        if replace and folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _flush(folder.parent)
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        if hidden is not None:
            if (hidden / "old").exists() and not folder.exists():
                # Whatever came between the two renames, Ctrl-C too: the old bundle is still the only one.
                (hidden / "old").rename(folder)
            shutil.rmtree(hidden, ignore_errors=True)
    return folder


def check_target(folder: Path, *, replace: bool) -> None:
    """Raises `BundleError` unless `folder` may be written; done before the work as well as after it."""
    if not folder.parent.is_dir():
        raise BundleError(f"the folder {folder.parent} does not exist; create it or choose another --output")
    try:
        # Tried, not asked: modes do not tell about read-only file systems, nor about root.
        _hidden_folder(folder).rmdir()
    except OSError as error:
        raise _refused(folder, error) from error
    if folder.is_symlink():
        raise BundleError(f"{folder} is a link; a bundle is a folder of its own, choose another --output")
    if not folder.exists():
        return
    if not replace:
        raise BundleError(f"{folder} exists already; pass --force to replace it, or choose another --output")
    if not (folder / JSON_NAME).is_file():
        raise BundleError(f"{folder} exists and is no bundle, so it is not replaced; choose another --output")


def _hidden_folder(folder: Path) -> Path:
    """A new empty folder beside `folder`, on the same file system."""
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))


def _refused(folder: Path, error: OSError) -> BundleError:
    return BundleError(
        f"bundle {folder} cannot be written: {error.strerror}; check the disk's space and permissions, "
        "or choose another --output"
    )


def _json(spec: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> bytes:
    if reserved := set(files).intersection(RESERVED):
        raise BundleError(f"{min(reserved)} is made by write_bundle and cannot be given to it")
    listing = [_listed(name, data) for name, data in sorted(files.items())]
    whole = {"format": FORMAT, "version": VERSION, **spec, "files": listing}
    try:
        raw = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"the contents of {JSON_NAME} are not plain finite JSON values: {error}") from error
    if len(raw) > MAX_JSON_BYTES:
        raise BundleError(f"{JSON_NAME} would have {len(raw)} bytes, over the {MAX_JSON_BYTES} allowed")
    parse_spec(raw)
    return raw


def _listed(name: str, data: bytes | Path) -> dict[str, Any]:
    if isinstance(data, bytes):
        return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest, size = hashlib.sha256(), 0
    try:
        with data.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise BundleError(f"{data}, which is to become {name}, cannot be read: {error.strerror}") from error
    return {"path": name, "bytes": size, "sha256": digest.hexdigest()}


def _write(path: Path, data: bytes | Path) -> None:
    with path.open("xb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            with data.open("rb") as source:
                shutil.copyfileobj(source, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())


def _flush_folders(folder: Path) -> None:
    for path in [*(p for p in folder.iterdir() if p.is_dir()), folder]:
        _flush(path)


def _flush(folder: Path) -> None:
    """Makes the names in a folder durable (fsync of a directory, as POSIX asks for after a rename)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
