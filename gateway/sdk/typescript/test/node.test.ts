import { suite, test } from "node:test";
import { WebSocket } from "ws";
import type { SocketConstructor } from "../src/index.js";
import { play } from "./conformance.js";
import { startStage } from "./stage.js";

const stage = await startStage();

await suite("conformance in Node, with the package ws", { concurrency: true }, async () => {
  await Promise.all(
    stage.scenarios.map((scenario) => test(scenario.name, () => play(stage.url, scenario, WebSocket))),
  );
});

// Node 22 and later have a WebSocket of their own.
const own = (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
if (own !== undefined) {
  await suite("conformance in Node, with its own WebSocket", { concurrency: true }, async () => {
    const all = stage.scenarios.filter((s) => s.needs !== "http-status");
    await Promise.all(all.map((scenario) => test(scenario.name, () => play(stage.url, scenario, own))));
  });
}

await stage.close();
