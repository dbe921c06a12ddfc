// Up to eight signals over time, ten times a second.

import { clockTime, color, el, setText } from "./dom.js";

const MOST = 8;
const KEPT_S = 600;
const LIGHT = ["#1f5fa5", "#c2410c", "#1a7f43", "#7c3aed", "#b3261e", "#0e7490", "#8a5a00", "#be185d"];
const DARK = ["#77b1f0", "#fb923c", "#62c98a", "#c4a1ff", "#ff8a80", "#5fd3e6", "#e6b450", "#f69ac4"];

export class Plot {
  constructor(root, app) {
    this.app = app;
    this.signals = []; // of { message, name, unit, output }
    this.known = new Map(); // what can be plotted: text -> [message, name, unit]
    this.data = [[]];
    this.paused = false;
    this.plot = null;
    root.classList.add("columns");
    this.options = el("datalist", { id: "signals" });
    this.field = el("input", {
      type: "search", placeholder: "add a signal", "aria-label": "add a signal", autocomplete: "off",
      on: { change: () => this.add() },
    });
    this.field.setAttribute("list", "signals");
    this.span = el("select", { "aria-label": "time", on: { change: () => this.draw() } });
    for (const [seconds, text] of [[10, "10 s"], [30, "30 s"], [60, "1 min"], [300, "5 min"], [600, "10 min"]]) {
      this.span.append(el("option", { value: String(seconds) }, text));
    }
    this.span.value = "30";
    this.pauseButton = el("button", { "aria-pressed": "false", on: { click: () => this.pause(!this.paused) } }, "Pause");
    this.note = el("span", { class: "dim" });
    this.legend = el("ul", { class: "legend" });
    this.box = el("div", { class: "grow", role: "img", "aria-label": "signals over time" });
    root.append(
      el("div", { class: "bar" }, this.field, this.options, this.span, this.pauseButton, this.note),
      this.legend,
      this.box,
    );
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolor());
    this.hint();
  }

  watch() {
    this.signals = [];
    this.known.clear();
    this.options.replaceChildren();
    this.changed();
  }

  channel(news) {
    if (news.signals) this.offer(news.signals);
    if (news.plot) this.take(news.plot);
  }

  offer(messages) {
    this.known.clear();
    for (const [message, signals] of messages) {
      for (const [name, unit] of signals) this.known.set(`${message}.${name}`, [message, name, unit]);
    }
    this.options.replaceChildren(...[...this.known.keys()].map((text) => el("option", { value: text })));
    this.signals = this.signals.filter((each) => this.known.has(`${each.message}.${each.name}`));
    this.hint();
  }

  hint() {
    this.field.disabled = !this.known.size;
    const text = this.known.size
      ? this.signals.length ? "" : "Choose up to 8 signals here, or mark them in the table's details."
      : "No database describes this channel: database = [\"car.dbc\"] in the configuration, or canbroker web --dbc car.dbc.";
    setText(this.note, text);
  }

  has(message, name) {
    return this.signals.some((each) => each.message === message && each.name === name);
  }

  add() {
    const found = this.known.get(this.field.value.trim());
    if (!found) return;
    this.field.value = "";
    if (!this.has(found[0], found[1])) this.toggle(found[0], found[1]);
  }

  toggle(message, name, box) {
    if (this.has(message, name)) {
      this.signals = this.signals.filter((each) => each.message !== message || each.name !== name);
    } else if (this.signals.length < MOST) {
      const unit = this.known.get(`${message}.${name}`)?.[2] ?? "";
      this.signals = [...this.signals, { message, name, unit, output: el("output") }];
    } else {
      if (box) box.checked = false;
      setText(this.note, `${MOST} signals are plotted at most.`);
      return;
    }
    this.changed();
    this.ask();
  }

  ask() {
    this.app.link.ask({ ask: "plot", signals: this.signals.map(({ message, name }) => [message, name]) });
  }

  changed() {
    this.data = [[], ...this.signals.map(() => [])];
    const colors = this.colors();
    this.legend.replaceChildren(
      ...this.signals.map((each, at) => {
        const remove = () => this.toggle(each.message, each.name);
        const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        for (const [name, value] of [["cx", 6], ["cy", 6], ["r", 5], ["fill", colors[at]]]) dot.setAttribute(name, value);
        swatch.append(dot);
        const title = `${each.message}.${each.name}${each.unit ? ` [${each.unit}]` : ""}`;
        const button = el("button", { title: "remove", "aria-label": `remove ${title}`, on: { click: remove } }, "×");
        return el("li", {}, swatch, title, each.output, button);
      }),
    );
    this.rebuild();
    this.hint();
  }

  colors() {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    return isDark ? DARK : LIGHT;
  }

  take([milliseconds, ...values]) {
    if (values.length !== this.signals.length) return; // asked for before
    values.forEach((value, at) => {
      setText(this.signals[at].output, value === null ? "–" : String(Number(value.toPrecision(7))));
    });
    const at = milliseconds / 1000;
    if (this.paused || at <= (this.data[0].at(-1) ?? 0)) return;
    this.data[0].push(at);
    values.forEach((value, index) => this.data[index + 1].push(value));
    if (this.data[0][0] < at - KEPT_S) for (const column of this.data) column.shift();
    this.draw();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  build() {
    const colors = this.colors();
    const units = [...new Set(this.signals.map((each) => each.unit))];
    const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line") }, font: "12px system-ui" };
    const scales = { x: { time: true, range: () => this.range() } };
    for (const unit of units) scales[`y ${unit}`] = {};
    const sides = units.map((unit, at) => ({
      ...axis, scale: `y ${unit}`, side: at % 2 ? 1 : 3, label: unit, labelSize: unit ? 18 : 0, labelFont: "12px system-ui", size: 58,
      grid: at ? { show: false } : axis.grid, show: at < 2,
    }));
    const series = this.signals.map((each, at) => ({
      label: each.name, scale: `y ${each.unit}`, stroke: colors[at], width: 1.6, points: { show: false }, spanGaps: false,
    }));
    const { width, height } = this.box.getBoundingClientRect();
    this.plot = new uPlot(
      {
        width: Math.floor(width), height: Math.floor(height), legend: { show: false }, scales, series: [{}, ...series],
        cursor: { drag: { x: false, y: false } },
        axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => clockTime(1000 * tick)) }, ...sides],
      },
      this.data,
      this.box,
    );
  }

  range() {
    const last = this.data[0].at(-1) ?? Date.now() / 1000;
    return [last - Number(this.span.value), last];
  }

  draw() {
    if (this.app.view !== "plot" || !this.signals.length || !this.box.clientHeight) return;
    if (this.plot) this.plot.setData(this.data);
    else this.build();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (this.plot && width && height) this.plot.setSize({ width, height });
  }

  recolor() {
    if (this.signals.length) {
      const data = this.data;
      this.changed();
      this.data = data;
      this.draw();
    }
  }

  pause(paused) {
    this.paused = paused;
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    if (!paused && this.data[0].length) {
      this.data[0].push(this.data[0].at(-1) + 0.05); // a gap instead of a line across the pause
      for (const column of this.data.slice(1)) column.push(null);
    }
  }

  shown() {
    this.draw();
    this.resize();
  }

  key(event) {
    if (event.key === "/") this.field.focus();
    else if (event.key === " ") this.pause(!this.paused);
    else return false;
    return true;
  }
}
