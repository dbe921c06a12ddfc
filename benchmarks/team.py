"""Processes that take part in a measurement, and what they send back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

_P = ParamSpec("_P")

#: A peer says nothing for longer than this only when something is broken.
PATIENCE_S = 20.0


class Team:
    """Starts processes, and has them all ended when it is left."""

    def __init__(self) -> None:
        self._members: list[tuple[SpawnProcess, Connection[Any, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process, pipe in self._members:
            process.join(PATIENCE_S if exc is None else 0)
            process.kill()
            process.join()
            pipe.close()

    def start(
        self,
        target: Callable[Concatenate[Connection[Any, Any], _P], None],
        *arguments: _P.args,
        **named: _P.kwargs,
    ) -> None:
        """Starts ``target`` in a process, with the end of a pipe as its first argument."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=target, args=(theirs, *arguments), kwargs=named
        )
        process.start()
        theirs.close()
        self._members.append((process, ours))

    def hear(self, patience_s: float = PATIENCE_S) -> list[Any]:
        """The next thing that each of them sends, in the order in which they were started."""
        return [_next(pipe, patience_s) for _, pipe in self._members]

    def tell(self, value: Any) -> None:
        """Sends something to each of them."""
        for _, pipe in self._members:
            pipe.send(value)


def _next(pipe: Connection[Any, Any], patience_s: float) -> Any:
    if not pipe.poll(patience_s):
        raise TimeoutError(f"a process of the benchmark says nothing for {patience_s:g} s")
    return pipe.recv()
