/**
 * Exponential with full jitter: clients that lost their node together come back spread out.
 */
export class Backoff {
  #failures = 0;

  constructor(
    readonly min: number,
    readonly max: number,
    readonly random: () => number,
  ) {}

  /** Milliseconds to wait after one more failure. */
  next(): number {
    const ceiling = Math.min(this.max, this.min * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    return this.random() * ceiling;
  }

  /** The next failure is a first one. */
  reset(): void {
    this.#failures = 0;
  }

  /** What the server has asked for, and up to a quarter more, since others were told the same. */
  told(ms: number): number {
    return ms * (1 + this.random() / 4);
  }
}
