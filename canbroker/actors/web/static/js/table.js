// One row for each identifier and direction: raw data with what has changed, and what it means.

import { ERROR, REMOTE, bytesOf, count, el, setClass, setText } from "./dom.js";
import { decodedText, valueText } from "./signals.js";

const COLUMNS = [
  { name: "id", title: "id", sort: (row) => [row.told[1].length, row.told[1], row.told[3]] },
  { name: "way", title: "", sort: (row) => [row.told[3]] },
  { name: "count", title: "count", class: "number narrow-off", sort: (row) => [-row.told[6]] },
  { name: "rate", title: "rate /s", class: "number", sort: (row) => [-row.told[7]] },
  { name: "period", title: "period ms", class: "number narrow-off", sort: (row) => [row.told[8] ?? Infinity] },
  { name: "jitter", title: "jitter ms", class: "number narrow-off", sort: (row) => [row.told[9] ?? Infinity] },
  { name: "age", title: "age", class: "number narrow-off", sort: (row) => [-row.told[10]] },
  { name: "data", title: "data", class: "mono" },
  { name: "decoded", title: "signals", class: "decoded" },
];

const SHOW_MS = 250;
const SORT_MS = 1000;
const SILENT_MS = 3000;

function compare(left, right) {
  for (let at = 0; at < left.length; at += 1) {
    if (left[at] < right[at]) return -1;
    if (left[at] > right[at]) return 1;
  }
  return 0;
}

class Row {
  constructor(table, told) {
    this.told = told;
    this.decoded = null;
    this.dirty = true;
    this.cells = {};
    this.node = el("tr", { "data-key": String(told[0]), on: { click: () => table.choose(this) } });
    this.node.row = this;
    for (const column of COLUMNS) {
      this.cells[column.name] = el("td", { class: column.class ?? "" });
      this.node.append(this.cells[column.name]);
    }
    this.bytes = el("span", { class: "bytes" });
    this.cells.data.append(this.bytes);
    this.cells.id.className = "mono";
  }

  get name() {
    return this.decoded?.[0] ?? "";
  }

  paint(now) {
    this.dirty = false;
    const [, id, flags, sent, data, changed, times, rate, period, jitter] = this.told;
    setText(this.cells.id, id);
    setText(this.cells.way, flags & ERROR ? "error" : sent ? "Tx" : "Rx");
    setText(this.cells.count, count(times));
    setText(this.cells.rate, rate.toFixed(1));
    setText(this.cells.period, period === null ? "–" : period.toFixed(1));
    setText(this.cells.jitter, jitter === null ? "–" : jitter.toFixed(2));
    this.paintData(flags, data, changed);
    this.paintDecoded();
    this.paintAge(now);
  }

  paintData(flags, data, changed) {
    const texts = flags & REMOTE ? [`remote, ${data} bytes`] : bytesOf(data);
    while (this.bytes.children.length > texts.length) this.bytes.lastChild.remove();
    texts.forEach((text, at) => {
      let span = this.bytes.children[at];
      if (!span) {
        span = el("span");
        this.bytes.append(span);
      }
      setText(span, text);
      const digit = changed.at(-1 - (at >> 2)) ?? "0";
      const isChanged = (parseInt(digit, 16) >> (at & 3)) & 1;
      setClass(span, isChanged ? "changed" : "");
    });
  }

  paintDecoded() {
    setText(this.cells.decoded, this.decoded ? decodedText(this.decoded) : "");
  }

  paintAge(now) {
    const age = Math.max(0, now - this.told[10]);
    setText(this.cells.age, age < 10000 ? `${(age / 1000).toFixed(1)} s` : `${Math.floor(age / 1000)} s`);
    const isOld = age > Math.max(SILENT_MS, 3 * (this.told[8] ?? 0));
    this.node.classList.toggle("old", isOld);
  }
}

