import type { WhisperError } from "./errors.js";
import type { Notification } from "./frames.js";
import type { SocketConstructor } from "./socket.js";
import type { WhisperStorage } from "./storage.js";
import { version } from "./version.js";

/**
 * - `idle`: `connect()` was not called yet;
 * - `connecting`: a token is fetched, a socket opened;
 * - `open`: the server has welcomed us;
 * - `draining`: still open, but the server has asked us to come again elsewhere soon;
 * - `waiting`: there is no connection, and it is not time to try again yet, or the machine is offline;
 * - `closed`: `close()` was called, or trying again is useless. `connect()` starts anew.
 */
export type State = "idle" | "connecting" | "open" | "waiting" | "draining" | "closed";

/** A token (JWT), or how to get one: it is called before each connection and before a token expires. */
export type TokenSource = string | (() => string | Promise<string>);

export interface WhisperOptions {
  /** Where the gateway is, like `wss://push.example.com/v1/socket`; in a page it may be relative to that. */
  url: string;
  /**
   * With a callback, a token that the server refuses (4001), or that has expired (4002), is replaced, and a JWT is
   * refreshed before its `exp` without a new connection. A callback that fails is tried again, with back-off;
   * throw a `WhisperError("unauthorized", …)` to stop for good, for example when the person has logged out.
   */
  token: TokenSource;
  /**
   * Takes each notification once within the window. When it has returned, or its promise is resolved, the
   * notification is acknowledged; when it throws or rejects it is not, and the server sends it again. One at a
   * time and in order within a lane; a `high` one does not wait for a `low` one's handler.
   */
  onNotification: (notification: Notification) => void | Promise<void>;
  /** The notification of this id is to be taken back. */
  onRetracted?: (id: string) => void;
  /** Each change of `state`; `error` says why where it was not ours. */
  onState?: (state: State, error?: WhisperError) => void;
  /** What went wrong without ending the client; see `Code`. Without it, nothing is said. */
  onError?: (error: WhisperError) => void;
  /**
   * `manual` (default): the client acknowledges what its handler has finished. `auto`: the server takes for delivered
   * what the socket took; a notification that the handler fails on, or that is on its way when the connection ends, is lost.
   * In a category with `auto_ack: false`, as mandatory ones have it, that does not count, and the next channel is tried.
   */
  ackMode?: "manual" | "auto";
  /** How many ids are remembered to drop what comes twice (1,000). */
  dedupeWindow?: number;
  /** How many reads are kept while there is no connection (1,000); of more, the oldest are forgotten. */
  maxPendingReads?: number;
  /**
   * Milliseconds to wait before trying again: a random time up to `min` (500) that doubles with each failure up to
   * `max` (30,000).
   */
  backoff?: { min?: number; max?: number };
  /**
   * Milliseconds that getting a token may take, and then opening the connection (10,000 each). Chromium itself
   * holds a busy page's attempts back for up to 5,000.
   */
  connectTimeout?: number;
  /**
   * Keeps reads that the server may not know and the window, so that they survive a reload. Default: the page's
   * `sessionStorage`, which is each tab's own and ends with it; nothing outside of pages. `null`: nothing is kept.
   * With `localStorage` it outlives the tab and is shared by all tabs: see docs/clients.md. It is kept by `url` and user, at
   * most 64 KiB of each: ids and receipts, no contents.
   */
  storage?: WhisperStorage | null;
  /**
   * Tells clients of one user in one page apart in the storage: two need one each. It counts together with the token's `sub`, so
   * that people who share a device never share what is kept; alone where the token has none, and then it must name the person.
   * Without either, nothing is kept.
   */
  storageKey?: string;
  /** The WebSocket to use, where there is no global one (Node 20: that of the package `ws`) or another is wanted. */
  WebSocket?: SocketConstructor;
}

