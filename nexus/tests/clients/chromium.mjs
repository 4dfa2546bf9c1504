// chromium.mjs: the browser's own WebSocket, EventSource and fetch, on a page of an allowed origin; and what a page of any
// other origin is refused. The page tells this script how it went.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pods, relay, token } from "./ground.mjs";

const { url: way, cut } = await relay();

/** Runs in the browser. */
async function page({ pods, token, way, other }) {
  const event = (id) => JSON.stringify({
    specversion: "1.0", id, source: "/browser", type: "health.check", subject: "system/a",
    data: { component: "browser", status: "healthy" },
  });
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/cloudevents+json" };
  const publish = async (id) => {
    // Not a simple request, so the browser asks first.
    const answer = await fetch(`http://${pods[1]}/v1/events`, { method: "POST", headers, body: event(id) });
    return { status: answer.status, position: answer.headers.get("nexus-position") };
  };
  const queue = () => {
    const come = [], waiting = [];
    const push = (value) => (waiting.length ? waiting.shift()(value) : come.push(value));
    const next = () => (come.length ? Promise.resolve(come.shift()) : new Promise((resolve) => waiting.push(resolve)));
    return { push, next };
  };
  const socket = async (pod, after) => {
    const socket = new WebSocket(`ws://${pod}/v1/stream`);
    const frames = queue();
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.push !== "heartbeat") frames.push(frame);
    };
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    socket.send(JSON.stringify({ id: 1, command: "connect", token }));
    socket.send(JSON.stringify({ id: 2, command: "subscribe", types: ["health.*"], after }));
    const answers = [await frames.next(), await frames.next()];
    if (answers.some((answer) => answer.error)) throw new Error(JSON.stringify(answers));
    return { frames, close: () => socket.close() };
  };

  const told = { socket: [], source: [] };
  let open = await socket(pods[0]);
  told.published = await publish("first");
  let push = await open.frames.next();
  told.socket.push(push.event.id);
  open.close();
  await publish("missed");
  open = await socket(pods[1], push.event.position);
  told.socket.push((await open.frames.next()).event.id);

  const source = new EventSource(`${way}/v1/stream/sse?type=health.*&after=${told.published.position}&access_token=${token}`);
  const events = queue();
  source.onmessage = ({ data, lastEventId }) => events.push([JSON.parse(data).id, JSON.parse(data).position === lastEventId]);
  told.source.push(await events.next());
  await fetch("/cut");
  await publish("while it was away");
  told.source.push(await events.next());
  source.close();

  const frame = document.createElement("iframe");
  const refused = new Promise((resolve) => { onmessage = ({ data }) => resolve(data); });
  frame.src = `${other}/refused`;
  document.body.append(frame);
  told.refused = await refused;
  return told;
}

/** Runs in a page of another origin. */
async function refused({ pods, token }) {
  const socket = await new Promise((resolve) => {
    const socket = new WebSocket(`ws://${pods[0]}/v1/stream`);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
  });
  const source = await new Promise((resolve) => {
    const source = new EventSource(`http://${pods[0]}/v1/stream/sse?access_token=${token}`);
    source.onopen = () => resolve("open");
    source.onerror = () => resolve("refused");
  });
  const fetched = await fetch(`http://${pods[0]}/v1/event-types`).then(() => "open", () => "refused");
  return { socket, source, fetched };
}

const script = (run, given, tell) =>
  `<!doctype html><body><script type="module">(${run})(${JSON.stringify(given)}).then(${tell}, (error) => (${tell})({ error: String(error) }))</script>`;

let tell;
const told = new Promise((resolve) => { tell = resolve; });
const serve = (port, answer) => new Promise((resolve) => {
  const server = http.createServer(answer);
  server.listen(port, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}`));
});
const html = { "content-type": "text/html" };
const other = await serve(0, (_, answer) =>
  answer.writeHead(200, html).end(script(refused, { pods, token }, "(told) => parent.postMessage(told, '*')")));
const home = await serve(Number(process.env.PAGE_PORT), (request, answer) => {
  if (request.url === "/cut") {
    cut();
    return answer.end();
  }
  if (request.url === "/told") {
    let body = "";
    request.on("data", (part) => { body += part; });
    request.on("end", () => tell(JSON.parse(body)));
    return answer.end();
  }
  const post = "(told) => fetch('/told', { method: 'POST', body: JSON.stringify(told) })";
  answer.writeHead(200, html).end(script(page, { pods, token, way, other }, post));
});

const profile = mkdtempSync(join(tmpdir(), "chromium-"));
const arguments_ = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--user-data-dir=${profile}`, `${home}/`];
// The debugging port keeps it from ending with the page's load.
const browser = spawn(process.env.CHROMIUM ?? "chromium-headless-shell", ["--remote-debugging-port=0", ...arguments_], { stdio: "ignore", detached: true });
browser.on("error", (error) => tell({ error: `the browser does not start: ${error.message}` }));
browser.on("exit", (code) => tell({ error: `the browser ended with ${code}` }));
const { error, published, ...rest } = await told;
browser.removeAllListeners("exit");
// With the processes that it has started, which would outlive it.
if (browser.pid) await new Promise((resolve) => { browser.on("exit", resolve); process.kill(-browser.pid, "SIGKILL"); });
rmSync(profile, { recursive: true, force: true });
assert.equal(error, undefined);
assert.equal(published.status, 201);
assert.deepEqual(rest, {
  socket: ["first", "missed"],
  source: [["missed", true], ["while it was away", true]],
  refused: { socket: "refused", source: "refused", fetched: "refused" },
});
process.exit(0);
