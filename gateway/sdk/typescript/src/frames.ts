import type { Dated, Delivery } from "./delivery.js";

/** The lane a notification came by: alerts are `high`. */
export type Lane = "high" | "normal" | "low";

/** A notification as the server sent it. Treat text as text: it may hold anything. */
export interface Notification {
  /** One user gets a notification once; id and receipt are the same when it comes twice. */
  readonly id: string;
  readonly lane: Lane;
  readonly category: string;
  readonly title?: string;
  readonly body?: string;
  readonly url?: string;
  readonly image?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  /** When it was accepted, RFC 3339. */
  readonly at: string;
  /** Until when it means something, RFC 3339. */
  readonly expires_at?: string;
  /**
   * Opaque. It tells two uses of one id apart, such as a reminder each week, and goes back with what is acknowledged and
   * read. Not there where the gateway is older than receipts.
   */
  readonly receipt?: string;
}

export function deliveryOf(n: Pick<Notification, "id" | "receipt">): Delivery {
  return { id: n.id, receipt: n.receipt ?? "" };
}

/** The delivery, and when it was accepted. */
export function datedOf(n: Pick<Notification, "id" | "receipt" | "at">): Dated {
  const at = Date.parse(n.at);
  return { ...deliveryOf(n), at: Number.isFinite(at) ? at : 0 };
}

/** What a server's frame says, or undefined for one that is of a later version. */
export type ServerFrame =
  | { type: "welcome"; session: string; pingSeconds: number }
  | { type: "notification"; notification: Notification }
  | { type: "retracted"; id: string }
  | { type: "reconnect"; afterMs: number }
  | { type: "refreshed" }
  | { type: "error"; code: string; message: string };

const lanes: readonly string[] = ["high", "normal", "low"];

/** Reads a frame. It throws for what is not JSON, and passes over what it does not know. */
export function decodeFrame(text: string): ServerFrame | undefined {
  const frame: unknown = JSON.parse(text);
  if (typeof frame !== "object" || frame === null || Array.isArray(frame)) {
    return undefined;
  }
  const f = frame as Record<string, unknown>;
  switch (f["type"]) {
    case "welcome":
      return { type: "welcome", session: String(f["session"] ?? ""), pingSeconds: finite(f["ping_seconds"], 25) };
    case "notification": {
      if (typeof f["id"] !== "string" || f["id"] === "") {
        return undefined;
      }
      const { type: _, ...rest } = f;
      if (!lanes.includes(rest["lane"] as string)) {
        rest["lane"] = "normal";
      }
      if (typeof rest["receipt"] !== "string") {
        delete rest["receipt"];
      }
      return { type: "notification", notification: rest as unknown as Notification };
    }
    case "retracted":
      return typeof f["id"] === "string" ? { type: "retracted", id: f["id"] } : undefined;
    case "reconnect":
      return { type: "reconnect", afterMs: Math.max(0, finite(f["after_ms"], 0)) };
    case "refreshed":
      return { type: "refreshed" };
    case "error":
      return { type: "error", code: String(f["code"] ?? ""), message: String(f["message"] ?? "") };
    default:
      return undefined;
  }
}

function finite(v: unknown, otherwise: number): number {
  return typeof v === "number" && Number.isFinite(v) ? v : otherwise;
}

/** Half of what a gateway takes in one frame unless it was told otherwise (16 KiB). */
const maxFrameBytes = 8 << 10;

/** A gateway refuses a frame that names more than 256. */
const maxFrameIDs = 128;

/** Frames that name all of them, in order, none too large. A gateway that gave no receipts gets none. */
export function encodeIDs(type: "ack" | "read", of: readonly Delivery[]): string[] {
  const frames: string[] = [];
  let part: Delivery[] = [];
  let size = 0;
  const end = (): void => {
    const receipts = part.some((d) => d.receipt !== "") ? { receipts: part.map((d) => d.receipt) } : {};
    frames.push(JSON.stringify({ type, ids: part.map((d) => d.id), ...receipts }));
    part = [];
    size = 0;
  };
  for (const d of of) {
    const bytes = (JSON.stringify(d.id).length + JSON.stringify(d.receipt).length) * 3; // at most: 3 bytes of UTF-8 a unit of UTF-16
    if (part.length > 0 && (size + bytes > maxFrameBytes || part.length === maxFrameIDs)) {
      end();
    }
    part.push(d);
    size += bytes;
  }
  if (part.length > 0) {
    end();
  }
  return frames;
}
