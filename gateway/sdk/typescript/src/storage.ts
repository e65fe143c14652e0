import { type Dated, keyOf } from "./delivery.js";
import { inPage } from "./surroundings.js";

/**
 * Where a client keeps what is to survive a reload: the browser's `sessionStorage` and `localStorage`, or anything
 * synchronous that keeps texts under keys. It may throw, forget and return nonsense: then nothing survives, and all else goes on.
 */
export interface WhisperStorage {
  getItem(key: string): string | null | undefined;
  setItem(key: string, value: string): void;
}

/** What is kept of one user. */
export interface Kept {
  /** What the handler was done with, the oldest first, each with when it was accepted. */
  seen: Dated[];
  /** Reads that the server may not know, each with when it was told. */
  reads: Dated[];
}

/** Most characters kept of one user: a storage has some 5 million for the whole site. */
const maxChars = 64 << 10;

/** An id has at most 128 bytes; what is longer is none of ours. */
const maxIDChars = 512;

/**
 * The page's own storage: `sessionStorage` is each tab's own, lasts through reloads and ends with the tab. undefined
 * outside of pages, and where the browser's settings forbid it.
 */
export function pageStorage(): WhisperStorage | undefined {
  if (!inPage()) {
    return undefined;
  }
  try {
    return (globalThis as { sessionStorage?: WhisperStorage }).sessionStorage;
  } catch {
    return undefined;
  }
}

/**
 * What one client keeps under one key. Others may keep theirs under the same key at the same time, as tabs do that are
 * given `localStorage`: each save leaves theirs in place, and takes away only what this client had of its own.
 */
export class Keeper {
  /** Reads of ours, as they were saved last. */
  #own = new Set<string>();

  constructor(
    readonly storage: WhisperStorage,
    readonly key: string,
  ) {}

  /** What was kept; from here on it is ours. Empty where there is nothing, or nothing that can be read. */
  load(): Kept {
    const kept = this.#read();
    this.#own = new Set(kept.reads.map(keyOf));
    return kept;
  }

  /** Keeps as much as there is room for, the latest first. It throws what the storage throws. */
  save({ seen, reads }: Kept): void {
    const stored = this.#read();
    const others = stored.reads.filter((d) => !this.#own.has(keyOf(d)));
    this.#own = new Set(reads.map(keyOf));
    const room = { chars: maxChars };
    const kept = {
      v: 1,
      reads: latest([...others, ...reads], room, maxChars / 2),
      seen: latest([...stored.seen, ...seen], room, maxChars),
    };
    this.storage.setItem(this.key, JSON.stringify(kept));
  }

  #read(): Kept {
    let kept: unknown;
    try {
      const text = this.storage.getItem(this.key);
      kept = typeof text === "string" && text.length <= 2 * maxChars ? JSON.parse(text) : undefined;
    } catch {
      // Cut short, or another's: as good as none.
    }
    const { v, seen, reads } = (typeof kept === "object" && kept !== null ? kept : {}) as Record<string, unknown>;
    return v === 1 ? { seen: deliveries(seen), reads: deliveries(reads) } : { seen: [], reads: [] };
  }
}

/** An entry is an id, a receipt and a time; those that an earlier version has kept have no time. */
function deliveries(list: unknown): Dated[] {
  return (Array.isArray(list) ? list : [])
    .filter((e): e is [string, string, unknown?] => Array.isArray(e) && [e[0], e[1]].every((t) => typeof t === "string" && t.length <= maxIDChars) && e[0] !== "")
    .map(([id, receipt, at]) => ({ id, receipt, at: typeof at === "number" && Number.isFinite(at) ? at : 0 }));
}

/** Each once, the oldest first, and of too many the latest. */
function latest(all: readonly Dated[], room: { chars: number }, most: number): [string, string, number][] {
  const once = new Map<string, Dated>();
  for (const d of all) {
    once.delete(keyOf(d));
    once.set(keyOf(d), d);
  }
  const kept: [string, string, number][] = [];
  for (const { id, receipt, at } of [...once.values()].reverse()) {
    const chars = JSON.stringify([id, receipt, at]).length + 1;
    if (chars > room.chars || most < chars) {
      break;
    }
    room.chars -= chars;
    most -= chars;
    kept.push([id, receipt, at]);
  }
  return kept.reverse();
}
