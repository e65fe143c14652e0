// Says which tests failed and why, and how many there were.
export default async function* report(source) {
  let passed = 0;
  let failed = 0;
  const began = Date.now();
  for await (const { type, data } of source) {
    if (type === "test:stderr" || type === "test:stdout") {
      yield data.message;
    } else if (type === "test:pass" && data.details.type !== "suite") {
      passed++;
    } else if (type === "test:fail" && data.details.type !== "suite") {
      failed++;
      const error = data.details.error;
      yield `--- FAIL: ${data.name} (${data.file ?? ""})\n${error?.cause?.stack ?? error?.stack ?? error?.message}\n`;
    }
  }
  yield `${failed > 0 ? "FAIL" : "ok"}\tsdk: ${passed} tests passed, ${failed} failed, in ${((Date.now() - began) / 1000).toFixed(1)} s on Node ${process.versions.node}\n`;
}
