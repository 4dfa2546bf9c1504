// socket_io.mjs CLIENT TRANSPORT...: an unmodified socket.io-client that is cut off again and again, and finds another
// pod each time, receives every event once and in order.

import assert from "node:assert/strict";
import { client, event, publish, relay, token, until } from "./ground.mjs";

const CUTS = 4;
const [name, ...transports] = process.argv.slice(2);
const { io } = client(name);
// Clients below 4.6 know nothing of recovery: they go on after the last position, as the documentation says.
const [major, minor] = client(`${name}/package.json`).version.split(".").map(Number);
const recovers = major > 4 || minor >= 6;

const { url, cut } = await relay();
const socket = io(url, { transports, auth: { token }, reconnectionDelay: 10, reconnectionDelayMax: 20 });
const ask = (command, argument) => new Promise((resolve) => socket.emit(command, argument, resolve));
const received = [];
const errors = [];
let last;
const connections = [];
let connects = 0;
socket.onAny((type, told) => {
  if (type === "error") return errors.push(told);
  assert.equal(type, told.type);
  received.push(told.id);
  last = told.position;
});
socket.on("connect_error", (error) => errors.push(error.message));
socket.on("connect", async () => {
  connects++;
  if (!socket.recovered) {
    const { result, error } = await ask("subscribe", { types: ["health.*"], after: last });
    assert.ok(result, JSON.stringify(error));
  }
  connections.push(Boolean(socket.recovered));
});

const sent = [];
async function send(id) {
  sent.push(id);
  await publish(id);
}

await until("the first connection", () => connections.length === 1);
await send("first");
await until("the first event", () => received.length === sent.length);
for (let round = 1; round <= CUTS; round++) {
  const before = connects;
  cut();
  await send(`cut ${round}`);
  await until("another connection", () => {
    // Between two polls nothing was cut that it misses. A slow client may only not have noticed yet, and is cut twice.
    if (socket.connected && connects === before) cut();
    return connections.length > before;
  });
  await send(`again ${round}`);
  await until("what was published", () => received.length >= sent.length);
}
assert.deepEqual(received, sent);
assert.ok(connections.length > CUTS);
assert.deepEqual(connections.slice(1), Array(connections.length - 1).fill(recovers), "whether it was recovered");

if (transports.length === 2) {
  await until("the upgrade", () => socket.io.engine.transport.name === "websocket");
  await send("upgraded");
  await until("what was published", () => received.length >= sent.length);
}

// What is binary is refused with a reason, and the client is soon back. What it sent in the same moment counts: by polling
// that waits for the end of the request before it, and goes with what is binary.
errors.length = 0;
const before = connects;
socket.emit("ping");
sent.push("beside");
socket.emit("publish", { event: event("beside") });
socket.emit("publish", { event: Buffer.from("binary") });
await until("the refusal", () => errors.some(({ error }) => error?.code === "invalid_packet"));
await until("the connection after it", () => connections.length > before);
await send("last");
await until("the last event", () => received.length >= sent.length);
assert.deepEqual(received, sent);
process.exit(0);
