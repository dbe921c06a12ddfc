"""A disk that is full, for this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.systems import skip_on_windows


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can have more bytes than this; Python ignores the signal that says so."""
    skip_on_windows("limit of the size of files")
    import resource  # noqa: PLC0415 - POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
