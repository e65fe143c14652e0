// What survives a reload: a storage that fails, forgets, is full, holds nonsense or is another's, too.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Dated } from "../src/delivery.js";
import { WhisperClient } from "../src/index.js";
import { Keeper, type WhisperStorage } from "../src/storage.js";

const of = (...ids: string[]): Dated[] => ids.map((id) => ({ id, receipt: "r", at: 7 }));
const ids = (all: readonly Dated[]): string[] => all.map((d) => d.id);

class Memory implements WhisperStorage {
  readonly texts = new Map<string, string>();
  getItem(key: string): string | null {
    return this.texts.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.texts.set(key, value);
  }
}

await suite("what is kept", async () => {
  await test("comes back under its key alone", () => {
    const storage = new Memory();
    new Keeper(storage, "mona").save({ seen: of("a", "b"), reads: of("b") });
    assert.deepEqual(new Keeper(storage, "mona").load(), { seen: of("a", "b"), reads: of("b") });
    assert.deepEqual(new Keeper(storage, "omar").load(), { seen: [], reads: [] });
  });

  await test("is bounded, and the oldest goes first", () => {
    const storage = new Memory();
    const many = of(...Array.from({ length: 20_000 }, (_, i) => `n${i}`));
    new Keeper(storage, "k").save({ seen: many, reads: many });
    assert.ok(storage.texts.get("k")!.length <= 66_000, String(storage.texts.get("k")!.length));
    const { seen, reads } = new Keeper(storage, "k").load();
    assert.ok(seen.length > 1000 && reads.length > 1000, `${seen.length} ${reads.length}`);
    assert.equal(seen.at(-1)!.id, "n19999");
    assert.equal(reads.at(-1)!.id, "n19999");
  });

  await test("is nothing where it can't be read, and is written anew", () => {
    const entry = JSON.stringify({ v: 1, seen: [["a", "r"], ["", "r"], ["x".repeat(9999), "r"], [1, 2], null, "b"], reads: "all" });
    for (const text of ["", "{", "null", "[]", "7", '{"v":2,"seen":[["a","r"]]}', entry.slice(0, -3), "x".repeat(1 << 20)]) {
      const storage = new Memory();
      storage.setItem("k", text);
      const keeper = new Keeper(storage, "k");
      assert.deepEqual(keeper.load(), { seen: [], reads: [] }, text.slice(0, 40));
      keeper.save({ seen: of("b"), reads: [] });
      assert.deepEqual(keeper.load(), { seen: of("b"), reads: [] });
    }
    const storage = new Memory();
    storage.setItem("k", entry);
    assert.deepEqual(new Keeper(storage, "k").load(), { seen: [{ id: "a", receipt: "r", at: 0 }], reads: [] }); // an earlier version's
    new Keeper(storage, "k").save({ seen: of("b"), reads: of("b") });
    assert.deepEqual(new Keeper(storage, "k").load(), { seen: [{ id: "a", receipt: "r", at: 0 }, ...of("b")], reads: of("b") });
    storage.getItem = () => {
      throw new Error("not today");
    };
    assert.deepEqual(new Keeper(storage, "k").load(), { seen: [], reads: [] });
  });

  await test("of two clients under one key does not push the other's out", () => {
    const storage = new Memory();
    const [one, two] = [new Keeper(storage, "k"), new Keeper(storage, "k")];
    one.load();
    two.load();
    one.save({ seen: of("a"), reads: of("a") });
    two.save({ seen: of("b"), reads: of("b") });
    assert.deepEqual(ids(new Keeper(storage, "k").load().seen), ["a", "b"]);
    assert.deepEqual(ids(new Keeper(storage, "k").load().reads), ["a", "b"]);
    one.save({ seen: of("a"), reads: [] }); // told
    assert.deepEqual(ids(new Keeper(storage, "k").load().reads), ["b"]);
    const heir = new Keeper(storage, "k");
    assert.deepEqual(ids(heir.load().reads), ["b"]); // the tab of two was closed
    heir.save({ seen: [], reads: [] });
    assert.deepEqual(ids(new Keeper(storage, "k").load().reads), []);
    assert.deepEqual(ids(new Keeper(storage, "k").load().seen).sort(), ["a", "b"]);
  });
});

/** A socket whose server says and hears what the test does. */
class Socket {
  static made: Socket[] = [];
  onopen = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onerror = null;
  sent: { type: string; ids: string[] }[] = [];
  constructor() {
    Socket.made.push(this);
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text) as { type: string; ids: string[] });
  }
  close(): void {}
  says(frame: object): void {
    this.onmessage!({ data: JSON.stringify(frame) });
  }
}

/** A client that is welcomed, as after a reload of the page. */
async function page(storage: WhisperStorage, options: { sub?: string; token?: string; storageKey?: string; errors?: string[] } = {}) {
  const token = options.token ?? `h.${Buffer.from(JSON.stringify({ sub: options.sub ?? "mona" })).toString("base64url")}.s`;
  const handled: string[] = [];
  const client = new WhisperClient({
    url: "wss://push.example.com/v1/socket",
    token,
    storage,
    ...(options.storageKey === undefined ? {} : { storageKey: options.storageKey }),
    WebSocket: Socket,
    onNotification: (n) => void handled.push(n.id),
    onError: (e) => options.errors?.push(e.code),
  });
  const opened = client.connect();
  await Promise.resolve();
  await Promise.resolve();
  const socket = Socket.made.at(-1)!;
  socket.says({ type: "welcome", session: "s", ping_seconds: 25 });
  await opened;
  const notify = async (id: string, more: object = {}): Promise<void> => {
    socket.says({ type: "notification", id, receipt: "r", lane: "high", category: "c", at: "2026-11-24T00:00:00Z", ...more });
    await new Promise((resolve) => setTimeout(resolve, 20)); // acknowledgements are gathered for 10 ms
  };
  return { client, socket, handled, notify };
}

