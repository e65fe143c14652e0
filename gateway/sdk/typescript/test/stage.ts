// Starts what the tests play on; see testserver/main.go.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Scenario } from "./conformance.js";

export interface Stage {
  /** Its address, like http://127.0.0.1:1234. */
  url: string;
  scenarios: Scenario[];
  close(): Promise<void>;
}

/** Starts a program that prints an address and ends with its standard input. */
export async function start(path: string, args: string[]): Promise<{ address: string; close(): Promise<void> }> {
  const server = spawn(path, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  const address = await new Promise<string>((resolve, reject) => {
    createInterface({ input: server.stdout }).once("line", resolve);
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`${path} ended with ${code}`)));
  });
  return {
    address,
    close: async () => {
      server.stdin.end();
      await ended;
    },
  };
}

export async function startStage(): Promise<Stage> {
  const { address, close } = await start(".build/testserver", [".build/browser"]);
  const url = `http://${address}`;
  const scenarios = (await (await fetch(url + "/scenarios")).json()) as Scenario[];
  return { url, scenarios, close };
}
