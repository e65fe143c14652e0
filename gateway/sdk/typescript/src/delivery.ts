/** One delivery of a notification. The receipt tells two uses of one id apart; it is "" where the gateway gave none. */
export interface Delivery {
  readonly id: string;
  readonly receipt: string;
}

/** The same text for the same delivery alone: ids hold no control characters. */
export function keyOf(d: Delivery): string {
  return `${d.id}\u0000${d.receipt}`;
}
