"""When a process may open no more files: what to say then.

Each connection, listening socket and file takes a descriptor; the usual limit is 1,024 a process. What fails for that
reason is not the fault of a port, an address or a folder, so the usual advice would mislead.
"""

from __future__ import annotations

import errno
import resource
from typing import Final

OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def remedy(problem: BaseException, otherwise: str) -> str:
    """What to do about a problem: `otherwise`, unless there are no file descriptors left."""
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"raise the limit of open files, which is {limit} for this process (ulimit -n), or have it close some"
    if number == errno.ENFILE:
        return "raise the system's limit of open files (fs.file-max), or have programs close some"
    return otherwise
