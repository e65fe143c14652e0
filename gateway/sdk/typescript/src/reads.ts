import { type Dated, keyOf } from "./delivery.js";

/** How long before the last sign of life a read may have been sent and still be lost with its connection. */
const inDoubtMs = 5000;

/**
 * How long a read without a receipt may wait: the window within which an id names one notification, unless dispatch was told
 * otherwise. After it the server would take it for the read of a later one.
 */
const maxReadAgeMs = 24 * 3600 * 1000;

/**
 * What the person has seen, until the server can be taken to know. The server does not answer reads, and
 * hearing of one twice costs it nothing: so those that were sent shortly before a connection ended are sent again.
 */
export class Reads {
  #waiting: Dated[] = [];
  #sent: { at: number; of: Dated[] }[] = [];

  constructor(readonly limit: number) {}

  get size(): number {
    return this.#waiting.length;
  }

  /** Keeps them for the next connection, and says how many had to be forgotten. */
  add(of: readonly Dated[]): number {
    const all = new Map(this.#waiting.map((d) => [keyOf(d), d]));
    of.forEach((d) => all.set(keyOf(d), d));
    const forgotten = Math.max(0, all.size - this.limit);
    this.#waiting = [...all.values()].slice(forgotten);
    return forgotten;
  }

  /** Drops what is too old to be told without a receipt, and says how many. What has no time is as old as it can be. */
  dropStale(now: number): number {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((d) => d.receipt !== "" || now - d.at <= maxReadAgeMs);
    return before - this.#waiting.length;
  }

  /** What is to be sent now; `heard` is when the server was heard last. */
  take(now: number, heard: number): Dated[] {
    const of = this.#waiting;
    this.#waiting = [];
    this.#sent = this.#doubtful(heard);
    if (of.length > 0) {
      this.#sent.push({ at: now, of });
      this.#sent.splice(0, Math.max(0, this.#sent.length - this.limit));
    }
    return of;
  }

  /** The connection has ended: what may not have arrived waits for the next. */
  lost(heard: number): void {
    const waiting = this.#waiting;
    this.#waiting = this.unsettled(heard);
    this.#sent = [];
    this.add(waiting);
  }

  /** What the server may not know yet, at most `limit`: what was sent and is in doubt, and what waits. */
  unsettled(heard: number): Dated[] {
    const all = new Map([...this.#doubtful(heard).flatMap((s) => s.of), ...this.#waiting].map((d) => [keyOf(d), d]));
    return [...all.values()].slice(Math.max(0, all.size - this.limit));
  }

  clear(): void {
    this.#waiting = [];
    this.#sent = [];
  }

  #doubtful(heard: number): { at: number; of: Dated[] }[] {
    return this.#sent.filter((s) => s.at > heard - inDoubtMs);
  }
}
