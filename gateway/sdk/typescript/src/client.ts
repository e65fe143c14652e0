import { Backoff } from "./backoff.js";
import { WhisperError } from "./errors.js";
import type { Delivery } from "./delivery.js";
import { decodeFrame, deliveryOf, encodeIDs, type Notification, type ServerFrame } from "./frames.js";
import { Inbox } from "./inbox.js";
import { settle, type Settings, socketAddress, type State, type WhisperOptions } from "./options.js";
import { Reads } from "./reads.js";
import { type Ended, Link, type SocketConstructor } from "./socket.js";
import { Keeper, pageStorage } from "./storage.js";
import { hidden, Surroundings } from "./surroundings.js";
import { Timers } from "./timers.js";
import { refreshIn, userOf } from "./token.js";

/** How long an answer may take when it is doubtful whether anybody is there, in milliseconds. */
const probeMs = 5000;

/** After so much silence a browser, which is not shown the server's pings, asks whether anybody is there. */
const quietMs = 300_000;

/** The shortest time between two frames of reads: servers count frames (100 a second). */
const readsGatherMs = 20;

/** The longest time from a change to its place in the storage, but for a page that leaves: that is at once. */
const saveMs = 250;

/**
 * Receives a user's notifications for as long as it is wanted: it connects, acknowledges what the
 * application has handled, drops what comes twice, and comes back after everything that does not end it.
 */
export class WhisperClient {
  readonly #options: WhisperOptions;
  readonly #settings: Settings;
  readonly #inbox: Inbox;
  readonly #reads: Reads;
  readonly #backoff: Backoff;
  readonly #timers = new Timers<"connect" | "retry" | "move" | "refresh" | "silence" | "probe" | "reads">();
  readonly #surroundings: Surroundings;

  #state: State = "idle";
  #session: string | undefined;
  #link: Link | undefined;
  #token = "";
  #openedAt = 0;
  #heardAt = 0;
  #readsAt = 0;
  #pingMs = 25_000;
  /** What survives a reload, once it is known whose; the user whose things are in memory. */
  #keeper: Keeper | undefined;
  #user: string | undefined;
  #saving: ReturnType<typeof setTimeout> | undefined;
  #unkept = false;
  /** Grows when what is under way is not wanted any more. */
  #run = 0;
  #moveAt: number | undefined;
  #opening: { promise: Promise<void>; resolve(): void; reject(why: WhisperError): void } | undefined;

