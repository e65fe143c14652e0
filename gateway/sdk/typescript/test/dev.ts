// A real `whisper dev`, built by scripts/test.mjs.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";

export const whisper = (...args: string[]): Promise<{ stdout: string }> => promisify(execFile)(".build/whisper", args);

/** A running `whisper dev`; `reads` is how many notifications the user is known to have read. */
export interface Dev {
  /** Of the page. */
  url: string;
  kafka: string;
  reads(user: string): Promise<number>;
  stop(): Promise<number | null>;
}

export async function startDev(): Promise<Dev> {
  const any = ["kafka-listen", "postgres-listen", "listen", "ops-addr"].map((flag) => `--${flag}=127.0.0.1:0`);
  const dev = spawn(".build/whisper", ["dev", "--ephemeral", ...any], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(dev, "exit") as Promise<[number | null]>;
  let said = "";
  const url = await new Promise<string>((resolve, reject) => {
    dev.stdout.on("data", (text: Buffer) => {
      said += text.toString();
      const address = /page +(http:\S+)/.exec(said)?.[1];
      if (address !== undefined && said.includes("Ctrl-C stops it.")) {
        resolve(address);
      }
    });
    dev.once("exit", () => reject(new Error(`whisper dev has ended; it said ${said}`)));
  });
  const postgres = /Postgres +(postgres:\S+)/.exec(said)![1]!;
  return {
    url,
    kafka: /Kafka +([^ ,]+),/.exec(said)![1]!,
    reads: async (user) => {
      const { stdout } = await whisper("deliveries", "list", `--postgres=${postgres}`, `--user=${user}`, "--status=read", "--json");
      return stdout.split("\n").filter((line) => line !== "").length;
    },
    stop: async () => {
      dev.kill("SIGINT");
      return (await ended)[0];
    },
  };
}
