// Seconds of the processor that the page's engine takes for an exported page, in Node:
//   xlgpt view tiny.xlsx --export page && node bench/browser.mjs page        (after `npm ci` in web/)
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { gunzipSync } from "node:zlib";
import init, { Model } from "../web/node_modules/@ironcalc/wasm/wasm.js";

const folder = process.argv[2];
const file = (name) => readFileSync(`${folder}/${name}`);
await init({ module_or_path: file("ironcalc.wasm") });

function timed(what, act) {
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  const result = act();
  const { user, system } = process.cpuUsage(cpu);
  const clock = (performance.now() - began) / 1000;
  console.log(`${what}: ${((user + system) / 1e6).toFixed(1)} s cpu, ${clock.toFixed(1)} s, load ${loadavg()[0].toFixed(1)}`);
  return result;
}

const model = timed("load", () => Model.from_bytes(gunzipSync(file("book.ic.gz")), "en"));
model.pauseEvaluation();
const sheets = model.getWorksheetsProperties().map(({ name }) => name);
const names = new Map(model.getDefinedNameList().map(({ name, formula }) => [name, formula]));

/** A name's first cell: its sheet from 0, row and column from 1. */
function place(name) {
  const [, sheet, letters, row] = /^(.+)!\$([A-Z]+)\$(\d+)/.exec(names.get(name));
  const column = [...letters].reduce((sum, letter) => 26 * sum + letter.charCodeAt(0) - 64, 0);
  return [sheets.indexOf(sheet.replace(/^'|'$/g, "")), Number(row), column];
}

function answer(what, inputs) {
  for (const [name, value] of Object.entries(inputs)) model.setUserInput(...place(name), value);
  timed(what, () => model.evaluate());
  console.log(`  ${model.getFormattedCellValue(...place("next_token"))}`);
}

const seven = { prompt: "If today is Tuesday, tomorrow is" };
answer("first, 7 tokens", seven);
answer("again", seven);
answer("5 tokens", { prompt: "The capital of France is" });
answer("4 tokens, and 8 are written", { prompt: "Once upon a time", max_new_tokens: "8" });
for (const view of ["lens", "features", "circuit"]) {
  answer(`7 tokens, with ${view}`, { ...seven, max_new_tokens: "0", [`${view}.on`]: "1" });
  answer("  and without", { [`${view}.on`]: "0" });
}
answer("no token", { prompt: "'" });
console.log(`${(process.memoryUsage().rss / 1e6).toFixed(0)} MB`);
