// What every script stands on: the clients from npm, who it is, and a way to the pods that can be cut.

import { createRequire } from "node:module";
import net from "node:net";

/** Loads a client by the name that package.json gives it. */
export const client = createRequire(`${process.env.AZORA_TEST_NPM_CLIENTS}/package.json`);

/** The pods, as host:port. */
export const pods = process.env.PODS.split(",");

export const token = process.env.TOKEN;

/** A way to the pods on which each connection leads to the next one; `cut` ends all that are open. */
export async function relay() {
  const open = new Set();
  let connections = 0;
  const server = net.createServer((here) => {
    const [host, port] = pods[connections++ % pods.length].split(":");
    const there = net.connect(Number(port), host);
    for (const [one, other] of [[here, there], [there, here]]) {
      open.add(one);
      one.on("error", () => {});
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, cut: () => open.forEach((socket) => socket.destroy()) };
}

/** An event with this id. */
export function event(id) {
  return {
    specversion: "1.0", id, source: "/npm", type: "health.check", subject: "system/a",
    data: { component: "tests", status: "healthy" },
  };
}

/** Publishes an event with this id, at one pod after the other. */
export async function publish(id) {
  const pod = pods[published++ % pods.length];
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/cloudevents+json" };
  const answer = await fetch(`http://${pod}/v1/events`, { method: "POST", headers, body: JSON.stringify(event(id)) });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
}
let published = 0;

/** Waits until `look` finds something. */
export async function until(what, look) {
  for (let looks = 0; looks < 3000; looks++) {
    const found = look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain for ${what}`);
}