export class Table {
  constructor(root, app) {
    this.app = app;
    this.rows = new Map();
    this.paused = false;
    this.held = null; // what has come while it is paused
    this.order = COLUMNS[0];
    this.backwards = false;
    this.chosen = null;
    this.visible = new Set();
    this.asked = "";
    this.painting = false;
    root.classList.add("columns");
    this.search = el("input", {
      type: "search", placeholder: "filter: id or message", "aria-label": "filter", on: { input: () => this.filter() },
    });
    this.pauseButton = el("button", { "aria-pressed": "false", on: { click: () => this.pause(!this.paused) } }, "Pause");
    this.summary = el("span", { class: "dim" });
    this.fault = el("span", { class: "bad" });
    this.missed = el("span", { class: "bad" });
    this.body = el("tbody");
    const heads = COLUMNS.map((column) => {
      column.head = el("th", { class: column.class === "mono" || column.class === "decoded" ? "" : column.class ?? "" });
      const sort = () => this.sortBy(column);
      column.head.append(column.sort ? el("button", { on: { click: sort } }, column.title || "way") : column.title);
      return column.head;
    });
    const node = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), this.body);
    this.box = el("div", { class: "scroll grow", tabindex: "0", "aria-label": "frames by identifier" }, node);
    this.details = el("div", { class: "details", hidden: true });
    root.append(
      el("div", { class: "bar" }, this.search, this.pauseButton, this.summary, this.missed, this.fault),
      this.box,
      this.details,
    );
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { root: this.box, rootMargin: "100px" });
    setInterval(() => this.each(), SORT_MS);
    setInterval(() => this.askShown(), SHOW_MS);
    this.markOrder();
  }

  get now() {
    return Date.now() + this.app.ahead;
  }

  watch() {
    this.held = null;
    this.pause(false);
    this.clear();
    setText(this.missed, "");
    this.asked = "";
  }

  clear() {
    this.observer.disconnect();
    this.rows.clear();
    this.visible.clear();
    this.body.replaceChildren();
    this.choose(null);
  }

  channel(news) {
    if (news.missed !== undefined) {
      setText(this.missed, news.missed ? `${count(news.missed)} frames are not in this table` : "");
    }
    if (this.paused) {
      this.hold(news);
      return;
    }
    if (news.new) {
      this.clear();
      this.asked = "";
      setText(this.fault, news.fault ?? "");
    }
    for (const told of news.rows ?? []) this.take(told);
    for (const [key, decoded] of Object.entries(news.decoded ?? {})) {
      const row = this.rows.get(Number(key));
      if (row) {
        row.decoded = decoded;
        row.dirty = true;
      }
    }
    if (news.rows || news.decoded) this.paintSoon();
  }

  // The last of each row: as much as the table itself.
  hold(news) {
    if (news.new) this.held = { new: true, fault: news.fault, rows: new Map(), decoded: {} };
    for (const told of news.rows ?? []) this.held.rows.set(told[0], told);
    Object.assign(this.held.decoded, news.decoded);
  }

  take(told) {
    const row = this.rows.get(told[0]);
    if (row) {
      row.told = told;
      row.dirty = true;
      return;
    }
    const made = new Row(this, told);
    this.rows.set(told[0], made);
    made.node.hidden = !this.matches(made);
    this.insert(made);
    this.observer.observe(made.node);
  }

  insert(made) {
    let low = 0;
    let high = this.body.children.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.before(this.body.children[middle].row, made)) low = middle + 1;
      else high = middle;
    }
    this.body.insertBefore(made.node, this.body.children[low] ?? null);
  }

  before(left, right) {
    const found = compare(this.order.sort(left), this.order.sort(right)) || left.told[0] - right.told[0];
    return this.backwards ? found > 0 : found < 0;
  }

  paintSoon() {
    if (this.painting || this.app.view !== "table") return;
    this.painting = true;
    requestAnimationFrame(() => {
      this.painting = false;
      this.paint();
    });
  }

  paint() {
    const now = this.now;
    for (const row of this.rows.values()) if (row.dirty && !row.node.hidden) row.paint(now);
    if (this.chosen) this.paintDetails();
  }

  // Once a second: ages, and the order, if that is not of the identifiers.
  each() {
    if (this.app.view !== "table" || this.paused) return;
    const now = this.now;
    for (const row of this.rows.values()) if (!row.node.hidden) row.paintAge(now);
    if (this.order !== COLUMNS[0]) this.sort();
    const shown = [...this.rows.values()].filter((row) => !row.node.hidden).length;
    const total = this.rows.size;
    setText(this.summary, shown === total ? `${total} rows` : `${shown} of ${total} rows`);
  }

  sortBy(column) {
    this.backwards = this.order === column && !this.backwards;
    this.order = column;
    this.markOrder();
    this.sort();
  }

  markOrder() {
    for (const column of COLUMNS) {
      if (column === this.order) column.head.setAttribute("aria-sort", this.backwards ? "descending" : "ascending");
      else column.head.removeAttribute("aria-sort");
    }
  }

  sort() {
    const sorted = [...this.rows.values()].sort((left, right) => (this.before(left, right) ? -1 : 1));
    if (sorted.some((row, at) => this.body.children[at] !== row.node)) {
      this.body.replaceChildren(...sorted.map((row) => row.node));
    }
  }

  matches(row) {
    const wanted = this.search.value.trim().toLowerCase();
    return !wanted || row.told[1].toLowerCase().includes(wanted) || row.name.toLowerCase().includes(wanted);
  }

  filter() {
    for (const row of this.rows.values()) {
      row.node.hidden = !this.matches(row);
      row.dirty = true;
    }
    this.paintSoon();
    this.each();
  }

  pause(paused) {
    this.paused = paused;
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    const held = this.held;
    this.held = paused ? { rows: new Map(), decoded: {} } : null;
    if (!paused && held) this.channel({ ...held, rows: [...held.rows.values()] });
  }

  seen(entries) {
    for (const entry of entries) {
      const key = Number(entry.target.dataset.key);
      if (entry.isIntersecting) this.visible.add(key);
      else this.visible.delete(key);
    }
  }

  // Signals are decoded of the rows that can be seen, and of the chosen one.
  askShown() {
    if (this.paused || !this.rows.size) return;
    const keys = this.app.view === "table" ? [...this.visible].slice(0, 399) : [];
    if (this.chosen && !keys.includes(this.chosen.told[0])) keys.push(this.chosen.told[0]);
    keys.sort((left, right) => left - right);
    const asked = keys.join();
    if (asked === this.asked) return;
    this.asked = asked;
    this.app.link.ask({ ask: "show", keys });
  }

  choose(row) {
    this.chosen?.node.classList.remove("chosen");
    this.chosen = row;
    this.detailed = null;
    this.details.hidden = row === null;
    if (row === null) return;
    row.node.classList.add("chosen");
    row.node.scrollIntoView({ block: "nearest" });
    this.askShown();
    this.paintDetails();
  }

  paintDetails() {
    const { told, decoded } = this.chosen;
    const message = decoded?.[0] ?? "";
    const signals = decoded?.[2] ?? [];
    const shape = [told[0], message, ...signals.map(([name]) => name)].join("\n");
    if (shape !== this.detailed) {
      this.detailed = shape;
      this.outputs = signals.map(() => el("output"));
      const plotted = (name) => this.app.views.plot.has(message, name);
      const items = signals.map(([name], at) => {
        const box = el("input", { type: "checkbox", checked: plotted(name) });
        box.addEventListener("change", () => this.app.views.plot.toggle(message, name, box));
        return el("li", {}, el("label", {}, box, ` ${name}`), this.outputs[at]);
      });
      const title = message ? `${told[1]} ${message}` : `${told[1]}: no database describes it`;
      const hint = signals.length ? el("span", { class: "dim" }, "marked signals are plotted") : "";
      this.problem = el("span", { class: "bad" });
      this.details.replaceChildren(
        el("div", { class: "bar" }, el("strong", {}, title), hint, this.problem),
        el("ul", {}, ...items),
      );
    }
    setText(this.problem, decoded?.[1] ?? "");
    signals.forEach((signal, at) => {
      const [, value, label] = signal;
      setText(this.outputs[at], label === null ? valueText(signal) : `${label} (${value})`);
    });
  }

  shown() {
    this.paintSoon();
    this.each();
    this.asked = "";
  }

  key(event) {
    if (event.key === "/") this.search.focus();
    else if (event.key === " ") this.pause(!this.paused);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && this.chosen) this.details.querySelector("input")?.focus();
    else if (event.key === "Escape") this.choose(null);
    else return false;
    return true;
  }

  move(step) {
    const nodes = [...this.body.children].filter((node) => !node.hidden);
    const at = this.chosen ? nodes.indexOf(this.chosen.node) : -1;
    const next = nodes[Math.min(Math.max(at + step, 0), nodes.length - 1)];
    if (next) this.choose(next.row);
  }
}
