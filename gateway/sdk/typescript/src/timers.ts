/** What setTimeout can hold; more would fire at once. */
const longest = 2 ** 31 - 1;

/** Timers by name, at most one of each. */
export class Timers<Name extends string> {
  readonly #running = new Map<Name, ReturnType<typeof setTimeout>>();

  /** Takes the place of the timer of this name. */
  set(name: Name, ms: number, then: () => void): void {
    this.drop(name);
    const part = Math.min(Math.max(0, ms), longest);
    const fire = (): void => {
      this.#running.delete(name);
      if (ms > part) {
        this.set(name, ms - part, then);
      } else {
        then();
      }
    };
    this.#running.set(name, setTimeout(fire, part));
  }

  has(name: Name): boolean {
    return this.#running.has(name);
  }

  drop(name: Name): void {
    clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  clear(): void {
    this.#running.forEach((timer) => clearTimeout(timer));
    this.#running.clear();
  }
}
