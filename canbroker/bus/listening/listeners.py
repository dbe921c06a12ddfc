"""Listeners for a :class:`canbroker.Notifier`, with the names of python-can."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from canbroker.model.message import Message


class Listener(ABC):
    """Called with each message. A plain function is a listener, too."""

    @abstractmethod
    def on_message_received(self, msg: Message) -> object:
        """Handles a message. Runs on the Notifier's thread, or in its event loop.

        It may return a coroutine, which needs a Notifier with a loop.
        """

    def __call__(self, msg: Message) -> object:
        return self.on_message_received(msg)

    def on_error(self, exc: Exception) -> None:
        """Handles an exception of a listener or a bus of the Notifier.

        The default raises :class:`NotImplementedError`. If all listeners do so, the Notifier logs
        the exception.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Finishes its work: no message follows until a Notifier starts again."""
        return


class BufferedReader(Listener):
    """Keeps messages until they are fetched, without a limit. Any thread.

    ``buffer`` is the queue; ``is_stopped`` whether :meth:`stop` was called.
    """

    def __init__(self) -> None:
        self.buffer: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.is_stopped = False

    def on_message_received(self, msg: Message) -> None:
        """Keeps a message.

        :raises BufferError: the reader is stopped.
        """
        if self.is_stopped:
            raise BufferError("the reader is stopped, and takes no more messages")
        self.buffer.put(msg)

    def get_message(self, timeout: float | None = 0.5) -> Message | None:
        """The oldest message; ``None`` if none arrives within ``timeout`` seconds.

        Does not wait once the reader is stopped. ``None`` waits for ever.
        """
        if self.is_stopped:
            timeout = 0
        elif timeout is not None:
            timeout = max(0, timeout)
        try:
            return self.buffer.get(timeout=timeout)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """Accepts no more messages; those that it has can still be fetched."""
        self.is_stopped = True

    def start(self) -> None:
        """Accepts messages again. Ours: a Notifier that starts again calls it."""
        self.is_stopped = False


class AsyncBufferedReader(Listener):
    """Keeps messages for tasks of an event loop, without a limit: ``async for msg in reader``.

    Everything here runs in that loop, so the Notifier needs it as its ``loop``. A task that is
    cancelled while it waits has not removed a message.
    """

    def __init__(self, loop: object = None) -> None:
        """``loop`` has no effect; scripts for old versions pass one."""
        if loop is not None:
            warnings.warn("loop has no effect", DeprecationWarning, stacklevel=2)
        self.buffer: asyncio.Queue[Message] = asyncio.Queue()
        self.is_stopped = False
        self._changed = asyncio.Event()

    def on_message_received(self, msg: Message) -> None:
        """Keeps a message.

        :raises RuntimeError: not called in an event loop, so no task would be woken.
        :raises BufferError: the reader is stopped.
        """
        asyncio.get_running_loop()
        if self.is_stopped:
            raise BufferError("the reader is stopped, and takes no more messages")
        self.buffer.put_nowait(msg)
        self._changed.set()

    async def get_message(self) -> Message:
        """Waits for the oldest message.

        :raises BufferError: the reader is stopped and has no messages left.
        """
        while self.buffer.empty():
            if self.is_stopped:
                raise BufferError("the reader is stopped, and has no more messages")
            self._changed.clear()
            await self._changed.wait()
        return self.buffer.get_nowait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.get_message()
        except BufferError:
            raise StopAsyncIteration from None

    def stop(self) -> None:
        """Accepts no more messages; iteration ends with the last one that it has."""
        self.is_stopped = True
        self._changed.set()

    def start(self) -> None:
        """Accepts messages again. Ours: a Notifier that starts again calls it."""
        self.is_stopped = False


class Sender(Protocol):
    """A bus that messages are sent to."""

    def send(self, msg: Any, timeout: float | None = None) -> None: ...


class RedirectReader(Listener):
    """Sends each message to another bus, and waits while its transmit queue is full."""

    def __init__(self, bus: Sender) -> None:
        self.bus = bus

    def on_message_received(self, msg: Message) -> None:
        self.bus.send(msg)


class Printer(Listener):
    """Writes the text of each message as a line.

    ``write_to_file``: whether they go anywhere except standard output.
    """

    def __init__(self, file: str | os.PathLike[str] | TextIO | None = None, append: bool = False):
        """Opens ``file`` if it is a path.

        :param file: a path or an open text file; ``None``: standard output.
        :param append: keeps the contents of the file instead of emptying it.
        :raises OSError: it cannot be opened.
        """
        self._opened: TextIO | None = None
        if isinstance(file, str | os.PathLike):
            self._opened = Path(file).open("a" if append else "w", encoding="utf-8")  # noqa: SIM115
            file = self._opened
        self._given = file

    @property
    def file(self) -> TextIO:
        # Standard output may be replaced at any time, by a test for one.
        return sys.stdout if self._given is None else self._given

    @property
    def write_to_file(self) -> bool:
        return self.file is not sys.stdout

    def on_message_received(self, msg: Message) -> None:
        self.file.write(f"{msg}\n")

    def file_size(self) -> int:
        """Size of the file in bytes; 0 for standard output."""
        return self.file.tell() if self.write_to_file else 0

    def stop(self) -> None:
        """Closes a file that was opened here, and flushes one that was given."""
        if self._opened is not None:
            self._opened.close()
        elif not self.file.closed:
            self.file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
