// Drives the page of a real `whisper dev`, and leaves screenshots in .build for a person to look at.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { openChromium } from "./chromium.js";
import { startDev } from "./dev.js";

/** Every control has a name that a screen reader can say. */
async function nameless(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const controls = [...document.querySelectorAll<HTMLInputElement | HTMLButtonElement | HTMLAnchorElement>("input, textarea, button, a[href]")];
    return controls
      .filter((c) => c.textContent?.trim() === "" && ("labels" in c ? [...(c.labels ?? [])].every((l) => l.textContent?.trim() === "") : true))
      .map((c) => c.outerHTML);
  });
}

test("the page of whisper dev", async () => {
  const dev = await startDev();
  const browser = await openChromium();
  try {
    const page = await browser.context.newPage();
    const wrong: string[] = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (line) => line.type() === "error" && wrong.push(line.text()));
    page.on("request", (request) => request.url().startsWith(dev.url) || request.url().startsWith("data:") || wrong.push(`asked for ${request.url()}`));
    page.setDefaultTimeout(20_000);
    await page.goto(dev.url);
    assert.deepEqual(await nameless(page), []);

    await page.getByLabel("User").fill("mona");
    await page.getByRole("button", { name: "Connect" }).click();
    await page.getByText("connected as mona").waitFor();

    await page.getByRole("button", { name: "Send", exact: true }).click();
    const first = page.getByRole("listitem").filter({ hasText: "Card payment" });
    await first.waitFor();
    assert.match(await first.locator(".latency").innerText(), /^[0-9.]+ ms after Send$/);
    assert.equal(await first.locator(".lane").innerText(), "high");

    await page.getByRole("radio", { name: "normal" }).check();
    await page.getByLabel("Title").fill("Salary & bonus <November>");
    await page.getByLabel("Text").fill("EGP 25,000.00 arrived.\nThank you.");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByRole("heading", { name: "Salary & bonus <November>" }).waitFor(); // text, not markup

    await page.getByRole("radio", { name: "low" }).check();
    await page.getByLabel("Title").fill("Statement");
    await page.getByLabel("Text").fill("Your November statement is ready.");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByRole("heading", { name: "Statement" }).waitFor();

    await page.getByRole("button", { name: "العربية" }).click();
    await page.getByRole("button", { name: "Send", exact: true }).click();
    const arabic = page.getByRole("listitem").filter({ hasText: "عملية شراء" });
    await arabic.waitFor();
    assert.equal(await arabic.locator("h3").evaluate((h) => getComputedStyle(h).direction), "rtl");
    assert.equal(await first.locator("h3").evaluate((h) => getComputedStyle(h).direction), "ltr");

    await first.getByRole("button", { name: "Mark read" }).click();
    await page.getByText("3 unread").waitFor();
    await page.getByRole("button", { name: "Mark read" }).last().click(); // Salary & bonus <November>, last of the unread
    await page.getByText("2 unread").waitFor();
    await page.screenshot({ path: ".build/devpage.png" });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 420, height: 1300 });
    await page.screenshot({ path: ".build/devpage-narrow-dark.png" });
    await page.getByRole("button", { name: "Mark all read" }).click();
    await page.getByText("all read", { exact: true }).waitFor();
    for (const deadline = Date.now() + 20_000; (await dev.reads("mona")) < 4; ) {
      assert.ok(Date.now() < deadline, "Postgres was not told of what was read");
    }

    await page.getByRole("button", { name: "Disconnect" }).click();
    await page.getByText("not connected").waitFor();
    await page.getByLabel("Title").fill("Later");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("it waits until mona connects").waitFor();
    await page.getByRole("button", { name: "Connect" }).click();
    await page.getByRole("heading", { name: "Later" }).waitFor();
    await page.getByRole("button", { name: "Disconnect" }).click();

    await page.getByLabel("Title").fill(" ");
    await page.getByLabel("Text").fill("");
    assert.deepEqual(wrong, []);
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByRole("alert").filter({ hasText: "there is nothing to send" }).waitFor();
  } finally {
    await browser.close();
    assert.equal(await dev.stop(), 0);
  }
});
