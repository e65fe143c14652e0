/** What this package uses of a WebSocket: the browser's, Node's own, or that of the package `ws`. */
export interface SocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** A constructor of WebSockets, like `globalThis.WebSocket`. */
export type SocketConstructor = new (url: string, protocols: string[]) => SocketLike;

/** What the package `ws` can do beyond a browser's WebSocket. */
interface NodeSocket {
  on(event: "unexpected-response", listener: (request: { destroy(): void }, response: HandshakeAnswer) => void): void;
  on(event: "ping", listener: () => void): void;
  terminate(): void;
}

interface HandshakeAnswer {
  statusCode?: number;
  headers: Record<string, string | string[] | undefined>;
}

/** Why a connection ended. `status` and `retryAfterMs` only where the handshake's answer can be seen. */
export interface Ended {
  code: number;
  status?: number;
  retryAfterMs?: number;
}

/** One connection: every callback is for this one alone, and none comes after `ended`, which comes once. */
export class Link {
  #socket: SocketLike;
  #over = false;
  /** The server's pings can be seen, so that its silence means something. */
  readonly seesPings: boolean;

  constructor(
    Socket: SocketConstructor,
    url: string,
    token: string,
    readonly on: { text(text: string): void; ping(): void; ended(why: Ended): void },
  ) {
    this.#socket = new Socket(url, ["whisper.v1", "bearer." + token]);
    this.#socket.onmessage = (event: { data: unknown }) => {
      if (!this.#over && typeof event.data === "string") {
        on.text(event.data);
      }
    };
    this.#socket.onclose = (event: { code?: number }) => this.#end({ code: event.code ?? 1006 });
    this.#socket.onerror = () => {}; // a close follows; without a listener `ws` would throw
    const node = this.#node();
    this.seesPings = node !== undefined;
    node?.on("ping", () => this.#over || on.ping());
    node?.on("unexpected-response", (request, response) => {
      request.destroy();
      const retryAfterMs = readRetryAfter(response.headers["retry-after"]);
      this.#end({
        code: 1006,
        ...(response.statusCode === undefined ? {} : { status: response.statusCode }),
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      });
    });
  }

  #node(): NodeSocket | undefined {
    const socket = this.#socket as unknown as Partial<NodeSocket>;
    return typeof socket.on === "function" && typeof socket.terminate === "function" ? (socket as NodeSocket) : undefined;
  }

  #end(why: Ended): void {
    if (!this.#over) {
      this.#over = true;
      this.on.ended(why);
    }
  }

  /** Sends; false: it can't. */
  send(text: string): boolean {
    if (this.#over) {
      return false;
    }
    try {
      this.#socket.send(text);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Lets go of the connection: whether the server says goodbye in return does not matter, and nothing is
   * called any more.
   */
  leave(): void {
    this.#over = true;
    try {
      this.#socket.close(1000);
    } catch {
      // It was not open yet in an implementation that minds.
    }
  }

  /** Ends a connection that the other side has long left without a word. */
  abandon(): void {
    const node = this.#node();
    this.leave();
    node?.terminate();
  }
}

/** Seconds or a date, as milliseconds from now on; undefined: there is nothing to wait for. */
export function readRetryAfter(value: string | string[] | undefined): number | undefined {
  const text = Array.isArray(value) ? value[0] : value;
  if (text === undefined || text.trim() === "") {
    return undefined;
  }
  const seconds = Number(text);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}
