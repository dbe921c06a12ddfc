// The frame around the views: channel, tabs, keys, theme, and who is told what.

import { el, setText, setClass } from "./dom.js";
import { Link } from "./link.js";
import { Overview } from "./overview.js";
import { Plot } from "./plot.js";
import { Send } from "./send.js";
import { Table } from "./table.js";
import { Tasks } from "./tasks.js";
import { Trace } from "./trace.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["overview", "table", "plot", "trace", "tasks", "send"];

class App {
  constructor() {
    this.version = null;
    this.channel = null; // the one that is looked at
    this.wished = new URLSearchParams(location.hash.slice(1)).get("channel");
    this.view = null;
    this.hello = null;
    this.status = null;
    this.ahead = 0; // what the broker's clock shows more than ours, in ms
    this.problem = "";
    this.link = new Link({
      told: (message) => this.told(message),
      state: (state) => this.linkState(state),
    });
    this.views = {
      overview: new Overview($("overview"), this),
      table: new Table($("table"), this),
      plot: new Plot($("plot"), this),
      trace: new Trace($("trace"), this),
      tasks: new Tasks($("tasks"), this),
      send: new Send($("send"), this),
    };
    this.bind();
    this.show(new URLSearchParams(location.hash.slice(1)).get("view") ?? "overview");
  }

  bind() {
    for (const tab of $("tabs").children) {
      tab.addEventListener("click", () => {
        this.show(tab.dataset.view);
        $(tab.dataset.view).focus({ preventScroll: true }); // keys are for the view, not for its tab
      });
    }
    $("channel").addEventListener("change", (event) => this.watch(event.target.value));
    $("help").addEventListener("click", () => $("keys").showModal());
    $("theme").addEventListener("click", () => this.turnTheme());
    const theme = localStorage.getItem("theme");
    if (theme) document.documentElement.dataset.theme = theme;
    document.addEventListener("keydown", (event) => this.key(event));
  }

  turnTheme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    for (const view of Object.values(this.views)) view.recolor?.();
  }

  key(event) {
    const isTyping = event.target.matches("input:not([type=checkbox]), select");
    if (event.key === "Escape" && isTyping) {
      event.target.blur();
      return;
    }
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.key >= "1" && event.key <= String(NAMES.length)) {
      this.show(NAMES[Number(event.key) - 1]);
    } else if (event.key === "?") {
      $("keys").showModal();
    } else if (event.key === "c") {
      $("channel").focus();
    } else if (!(event.key === " " && event.target.matches("button, input"))) {
      if (!this.views[this.view].key?.(event)) return;
    } else {
      return;
    }
    event.preventDefault();
  }

  show(name) {
    if (!NAMES.includes(name)) name = "overview";
    if (name === this.view) return;
    if (this.view) this.views[this.view].hide?.();
    this.view = name;
    for (const each of NAMES) $(each).hidden = each !== name;
    for (const tab of $("tabs").children) {
      if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    this.views[name].shown?.();
    this.remember();
  }

  remember() {
    const fields = new URLSearchParams({ view: this.view, channel: this.channel ?? "" });
    history.replaceState(null, "", `#${fields}`);
  }

  watch(channel) {
    this.channel = channel;
    $("channel").value = channel ?? "";
    delete $("channel").dataset.followed;
    this.setProblem("");
    this.link.ask({ ask: "watch", channel });
    for (const view of Object.values(this.views)) view.watch?.(channel);
    this.remember();
  }

  linkState(state) {
    const texts = {
      open: "connected",
      away: "reconnecting …",
      locked: "locked: open the address that 'canbroker web' prints",
    };
    setText($("link"), texts[state]);
    setClass($("link"), state === "open" ? "" : "bad");
    $("link").dataset.state = state;
  }

  told(message) {
    if (message.hello) this.greet(message);
    if (message.status) this.take(message.status);
    if (message.channel && message.channel.name === this.channel) {
      const news = message.channel;
      if (news.new) $("channel").dataset.followed = news.name;
      if (news.problem !== undefined) this.setProblem(news.problem);
      for (const view of Object.values(this.views)) view.channel?.(news);
    }
  }

  greet({ hello, loads }) {
    if (this.version && this.version !== hello.version) location.reload(); // another broker
    this.version = hello.version;
    this.hello = hello;
    this.views.overview.loads(loads);
    this.views.trace.formats(hello.formats);
    this.views.send.permit(hello);
  }

  take(status) {
    this.status = status;
    this.ahead = status.at - Date.now();
    this.offer(status.broker ? status.broker.channels.map((each) => each.name) : []);
    this.views.overview.status(status);
    this.views.tasks.status(status);
    this.tell();
  }

  // Offers the channels; looks at the first one, or at the one of the address.
  offer(names) {
    const select = $("channel");
    const known = [...select.options].map((each) => each.value);
    if (names.length && names.join("\n") !== known.join("\n")) {
      select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
      select.value = this.channel ?? "";
    }
    if (names.length && !names.includes(this.channel)) {
      if (this.channel !== null && select.value === this.channel) return;
      this.watch(names.includes(this.wished) ? this.wished : names[0]);
    }
  }

  setProblem(text) {
    this.problem = text;
    this.tell();
  }

  tell() {
    const text = (this.status && !this.status.broker && this.status.problem) || this.problem;
    $("problem").hidden = !text;
    setText($("problem"), text);
  }
}

window.app = new App();
