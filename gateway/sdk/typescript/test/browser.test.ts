import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Page } from "playwright-core";
import type { Tab } from "./browser.js";
import { openChromium } from "./chromium.js";
import type { Scenario } from "./conformance.js";
import { startStage } from "./stage.js";

declare const play: (control: string, scenario: Scenario) => Promise<void>;
declare const tab: Tab;

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

/** A user of their own on the stage. */
async function world(): Promise<{ step(step: object): Promise<void>; open(page: Page, shared: boolean): Promise<void> }> {
  const post = async (path: string, body: object): Promise<Response> => {
    const answer = await fetch(stage.url + path, { method: "POST", body: JSON.stringify(body) });
    assert.ok(answer.ok, `${path} ${JSON.stringify(body)}: ${answer.ok || (await answer.text())}`);
    return answer;
  };
  const { world, url } = (await (await post("/worlds", {})).json()) as { world: string; url: string };
  return {
    step: async (step) => void (await post(`/worlds/${world}/steps`, step)),
    open: async (page, shared) => {
      await page.goto(stage.url);
      await page.evaluate((a) => tab.connect(...a), [stage.url, world, url, shared] as const);
    },
  };
}

const handled = (page: Page): Promise<string[]> => page.evaluate(() => tab.handled);
const state = (page: Page, is: string): Promise<unknown> => page.waitForFunction((want) => tab.state() === want, is);

for (const shared of [false, true]) {
  await test(`a reload of a page loses no read and hands nothing over twice, with ${shared ? "localStorage" : "its default storage"}`, async () => {
    const { step, open } = await world();
    const page = await browser.context.newPage();
    await open(page, shared);
    await step({ op: "notify", id: "a" });
    await step({ op: "delivered", ids: ["a"] });
    assert.deepEqual(await handled(page), ["a"]);
    await step({ op: "front", mode: "drop" });
    await step({ op: "cut" });
    await state(page, "waiting");
    await page.evaluate(() => tab.read("a")); // kept within 250 ms, or when the page leaves: at once
    await open(page, shared); // which loads it anew
    await step({ op: "front", mode: "pass" });
    await step({ op: "seen", ids: ["a"] });
    await step({ op: "again", id: "a" });
    await step({ op: "acks", id: "a", count: 2 });
    await step({ op: "notify", id: "b" });
    await step({ op: "delivered", ids: ["a", "b"] });
    assert.deepEqual(await handled(page), ["b"]);
    await page.close();
  });
}

await test("two tabs of one user: each its own by default, one memory with localStorage", async () => {
  for (const shared of [false, true]) {
    const { step, open } = await world();
    const first = await browser.context.newPage();
    await open(first, shared);
    await step({ op: "notify", id: "a" });
    await step({ op: "delivered", ids: ["a"] });
    await step({ op: "front", mode: "drop" });
    await step({ op: "cut" });
    await state(first, "waiting");
    await first.evaluate(() => tab.read("a"));
    await first.close({ runBeforeUnload: true });
    const second = await browser.context.newPage();
    await second.bringToFront();
    await open(second, shared);
    await step({ op: "front", mode: "pass" });
    await state(second, "open");
    await step({ op: "seen", ids: shared ? ["a"] : [] }); // sessionStorage ends with its tab
    await step({ op: "again", id: "a" });
    await step({ op: "acks", id: "a", count: 2 });
    assert.deepEqual(await handled(second), shared ? [] : ["a"]);
    await second.close();
  }
});

await test("nothing was thrown into the page", () => assert.deepEqual(complaints, []));

await browser.close();
await stage.close();
