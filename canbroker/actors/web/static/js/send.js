// Sends a frame, if the configuration and the token permit it.

import { clockTime, el, setText } from "./dom.js";

const KEPT = 20;

export class Send {
  constructor(root, app) {
    this.app = app;
    this.frame = el("input", { type: "text", id: "frame", placeholder: "123#DEADBEEF", autocomplete: "off", spellcheck: false });
    this.button = el("button", {}, "Send");
    this.note = el("p", { class: "dim" });
    this.log = el("ul", { class: "log", "aria-live": "polite" });
    const form = el(
      "form",
      { class: "send", on: { submit: (event) => this.submit(event) } },
      el("label", {}, "Frame, as cansend writes it: 123#DEADBEEF, 18FEF100#11, 123#R, 123##1001122", this.frame),
      el("div", { class: "bar" }, this.button),
    );
    root.append(el("h2", {}, "Send a frame"), form, this.note, this.log);
  }

  permit({ role, transmit }) {
    const text = transmit.length
      ? `Permitted: ${transmit.join(", ")}, to the channel above.`
      : role === "observe"
        ? "Your token is for looking only."
        : 'Nothing may be sent from here. The broker\'s configuration can permit it: [web] transmit = ["100-1FF"]';
    setText(this.note, text);
    this.button.disabled = !transmit.length;
  }

  async submit(event) {
    event.preventDefault();
    const frame = this.frame.value.trim();
    if (!frame || !this.app.channel) return;
    let text, ok;
    try {
      const answer = await fetch("/api/send", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ channel: this.app.channel, frame }),
      });
      ok = answer.ok;
      text = ok ? "sent" : (await answer.text()).trim();
    } catch {
      ok = false;
      text = "the broker's page does not answer";
    }
    const line = `${clockTime(Date.now())} ${this.app.channel} ${frame}: ${text}`;
    this.log.prepend(el("li", { class: ok ? "good" : "bad" }, line));
    while (this.log.children.length > KEPT) this.log.lastChild.remove();
  }

  key(event) {
    if (event.key !== "/") return false;
    this.frame.focus();
    return true;
  }
}
