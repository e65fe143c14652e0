// What no server is needed for: arithmetic, and time that nobody waits for.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mock, suite, test } from "node:test";
import { Backoff } from "../src/backoff.js";
import type { Dated } from "../src/delivery.js";
import { encodeIDs } from "../src/frames.js";
import { type Notification, type SocketLike, WhisperClient, WhisperError, type WhisperOptions } from "../src/index.js";
import { readRetryAfter } from "../src/socket.js";
import { refreshIn, userOf } from "../src/token.js";
import { version } from "../src/version.js";
import { Window } from "../src/window.js";

const jwt = (claims: object): string => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;

test("the back-off is full jitter under a ceiling that doubles", () => {
  const longest = new Backoff(500, 30_000, () => 1);
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8].map(() => longest.next()), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  longest.reset();
  assert.equal(longest.next(), 500);
  assert.equal(new Backoff(500, 30_000, () => 0).next(), 0);
  assert.equal(longest.told(4000), 5000);
});

test("Retry-After is seconds or a date", () => {
  assert.equal(readRetryAfter("7"), 7000);
  const ms = readRetryAfter(new Date(Date.now() + 60_000).toUTCString())!;
  assert.ok(ms > 57_000 && ms <= 60_000, String(ms));
  for (const nothing of [undefined, "", "soon", "-3", "0"]) {
    assert.equal(readRetryAfter(nothing), undefined);
  }
});

test("a token is refreshed within its last two minutes, or two fifths", () => {
  const now = 1_800_000_000_000;
  const seconds = now / 1000;
  const hour = jwt({ iat: seconds, exp: seconds + 3600 });
  assert.equal(refreshIn(hour, now, () => 0), 3_540_000);
  assert.equal(refreshIn(hour, now, () => 1), 3_480_000);
  assert.equal(refreshIn(jwt({ iat: seconds, exp: seconds + 10 }), now, () => 1), 6000);
  assert.equal(refreshIn(hour, now + 24 * 3_600_000, () => 0), 3_540_000); // the machine's clock is a day ahead
  assert.equal(refreshIn(hour, now - 24 * 3_600_000, () => 0), 3_540_000); // or behind
  assert.equal(userOf(jwt({ sub: "mona", exp: 1 })), "mona");
  for (const token of ["opaque", "h.{}.s", jwt({ sub: 7 }), jwt([])]) {
    assert.equal(userOf(token), undefined, token);
  }
  for (const token of ["opaque", "a.b.c", jwt({}), jwt({ exp: "soon" }), jwt({ exp: seconds - 1 })]) {
    assert.equal(refreshIn(token, now, () => 0), undefined, token);
  }
});

test("ids go into frames that a gateway takes", () => {
  const all = Array.from({ length: 500 }, (_, i) => ({ id: "ن".repeat(60) + i, receipt: i % 2 === 0 ? "" : "r" + i }));
  const frames = encodeIDs("ack", all);
  const told = frames.map((f) => JSON.parse(f) as { ids: string[]; receipts: string[] });
  assert.deepEqual(told.flatMap((f) => f.ids.map((id, i) => ({ id, receipt: f.receipts[i] }))), all);
  assert.ok(frames.every((f) => Buffer.byteLength(f) < 16 << 10));
  assert.deepEqual(encodeIDs("read", [{ id: "a", receipt: "" }]), ['{"type":"read","ids":["a"]}']);
});

