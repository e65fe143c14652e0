import { type Delivery, keyOf } from "./delivery.js";

/** Remembers the last deliveries that were added. */
export class Window {
  readonly #seen = new Map<string, Delivery>(); // in the order of adding

  constructor(readonly size: number) {}

  has(d: Delivery): boolean {
    return this.#seen.has(keyOf(d));
  }

  add(d: Delivery): void {
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
  all(): Delivery[] {
    return [...this.#seen.values()];
  }

  clear(): void {
    this.#seen.clear();
  }
}

/** Remembers the receipts under which the last ids came. */
export class Receipts {
  readonly #of = new Map<string, string>();

  constructor(readonly size: number) {}

  /** That of the latest delivery under this id; "": none is known, and the server takes the latest that it knows. */
  get(id: string): string {
    return this.#of.get(id) ?? "";
  }

  note(d: Delivery): void {
    if (d.receipt === "" && !this.#of.has(d.id)) {
      return;
    }
    this.#of.delete(d.id);
    this.#of.set(d.id, d.receipt);
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