/** Options with every default filled in. */
export type Settings = Required<Pick<WhisperOptions, "url" | "token" | "ackMode" | "dedupeWindow" | "maxPendingReads" | "connectTimeout">> & {
  backoff: { min: number; max: number };
};

/** Checks all of it and names everything that is wrong. It looks at nothing but the options: a server may render with it. */
export function settle(o: WhisperOptions): Settings {
  const wrong: string[] = [];
  if (typeof o.token !== "function" && (typeof o.token !== "string" || o.token === "")) {
    wrong.push("token: must be a token or a function that gets one");
  }
  if (typeof o.onNotification !== "function") {
    wrong.push("onNotification: must be a function");
  }
  if (o.WebSocket !== undefined && typeof o.WebSocket !== "function") {
    wrong.push("WebSocket: must be a constructor");
  }
  const { storage } = o;
  if (storage !== undefined && storage !== null && (typeof storage.getItem !== "function" || typeof storage.setItem !== "function")) {
    wrong.push("storage: must have getItem and setItem");
  }
  if (o.storageKey !== undefined && (typeof o.storageKey !== "string" || o.storageKey === "")) {
    wrong.push("storageKey: must be a text");
  }
  if (typeof o.url !== "string" || socketAddress(o.url, false, "http://a.page/") === undefined) {
    wrong.push("url: must be like wss://push.example.com/v1/socket");
  }
  const number = (name: string, value: number | undefined, otherwise: number, least: number): number => {
    if (value !== undefined && !(Number.isFinite(value) && value >= least)) {
      wrong.push(`${name}: must be a number from ${least}`);
    }
    return value ?? otherwise;
  };
  const min = number("backoff.min", o.backoff?.min, 500, 0);
  const settings = {
    url: o.url,
    token: o.token,
    ackMode: o.ackMode ?? "manual",
    dedupeWindow: number("dedupeWindow", o.dedupeWindow, 1000, 1),
    maxPendingReads: number("maxPendingReads", o.maxPendingReads, 1000, 0),
    connectTimeout: number("connectTimeout", o.connectTimeout, 10_000, 1),
    backoff: { min, max: number("backoff.max", o.backoff?.max, Math.max(30_000, min), min) },
  };
  if (settings.ackMode !== "manual" && settings.ackMode !== "auto") {
    wrong.push("ackMode: must be manual or auto");
  }
  if (wrong.length > 0) {
    throw new TypeError("WhisperClient: " + wrong.join("; "));
  }
  return settings;
}

/** A scheme that is, or becomes, that of a WebSocket; the authority; the rest without the fragment. */
const absolute = /^(?:ws|http)(s?):\/\/([^/?#\s]+)([^#\s]*)(?:#\S*)?$/i;

/**
 * The address to connect to: http means ws, and what is relative counts from the page's address. undefined: it can't be
 * one, or it is relative and there is no page. Absolute ones are taken apart by hand, since React Native's URL is half of one.
 * It says which client this is, for `whisper sessions`: pages can set no header. What the url says itself counts.
 */
export function socketAddress(text: string, auto: boolean, page: string | undefined): string | undefined {
  let parts = absolute.exec(text);
  if (parts === null && page !== undefined && text !== "" && !/^[a-z][a-z0-9+.-]*:/i.test(text)) {
    try {
      parts = absolute.exec(new URL(text, page).href);
    } catch {
      return undefined;
    }
  }
  if (parts === null) {
    return undefined;
  }
  const [, s = "", authority = "", rest = ""] = parts;
  let address = `ws${s.toLowerCase()}://${authority}${rest}`;
  if (auto) {
    address = /[?&]ack=/.test(rest) ? address.replace(/([?&]ack=)[^&]*/, "$1auto") : withParameter(address, "ack=auto");
  }
  return /[?&]client=/.test(rest) ? address : withParameter(address, `client=${encodeURIComponent(`whisper-ts/${version}`)}`);
}

function withParameter(address: string, parameter: string): string {
  return `${address}${address.includes("?") ? "&" : "?"}${parameter}`;
}
