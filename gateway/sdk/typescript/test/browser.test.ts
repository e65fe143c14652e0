import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { openChromium } from "./chromium.js";
import type { Scenario } from "./conformance.js";
import { startStage } from "./stage.js";

declare const play: (control: string, scenario: Scenario) => Promise<void>;

const stage = await startStage();
const browser = await openChromium();
const page = await browser.context.newPage();
const complaints: string[] = [];
page.on("pageerror", (error) => complaints.push(String(error)));
await page.goto(stage.url);

await suite("conformance in Chromium", { concurrency: true }, async () => {
  const all = stage.scenarios.filter((s) => s.needs !== "http-status"); // browsers hide it
  await Promise.all(
    all.map((scenario) => test(scenario.name, () => page.evaluate(([control, s]) => play(control, s), [stage.url, scenario] as const))),
  );
});

await test("nothing was thrown into the page", () => assert.deepEqual(complaints, []));

await browser.close();
await stage.close();
