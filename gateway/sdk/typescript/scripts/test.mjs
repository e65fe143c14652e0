// Builds and runs the tests named on the command line (node, browser, …), or all of them.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

function run(program, ...args) {
  const { status, error } = spawnSync(program, args, { stdio: "inherit" });
  if (status !== 0) {
    console.error(error ?? `${program} ended with ${status}`);
    process.exit(1);
  }
}
const all = readdirSync("test").filter((f) => f.endsWith(".test.ts")).map((f) => f.replace(".test.ts", ""));
const wanted = process.argv.length > 2 ? process.argv.slice(2) : all;

mkdirSync(".build/browser", { recursive: true });
run(process.execPath, "scripts/docs.mjs");
run("go", "build", "-o", ".build/testserver", "./testserver");
if (wanted.includes("devpage") || wanted.includes("docs")) {
  run("go", "build", "-o", ".build/whisper", "../../../cmd/whisper");
}
await build({
  entryPoints: wanted.map((name) => `test/${name}.test.ts`), outdir: ".build", outExtension: { ".js": ".mjs" },
  bundle: true, platform: "node", format: "esm", target: "node20", packages: "external", sourcemap: "inline", logLevel: "warning",
});
await build({ entryPoints: ["test/browser.ts"], outfile: ".build/browser/test.js", bundle: true, format: "iife", logLevel: "warning" });
writeFileSync(".build/browser/index.html", "<!doctype html><title>SDK</title><script src=test.js></script>\n");
run(process.execPath, "--enable-source-maps", "--test", "--test-timeout=120000",
  "--disable-warning=ExperimentalWarning", "--test-reporter=./scripts/reporter.mjs", "--test-reporter-destination=stdout", ...wanted.map((name) => `.build/${name}.test.mjs`));
