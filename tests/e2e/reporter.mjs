// SPDX-License-Identifier: Apache-2.0
// Flat TAP for node:test: one line for each test, none for the groups, so that every harness counts alike.
export default async function* flat(source) {
  let n = 0;
  const path = [];
  for await (const { type, data } of source) {
    if (type === "test:start") path[data.nesting] = data.name;
    if ((type !== "test:pass" && type !== "test:fail") || data.details?.type === "suite") continue;
    const good = type === "test:pass";
    const name = [...path.slice(0, data.nesting), data.name].join(": ").replaceAll("#", "\\#");
    const skip = data.skip !== undefined ? ` # SKIP ${data.skip === true ? "" : data.skip}` : "";
    yield `${good ? "ok" : "not ok"} ${++n} - ${name}${skip}\n`;
    if (!good) {
      const error = data.details?.error?.cause ?? data.details?.error;
      yield `${error?.stack ?? error}\n`.replaceAll(/^/gm, "# ").replace(/# $/, "");
    }
  }
  yield `1..${n}\n`;
}
