/** How long before the last sign of life a read may have been sent and still be lost with its connection. */
const inDoubtMs = 5000;

/**
 * What the person has seen, until the server can be taken to know. The server does not answer reads, and
 * hearing of one twice costs it nothing: so those that were sent shortly before a connection ended are sent again.
 */
export class Reads {
  #waiting: string[] = [];
  #sent: { at: number; ids: string[] }[] = [];

  constructor(readonly limit: number) {}

  get size(): number {
    return this.#waiting.length;
  }

  /** Keeps them for the next connection, and says how many had to be forgotten. */
  add(ids: readonly string[]): number {
    const all = new Set(this.#waiting);
    ids.forEach((id) => all.add(id));
    const forgotten = Math.max(0, all.size - this.limit);
    this.#waiting = [...all].slice(forgotten);
    return forgotten;
  }

  /** What is to be sent now; `heard` is when the server was heard last. */
  take(now: number, heard: number): string[] {
    const ids = this.#waiting;
    this.#waiting = [];
    this.#sent = this.#doubtful(heard);
    if (ids.length > 0) {
      this.#sent.push({ at: now, ids });
      this.#sent.splice(0, Math.max(0, this.#sent.length - this.limit));
    }
    return ids;
  }

  /** The connection has ended: what may not have arrived waits for the next. */
  lost(heard: number): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.add([...this.#doubtful(heard).flatMap((s) => s.ids), ...waiting]);
    this.#sent = [];
  }

  #doubtful(heard: number): { at: number; ids: string[] }[] {
    return this.#sent.filter((s) => s.at > heard - inDoubtMs);
  }
}