await suite("after a reload", async () => {
  await test("what was handled is acknowledged and not handed over again, and another user's is", async () => {
    const storage = new Memory();
    const first = await page(storage);
    await first.notify("a");
    first.client.close();
    const second = await page(storage);
    await second.notify("a");
    await second.notify("b");
    second.client.close();
    assert.deepEqual(second.handled, ["b"]);
    assert.deepEqual(second.socket.sent.flatMap((f) => f.ids), ["a", "b"]);
    const other = await page(storage, { sub: "omar" });
    await other.notify("a");
    other.client.close();
    assert.deepEqual(other.handled, ["a"]);
  });

  await test("reads that the server may not know are told again", async () => {
    const storage = new Memory();
    const first = await page(storage);
    await first.notify("a");
    first.client.read("a"); // told, and in doubt for 5 s
    first.socket.onclose!({ code: 1006 });
    first.client.read("b"); // there is no connection
    first.client.close();
    const second = await page(storage);
    second.client.close();
    assert.deepEqual(second.socket.sent, [{ type: "read", ids: ["a", "b"], receipts: ["r", ""] }]);
  });

  await test("two people with one storageKey share nothing", async () => {
    const storage = new Memory();
    const first = await page(storage, { storageKey: "bank" });
    await first.notify("a");
    first.socket.onclose!({ code: 1006 });
    first.client.read("a"); // nobody has heard it
    first.client.close();
    const other = await page(storage, { storageKey: "bank", sub: "omar" });
    await other.notify("a");
    other.client.close();
    assert.deepEqual(other.handled, ["a"]);
    assert.deepEqual(other.socket.sent.map((f) => f.type), ["ack"]);
    const again = await page(storage, { storageKey: "bank" });
    await again.notify("a");
    again.client.close();
    assert.deepEqual(again.handled, []);
    assert.deepEqual(again.socket.sent.map((f) => f.type), ["read", "ack"]);
  });

  await test("two users and keys are never one, however they are spelled", async () => {
    const storage = new Memory();
    for (const options of [{ storageKey: "a b", sub: "c" }, { storageKey: "a", sub: "b c" }, { sub: "a b c" }, { storageKey: 'a","b', sub: "c" }]) {
      const { client, handled, notify } = await page(storage, options);
      await notify("a");
      client.close();
      assert.deepEqual(handled, ["a"], JSON.stringify(options));
    }
  });

  await test("where a token does not say whose it is, storageKey alone counts", async () => {
    const storage = new Memory();
    const earlier = { v: 1, seen: [["old", "r"]], reads: [["old", "r"]] };
    storage.setItem("whisper wss://push.example.com/v1/socket mona", JSON.stringify(earlier)); // as earlier versions have kept it
    const first = await page(storage, { token: "opaque", storageKey: "mona" });
    await first.notify("old");
    await first.notify("a");
    first.client.close();
    assert.deepEqual(first.handled, ["a"]);
    assert.deepEqual(first.socket.sent.map((f) => [f.type, ...f.ids]), [["read", "old"], ["ack", "old"], ["ack", "a"]]);
    const second = await page(storage, { token: "another", storageKey: "mona" });
    await second.notify("a");
    second.client.close();
    assert.deepEqual(second.handled, []);
  });

  await test("an id means the latest notification under it, in whatever order they came", async () => {
    const storage = new Memory();
    const week = (n: number) => ({ receipt: `w${n}`, at: `2026-11-${10 + 7 * n}T00:00:00Z` });
    const read = (socket: Socket) => socket.sent.filter((f) => f.type === "read").map((f) => (f as { receipts?: string[] }).receipts);
    const first = await page(storage);
    await first.notify("r", week(1));
    await first.notify("r", week(2));
    await first.notify("r", week(1)); // its acknowledgement was lost
    first.client.close();
    const second = await page(storage);
    second.client.read("r");
    await second.notify("r", week(0)); // never handled until now
    second.client.read("r");
    second.client.close();
    assert.deepEqual(read(second.socket), [["w2"], ["w2"]]);
  });

  await test("a read without a receipt is not told after a day: the id may be another's by then", async () => {
    const errors: string[] = [];
    const hours = (n: number): number => Date.now() - n * 3600_000;
    const storage = new Memory();
    const reads = [["unknown", ""], ["old", "", hours(25)], ["exact", "r", hours(25)], ["new", "", hours(23)], ["odd", "", "soon"]];
    storage.setItem("whisper wss://push.example.com/v1/socket mona", JSON.stringify({ v: 1, seen: [], reads }));
    const { client, socket } = await page(storage, { errors });
    client.close();
    assert.deepEqual(socket.sent, [{ type: "read", ids: ["exact", "new"], receipts: ["r", ""] }]);
    assert.deepEqual(errors, ["dropped"]);
  });

  await test("a storage that is full is told once, and everything else goes on", async () => {
    const storage = new Memory();
    storage.setItem = () => {
      throw new Error("QuotaExceededError");
    };
    const errors: string[] = [];
    const { client, notify, handled, socket } = await page(storage, { errors });
    await notify("a");
    client.close();
    client.close();
    assert.deepEqual(handled, ["a"]);
    assert.deepEqual(socket.sent.flatMap((f) => f.ids), ["a"]);
    assert.deepEqual(errors, ["storage"]);
  });
});
