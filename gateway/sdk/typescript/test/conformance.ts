// Plays the scenarios of gateway/conformance: in Node and in browsers alike, so nothing of either
// is used here.
import { type Notification, type SocketConstructor, type State, WhisperClient, WhisperError } from "../src/index.js";

export interface Scenario {
  name: string;
  nodes?: number;
  limits?: object;
  needs?: string;
  steps: Step[];
}

/** Documented beside its twin in Go, conformance.Step. */
interface Step {
  op: string;
  id?: string;
  ids?: string[];
  times?: number;
  ttl_seconds?: number;
  kind?: string;
  callback?: boolean;
  ack?: "auto" | "manual";
  of?: "all";
  is?: "open" | "down";
  why?: string;
}

const patienceMs = 30_000;

/** Plays one scenario on a stage, and rejects with what went wrong. */
export async function play(control: string, scenario: Scenario, Socket?: SocketConstructor): Promise<void> {
  const made = await post(control + "/worlds", { nodes: scenario.nodes ?? 0, limits: scenario.limits ?? {} });
  const { world, url } = (await made.json()) as { world: string; url: string };
  const player = new Player(`${control}/worlds/${world}`, url, Socket);
  try {
    for (const [i, step] of scenario.steps.entries()) {
      await player.play(step).catch((reason: unknown) => {
        throw new Error(`step ${i + 1}, ${step.op}: ${String(reason)}; ${player.seen()}`);
      });
    }
    player.check();
  } finally {
    player.leave();
    await fetch(`${control}/worlds/${world}`, { method: "DELETE" });
  }
}

async function post(url: string, body: unknown): Promise<Response> {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) {
    throw new Error((await answer.text()).trim());
  }
  return answer;
}

class Player {
  #client: WhisperClient | undefined;
  #handled: string[] = [];
  #notes: Notification[] = []; // what #handled names
  #retracted: string[] = [];
  #failing = new Map<string, number>();
  #held: { id: string; until: Promise<void>; release: () => void } | undefined;
  #states: State[] = [];
  #error: WhisperError | undefined;
  #wrong: string[] = [];

  constructor(
    readonly world: string,
    readonly url: string,
    readonly Socket: SocketConstructor | undefined,
  ) {}

  seen(): string {
    return `handled ${this.#handled.join(" ")}; states ${this.#states.join(" ")}; error ${String(this.#error)}`;
  }

  check(): void {
    if (this.#wrong.length > 0) {
      throw new Error(this.#wrong.join("; "));
    }
  }

  leave(): void {
    this.#held?.release();
    this.#client?.close();
  }

  async play(s: Step): Promise<void> {
    const ids = s.ids ?? [];
    switch (s.op) {
      case "connect":
        return this.#connect(s);
      case "fail":
        this.#failing.set(s.id!, s.times!);
        return;
      case "hold": {
        let release = (): void => {};
        const until = new Promise<void>((resolve) => (release = resolve));
        this.#held = { id: s.id!, until, release };
        return;
      }
      case "release":
        this.#held!.release();
        return;
      case "handled":
        return until(() => this.#handled.join() === ids.join());
      case "retracted":
        return until(() => this.#retracted.join() === ids.join());
      case "read":
        this.#client!.read(...(s.of === "all" ? this.#notes.filter((n) => ids.includes(n.id)) : ids));
        return;
      case "state":
        return until(() => (this.#client!.state === "open") === (s.is === "open"));
      case "ended":
        return until(() => this.#client!.state === "closed" && this.#error?.code === s.why);
      case "leave":
        this.#client!.close();
        return;
      default:
        await post(`${this.world}/steps`, s);
    }
  }

  async #connect(s: Step): Promise<void> {
    const ask = { ttl_seconds: s.ttl_seconds ?? 3600, kind: s.kind ?? "" };
    const token = async (): Promise<string> => (await post(`${this.world}/token`, ask)).text();
    this.#client = new WhisperClient({
      url: this.url,
      token: s.callback === false ? await token() : token,
      ackMode: s.ack ?? "manual",
      backoff: { min: 20, max: 200 },
      connectTimeout: this.Socket === undefined ? 6000 : 1000, // see browser.test.ts
      onNotification: (n) => this.#handle(n),
      onRetracted: (id) => this.#retracted.push(id),
      onState: (state, error) => {
        this.#states.push(state);
        this.#error = error;
      },
      ...(this.Socket === undefined ? {} : { WebSocket: this.Socket }),
    });
    await this.#client.connect().catch(() => {}); // "ended" says whether that was to be
  }

  async #handle(n: Notification): Promise<void> {
    this.#handled.push(n.id);
    this.#notes.push(n);
    if (n.title !== `Title of ${n.id}` || n.body !== `نص ${n.id}` || JSON.stringify(n.data) !== `{"id":"${n.id}"}` || !(Date.parse(n.at) > 0)) {
      this.#wrong.push(`got ${JSON.stringify(n)}`);
    }
    const failures = this.#failing.get(n.id) ?? 0;
    if (failures > 0) {
      this.#failing.set(n.id, failures - 1);
      throw new Error("not now");
    }
    if (this.#held?.id === n.id) {
      await this.#held.until;
    }
  }
}

async function until(ok: () => boolean): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!ok()) {
    if (Date.now() > deadline) {
      throw new Error("waited in vain");
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
