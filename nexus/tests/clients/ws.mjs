// ws.mjs: the WebSocket client `ws` answers our pings, and resumes on the other pod by its position.

import assert from "node:assert/strict";
import { client, pods, publish, token, until } from "./ground.mjs";

const WebSocket = client("ws");

async function open(pod, after) {
  const socket = new WebSocket(`ws://${pod}/v1/stream`, { headers: { authorization: `Bearer ${token}` } });
  const frames = [];
  socket.on("message", (data, binary) => {
    assert.equal(binary, false);
    frames.push(JSON.parse(data));
  });
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  socket.send(JSON.stringify({ id: 1, command: "subscribe", types: ["health.*"], after }));
  const { result, error } = await until("the answer", () => frames.find((frame) => frame.id === 1));
  assert.ok(result, JSON.stringify(error));
  const events = () => frames.filter((frame) => frame.push === "event").map((frame) => frame.event);
  return { socket, frames, events };
}

const one = await open(pods[0]);
await publish("first");
const [first] = await until("the event", () => one.events().length && one.events());
assert.equal(first.id, "first");
// Whoever does not answer is closed after two of them.
await until("four heartbeats", () => one.frames.filter((frame) => frame.push === "heartbeat").length >= 4);
assert.equal(one.socket.readyState, WebSocket.OPEN);
one.socket.terminate();

await publish("missed");
const two = await open(pods[1], first.position);
await publish("live");
await until("both events", () => two.events().length === 2);
assert.deepEqual(two.events().map(({ id }) => id), ["missed", "live"]);
two.socket.close(1000);
const code = await new Promise((resolve) => two.socket.on("close", resolve));
assert.equal(code, 1000);
process.exit(0);
