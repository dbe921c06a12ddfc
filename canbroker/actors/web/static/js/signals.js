// What the server makes of a frame by a database: [message, problem, signals], and of each signal
// [name, value, label, unit]. The value is a text where a number would not be exact.

export function valueText([, value, label, unit]) {
  if (label !== null) return label;
  const shown = typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value;
  return unit ? `${shown} ${unit}` : String(shown);
}

export function decodedText([message, problem, signals]) {
  const texts = signals.map((signal) => `${signal[0]} ${valueText(signal)}`);
  return `${message}: ${[problem, ...texts].filter(Boolean).join(", ")}`;
}
