/** Remembers the last ids that were added. */
export class Window {
  readonly #ids = new Set<string>(); // in the order of adding

  constructor(readonly size: number) {}

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  add(id: string): void {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size > this.size) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
  }
}
