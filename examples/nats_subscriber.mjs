// A consumer of NATS JetStream that does not need canbroker, only two packages and
// docs/design/nats.md: npm install nats @msgpack/msgpack
//
// Usage: node nats_subscriber.mjs URL SUBJECT AFTER [COUNT]
//
//     node nats_subscriber.mjs nats://nats.lab:4222 'can.v1.lab.bench-7.*.rx' 0
//
// Prints each frame once, as SEQUENCE EPOCH:NUMBER SITE/BENCH/CHANNEL (TIME) ID#DATA, and how many
// were lost; ends after COUNT frames. AFTER is the sequence in the stream of the last message that you have
// dealt with, 0 for none. A program that stores it together with what it makes of the frames
// deals with each frame exactly once.

import { createRequire } from "node:module";
import process from "node:process";

const require = createRequire(import.meta.url);
const { connect, AckPolicy, DeliverPolicy } = require("nats");
const { Decoder } = require("@msgpack/msgpack");

const EXTENDED = 1, REMOTE = 2, FD = 8, BITRATE_SWITCH = 16, ERROR_STATE = 32;
const bodies = new Decoder({ useBigInt64: true });

function textOf([timestampNs, arbitrationId, flags, data]) {
  const digits = flags & EXTENDED ? 8 : 3;
  const id = Number(arbitrationId).toString(16).toUpperCase().padStart(digits, "0");
  const bytes = () => Buffer.from(data).toString("hex").toUpperCase();
  let rest = "#";
  if (flags & REMOTE) rest += `R${data}`;
  else if (flags & FD) rest += `#${!!(flags & BITRATE_SWITCH) + 2 * !!(flags & ERROR_STATE)}${bytes()}`;
  else rest += bytes();
  const time = BigInt(timestampNs);
  const micros = String((time / 1000n) % 1000000n).padStart(6, "0");
  return `(${time / 1000000000n}.${micros}) ${id}${rest}`;
}

// Where each subject has come to: numbers say what is new, what is missing and what came twice.
const places = new Map();
const tally = { received: 0, lost: 0n, duplicates: 0 };

function take(message, count) {
  const [epoch, , firstText] = message.headers.get("Nats-Msg-Id").split(":");
  const first = BigInt(firstText);
  const announced = BigInt(message.headers.get("Can-Count"));
  const told = message.headers.get("Can-Lost");
  const gap = /^\d+$/.test(told) ? BigInt(told) : 0n;
  const known = places.get(message.subject) ?? new Map();
  const expected = known.get(epoch) ?? first;
  const end = first + announced + gap;
  if (first > expected) tally.lost += first - expected;
  if (end > expected || !known.has(epoch)) known.set(epoch, end);
  places.set(message.subject, known);
  tally.lost += gap;
  const [version, kind, , , , frames] = bodies.decode(message.data);
  if (version !== 1) throw new Error(`protocol version ${version}`);
  if (kind !== 0) return;
  frames.forEach((frame, index) => {
    const number = first + BigInt(index);
    if (number < expected) tally.duplicates += 1;
    else if (tally.received < count) {
      tally.received += 1;
      const channel = message.subject.split(".").slice(2, 5).map(decodeURIComponent).join("/");
      console.log(`${message.seq} ${epoch}:${number} ${channel} ${textOf(frame)}`);
    }
  });
}

async function main(url, subject, after, count) {
  const connection = await connect({ servers: url, maxReconnectAttempts: -1 });
  const stream = connection.jetstream();
  const name = await (await connection.jetstreamManager()).streams.find(subject);
  const consumer = await stream.consumers.get(name, {
    filterSubjects: [subject],
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: Number(after) + 1,
    ack_policy: AckPolicy.None,
  });
  for await (const message of await consumer.consume()) {
    take(message, count);
    if (tally.received >= count) break;
  }
  await connection.close();
  console.error(`received ${tally.received}, lost ${tally.lost}`);
}

const [url, subject, after, count] = process.argv.slice(2);
if (after === undefined) {
  console.error("usage: node nats_subscriber.mjs URL SUBJECT AFTER [COUNT]");
  process.exit(2);
}
await main(url, subject, after, count === undefined ? Infinity : Number(count));
