import { type Dated, type Delivery, keyOf } from "./delivery.js";
import { datedOf, type Lane, type Notification } from "./frames.js";
import { hidden } from "./surroundings.js";
import { Receipts, Window } from "./window.js";

/** What the inbox does with the world. */
export interface InboxHooks {
  /** Calls the application; a rejection means that the notification is to come again. */
  handle(notification: Notification): void | Promise<void>;
  /** The notification of this id is to be taken back. */
  retracted(id: string): void;
  /** These were handled, and the server of this connection waits to hear so. */
  ack(of: Delivery[]): void;
  /** The window has changed. */
  changed(): void;
  failed(notification: Notification, reason: unknown): void;
}

/** Acknowledgements within this time of the last are gathered, in milliseconds. */
const gatherMs = 10;

/** A notification, or the id of one that is to be taken back, which comes behind it. */
type Entry = Notification | string;

const lanes: readonly Lane[] = ["high", "normal", "low"];

/**
 * Hands each notification to the application once, in order within a lane, and says when it is to be
 * acknowledged: after it was handled, and each time that it came again later. The same id with another receipt is another
 * notification. One that came over an earlier connection is not acknowledged over this one, which would not know it: the
 * server sends it again first.
 */
export class Inbox {
  readonly #seen: Window;
  readonly #receipts: Receipts;
  /** Being handled or queued, with the connection that it came by last. */
  readonly #pending = new Map<string, number>();
  readonly #queues: Record<Lane, Entry[]> = { high: [], normal: [], low: [] };
  readonly #handling: Record<Lane, string | undefined> = { high: undefined, normal: undefined, low: undefined };
  readonly #busy: Record<Lane, boolean> = { high: false, normal: false, low: false };
  #connection = 0;
  /** Grows with each change of the user. */
  #users = 0;
  #acks: Delivery[] = [];
  #flushed = 0;

  constructor(
    window: number,
    readonly hooks: InboxHooks,
  ) {
    this.#seen = new Window(window);
    this.#receipts = new Receipts(window);
  }

  /** A connection has begun; what was to be acknowledged over the last one comes again. */
  connected(): void {
    this.#connection++;
    this.#acks.length = 0;
  }

  /** What was handled last, the oldest first. */
  seen(): Dated[] {
    return this.#seen.all();
  }

  /** Takes what an earlier page has handled, which is older than what this one has. */
  restore(earlier: readonly Dated[]): void {
    const own = this.#seen.all();
    this.#seen.clear();
    earlier.forEach((d) => {
      this.#seen.add(d);
      this.#receipts.note(d);
    });
    own.forEach((d) => {
      this.#seen.add(d);
      this.#receipts.note(d);
    });
  }

  /** The user has changed: nothing of the last one's counts. */
  forget(): void {
    this.#users++;
    lanes.forEach((lane) => (this.#queues[lane].length = 0));
    this.#pending.clear();
    this.#seen.clear();
    this.#receipts.clear();
  }

  /** The latest delivery under an id. */
  latest(id: string): Delivery {
    return { id, receipt: this.#receipts.get(id) };
  }

  take(n: Notification): void {
    const d = datedOf(n);
    if (this.#seen.has(d)) {
      this.#seen.add(d); // what still comes is not the one to forget
      this.#ack(d);
      return;
    }
    const key = keyOf(d);
    const known = this.#pending.has(key);
    this.#pending.set(key, this.#connection);
    if (!known) {
      this.#receipts.note(d);
      this.#queues[n.lane].push(n);
      void this.#drain(n.lane);
    }
  }

  /** Tells of a retraction: behind the notification itself where that is being handled or waits. */
  takeBack(id: string): void {
    const waits = (lane: Lane): boolean =>
      this.#handling[lane] === id || this.#queues[lane].some((e) => typeof e !== "string" && e.id === id);
    const lane = lanes.filter(waits).pop();
    if (lane === undefined) {
      this.hooks.retracted(id);
    } else {
      this.#queues[lane].push(id);
    }
  }

  async #drain(lane: Lane): Promise<void> {
    if (this.#busy[lane]) {
      return;
    }
    this.#busy[lane] = true;
    for (let e = this.#queues[lane].shift(); e !== undefined; e = this.#queues[lane].shift()) {
      if (typeof e === "string") {
        this.hooks.retracted(e);
      } else {
        this.#handling[lane] = e.id;
        await this.#handle(e);
        this.#handling[lane] = undefined;
      }
    }
    this.#busy[lane] = false;
  }

  async #handle(n: Notification): Promise<void> {
    const d = datedOf(n);
    const key = keyOf(d);
    const users = this.#users;
    try {
      await this.hooks.handle(n);
      if (users !== this.#users) {
        return; // it is nobody's here any more
      }
      this.#seen.add(d);
      this.hooks.changed();
      if (this.#pending.get(key) === this.#connection) {
        this.#ack(d);
      }
    } catch (reason) {
      this.hooks.failed(n, reason);
    }
    if (users === this.#users) {
      this.#pending.delete(key);
    }
  }

  /** The first goes out at once; those that follow quickly are gathered, since servers count frames. */
  #ack(d: Delivery): void {
    this.#acks.push(d);
    if (this.#acks.length > 1) {
      return;
    }
    const flush = (): void => {
      this.#flushed = Date.now();
      const of = this.#acks;
      this.#acks = [];
      if (of.length > 0) {
        this.hooks.ack(of);
      }
    };
    if (hidden() || Math.abs(Date.now() - this.#flushed) > gatherMs) {
      queueMicrotask(flush);
    } else {
      setTimeout(flush, gatherMs);
    }
  }
}
