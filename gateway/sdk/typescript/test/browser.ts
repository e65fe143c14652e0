// What the page of the browser's tests loads.
import { play } from "./conformance.js";
import { WhisperClient, type WhisperStorage } from "../src/index.js";

/** A client that the page of a person would have; what it is handed is in `handled`. */
export interface Tab {
  connect(control: string, world: string, url: string, shared: boolean): Promise<void>;
  read(id: string): void;
  handled: string[];
  state(): string;
}

let client: WhisperClient | undefined;
const tab: Tab = {
  handled: [],
  connect: async (control, world, url, shared) => {
    client = new WhisperClient({
      url,
      token: async () => (await fetch(`${control}/worlds/${world}/token`, { method: "POST", body: '{"ttl_seconds":3600}' })).text(),
      backoff: { min: 20, max: 200 },
      connectTimeout: 6000,
      ...(shared ? { storage: localStorage satisfies WhisperStorage } : {}),
      onNotification: (n) => void tab.handled.push(n.id),
    });
    void client.connect();
  },
  read: (id) => client!.read(id),
  state: () => client!.state,
};

Object.assign(globalThis, { play, tab });
