// Where the package is imported and a client made: on a server that renders, and in React Native.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import { build } from "esbuild";
import { version } from "../src/version.js";

/** The package as a script that leaves itself in `whisper`. */
const made = await build({ entryPoints: ["src/index.ts"], bundle: true, format: "iife", globalName: "whisper", target: "es2022", write: false, logLevel: "warning" });
const script = made.outputFiles[0]!.text;

interface Sandbox {
  [name: string]: unknown;
}

/** Runs a program beside the package in a world that has nothing but the language and these. */
function run(world: Sandbox, program: string): unknown {
  return runInNewContext(`${script}\n;${program}`, world);
}

const mine = "new whisper.WhisperClient({ url: URL_, token: 't', onNotification() {}, onState: (s, e) => states.push(s + ' ' + (e?.code ?? '')), ...more })";

test("on a server that renders: importing and making a client look at no global of a page", () => {
  const touched: string[] = [];
  const world: Sandbox = { URL_: "/v1/socket", more: {}, states: [], URL, queueMicrotask };
  for (const name of ["window", "document", "navigator", "location", "WebSocket", "sessionStorage", "localStorage"]) {
    Object.defineProperty(world, name, {
      get: () => {
        touched.push(name);
        throw new Error(`${name} was touched`);
      },
    });
  }
  assert.equal(run(world, `const c = ${mine}; c.read("a"); c.close(); c.state`), "idle");
  assert.deepEqual(touched, []);
});

test("where there is no WebSocket or no page, connecting says so", async () => {
  for (const [url, more] of [["wss://push.example.com/v1/socket", {}], ["/v1/socket", { WebSocket: class {} }]] as const) {
    const world: Sandbox = { URL_: url, more, states: [], URL, queueMicrotask, setTimeout, clearTimeout, setInterval, clearInterval };
    const why = (await run(world, `${mine}.connect().catch((e) => e.code)`)) as string;
    assert.equal(why, "environment");
    assert.deepEqual([...(world["states"] as string[])], ["connecting ", "closed environment"]);
  }
});

test("in React Native, whose URL is half of one", async () => {
  class HalfURL {
    constructor(readonly href: string) {}
    get protocol(): string {
      throw new Error("URL.protocol is not implemented");
    }
    get searchParams(): { set(): void } {
      return {
        set: () => {
          throw new Error("URLSearchParams.set is not implemented");
        },
      };
    }
  }
  const made: [string, string[]][] = [];
  class Socket {
    onmessage: ((event: { data: string }) => void) | null = null;
    constructor(url: string, protocols: string[]) {
      made.push([url, protocols]);
      setTimeout(() => this.onmessage!({ data: '{"type":"welcome","session":"s1","ping_seconds":25}' }));
    }
    send(): void {}
    close(): void {}
  }
  for (const [url, more, want] of [
    ["https://push.example.com/v1/socket?a=b#c", { ackMode: "auto" }, "wss://push.example.com/v1/socket?a=b&ack=auto&client=ME"],
    ["WS://push.example.com:8080", {}, "ws://push.example.com:8080?client=ME"],
    ["wss://push.example.com/v1/socket?client=app%2F7", {}, "wss://push.example.com/v1/socket?client=app%2F7"],
    ["wss://push.example.com/v1/socket?ack=manual&x=1", { ackMode: "auto" }, "wss://push.example.com/v1/socket?ack=auto&x=1&client=ME"],
  ] as const) {
    // In React Native window is the global object, and has no events.
    const world: Sandbox = {
      URL_: url, more, states: [], URL: HalfURL, WebSocket: Socket, navigator: { product: "ReactNative" },
      queueMicrotask, setTimeout, clearTimeout, setInterval, clearInterval,
    };
    world["window"] = world;
    assert.equal(await run(world, `const c = ${mine}; c.connect().then(() => { const s = c.session; c.close(); return s; })`), "s1");
    const [[address, protocols] = ["", []]] = made.splice(0);
    assert.equal(address, want.replace("ME", `whisper-ts%2F${version}`));
    assert.deepEqual([...protocols], ["whisper.v1", "bearer.t"]); // of another realm
  }
});

test("what is published has source maps, with the sources in them", () => {
  execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.json", "--outDir", ".build/published"]);
  const modules = readdirSync(".build/published").filter((f) => f.endsWith(".js"));
  assert.ok(modules.includes("client.js"));
  for (const name of modules) {
    const map = JSON.parse(readFileSync(`.build/published/${name}.map`, "utf8")) as { sourcesContent: string[] };
    assert.ok(readFileSync(`.build/published/${name}`, "utf8").endsWith(`//# sourceMappingURL=${name}.map`));
    assert.deepEqual(map.sourcesContent, [readFileSync(`src/${name.replace(".js", ".ts")}`, "utf8")]);
  }
  const files = (JSON.parse(readFileSync("package.json", "utf8")) as { files: string[] }).files;
  assert.ok(["dist", "src"].every((folder) => files.includes(folder))); // declaration maps lead to src
});
