// Frames in their order. While it follows, those that the eye can read; when it is paused, all of
// them, and older ones from the ring that the channel keeps.

import { ERROR, REMOTE, bytesOf, count, el, setText } from "./dom.js";
import { decodedText } from "./signals.js";

const FOLLOWED = 500;
const KEPT = 5000;

function timeText(nanoseconds) {
  const date = new Date(Number(BigInt(nanoseconds) / 1000000n));
  const two = (value) => String(value).padStart(2, "0");
  const micros = String((BigInt(nanoseconds) / 1000n) % 1000000n).padStart(6, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${micros}`;
}

function line([time, id, flags, sent, data, decoded]) {
  const text = flags & REMOTE ? `remote ${data}` : bytesOf(data).join(" ");
  const length = flags & REMOTE ? "" : `[${data.length / 2}]`;
  return el(
    "div",
    { "data-time": time },
    el("span", { class: "time" }, timeText(time)),
    el("span", { class: "dim" }, sent ? "Tx" : "Rx"),
    el("span", { class: "id" }, id),
    el("span", { class: "dim narrow-off" }, length.padStart(4)),
    el("span", { class: flags & ERROR ? "data bad" : "data" }, flags & ERROR ? `error ${text}` : text),
    ...(decoded ? [el("span", { class: "decoded" }, decodedText(decoded))] : []),
  );
}

export class Trace {
  constructor(root, app) {
    this.app = app;
    this.paused = false;
    this.loading = false;
    this.over = false;
    root.classList.add("columns");
    this.filter = el("input", {
      type: "search", placeholder: "filter: 100:700,#FF", "aria-label": "filter, as candump's",
      title: "as candump: ID:MASK, ID~MASK, #ERRORMASK", on: { change: () => this.restart() },
    });
    this.pauseButton = el("button", { "aria-pressed": "false", on: { click: () => this.pause(!this.paused) } }, "Pause");
    this.signalsButton = el("button", { "aria-pressed": "true", disabled: true, on: { click: () => this.turnSignals() } }, "Signals");
    this.olderButton = el("button", { disabled: true, on: { click: () => this.older() } }, "Older");
    this.note = el("span", { class: "dim", "aria-live": "polite" });
    this.lines = el("div", { class: "lines" });
    this.box = el("div", { class: "scroll grow", tabindex: "0", "aria-label": "trace", on: { scroll: () => this.scrolled() } }, this.lines);
    this.seconds = el("input", { type: "number", min: "1", max: "86400", value: "60", "aria-label": "seconds" });
    this.format = el("select", { "aria-label": "format" });
    this.save = el("button", { on: { click: () => this.download() } }, "Save");
    root.append(
      el("div", { class: "bar" }, this.filter, this.pauseButton, this.signalsButton, this.olderButton, this.note),
      this.box,
      el("div", { class: "bar" }, "The last", this.seconds, "seconds as", this.format, this.save),
    );
  }

  formats(known) {
    const chosen = this.format.value;
    this.format.replaceChildren(...known.map(([name, title]) => el("option", { value: name }, title)));
    if (chosen) this.format.value = chosen;
  }

  watch() {
    this.lines.replaceChildren();
    this.setPaused(false);
    if (this.app.view === "trace") this.ask(true);
  }

  shown() {
    if (!this.paused) this.ask(true);
  }

  hide() {
    this.ask(false);
  }

  ask(on) {
    this.app.link.ask({ ask: "trace", on, filters: on ? this.filter.value.trim() : "" });
  }

  turnSignals() {
    const isRaw = this.lines.classList.toggle("raw");
    this.signalsButton.setAttribute("aria-pressed", String(!isRaw));
  }

  channel(news) {
    if (news.signals) this.signalsButton.disabled = !news.signals.length;
    if (news.new && !this.paused) this.lines.replaceChildren();
    if (news.traced !== undefined && !this.paused) setText(this.note, news.traced);
    if (this.paused || (!news.trace && !news.skipped)) return;
    const isAtEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 40;
    const made = document.createDocumentFragment();
    if (news.skipped) made.append(el("div", { class: "gap" }, `${count(news.skipped)} more: pause to see all`));
    for (const frame of news.trace ?? []) made.append(line(frame));
    this.lines.append(made);
    while (this.lines.children.length > FOLLOWED) this.lines.firstChild.remove();
    if (isAtEnd) this.box.scrollTop = this.box.scrollHeight;
  }

  setPaused(paused) {
    this.paused = paused;
    this.over = false;
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    this.olderButton.disabled = !paused;
    setText(this.note, "");
  }

  async pause(paused) {
    this.setPaused(paused);
    this.ask(!paused);
    this.lines.replaceChildren();
    if (paused) {
      await this.load(BigInt(Math.round(Date.now() + this.app.ahead + 1000)) * 1000000n, 0);
      this.box.scrollTop = this.box.scrollHeight;
    }
  }

  restart() {
    if (this.paused) this.pause(true);
    else {
      this.lines.replaceChildren();
      this.ask(true);
    }
  }

  url(before, skip) {
    const filter = this.filter.value.trim();
    const fields = { channel: this.app.channel, before: String(before), skip: String(skip), filter };
    return `/api/trace?${new URLSearchParams(fields)}`;
  }

  older() {
    const lines = [...this.lines.children];
    if (!this.paused || !lines.length) return;
    const { time } = lines[0].dataset;
    const other = lines.findIndex((each) => each.dataset.time !== time);
    this.load(BigInt(time), other < 0 ? lines.length : other);
  }

  scrolled() {
    if (this.paused && this.box.scrollTop < 60) this.older();
  }

  // Frames up to a time; ``skip``: how many of that very time are shown already.
  async load(before, skip) {
    if (this.loading || this.over || !this.app.channel) return;
    this.loading = true;
    setText(this.note, "loading …");
    try {
      const answer = await fetch(this.url(before, skip));
      if (!answer.ok) {
        setText(this.note, (await answer.text()).trim());
        return;
      }
      const frames = await answer.json();
      if (!this.paused) return;
      const height = this.box.scrollHeight - this.box.scrollTop;
      this.lines.prepend(...frames.map(line));
      while (this.lines.children.length > KEPT) this.lines.lastChild.remove();
      this.over = !frames.length && skip > 0;
      if (skip) this.box.scrollTop = this.box.scrollHeight - height;
      const shown = `${count(this.lines.children.length)} frames`;
      setText(this.note, this.over ? `${shown}: the channel keeps no older ones` : shown);
    } catch {
      setText(this.note, "the broker's page does not answer");
    } finally {
      this.loading = false;
    }
  }

  download() {
    const fields = { channel: this.app.channel, seconds: this.seconds.value, format: this.format.value };
    const link = el("a", { href: `/api/record?${new URLSearchParams(fields)}`, download: "" });
    document.body.append(link);
    link.click();
    link.remove();
  }

  key(event) {
    if (event.key === "/") this.filter.focus();
    else if (event.key === " ") this.pause(!this.paused);
    else if (event.key === "o") this.older();
    else if (event.key === "s") this.turnSignals();
    else return false;
    return true;
  }
}
