import type { Lane, Notification } from "./frames.js";
import { hidden } from "./surroundings.js";
import { Window } from "./window.js";

/** What the inbox does with the world. */
export interface InboxHooks {
  /** Calls the application; a rejection means that the notification is to come again. */
  handle(notification: Notification): void | Promise<void>;
  /** The ids were handled, and the server of this connection waits to hear so. */
  ack(ids: string[]): void;
  failed(notification: Notification, reason: unknown): void;
}

/** Acknowledgements within this time of the last are gathered, in milliseconds. */
const gatherMs = 10;

/**
 * Hands each notification to the application once, in order within a lane, and says when it is to be
 * acknowledged: after it was handled, and each time that it came again later. Ids of a notification that came over an
 * earlier connection are not acknowledged over this one, which would not know them: the server sends
 * them again first.
 */
export class Inbox {
  readonly #seen: Window;
  /** Being handled or queued, with the connection that it came by last. */
  readonly #pending = new Map<string, number>();
  readonly #queues: Record<Lane, Notification[]> = { high: [], normal: [], low: [] };
  readonly #busy: Record<Lane, boolean> = { high: false, normal: false, low: false };
  #connection = 0;
  #acks: string[] = [];
  #flushed = 0;

  constructor(
    window: number,
    readonly hooks: InboxHooks,
  ) {
    this.#seen = new Window(window);
  }

  /** A connection has begun; what was to be acknowledged over the last one comes again. */
  connected(): void {
    this.#connection++;
    this.#acks.length = 0;
  }

  take(n: Notification): void {
    if (this.#seen.has(n.id)) {
      this.#seen.add(n.id); // what still comes is not the one to forget
      this.#ack(n.id);
      return;
    }
    const known = this.#pending.has(n.id);
    this.#pending.set(n.id, this.#connection);
    if (!known) {
      this.#queues[n.lane].push(n);
      void this.#drain(n.lane);
    }
  }

  async #drain(lane: Lane): Promise<void> {
    if (this.#busy[lane]) {
      return;
    }
    this.#busy[lane] = true;
    for (let n = this.#queues[lane].shift(); n !== undefined; n = this.#queues[lane].shift()) {
      try {
        await this.hooks.handle(n);
        this.#seen.add(n.id);
        if (this.#pending.get(n.id) === this.#connection) {
          this.#ack(n.id);
        }
      } catch (reason) {
        this.hooks.failed(n, reason);
      }
      this.#pending.delete(n.id);
    }
    this.#busy[lane] = false;
  }

  /** The first goes out at once; those that follow quickly are gathered, since servers count frames. */
  #ack(id: string): void {
    this.#acks.push(id);
    if (this.#acks.length > 1) {
      return;
    }
    const flush = (): void => {
      this.#flushed = Date.now();
      const ids = this.#acks;
      this.#acks = [];
      if (ids.length > 0) {
        this.hooks.ack(ids);
      }
    };
    if (hidden() || Math.abs(Date.now() - this.#flushed) > gatherMs) {
      queueMicrotask(flush);
    } else {
      setTimeout(flush, gatherMs);
    }
  }
}
