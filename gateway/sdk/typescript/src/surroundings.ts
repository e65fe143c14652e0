interface Page {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}

/** How often it is looked whether the machine has slept, and how late that shows it, in milliseconds. */
const tickMs = 15_000;
const sleptMs = 120_000; // hidden pages' timers fire once a minute

/**
 * What a browser tells of the network, the page and sleep. It calls `doubt` when a connection may have
 * died unnoticed, `online` when one may be possible again, and `leaving` when the page may not run any more. Elsewhere than in a page it does nothing.
 */
export class Surroundings {
  #timer: ReturnType<typeof setInterval> | undefined;
  #tick = 0;

  constructor(
    readonly online: () => void,
    readonly doubt: () => void,
    readonly leaving: () => void,
  ) {}

  /** The machine says that it has no network. That it has one means little. */
  get offline(): boolean {
    return (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine === false;
  }

  watch(): void {
    const { window, document } = page();
    if (window === undefined || this.#timer !== undefined) {
      return;
    }
    window.addEventListener("online", this.online);
    window.addEventListener("pageshow", this.doubt);
    window.addEventListener("pagehide", this.leaving);
    document?.addEventListener("visibilitychange", this.#shown);
    this.#tick = Date.now();
    this.#timer = setInterval(() => {
      const late = Date.now() - this.#tick > sleptMs;
      this.#tick = Date.now();
      if (late) {
        this.doubt();
      }
    }, tickMs);
  }

  unwatch(): void {
    const { window, document } = page();
    window?.removeEventListener("online", this.online);
    window?.removeEventListener("pageshow", this.doubt);
    window?.removeEventListener("pagehide", this.leaving);
    document?.removeEventListener("visibilitychange", this.#shown);
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  readonly #shown = (): void => {
    if (hidden()) {
      this.leaving(); // a phone may end it without another word
    } else {
      this.doubt();
    }
  };
}

function page(): { window: Page | undefined; document: (Page & { hidden?: boolean }) | undefined } {
  const scope = globalThis as { window?: Page; document?: Page & { hidden?: boolean } };
  const there = typeof scope.window?.addEventListener === "function";
  return { window: there ? scope.window : undefined, document: there ? scope.document : undefined };
}

/** This is a page, not Node, a worker or React Native. */
export function inPage(): boolean {
  return page().window !== undefined;
}

/** The page can't be seen: its timers may wait for a minute. */
export function hidden(): boolean {
  return page().document?.hidden === true;
}
