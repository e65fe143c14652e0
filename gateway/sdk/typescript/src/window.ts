import { type Dated, type Delivery, keyOf } from "./delivery.js";

/** Remembers the last deliveries that were added. */
export class Window {
  readonly #seen = new Map<string, Dated>(); // in the order of adding

  constructor(readonly size: number) {}

  has(d: Delivery): boolean {
    return this.#seen.has(keyOf(d));
  }

  add(d: Dated): void {
    const key = keyOf(d);
    this.#seen.delete(key);
    this.#seen.set(key, d);
    if (this.#seen.size > this.size) {
      for (const oldest of this.#seen.keys()) {
        this.#seen.delete(oldest);
        break;
      }
    }
  }

  /** All of them, the oldest first. */
  all(): Dated[] {
    return [...this.#seen.values()];
  }

  clear(): void {
    this.#seen.clear();
  }
}

/**
 * Remembers the receipts under which the last ids came. Of two the one that was accepted later counts, in whatever order they come: an
 * earlier one is sent again after a later one where it was not acknowledged.
 */
export class Receipts {
  readonly #of = new Map<string, Dated>();

  constructor(readonly size: number) {}

  /** That of the latest delivery under this id; "": none is known, and the server takes the latest that it knows. */
  get(id: string): string {
    return this.#of.get(id)?.receipt ?? "";
  }

  note(d: Dated): void {
    const known = this.#of.get(d.id);
    if (known === undefined && d.receipt === "") {
      return;
    }
    this.#of.delete(d.id);
    this.#of.set(d.id, known !== undefined && known.at > d.at && d.at > 0 ? known : d);
    if (this.#of.size > this.size) {
      for (const oldest of this.#of.keys()) {
        this.#of.delete(oldest);
        break;
      }
    }
  }

  clear(): void {
    this.#of.clear();
  }
}
