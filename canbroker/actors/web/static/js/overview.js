// Channels with their load over time; clients, recordings and what else the broker runs.

import { clockTime, color, count, duration, el, fill, setText, table } from "./dom.js";

const KEPT = 1200;
const CLIENTS = [["channel"], ["program", "wide"], ["process", "number"], ["filters", "wide"], ["repaired", "number"], ["gone", "number"]];
const RECORDINGS = [["name"], ["channels"], ["state"], ["files", "number"], ["frames", "number"], ["lost", "number"], ["file", "wide"]];

// Without the directories of its program.
function programName(command) {
  return command.replace(/^\S*\//, "");
}

class Card {
  constructor(name, app) {
    this.word = el("span");
    this.adapter = el("span", { class: "dim" });
    this.note = el("div", { class: "bad" });
    this.numbers = {};
    const numbers = el("div", { class: "numbers" });
    for (const title of ["load", "received/s", "sent/s", "clients", "lost", "restarts"]) {
      this.numbers[title] = el("span", {}, "–");
      numbers.append(el("div", {}, el("span", {}, title), this.numbers[title]));
    }
    this.chart = el("div", { class: "chart", role: "img", "aria-label": `load of ${name} over time` });
    const look = () => {
      app.watch(name);
      app.show("table");
    };
    this.node = el(
      "article",
      { class: "card", "data-channel": name },
      el("h3", {}, el("button", { on: { click: look } }, name), this.word, this.adapter),
      numbers,
      this.chart,
      this.note,
    );
    this.times = [];
    this.loads = [];
    this.plot = null;
  }

  add(milliseconds, load) {
    if (milliseconds / 1000 <= (this.times.at(-1) ?? 0)) return;
    this.times.push(milliseconds / 1000);
    this.loads.push(load === null ? null : 100 * load);
    if (this.times.length > KEPT) {
      this.times.shift();
      this.loads.shift();
    }
  }

  update(channel) {
    const state = channel.phase === "running" ? channel.state : null;
    const word = state ? state.state : channel.phase;
    setText(this.word, word);
    this.word.className = word === "active" ? "good" : word === "passive" ? "warn" : "bad";
    const rate = state?.bitrate ? ` ${state.bitrate / 1000} kbit/s` : "";
    setText(this.adapter, channel.interface + rate);
    const text = {
      load: state && state.load !== null ? `${(100 * state.load).toFixed(0)} %` : "–",
      "received/s": state ? count(Math.round(state.received_rate)) : "–",
      "sent/s": state ? count(Math.round(state.transmitted_rate)) : "–",
      clients: count(channel.clients.length),
      lost: state ? count(state.dropped) : "–",
      restarts: count(channel.restarts),
    };
    for (const [title, node] of Object.entries(this.numbers)) setText(node, text[title]);
    this.numbers.restarts.className = channel.restarts ? "bad" : "";
    this.numbers.lost.className = state?.dropped ? "bad" : "";
    const held = state?.exclusive ? [`exclusive to ${state.exclusive.name}`] : [];
    const [sending, receiving] = state?.error_counters ?? [0, 0];
    if (state?.failed) held.push(`${count(state.failed)} frames not sent`);
    if (sending || receiving) held.push(`error counters: ${sending} sending, ${receiving} receiving`);
    setText(this.note, [state ? state.reason : channel.reason, ...held].filter(Boolean).join("; "));
    if (state) this.add(state.wall_ns / 1e6, state.load);
  }

  draw() {
    const width = this.chart.clientWidth;
    if (!width) return;
    const data = [this.times, this.loads];
    if (this.plot === null) {
      const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
      this.plot = new uPlot(
        {
          width,
          height: 84,
          cursor: { show: false },
          padding: [8, 12, 0, 0],
          legend: { show: false },
          scales: { x: { time: true }, y: { range: [0, 100] } },
          axes: [
            { ...axis, size: 26, gap: 4, space: 80, values: (_, ticks) => ticks.map((tick) => clockTime(1000 * tick)) },
            { ...axis, size: 38, splits: [0, 50, 100], values: (_, ticks) => ticks.map((tick) => `${tick} %`) },
          ],
          series: [{}, { stroke: color("accent"), fill: `${color("accent")}33`, width: 1.5, points: { show: false } }],
        },
        data,
        this.chart,
      );
      this.width = width;
    } else {
      if (width !== this.width) this.plot.setSize({ width, height: 84 });
      this.width = width;
      this.plot.setData(data);
    }
  }

  recolor() {
    this.plot?.destroy();
    this.plot = null;
  }
}

export class Overview {
  constructor(root, app) {
    this.app = app;
    this.cards = new Map();
    this.grid = el("div", { class: "cards" });
    this.broker = el("p", { class: "dim" });
    this.clients = table(CLIENTS);
    this.recordings = table(RECORDINGS);
    this.recordingTitle = el("h2", { hidden: true }, "Recordings");
    this.recordingBox = el("div", { class: "scroll", hidden: true }, this.recordings.node);
    root.append(
      this.grid,
      el("h2", {}, "Clients"),
      el("div", { class: "scroll" }, this.clients.node),
      this.recordingTitle,
      this.recordingBox,
      this.broker,
    );
    addEventListener("resize", () => this.draw());
  }

  loads(histories) {
    for (const [name, samples] of Object.entries(histories)) {
      const card = this.card(name);
      for (const [milliseconds, load] of samples) card.add(milliseconds, load);
    }
  }

  card(name) {
    if (!this.cards.has(name)) {
      const card = new Card(name, this.app);
      this.cards.set(name, card);
      this.grid.append(card.node);
    }
    return this.cards.get(name);
  }

  status({ broker }) {
    if (!broker) {
      setText(this.broker, "No broker answers.");
      return;
    }
    const names = new Set(broker.channels.map((each) => each.name));
    for (const [name, card] of this.cards) {
      if (!names.has(name)) {
        card.recolor();
        card.node.remove();
        this.cards.delete(name);
      }
    }
    for (const channel of broker.channels) this.card(channel.name).update(channel);
    fill(
      this.clients.body,
      CLIENTS,
      broker.channels.flatMap((channel) =>
        channel.clients.map((each) => [
          channel.name,
          el("span", { title: each.program }, programName(each.program)),
          each.pid ? String(each.pid) : "?",
          each.filters || "all",
          count(each.replayed),
          count(each.gone),
        ]),
      ),
    );
    this.recordingTitle.hidden = this.recordingBox.hidden = !broker.recordings.length;
    fill(
      this.recordings.body,
      RECORDINGS,
      broker.recordings.map((each) => [
        each.name,
        each.channels.join(" "),
        each.trouble || each.reason || each.phase,
        count(each.files),
        count(each.frames),
        count(each.lost),
        each.file,
      ]),
    );
    const pages = broker.web ? `, ${count(broker.web.pages)} pages open` : "";
    const refused = broker.web ? Object.entries(broker.web.refusals).map(([kind, many]) => `${many} ${kind}`) : [];
    setText(
      this.broker,
      `Broker ${broker.version}, process ${broker.pid}, up ${duration(broker.uptime_s)}${pages}` +
        (refused.length ? `; refused: ${refused.join(", ")}` : ""),
    );
    this.draw();
  }

  shown() {
    this.draw();
  }

  draw() {
    if (this.app.view === "overview") for (const card of this.cards.values()) card.draw();
  }

  recolor() {
    for (const card of this.cards.values()) card.recolor();
    this.draw();
  }
}
