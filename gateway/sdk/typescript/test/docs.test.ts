// The programs that docs/clients.md and the README show, run as they stand beside a real `whisper dev`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { build } from "esbuild";
import { startDev, whisper } from "./dev.js";

const shown = ".build/docs/";
const programs = readdirSync(shown).filter((name) => /\.m?ts$|\.mjs$/.test(name) && readFileSync(shown + name, "utf8").includes("127.0.0.1:8080"));

async function bundled(program: string, address: string): Promise<string> {
  const made = shown + program + ".run.js";
  await build({
    entryPoints: [shown + program], outfile: made, bundle: true, platform: "node", format: "esm", target: "node20",
    alias: { "@whisper/client": "./dist/index.js" }, external: ["ws"], logLevel: "warning",
  });
  writeFileSync(made, readFileSync(made, "utf8").replace("127.0.0.1:8080", address));
  return made;
}

test("the programs that are shown", async (t) => {
  assert.deepEqual(programs, ["clients-2.ts", "readme.mjs"]);
  const dev = await startDev();
  t.after(() => dev.stop());
  for (const program of programs) {
    const user = program.replace(".", "-");
    const { stdout: token } = await whisper("token", `--user=${user}`);
    const run = spawn(process.execPath, [await bundled(program, new URL(dev.url).host)], {
      env: { ...process.env, TOKEN: token.trim() },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = once(run, "exit") as Promise<[number | null, string | null]>;
    const heard = new Promise<string>((resolve, reject) => {
      let said = "";
      run.stdout.on("data", (text: Buffer) => /high .*Hello/.test((said += text.toString())) && resolve(said));
      run.once("exit", () => reject(new Error(`${program} has ended; it said ${said}`)));
    });
    await whisper("send", `--kafka=${dev.kafka}`, `--user=${user}`, "--lane=high", `--id=${user}-1`, "--title=Hello", "--body=there");
    await heard;
    if (program === "clients-2.ts") {
      for (const deadline = Date.now() + 20_000; (await dev.reads(user)) < 1; ) {
        assert.ok(Date.now() < deadline, "nothing was told to be read");
      }
      run.kill("SIGTERM");
      assert.deepEqual(await ended, [0, null]);
    } else {
      run.kill("SIGTERM");
      await ended;
    }
  }
});
