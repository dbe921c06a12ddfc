"""A channel on the screen of ``canbroker top``, by Textual."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Input, Static

from canbroker.cli.top_rows import Display, Wanted, heading, headline, load_line
from canbroker.cli.top_session import Session
from canbroker.cli.top_table import FrameTable
from canbroker.system import clock

_PERIOD_S: Final = 0.25

#: Clients and tasks are asked for less often.
_ASK_EVERY: Final = 4

_KEYS: Final = "q quit  o open  s sort  / filter  ␣ pause  f freeze  d detail  v clients  t send"
_MORE_KEYS: Final = "  w save  r reverse  c clear  ↑ ↓ PgUp PgDn Home End"


def in_thread(job: Callable[[], object]) -> None:
    """Does something that may wait. ``job`` keeps its result, or what went wrong."""
    threading.Thread(target=job, name="top", daemon=True).start()


class Prompt(Input):
    """A line to type into; Escape leaves it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "screen.leave_prompt", show=False)]


class ChannelScreen(Screen[None]):
    """Rows, the line about the channel above them, details and notes below."""

    CSS = """
    ChannelScreen { layout: vertical; }
    #head, #load, #columns, #note, #keys { height: 1; background: ansi_default; }
    #columns { text-style: bold underline; }
    #detail { height: auto; max-height: 50%; display: none; border-top: solid; }
    #prompt { display: none; height: 1; border: none; padding: 0; }
    #keys { color: ansi_bright_black; }
    FrameTable { background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("s", "sort", show=False),
        Binding("r", "reverse", show=False),
        Binding("space", "pause", show=False),
        Binding("f", "freeze", show=False),
        Binding("d,enter", "detail('signals')", show=False),
        Binding("v", "detail('clients')", show=False),
        Binding("c", "clear", show=False),
        Binding("slash", "ask('filter')", show=False),
        Binding("t", "ask('send')", show=False),
        Binding("w", "ask('save')", show=False),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.shown = Display(session.name_of)
        self._detail = ""  # what the panel shows: "signals", "clients" or nothing
        self._asked = ""  # what the prompt is for
        self._message = ""
        self._steps = 0

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="load")
        yield Static(id="columns")
        yield FrameTable()
        yield Static(id="detail")
        yield Static(id="note")
        yield Prompt(id="prompt", compact=True)
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.set_interval(_PERIOD_S, self.step)
        self.table.focus()
        self.step()

    def on_resize(self, _: Resize) -> None:
        self.draw()

    @property
    def table(self) -> FrameTable:
        return self.query_one(FrameTable)

    def step(self) -> None:
        """Takes what has happened since the last step, and draws it."""
        follower = self.session.follower
        with follower.lock:
            now_ns = clock.monotonic_ns()
            follower.view.table.tick(now_ns)
            self.shown.take(follower.view.table.rows.values(), now_ns)
        if self._detail == "clients" and self._steps % _ASK_EVERY == 0:
            in_thread(self.session.ask)
        self._steps += 1
        self.draw()

    def draw(self) -> None:
        """Draws everything, as it is known."""
        if not self.query(FrameTable):
            return  # at the end the widgets go before the timers
        width = self.size.width
        view, shown = self.session.follower.view, self.shown
        with self.session.follower.lock:
            head, load = headline(view, width), load_line(view.load.samples, width)
            note = view.notes[-1].text if view.notes else ""
        style = "bold red" if view.problem else "bold"
        self._set("head", Text(head, style))
        self._set("load", Text(load))
        names = heading(
            shown.sort,
            is_reversed=shown.is_reversed,
            has_names=self.session.has_names,
        )
        self._set("columns", Text(names[:width]))
        self.table.show(shown.rows)
        self._set("note", Text(" ".join(self._notes(note))[:width], "yellow"))
        self._set("keys", Text((_KEYS + _MORE_KEYS)[:width]))
        self._draw_detail(width)

    def _notes(self, note: str) -> list[str]:
        shown = self.shown
        parts = ["PAUSED"] if shown.is_paused else []
        if shown.wanted.text:
            parts.append(f"[{shown.wanted.text}] {len(shown.rows)} rows")
        return [*parts, self._message or self.session.message or note]

    def _draw_detail(self, width: int) -> None:
        panel = self.query_one("#detail", Static)
        panel.display = bool(self._detail)
        if self._detail == "signals":
            panel.update(Text("\n".join(self.session.describe(self.table.current, width))))
        elif self._detail:
            panel.update(Text("\n".join(self.session.clients_and_tasks(width))))

    def _set(self, name: str, text: Text) -> None:
        text.no_wrap = True
        self.query_one(f"#{name}", Static).update(text)

    # ----------------------------------------------------------------------------------- keys

    def action_move(self, by: int) -> None:
        self.table.move(by)
        self.draw()

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.table.size.height - 1))

    def action_sort(self) -> None:
        self.shown.next_sort()
        self.draw()

    def action_reverse(self) -> None:
        self.shown.is_reversed = not self.shown.is_reversed
        self.shown.arrange()
        self.draw()

    def action_pause(self) -> None:
        self.shown.is_paused = not self.shown.is_paused
        self.draw()

    def action_freeze(self) -> None:
        row = self.table.current
        if row is not None:
            self.shown.freeze(row.key)
            self.draw()

    def action_detail(self, what: str) -> None:
        self._detail = "" if self._detail == what else what
        if self._detail == "clients":
            in_thread(self.session.ask)
        self.draw()

    def action_clear(self) -> None:
        follower = self.session.follower
        with follower.lock:
            follower.view.table.clear()
        self.shown.clear()
        self.draw()

    def action_ask(self, what: str) -> None:
        texts = {
            "filter": "filter: part of an identifier or name, 100-1FF, rx, tx; empty for all",
            "send": "send a frame: 123#DEADBEEF, as canbroker send",
            "save": "save the last 60 s to a file: drive.log, .blf, .asc, .pcapng, …",
        }
        prompt = self.query_one(Prompt)
        self._asked = what
        prompt.placeholder = texts[what]
        prompt.value = self.shown.wanted.text if what == "filter" else ""
        prompt.display = True
        prompt.focus()

    def action_leave_prompt(self) -> None:
        self.query_one(Prompt).display = False
        self.table.focus()
        self.draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        if self._asked == "filter" and event.input.display:
            self.shown.wanted = Wanted(event.value)
            self.shown.arrange()
            self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._message = ""
        session, text = self.session, event.value.strip()
        if self._asked == "send" and text:
            in_thread(lambda: session.send(text))
        elif self._asked == "save" and text:
            in_thread(lambda: session.save(text))
        self.action_leave_prompt()
