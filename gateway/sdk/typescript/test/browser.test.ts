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

// Chromium holds a page's attempts to connect back by up to 5 s when 16 are under way in its process, counting those
// that failed: so not all scenarios at once, and an attempt has longer than that.
await suite("conformance in Chromium", { concurrency: 6 }, async () => {
  const all = stage.scenarios.filter((s) => s.needs !== "http-status"); // browsers hide it
  await Promise.all(
    all.map((scenario) => test(scenario.name, () => page.evaluate(([control, s]) => play(control, s), [stage.url, scenario] as const))),
  );
});

await test("nothing was thrown into the page", () => assert.deepEqual(complaints, []));

await browser.close();
await stage.close();
