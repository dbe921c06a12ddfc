"""The list of channels of ``canbroker top``, of which a person chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from canbroker.cli.tables import adapter, bitrate, condition
from canbroker.cli.top_channels import Channels
from canbroker.cli.top_screen import in_thread
from canbroker.cli.top_session import Session
from canbroker.errors import CanError
from canbroker.model.wording import printable
from canbroker.wire.status import ChannelStatus

if TYPE_CHECKING:
    from canbroker.cli.top_app import TopApp

_PERIOD_S: Final = 0.25

#: The broker is asked less often.
_ASK_EVERY: Final = 4


class ChannelChooser(Screen[None]):
    """The channels of the broker, as they are now."""

    CSS = """
    ChannelChooser { layout: vertical; }
    #title { text-style: bold; }
    #keys { color: ansi_bright_black; }
    #problem { color: ansi_red; height: auto; }
    OptionList { height: 1fr; border: none; padding: 0; background: ansi_default; }
    OptionList:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.leave_chooser", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("j", "cursor_down", show=False),
    ]

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self._channels = channels
        self._listed: Sequence[ChannelStatus] = ()
        self._no_list = ""  # why there is none
        self._problem = ""  # why a channel was not opened
        self._opening = ""  # the name of the channel that is being opened
        self._opened: Session | None = None
        self._is_left = False
        self._steps = 0

    def compose(self) -> ComposeResult:
        yield Static("channels", id="title")
        yield OptionList()
        yield Static(id="problem")
        yield Static("Enter open  ↑ ↓ move  Esc back  q quit", id="keys")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self.set_interval(_PERIOD_S, self.step)
        self.step()

    def on_unmount(self) -> None:
        self._is_left = True
        in_thread(self._forget)

    def step(self) -> None:
        """Shows what the threads have found out."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self.app.call_later(cast("TopApp", self.app).show, opened)  # which removes this screen
            return
        if self._steps % _ASK_EVERY == 0:
            in_thread(self._list)
        self._steps += 1
        opening = f"opening {self._opening} …" if self._opening else ""
        note = opening or self._problem or self._no_list
        self.query_one("#problem", Static).update(Text(printable(note)))
        self._draw()

    def _draw(self) -> None:
        """The channels; the chosen line stays at its channel."""
        options = self.query_one(OptionList)
        texts = [_line(each)[: self.size.width] for each in self._listed]
        if texts == [str(each.prompt) for each in options.options]:
            return
        chosen = options.highlighted_option
        options.clear_options()
        names = [each.name for each in self._listed]
        options.add_options(
            Option(Text(text, no_wrap=True), name) for text, name in zip(texts, names, strict=True)
        )
        is_there = chosen is not None and chosen.id in names
        options.highlighted = names.index(str(chosen.id)) if chosen and is_there else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if not self._opening:
            self._opening, self._problem = str(event.option_id), ""
            in_thread(self._open)

    def action_cursor_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()

    def action_cursor_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    # ------------------------------------------------------------------------------- in threads

    def _list(self) -> None:
        try:
            self._listed, self._no_list = self._channels.listed(), ""
        except CanError as error:
            self._listed, self._no_list = (), str(error)

    def _open(self) -> None:
        try:
            self._opened = self._channels.open_listed(self._opening)
        except CanError as error:
            self._problem = str(error)
        finally:
            self._opening = ""
        if self._is_left:
            self._forget()

    def _forget(self) -> None:
        """Closes what was opened after somebody had gone back."""
        if self._opened is not None:
            self._channels.leave(self._opened)


def _line(channel: ChannelStatus) -> str:
    """A channel in one line."""
    word, reason = condition(channel)
    state = channel.state
    load = "-" if state is None or state.load is None else f"{state.load:.0%}"
    cells = f"{channel.name:<16} {adapter(channel):<20} {word:<11} {bitrate(channel):>9} {load:>5}"
    return printable(f"{cells}  {reason}").rstrip()
