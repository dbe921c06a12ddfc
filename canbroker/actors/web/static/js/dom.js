// Elements are made of text nodes only: whatever a frame, a database or a program is called stays text.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    } else if (name === "class") {
      made.className = value;
    } else if (name in made && typeof value !== "string") {
      made[name] = value;
    } else {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const number = new Intl.NumberFormat("en");

export function count(value) {
  return value === null || value === undefined ? "–" : number.format(value);
}

export function clockTime(milliseconds) {
  const date = new Date(milliseconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export const REMOTE = 2;
export const ERROR = 4;

export function bytesOf(data) {
  return typeof data === "number" ? [] : data.match(/../g) ?? [];
}

// A table with a head; columns: [title, class].
export function table(columns) {
  const body = el("tbody");
  const heads = columns.map(([title, name]) => el("th", { class: name ?? "" }, title));
  return { node: el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body), body };
}

export function fill(body, columns, rows) {
  body.replaceChildren(
    ...rows.map((cells) =>
      el("tr", {}, ...cells.map((cell, at) => el("td", { class: columns[at][1] ?? "" }, cell))),
    ),
  );
}
