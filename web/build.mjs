// Builds the page into xlgpt/view/page, which the wheel ships: `npm ci && npm run build`.
import { copyFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { build } from "esbuild";
import { parse } from "./tour.mjs";

const out = "../xlgpt/view/page";
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const tour = parse(readFileSync("../docs/tour.md", "utf8"));
await build({
  entryPoints: { page: "src/page.ts", worker: "src/worker.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife", // a page opened from a folder may run no modules
  target: "es2022",
  define: { TOUR: JSON.stringify(tour), "import.meta.url": '"http://unused/"' },
  legalComments: "none",
  charset: "utf8",
});
for (const name of ["index.html", "style.css", "icon.svg", "licences.txt"]) copyFileSync(`src/${name}`, `${out}/${name}`);
copyFileSync("node_modules/@ironcalc/wasm/wasm_bg.wasm", `${out}/ironcalc.wasm`);
