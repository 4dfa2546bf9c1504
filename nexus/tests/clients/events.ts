// What an application writes with the generated types, and what they keep it from. Compiled, never run.

import type { Answer, AzoraEvent, Command, EventData, EventType, Frame, NewEvent, Position } from "../../../docs/events";

/** The type of an event tells what its data is. */
export function told(event: AzoraEvent): string {
  switch (event.type) {
    case "wallet.created":
      return event.data.wallet_id + event.data.currency;
    case "mining.reward":
      return (event.data.money.amount_minor / 100).toFixed(2);
    case "system.alert":
      // @ts-expect-error there is no such severity
      if (event.data.severity === "mild") return "";
      return event.data.severity === "critical" ? event.data.message.toUpperCase() : event.data.code;
    case "lesson.completed":
      // @ts-expect-error it may be absent
      event.data.duration_seconds.toFixed();
      return (event.data.duration_seconds ?? 0).toFixed();
    case "job.posted":
      return event.data.budget?.currency ?? event.position;
    // @ts-expect-error there is no such type
    case "wallet.closed":
      return "";
    default:
      // @ts-expect-error what is left may be of many types, of which not all have a wallet
      return event.data.wallet_id;
  }
}

/** No type is forgotten. */
export const handlers: { [Type in EventType]?: (data: EventData[Type], position: Position) => void } = {
  "user.registered": (data) => data.version.toFixed(),
  "health.check": ({ component, status }) => component.endsWith(status),
  // @ts-expect-error the reward has another name
  "mining.rewarded": () => undefined,
};

export const published: NewEvent<"wallet.created"> = {
  specversion: "1.0",
  id: "1",
  source: "/bank",
  type: "wallet.created",
  subject: "wallet/w1",
  data: { wallet_id: "w1", user_id: "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b", currency: "AZR" },
};

// @ts-expect-error the currency is missing
export const incomplete: EventData["wallet.created"] = { wallet_id: "w1", user_id: "u1" };

export const commands: Command[] = [
  { id: 1, command: "connect", token: "secret" },
  { id: 2, command: "subscribe", types: ["wallet.*"], after: "1.0" },
  { id: 3, command: "publish", event: published },
  { id: 4, command: "history", limit: 10 },
  { id: 5, command: "ping" },
  // @ts-expect-error a misspelt member must not turn a resume into a fresh start
  { id: 6, command: "subscribe", types: ["wallet.*"], aftr: "1.0" },
  // @ts-expect-error there is no such command
  { id: 7, command: "fly" },
];

export function received(frame: Frame): Position | undefined {
  if (!("push" in frame)) return failed(frame);
  switch (frame.push) {
    case "event":
      return told(frame.event) ? frame.event.position : undefined;
    case "gap":
      return frame.to;
    case "heartbeat":
      return frame.position;
    case "drain":
      return frame.reconnect_after_ms > 0 ? frame.position : undefined;
    default:
      return frame satisfies never;
  }
}

function failed(answer: Answer): undefined {
  // @ts-expect-error it is told only in a refusal
  answer.error.code.length;
  if ("error" in answer) throw new Error(`${answer.id}: ${answer.error.code} ${answer.error.message}`);
}
