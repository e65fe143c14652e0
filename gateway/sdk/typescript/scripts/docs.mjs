// Takes the TypeScript out of the pages that show it, to .build/docs: it is checked, and where it says how
// to connect to a `whisper dev` it is run (test/docs.test.ts).
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

rmSync(".build/docs", { recursive: true, force: true });
mkdirSync(".build/docs", { recursive: true });
for (const [name, path] of [["clients", "../../../docs/clients.md"], ["package", "README.md"]]) {
  const blocks = [...readFileSync(path, "utf8").matchAll(/^```ts\n(.*?)^```$/gms)];
  if (blocks.length === 0) {
    throw new Error(`there is no TypeScript in ${path}`);
  }
  blocks.forEach(([, text], i) => writeFileSync(`.build/docs/${name}-${i + 1}.ts`, text));
}
// What the README has one paste: a heredoc.
const pasted = /^cat > app\.mjs <<'end'\n(.*?)^end$/ms.exec(readFileSync("../../../README.md", "utf8"));
if (pasted === null) {
  throw new Error("there is no app.mjs in the README");
}
writeFileSync(".build/docs/readme.mjs", pasted[1]);