test("the version is that of the package", () => {
  assert.equal(version, (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version);
});

test("the window forgets the oldest", () => {
  const w = new Window(2);
  const of = (id: string): Dated => ({ id, receipt: "", at: 0 });
  ["a", "b", "a", "c"].forEach((id) => w.add(of(id)));
  assert.deepEqual(["a", "b", "c"].map((id) => w.has(of(id))), [true, false, true]);
  assert.equal(w.has({ ...of("a"), receipt: "another" }), false);
});

test("everything that is wrong with the options is named at once", () => {
  assert.throws(
    () => new WhisperClient({ url: "ftp://x", token: "", onNotification: undefined as never, backoff: { min: -1 }, dedupeWindow: 0, storage: {} as never, storageKey: "" }),
    (e: unknown) => e instanceof TypeError && ["url", "token", "onNotification", "backoff.min", "dedupeWindow", "storage", "storageKey"].every((name) => e.message.includes(name)),
  );
});

/** The server's end of a browser's WebSocket. */
class Socket implements SocketLike {
  static made: Socket[] = [];
  onopen = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror = null;
  sent: { type: string; ids?: string[]; receipts?: string[]; token?: string }[] = [];
  closed = false;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    Socket.made.push(this);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as { type: string });
  }

  close(): void {
    this.closed = true;
  }

  says(frame: object): void {
    this.onmessage!({ data: JSON.stringify(frame) });
  }
}

const settle = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) {
    await Promise.resolve();
  }
};

/** A client that is connected, on a clock that only tick moves. */
async function connected(t: { after(f: () => void): void }, options: Partial<WhisperOptions> = {}) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
  Socket.made = [];
  const states: string[] = [];
  const errors: WhisperError[] = [];
  const client = new WhisperClient({
    url: "wss://push.example.com/v1/socket",
    token: "t",
    onNotification: () => {},
    onState: (state) => states.push(state),
    onError: (error) => errors.push(error),
    WebSocket: Socket,
    ...options,
  });
  t.after(() => {
    client.close();
    mock.timers.reset();
  });
  void client.connect();
  await settle();
  const last = (): Socket => Socket.made.at(-1)!;
  const welcome = (): void => last().says({ type: "welcome", session: "s", ping_seconds: 25 });
  welcome();
  return { client, states, errors, last, welcome };
}

