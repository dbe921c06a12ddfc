// The periodic tasks of the broker.

import { count, el, fill, setText, table } from "./dom.js";

const COLUMNS = [["channel"], ["id", "mono"], ["period", "number"], ["sent", "number"], ["skipped", "number"], ["failed", "number"], ["late p50 / p99 / max", "number"], ["by"], ["owner", "wide"]];

export class Tasks {
  constructor(root, app) {
    this.app = app;
    this.table = table(COLUMNS);
    this.note = el("p", { class: "dim" }, "…");
    root.append(el("h2", {}, "Periodic tasks"), el("div", { class: "scroll" }, this.table.node), this.note);
  }

  shown() {
    this.app.link.ask({ ask: "tasks", on: true });
  }

  hide() {
    this.app.link.ask({ ask: "tasks", on: false });
  }

  status({ broker, tasks, more_tasks }) {
    if (this.app.view !== "tasks" || !broker) return;
    const programs = new Map(
      broker.channels.flatMap((channel) => channel.clients.map((each) => [each.client_id, each.program])),
    );
    const ms = (value) => (value === null ? "–" : `${(value / 1e6).toFixed(2)}`);
    fill(
      this.table.body,
      COLUMNS,
      tasks.map((task) => [
        task.channel,
        task.arbitration_id.toString(16).toUpperCase().padStart(task.extended ? 8 : 3, "0"),
        `${task.period_ns / 1e6} ms`,
        count(task.sent),
        count(task.skipped),
        count(task.failed),
        `${ms(task.late_p50_ns)} / ${ms(task.late_p99_ns)} / ${ms(task.late_max_ns)} ms`,
        task.reason ? `${task.mode}: ${task.reason}` : task.mode,
        programs.get(task.client_id) ?? task.client_id,
      ]),
    );
    setText(this.note, more_tasks ? `and ${count(more_tasks)} more` : tasks.length ? "" : "There are none.");
  }
}
