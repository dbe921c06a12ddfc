// The socket: what was asked for last is asked for again after each reconnect.

const FIRST_MS = 300;
const MOST_MS = 4000;

export class Link {
  constructor({ told, state }) {
    this.told = told; // is called with each message
    this.state = state; // is called with "open", "away" or "locked"
    this.asked = new Map(); // what is asked for, by its kind
    this.wait = FIRST_MS;
    this.socket = null;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/socket`);
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.wait = FIRST_MS;
      this.state("open");
      for (const request of this.asked.values()) socket.send(JSON.stringify(request));
    });
    socket.addEventListener("message", (event) => this.told(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.retry());
  }

  async retry() {
    this.state("away");
    await new Promise((done) => setTimeout(done, this.wait));
    this.wait = Math.min(2 * this.wait, MOST_MS);
    try {
      const answer = await fetch("/", { method: "HEAD" });
      if (answer.status === 403) this.state("locked");
    } catch {
      // The server is away: the next attempt finds out whether it is back.
    }
    this.connect();
  }

  // A request of a kind replaces the one before it. "watch" ends what was asked for of a channel.
  ask(request) {
    if (request.ask === "watch") {
      for (const kind of ["show", "plot", "trace"]) this.asked.delete(kind);
    }
    this.asked.delete(request.ask);
    this.asked.set(request.ask, request);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(request));
  }

  forget(kind) {
    this.asked.delete(kind);
  }
}
