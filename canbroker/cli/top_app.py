"""The application of ``canbroker top``: its screens, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from canbroker.cli.top_channels import Channels
from canbroker.cli.top_chooser import ChannelChooser
from canbroker.cli.top_screen import ChannelScreen, in_thread
from canbroker.cli.top_session import Session
from canbroker.system.service import ending_signals


class TopApp(App[None]):
    """Shows a channel; a list of channels if there is none yet, or by a key."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("o", "choose", show=False),
    ]

    def __init__(self, channels: Channels, session: Session | None) -> None:
        """``session``: of the channel that is shown first; ``None``: a person chooses it."""
        super().__init__(ansi_color=True)
        self._channels = channels
        self._shown: ChannelScreen | None = None
        self._first = session

    async def on_mount(self) -> None:
        self._end_at_signals()
        if self._first is not None:
            await self.show(self._first)
        else:
            self.action_choose()

    def _end_at_signals(self) -> None:
        """Leaves the terminal as it was, also when somebody else ends us."""
        loop = asyncio.get_running_loop()

        def end(number: int, _: object) -> None:
            if not os.isatty(0):  # the terminal is gone, and Textual would wait for it for ever
                os._exit(128 + number)
            loop.call_soon_threadsafe(self.exit, None, 128 + number)

        for number in ending_signals():
            signal.signal(number, end)

    async def show(self, session: Session) -> None:
        """Shows another channel, and closes the one that was shown."""
        former, self._shown = self._shown, ChannelScreen(session)
        if isinstance(self.screen, ChannelChooser):
            await self.pop_screen()
        if former is None:
            await self.push_screen(self._shown)
            return
        await self.switch_screen(self._shown)
        in_thread(lambda: self._channels.leave(former.session))

    def action_choose(self) -> None:
        if not isinstance(self.screen, ChannelChooser):
            self.push_screen(ChannelChooser(self._channels))

    def action_leave_chooser(self) -> None:
        """Goes back to the channel that was shown; without one, there is nothing to go back to."""
        if self._shown is None:
            self.exit()
        else:
            self.pop_screen()
