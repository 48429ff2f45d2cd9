"""Where a holder keeps snapshots: a folder with one file a borrower, the header in front of the box.

A file is written whole under another name first, so that what is there is always one snapshot, the old or the new.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import BadMessage, UsageError
from ..identity import PeerId, verify
from ..private_file import replace_private
from .form import MAX_BOX_BYTES, MAX_HEADER_BYTES, Header, Snapshot, read_header

_SUFFIX: Final = ".snapshot"
_LENGTH_BYTES: Final = 2
_MOST_FILES: Final = 4096


class SnapshotFiles:
    """Those in one folder, which is made when it is missing. Its methods wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def headers(self) -> list[Header]:
        """Of all that is there, oldest first; what is no whole snapshot is deleted."""
        found = list[tuple[float, Header]]()
        for path in sorted(self._folder.iterdir())[:_MOST_FILES]:
            header = None
            if path.suffix == _SUFFIX:
                header = self._header(path)
            if header is None:
                path.unlink(missing_ok=True)
            else:
                found.append((path.stat().st_mtime, header))
        return [header for _, header in sorted(found, key=lambda each: each[0])]

    def write(self, snapshot: Snapshot) -> None:
        """Keep one, in place of its borrower's former. Raises OSError."""
        envelope = snapshot.header.envelope
        length = len(envelope).to_bytes(_LENGTH_BYTES)
        replace_private(self._path(snapshot.header.borrower), length, envelope, snapshot.box)

    def read(self, header: Header) -> bytes:
        """The box. Raises OSError when it is not there."""
        with open(self._path(header.borrower), "rb") as file:
            file.seek(_LENGTH_BYTES + len(header.envelope))
            return file.read(header.size)

    def drop(self, borrower: PeerId) -> None:
        """Delete a borrower's."""
        self._path(borrower).unlink(missing_ok=True)

    def _path(self, borrower: PeerId) -> Path:
        return self._folder / f"{borrower}{_SUFFIX}"

    def _header(self, path: Path) -> Header | None:
        try:
            borrower = PeerId.from_text(path.stem)
            size = path.stat().st_size
            if size > MAX_BOX_BYTES + 2 * MAX_HEADER_BYTES:
                return None
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(_LENGTH_BYTES))
                header = read_header(borrower, file.read(min(length, MAX_HEADER_BYTES)), verify)
        except (OSError, UsageError, BadMessage):
            return None
        return header if size == _LENGTH_BYTES + length + header.size else None