await suite("a connection", { concurrency: false }, async () => {
  await test("shows its token as a subprotocol only", async (t) => {
    const { last, states } = await connected(t);
    assert.deepEqual(last().protocols, ["whisper.v1", "bearer.t"]);
    assert.equal(last().url, `wss://push.example.com/v1/socket?client=whisper-ts%2F${version}`);
    assert.deepEqual(states, ["connecting", "open"]);
  });

  await test("tells reads that follow quickly together", async (t) => {
    const { client, last } = await connected(t);
    for (let i = 0; i < 300; i++) {
      client.read("n" + i);
    }
    mock.timers.tick(20);
    assert.deepEqual(last().sent.map((f) => f.ids!.length), [1, 128, 128, 43]);
  });

  await test("tells again what was read shortly before it was lost", async (t) => {
    const { client, last, welcome } = await connected(t);
    client.read("long ago");
    mock.timers.tick(10_000);
    last().says({ type: "later" }); // a sign of life
    client.read("just now");
    last().onclose!({ code: 1006 });
    client.read("meanwhile");
    mock.timers.tick(30_000);
    await settle();
    welcome();
    assert.equal(Socket.made.length, 2);
    assert.deepEqual(last().sent, [{ type: "read", ids: ["just now", "meanwhile"] }]);
  });

  await test("that has been quiet is asked, and given up without an answer", async (t) => {
    const { last, states, welcome } = await connected(t);
    mock.timers.tick(300_000);
    assert.deepEqual(last().sent, [{ type: "refresh", token: "t" }]);
    last().says({ type: "refreshed" });
    mock.timers.tick(299_000);
    assert.equal(last().sent.length, 1);
    mock.timers.tick(1000);
    assert.equal(last().sent.length, 2);
    mock.timers.tick(5000);
    assert.equal(last().closed, true);
    mock.timers.tick(30_000);
    await settle();
    welcome();
    assert.deepEqual(states, ["connecting", "open", "waiting", "connecting", "open"]);
  });

  await test("hands an alert over while another lane's handler is busy", async (t) => {
    const handled: string[] = [];
    let release = (): void => {};
    const busy = new Promise<void>((resolve) => (release = resolve));
    const { last } = await connected(t, {
      onNotification: (n) => {
        handled.push(n.id);
        return n.lane === "low" ? busy : undefined;
      },
    });
    for (const [id, lane] of [["l1", "low"], ["l2", "low"], ["h", "high"]]) {
      last().says({ type: "notification", id, lane, category: "c", at: "2026-11-24T00:00:00Z" });
    }
    await settle();
    assert.deepEqual(handled, ["l1", "h"]);
    assert.deepEqual(last().sent, [{ type: "ack", ids: ["h"] }]);
    release();
    await settle();
    mock.timers.tick(10);
    assert.deepEqual(handled, ["l1", "h", "l2"]);
    assert.deepEqual(last().sent.slice(1).flatMap((f) => f.ids), ["l1", "l2"]);
  });

  await test("hands a retraction over after its notification, where that waits", async (t) => {
    const told: string[] = [];
    let release = (): void => {};
    const busy = new Promise<void>((resolve) => (release = resolve));
    const { last } = await connected(t, {
      onNotification: async (n) => {
        await busy;
        told.push(n.id);
      },
      onRetracted: (id) => told.push("retracted " + id),
    });
    for (const id of ["a", "b"]) {
      last().says({ type: "notification", id, lane: "low", category: "c", at: "2026-11-24T00:00:00Z" });
    }
    ["a", "b", "unknown"].forEach((id) => last().says({ type: "retracted", id }));
    assert.deepEqual(told, ["retracted unknown"]);
    release();
    await settle();
    assert.deepEqual(told.slice(1), ["a", "b", "retracted a", "retracted b"]);
  });

  await test("tells two uses of one id apart", async (t) => {
    const handled: Notification[] = [];
    const { client, last } = await connected(t, { onNotification: (n) => void handled.push(n) });
    for (const receipt of ["w1", "w2", "w1"]) {
      last().says({ type: "notification", id: "r", lane: "high", category: "c", at: "2026-11-24T00:00:00Z", receipt });
      await settle();
      mock.timers.tick(10);
    }
    assert.deepEqual(handled.map((n) => n.receipt), ["w1", "w2"]);
    client.read("r", "older", handled[0]!);
    assert.deepEqual(last().sent, [
      ...["w1", "w2", "w1"].map((receipt) => ({ type: "ack", ids: ["r"], receipts: [receipt] })),
      { type: "read", ids: ["r", "older", "r"], receipts: ["w2", "", "w1"] },
    ]);
  });

  await test("has the server's name for its session", async (t) => {
    const { client, last } = await connected(t);
    assert.equal(client.session, "s");
    last().onclose!({ code: 1006 });
    assert.equal(client.session, undefined);
  });

  await test("is made again when a token could not be got, until the callback says that it is over", async (t) => {
    const answers: (string | Error)[] = ["one", new Error("the login is away"), new WhisperError("unauthorized", "logged out")];
    const { last, states, errors } = await connected(t, {
      token: () => {
        const next = answers.shift()!;
        if (next instanceof Error) {
          throw next;
        }
        return next;
      },
    });
    last().onclose!({ code: 4001 });
    for (let i = 0; i < 3; i++) {
      mock.timers.tick(30_000);
      await settle();
    }
    assert.deepEqual(states, ["connecting", "open", "waiting", "connecting", "waiting", "connecting", "closed"]);
    assert.deepEqual(errors.map((e) => e.code), ["connection", "token"]);
    assert.equal(JSON.stringify(errors).includes("one"), false);
  });

  await test("that a callback has closed stays closed", async (t) => {
    let self: WhisperClient | undefined;
    const { client, states, last } = await connected(t, { onState: (state) => state === "open" && self?.close() });
    self = client;
    assert.equal(client.state, "open");
    last().onclose!({ code: 1012 });
    mock.timers.tick(30_000);
    await settle();
    last().says({ type: "welcome", session: "s", ping_seconds: 25 });
    mock.timers.tick(600_000);
    await settle();
    assert.equal(client.state, "closed");
    assert.equal(Socket.made.length, 2);
    assert.deepEqual(states, []);
  });
});
