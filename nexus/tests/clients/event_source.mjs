// event_source.mjs: an EventSource goes on by itself where its connection was cut, on the other pod.

import assert from "node:assert/strict";
import { client, publish, relay, token, until } from "./ground.mjs";

const { EventSource } = client("eventsource");
const { url, cut } = await relay();
const source = new EventSource(`${url}/v1/stream/sse?type=health.*&access_token=${token}`);
const received = [];
let connections = 0;
source.onopen = () => connections++;
source.onmessage = ({ data, lastEventId }) => {
  const event = JSON.parse(data);
  assert.equal(event.position, lastEventId);
  received.push(event.id);
};

await until("the first connection", () => connections === 1);
await publish("first");
await until("the first event", () => received.length === 1);
cut();
await publish("missed");
await until("the second connection", () => connections === 2);
await publish("live");
await until("both events", () => received.length === 3);
assert.deepEqual(received, ["first", "missed", "live"]);
process.exit(0);
