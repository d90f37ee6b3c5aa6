// The page: loads the engine and the workbook, and holds its three parts together.

import { Answer } from "./answer";
import { Book, type Inputs } from "./book";
import type { Block, Facts } from "./cells";
import { the } from "./dom";
import { Engine } from "./engine";
import { bytes, inflate, open, worker } from "./files";
import { Grid } from "./grid";
import { Tour } from "./tour";

const MEGA = 1e6;

/** Say what is going on, to eyes and to screen readers; a share shows how far it is. */
function say(sentence: string, share?: number): void {
  if (document.body.classList.contains("failed")) return; // that sentence stays
  the("said").textContent = sentence;
  const bar = the<HTMLProgressElement>("progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

function busy(isBusy: boolean): void {
  document.body.classList.toggle("busy", isBusy);
  the("main").setAttribute("aria-busy", String(isBusy));
}

function fail(error: unknown): void {
  const why = (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
  say(`That did not work: ${why}.`, 0);
  document.body.classList.add("failed");
  busy(false);
}

async function download(): Promise<[ArrayBuffer, ArrayBuffer, Facts]> {
  await open();
  const sizes = new Map<string, [number, number]>();
  const progress = (name: string) => (loaded: number, total: number) => {
    sizes.set(name, [loaded, Math.max(loaded, total)]);
    const [done, all] = [...sizes.values()].reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
    say(`Loading the workbook and the spreadsheet engine: ${(done / MEGA).toFixed(1)} MB`, done / all);
  };
  const names = ["ironcalc.wasm", "book.ic.gz", "book.json"];
  const [engine, packed, facts] = await Promise.all(names.map((name) => bytes(name, progress(name))));
  const book = await inflate(packed!).catch(() => {
    throw new Error("book.ic.gz is damaged; build the page again with xlgpt view");
  });
  return [engine!, book, readFacts(facts!)];
}

function readFacts(packed: ArrayBuffer): Facts {
  try {
    return JSON.parse(new TextDecoder().decode(packed)) as Facts;
  } catch {
    throw new Error("book.json is damaged; build the page again with xlgpt view");
  }
}

async function start(): Promise<void> {
  const began = performance.now();
  say("Loading the workbook and the spreadsheet engine");
  busy(true);
  const [wasm, file, facts] = await download();
  document.title = `${facts.model}: a language model in a spreadsheet`;
  the("model").textContent = facts.model || facts.file;
  the("parameters").textContent = facts.parameters.toLocaleString("en");
  say(`Opening the workbook: ${facts.parameters.toLocaleString("en")} weights in their cells`);
  const engine = new Engine(worker("worker.js"));
  const { sheets, names } = await engine.ask("load", { engine: wasm, book: file }, [wasm, file]).catch((error: Error) => {
    throw new Error(`this is no workbook that the engine can read (${error.message})`);
  });
  await run(new Book(engine, facts, sheets, new Map(names)), began);
}

async function run(book: Book, began: number): Promise<void> {
  let last = Promise.resolve();

  /** Calculate with some cells changed; one after the other. */
  const change = (what: () => Promise<unknown>, sentence: string): Promise<void> => {
    last = last.then(async () => {
      const from = performance.now();
      busy(true);
      say(sentence);
      try {
        await what();
        await Promise.all([answer.update(), grid.refresh(), tour?.update()]);
        const seconds = ((performance.now() - from) / 1000).toFixed(1);
        say(`Calculated ${book.facts.formulas.toLocaleString("en")} formulas in ${seconds} s.`, 1);
        document.body.dataset.calculated = String(Number(document.body.dataset.calculated ?? 0) + 1);
      } catch (error) {
        say(`That did not work: ${(error as Error).message.replace(/\.$/, "")}.`, 0);
      }
      busy(false);
    });
    return last;
  };
  const set = (cells: { at: Block; input: string }[]) =>
    change(() => book.engine.ask("calculate", { cells }), "Calculating every formula");
  const calculate = (inputs: Inputs) => set(book.cells(inputs));

  const grid = new Grid(book.engine, book.facts, book.sheets, book.names, {
    edit: (at, input) => set([{ at, input }]),
    undo: () => change(() => book.engine.ask("undo", {}), "Undoing"),
    say: (sentence) => say(sentence, 1),
    shown: () => void showSwitch(),
  });
  const jump = async (block: Block) => {
    await grid.jump(block);
    the("book").scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
  };
  let tour: Tour | undefined;
  const answer = new Answer(book, { calculate, jump: (block) => void jump(block) });

  /** Above a sheet that is switched off stands a button that switches it on. */
  const showSwitch = async () => {
    const sheet = book.sheets.indexOf(grid.current.sheet);
    const name = book.switchOf(sheet);
    const isOff = name !== undefined && (await book.read(name))[name]?.[0]?.[0] === "0";
    the("switch").hidden = !isOff;
    the("switch-name").textContent = name ?? "";
  };
  the("switch-on").addEventListener("click", () => {
    const name = book.switchOf(book.sheets.indexOf(grid.current.sheet));
    if (name) void calculate({ [name]: "1" }).then(showSwitch);
  });

  await answer.start();
  await grid.show(0);
  await calculate({});
  document.body.classList.add("ready");
  say(`Ready: loaded and calculated in ${((performance.now() - began) / 1000).toFixed(1)} s.`, 1);
  tour = new Tour(book, {
    calculate: async (inputs) => {
      await calculate(inputs);
      await showSwitch();
    },
    show: (block) => grid.jump(block),
    jump,
  });
}

const calm = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

start().catch(fail);