  /**
   * Throws a TypeError that names everything that is wrong with the options. It looks at nothing around it, so that a
   * server may render with it; `connect()` does.
   */
  constructor(options: WhisperOptions) {
    this.#options = { ...options };
    this.#settings = settle(options);
    const { min, max } = this.#settings.backoff;
    this.#backoff = new Backoff(min, max, Math.random);
    this.#reads = new Reads(this.#settings.maxPendingReads);
    this.#inbox = new Inbox(this.#settings.dedupeWindow, {
      handle: (n) => this.#options.onNotification(n),
      retracted: (id) => this.#tell(() => this.#options.onRetracted?.(id)),
      ack: (of) => this.#ack(of),
      changed: () => this.#saveSoon(),
      failed: (n, cause) => this.#report(new WhisperError("handler", `onNotification failed on ${n.id}; it comes again`, { cause })),
    });
    this.#surroundings = new Surroundings(
      () => this.#online(),
      () => this.#doubt(),
      () => this.#save(),
    );
  }

  get state(): State {
    return this.#state;
  }

  /** The server's name for the session of the connection that there is, as it stands in the server's logs. */
  get session(): string | undefined {
    return this.#session;
  }

  /**
   * Connects and stays connected until `close()`. The promise is resolved by the first welcome and rejected when
   * the client stops for good before that; nobody has to wait for it.
   */
  connect(): Promise<void> {
    let opening = this.#opening;
    if (opening === undefined || this.#state === "idle" || this.#state === "closed") {
      opening = this.#opening = deferred();
      this.#backoff.reset();
      this.#surroundings.watch();
      void this.#attempt();
    }
    return opening.promise; // a callback may have closed it already
  }

  /** Ends the connection and stays away. `connect()` starts anew; reads that wait are kept for it. */
  close(): void {
    this.#save();
    if (this.#state !== "idle" && this.#state !== "closed") {
      this.#stop(undefined);
    }
  }

  /**
   * Tells that the person has seen these notifications: now, or when there is a connection. It never fails, and
   * hearing of one twice changes nothing. Those that follow one another quickly are told together. An id means the latest
   * notification that came under it, a notification exactly that one.
   */
  read(...which: (string | Pick<Notification, "id" | "receipt">)[]): void {
    const now = Date.now();
    const of = which.map((w) => (typeof w === "string" ? this.#inbox.latest(w) : deliveryOf(w)));
    const forgotten = this.#reads.add(of.map(({ id, receipt }) => ({ id, receipt, at: now })));
    if (forgotten > 0) {
      this.#report(new WhisperError("dropped", `${forgotten} reads were forgotten: too many wait for a connection`));
    }
    this.#saveSoon();
    this.#tellReads();
  }

  // --- connecting ---

  async #attempt(): Promise<void> {
    const run = ++this.#run;
    this.#timers.clear();
    this.#moveAt = undefined;
    this.#become("connecting");
    if (run !== this.#run) {
      return; // a callback has closed it
    }
    const scope = globalThis as { WebSocket?: SocketConstructor; location?: { href?: string } };
    const Socket = this.#options.WebSocket ?? scope.WebSocket;
    const url = socketAddress(this.#settings.url, this.#settings.ackMode === "auto", scope.location?.href);
    if (Socket === undefined) {
      this.#stop(new WhisperError("environment", "there is no WebSocket here; give one, like that of the package ws"));
      return;
    }
    if (url === undefined) {
      this.#stop(new WhisperError("environment", "the url is relative, and there is no page here that it could count from"));
      return;
    }
    this.#timers.set("connect", this.#settings.connectTimeout, () => this.#tokenFailed(new Error("it takes too long")));
    let token: string;
    try {
      token = await this.#fetchToken();
    } catch (cause) {
      if (run === this.#run) {
        this.#tokenFailed(cause);
      }
      return;
    }
    if (run !== this.#run) {
      return;
    }
    this.#token = token;
    this.#remember(url, token);
    this.#open(Socket, url, token);
  }

  #open(Socket: SocketConstructor, url: string, token: string): void {
    let link: Link;
    try {
      link = new Link(Socket, url, token, {
        text: (text) => this.#heard(text),
        ping: () => this.#alive(),
        ended: (why) => this.#ended(why),
      });
    } catch {
      // What it says may hold the token. Only a token that can't be one, or a page's policy, gets here.
      this.#tokenFailed(new WhisperError("token", "the WebSocket can't be made with this address and token"));
      return;
    }
    this.#link = link;
    this.#timers.set("connect", this.#settings.connectTimeout, () => {
      link.abandon();
      this.#ended({ code: 1006 });
    });
  }

  async #fetchToken(): Promise<string> {
    const source = this.#settings.token;
    return typeof source === "function" ? await source() : source;
  }

  #tokenFailed(cause: unknown): void {
    if (cause instanceof WhisperError && cause.code === "unauthorized") {
      this.#stop(cause);
      return;
    }
    if (typeof this.#settings.token !== "function" && cause instanceof WhisperError) {
      this.#stop(new WhisperError("refused", cause.message));
      return;
    }
    const error = new WhisperError("token", "no token could be got", { cause });
    this.#timers.clear();
    this.#report(error);
    this.#wait(this.#backoff.next(), error);
  }

  /** Waits before the next attempt; while the machine is offline, until it says that it is not. */
  #wait(ms: number, why: WhisperError): void {
    this.#run++;
    this.#become("waiting", why);
    if (this.#state === "waiting") {
      const wait = this.#surroundings.offline ? Math.max(ms, this.#settings.backoff.max) : ms;
      this.#timers.set("retry", wait, () => void this.#attempt());
    }
  }

  // --- the end of a connection ---

  #ended(why: Ended): void {
    const { wasOpen, moveAt } = this.#letGo();
    const renewable = typeof this.#settings.token === "function";
    if ((why.code === 4001 || why.status === 401) && !renewable) {
      this.#stop(new WhisperError("unauthorized", "the server does not accept the token"));
    } else if (why.code === 4002 && !renewable) {
      this.#stop(new WhisperError("expired", "the token has expired"));
    } else if (hopeless(why.status)) {
      this.#stop(new WhisperError("refused", `the server refuses the connection: HTTP ${why.status}`));
    } else {
      const error = new WhisperError("connection", describe(why));
      this.#report(error);
      this.#wait(this.#pause(why, wasOpen, moveAt), error);
    }
  }

  #pause(why: Ended, wasOpen: boolean, moveAt: number | undefined): number {
    if (wasOpen && why.code === 4002) {
      return 0; // tokens expire: not a failure, and no two clients' at once
    }
    const pause = this.#backoff.next();
    if (moveAt !== undefined) {
      return Math.min(pause, Math.max(0, moveAt - Date.now())); // it was about to leave anyhow
    }
    return why.retryAfterMs === undefined ? pause : Math.max(pause, this.#backoff.told(why.retryAfterMs));
  }

  /** Forgets the connection, whose end is under way or has come. */
  #letGo(): { wasOpen: boolean; moveAt: number | undefined } {
    const wasOpen = this.#state === "open" || this.#state === "draining";
    const moveAt = this.#moveAt;
    if (wasOpen) {
      this.#reads.lost(this.#heardAt);
      if (moveAt !== undefined || Date.now() - this.#openedAt > this.#settings.backoff.max) {
        this.#backoff.reset();
      }
    }
    this.#link = undefined;
    this.#session = undefined;
    this.#moveAt = undefined;
    this.#timers.clear();
    return { wasOpen, moveAt };
  }

  #stop(why: WhisperError | undefined): void {
    this.#link?.leave();
    this.#letGo();
    this.#run++;
    this.#surroundings.unwatch();
    const opening = this.#opening;
    this.#opening = undefined;
    opening?.reject(why ?? new WhisperError("closed", "the client was closed"));
    this.#become("closed", why);
  }

  // --- frames ---

  #heard(text: string): void {
    this.#alive();
    let frame: ServerFrame | undefined;
    try {
      frame = decodeFrame(text);
    } catch {
      this.#report(new WhisperError("server", "the server sent a frame that is not JSON"));
      return;
    }
    if (frame?.type === "welcome") {
      this.#welcome(frame.session, frame.pingSeconds);
      return;
    }
    if (frame === undefined || (this.#state !== "open" && this.#state !== "draining")) {
      return; // a later server's, or one that is out of turn
    }
    switch (frame.type) {
      case "notification":
        this.#inbox.take(frame.notification);
        break;
      case "retracted":
        this.#inbox.takeBack(frame.id);
        break;
      case "reconnect":
        this.#drain(frame.afterMs);
        break;
      case "refreshed":
        break;
      case "error":
        this.#report(new WhisperError("server", `the server can't use a frame: ${frame.code}: ${frame.message}`));
        break;
    }
  }

  #welcome(session: string, pingSeconds: number): void {
    if (this.#state !== "connecting") {
      return;
    }
    this.#timers.drop("connect");
    this.#session = session;
    this.#openedAt = Date.now();
    this.#pingMs = Math.max(1, pingSeconds) * 1000;
    this.#inbox.connected();
    this.#opening?.resolve();
    this.#scheduleRefresh();
    this.#become("open");
    this.#alive();
    this.#tellReads();
  }

  /** The server is about to leave: come again when it says, so that its clients don't all come at once. */
  #drain(afterMs: number): void {
    if (this.#moveAt !== undefined) {
      return;
    }
    this.#moveAt = Date.now() + afterMs;
    this.#timers.set("move", afterMs, () => {
      this.#link?.leave();
      this.#letGo();
      void this.#attempt();
    });
    this.#become("draining");
  }

  #ack(of: Delivery[]): void {
    if (this.#settings.ackMode === "manual") {
      encodeIDs("ack", of).forEach((frame) => this.#link?.send(frame));
    }
  }

  #tellReads(): void {
    const open = this.#state === "open" || this.#state === "draining";
    if (!open || this.#reads.size === 0 || this.#timers.has("reads")) {
      return;
    }
    const wait = this.#readsAt + readsGatherMs - Date.now();
    if (wait > 0 && wait <= readsGatherMs && !hidden()) {
      this.#timers.set("reads", wait, () => this.#tellReads());
      return;
    }
    this.#readsAt = Date.now();
    const stale = this.#reads.dropStale(this.#readsAt);
    if (stale > 0) {
      this.#report(new WhisperError("dropped", `${stale} reads without a receipt were forgotten: they have waited for a day`));
    }
    encodeIDs("read", this.#reads.take(this.#readsAt, this.#heardAt)).forEach((frame) => this.#link?.send(frame));
    this.#saveSoon();
  }

  // --- what survives a reload ---

  /** Takes up what an earlier page has left of this user, and forgets another's. */
  #remember(url: string, token: string): void {
    const storage = this.#options.storage === undefined ? pageStorage() : this.#options.storage;
    const user = ownerOf(this.#options.storageKey, userOf(token));
    if (user === this.#user) {
      return;
    }
    if (this.#user !== undefined) {
      this.#save();
      this.#inbox.forget();
      this.#reads.clear();
    }
    this.#user = user;
    this.#keeper = undefined;
    if (user === undefined || !storage) {
      return;
    }
    this.#keeper = new Keeper(storage, `whisper ${url.replace(/\?.*$/, "")} ${user}`);
    const { seen, reads } = this.#keeper.load();
    this.#inbox.restore(seen);
    const own = this.#reads.unsettled(this.#heardAt);
    this.#reads.add(reads);
    this.#reads.add(own);
  }

  #saveSoon(): void {
    if (this.#keeper !== undefined && this.#saving === undefined) {
      this.#saving = setTimeout(() => this.#save(), saveMs);
    }
  }

  #save(): void {
    if (this.#keeper === undefined) {
      return;
    }
    clearTimeout(this.#saving);
    this.#saving = undefined;
    try {
      this.#keeper.save({ seen: this.#inbox.seen(), reads: this.#reads.unsettled(this.#heardAt) });
    } catch (cause) {
      if (!this.#unkept) {
        this.#unkept = true;
        this.#report(new WhisperError("storage", "what is to survive a reload could not be kept", { cause }));
      }
    }
  }

  // --- refreshing the token ---

  #scheduleRefresh(): void {
    const due = refreshIn(this.#token, Date.now(), Math.random);
    if (typeof this.#settings.token === "function" && due !== undefined) {
      this.#timers.set("refresh", due, () => void this.#refresh());
    }
  }

  /** Tried again while the connection lasts; in the end the server closes it with 4002. */
  async #refresh(): Promise<void> {
    const run = this.#run;
    try {
      const token = await this.#fetchToken();
      if (run === this.#run && this.#link?.send(JSON.stringify({ type: "refresh", token })) === true) {
        this.#token = token;
        this.#scheduleRefresh();
      }
    } catch (cause) {
      if (run !== this.#run) {
        return;
      }
      if (cause instanceof WhisperError && cause.code === "unauthorized") {
        this.#stop(cause);
        return;
      }
      this.#report(new WhisperError("token", "no token could be got to refresh the one in use", { cause }));
      this.#timers.set("refresh", this.#settings.backoff.max * (0.5 + Math.random() / 2), () => void this.#refresh());
    }
  }

  // --- is anybody there? ---

  #alive(): void {
    this.#heardAt = Date.now();
    this.#timers.drop("probe");
    const link = this.#link;
    if (link === undefined || this.#state === "connecting") {
      return;
    }
    if (link.seesPings) {
      this.#timers.set("silence", this.#pingMs * 2.5 + 1000, () => this.#dead(link));
    } else {
      this.#timers.set("silence", Math.max(quietMs, this.#pingMs), () => this.#doubt());
    }
  }

  #dead(link: Link): void {
    link.abandon();
    this.#ended({ code: 1006 });
  }

  #online(): void {
    if (this.#state === "waiting") {
      // Others' network came back at the same moment.
      this.#timers.set("retry", Math.random() * this.#settings.backoff.min, () => void this.#attempt());
    }
    this.#doubt();
  }

  /** The network came back, the page was shown, or the machine woke up. */
  #doubt(): void {
    const link = this.#link;
    const open = this.#state === "open" || this.#state === "draining";
    if (!open || link === undefined || this.#timers.has("probe") || Date.now() - this.#heardAt < this.#pingMs) {
      return;
    }
    // The socket may have died with the network long ago. The token that we have, sent once more, changes
    // nothing and is answered.
    link.send(JSON.stringify({ type: "refresh", token: this.#token }));
    this.#timers.set("probe", probeMs, () => this.#dead(link));
  }

  // --- telling the application ---

  #become(state: State, error?: WhisperError): void {
    if (this.#state !== state) {
      this.#state = state;
      this.#tell(() => this.#options.onState?.(state, error));
    }
  }

  #report(error: WhisperError): void {
    this.#tell(() => this.#options.onError?.(error));
  }

  /** What a callback throws is its own: it is thrown where nothing of ours is interrupted. */
  #tell(callback: () => void): void {
    try {
      callback();
    } catch (reason) {
      queueMicrotask(() => {
        throw reason;
      });
    }
  }
}

/**
 * Whose what is kept is: one key may be given for everybody on a device, so it counts together with the token's user, and
 * alone only where the token does not say whose it is.
 */
function ownerOf(key: string | undefined, user: string | undefined): string | undefined {
  return key === undefined || user === undefined ? (key ?? user) : JSON.stringify([key, user]);
}

function deferred(): { promise: Promise<void>; resolve(): void; reject(why: WhisperError): void } {
  let resolve!: () => void;
  let reject!: (why: WhisperError) => void;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {}); // nobody has to wait for it
  return { promise, resolve, reject };
}

/** Statuses that waiting does not change. */
function hopeless(status: number | undefined): boolean {
  return status !== undefined && status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status);
}

function describe(why: Ended): string {
  if (why.status !== undefined) {
    return `the server answered the handshake with HTTP ${why.status}`;
  }
  return `the connection ended (${why.code})`;
}
