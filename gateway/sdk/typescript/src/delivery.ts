/** One delivery of a notification. The receipt tells two uses of one id apart; it is "" where the gateway gave none. */
export interface Delivery {
  readonly id: string;
  readonly receipt: string;
}

/** A delivery at a time, in milliseconds since 1970: 0 where nothing says when. */
export interface Dated extends Delivery {
  readonly at: number;
}

/** The same text for the same delivery alone: ids hold no control characters. */
export function keyOf(d: Delivery): string {
  return `${d.id}\u0000${d.receipt}`;
}
