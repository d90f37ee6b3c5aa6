// docs/tour.md beside the spreadsheet: each stop types and sets what it says, and compares what the cells show with it.

import { visible } from "./answer";
import type { Book, Inputs } from "./book";
import { type Block, cellOf } from "./cells";
import { el, the } from "./dom";

type Paragraph = ["text" | "bold" | "code" | "em", string][];

interface Claim {
  name: string;
  words: string;
  where: Record<string, number>;
  shown: string;
}

interface Stop {
  title: string;
  before: Paragraph[];
  prompt: string;
  settings: Inputs;
  claims: Claim[];
  after: Paragraph[];
}

declare const TOUR: Stop[]; // web/tour.mjs reads it from docs/tour.md

const NUMBER = /^(-?\d+(?:\.(\d+))?)(%?)$/;

export interface Hooks {
  calculate: (inputs: Inputs) => Promise<void>;
  show: (block: Block) => Promise<void>; // in the spreadsheet
  jump: (block: Block) => Promise<void>; // and bring that into sight
}

export class Tour {
  private at = -1;
  private isSet = false; // whether the stop has typed and set what it says
  private readonly first: Inputs = {}; // what stood in the cells that it sets
  private readonly stops: Stop[];

  constructor(private readonly book: Book, private readonly hooks: Hooks) {
    const isHere = (stop: Stop) => stop.claims.every(({ name }) => book.has(name));
    this.stops = book.facts.model === "tiny" ? TOUR.filter(isHere) : [];
    the("tour").hidden = this.stops.length === 0;
    document.body.classList.toggle("alone", this.stops.length === 0);
    the("tour-next").addEventListener("click", () => void this.go(this.at + 1));
    the("tour-back").addEventListener("click", () => void this.go(this.at - 1));
    const list = the<HTMLSelectElement>("tour-list");
    list.replaceChildren(el("option", { value: "-1" }, "Start"), ...this.chapters());
    list.addEventListener("change", () => void this.go(Number(list.value)));
    this.show();
  }

  /** The first stop of each chapter. */
  private chapters(): HTMLElement[] {
    return this.stops.flatMap((stop, i) =>
      this.stops[i - 1]?.title === stop.title ? [] : [el("option", { value: i }, short(stop.title))]);
  }

  /** Compare once more: something was calculated. */
  async update(): Promise<void> {
    const stop = this.stops[this.at];
    if (stop && this.isSet) await this.compare(stop);
  }

  private async go(to: number): Promise<void> {
    this.at = Math.min(Math.max(to, -1), this.stops.length - 1);
    this.isSet = false;
    this.show();
    const stop = this.stops[this.at];
    if (!stop) return;
    await this.remember();
    await this.hooks.calculate(this.inputs(stop));
    if (this.stops[this.at] !== stop) return; // somebody has gone on
    this.isSet = true;
    await this.compare(stop);
    await (isBeside() ? this.hooks.jump : this.hooks.show)(this.target(stop));
  }

  /** What stands in the cells that the tour sets, so that other stops find it there again. */
  private async remember(): Promise<void> {
    const names = [...new Set(this.stops.flatMap((stop) => Object.keys(stop.settings)))].filter((name) => !(name in this.first));
    const found = await this.book.read(...names);
    for (const name of names) this.first[name] = found[name]?.[0]?.[0] ?? "";
  }

  /** The prompt, the settings, and the switches of the sheets that the stop looks at; all others are off. */
  private inputs(stop: Stop): Inputs {
    const switches = Object.values(this.book.facts.switches).map((name): [string, string] => [name, "0"]);
    const looked = [...stop.claims.map(({ name }) => this.book.named(name)), this.target(stop)];
    const needed = looked.flatMap(({ sheet }): [string, string][] => {
      const name = this.book.switchOf(sheet);
      return name && name !== "steering.on" ? [[name, "1"]] : [];
    });
    const writes = stop.claims.some(({ name }) => name === "completion");
    return {
      ...this.first,
      ...Object.fromEntries([...switches, ...needed]),
      temperature: "0",
      max_new_tokens: writes ? String(Math.min(4, this.book.facts.room.new)) : "0",
      ...stop.settings,
      prompt: stop.prompt,
    };
  }

  /** Where to look: the first cell that the stop speaks of, or the sheet. */
  private target(stop: Stop): Block {
    const claim = stop.claims.find(({ name }) => !["next_token", "tokens"].includes(name)) ?? stop.claims[0];
    if (claim) return this.cell(claim);
    const words = stop.before.concat(stop.after).flat().map(([, text]) => text);
    const sheet = Math.max(0, this.book.sheets.findIndex((name) => name !== "Home" && words.includes(name)));
    return { sheet, row: 1, column: 1, height: 1, width: 1 };
  }

  /** The cell that the words of a claim mean, as tests/test_tour.py reads them. */
  private cell({ name, where }: Claim): Block {
    const block = this.book.named(name);
    const row = where.position ?? (where.place ?? 1) - 1;
    const column = where.head !== undefined
      ? where.head * (block.width / this.book.facts.heads) + (where["at position"] ?? 0)
      : where.number ?? where["in block"] ?? (where.block ?? -1) + 1;
    return cellOf(block, row, column);
  }

  private async compare(stop: Stop): Promise<void> {
    const found = await this.book.engine.ask("read", { blocks: stop.claims.map((claim) => this.cell(claim)) });
    let right = 0;
    stop.claims.forEach((claim, i) => {
      const shown = found[i]![0]![0]!;
      const isRight = agrees(shown, claim.shown);
      right += Number(isRight);
      const row = the(`claim-${i}`);
      row.className = isRight ? "right" : "wrong";
      row.querySelector(".shown")!.textContent = shown === "" ? "nothing" : visible(shown);
      row.querySelector(".sign")!.textContent = isRight ? "✓" : "✗";
      row.querySelector(".sign")!.setAttribute("aria-label", isRight ? "as it should be" : "not as it should be");
    });
    const all = stop.claims.length;
    const said = the("tour-said");
    if (right === all) {
      said.replaceChildren(all ? `All ${all} cells show what they should.` : "");
    } else if (!said.querySelector("button")) {
      const again = el("button", { type: "button" }, "Set them again");
      again.addEventListener("click", () => void this.go(this.at));
      said.replaceChildren(el("span", {}), again);
    }
    if (right < all) said.querySelector("span")!.textContent = `${all - right} of ${all} cells differ from the tour. `;
    said.classList.toggle("wrong", right < all);
  }

  private show(): void {
    const stop = this.stops[this.at];
    the("tour-said").textContent = "";
    the<HTMLButtonElement>("tour-back").disabled = this.at < 0;
    the<HTMLButtonElement>("tour-next").disabled = this.at >= this.stops.length - 1;
    the("tour-next").textContent = this.at < 0 ? "Begin" : "Next";
    the("tour-place").textContent = stop ? `${this.at + 1} of ${this.stops.length}` : "";
    const chapter = this.stops.findIndex(({ title }) => title === stop?.title);
    the<HTMLSelectElement>("tour-list").value = String(chapter);
    the("tour-intro").hidden = Boolean(stop);
    the("tour-stop").hidden = !stop;
    if (!stop) return;
    the("tour-body").scrollTop = 0;
    if (!isBeside()) the("tour").scrollIntoView({ block: "start" });
    const parts: HTMLElement[] = stop.before.map((paragraph) => this.paragraph(paragraph));
    if (stop.prompt) parts.push(el("p", { class: "typed" }, "Typed for you: ", el("q", {}, stop.prompt)));
    for (const [name, value] of Object.entries(stop.settings)) {
      parts.push(el("p", { class: "typed" }, "Set for you: ", this.name(name), " to ", el("q", {}, value)));
    }
    if (stop.claims.length) parts.push(this.table(stop));
    parts.push(...stop.after.map((paragraph) => this.paragraph(paragraph)));
    the("tour-stop").replaceChildren(el("h3", {}, short(stop.title)), ...parts);
  }

  private table(stop: Stop): HTMLElement {
    const rows = stop.claims.map((claim, i) => {
      const cell = el("button", { type: "button", class: "from" }, ...breakable(claim.name));
      cell.addEventListener("click", () => void this.hooks.jump(this.cell(claim)));
      return el("tr", { id: `claim-${i}` },
        el("th", { scope: "row" }, cell, el("small", {}, claim.words)),
        el("td", {}, claim.shown), el("td", { class: "shown" }, "…"), el("td", { class: "sign" }));
    });
    const head = ["cell", "should be", "shows", ""].map((text) => el("th", { scope: "col" }, text));
    return el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  }

  private paragraph(spans: Paragraph): HTMLElement {
    const parts = spans.map(([kind, text]) => {
      if (kind === "code" && this.book.has(text)) return this.name(text);
      const sheet = kind === "bold" ? this.book.sheets.indexOf(text) : -1;
      if (sheet >= 0) return this.link(text, { sheet, row: 1, column: 1, height: 1, width: 1 });
      return kind === "text" ? this.counted(text) : el(kind === "bold" ? "b" : kind, {}, text);
    });
    return el("p", {}, ...parts);
  }

  /** How many cells there are is said of the whole workbook; this one is smaller. */
  private counted(text: string): string {
    const count = Math.floor(this.book.facts.formulas / 1000) * 1000;
    return text.replace(/more than [\d,]+ cells with formulas/, `more than ${count.toLocaleString("en")} cells with formulas`);
  }

  private name(name: string): HTMLElement {
    return this.link(name, this.book.named(name));
  }

  private link(text: string, block: Block): HTMLElement {
    const button = el("button", { type: "button", class: "from" }, text);
    button.addEventListener("click", () => void this.hooks.jump(block));
    return button;
  }
}

/** Whether what a cell shows, rounded as the tour rounds, is what the tour says. */
export function agrees(shown: string, said: string): boolean {
  if (said === "nothing") return shown === "";
  const number = NUMBER.exec(said);
  if (!number) return visible(shown) === said;
  const by = number[3] && !shown.endsWith("%") ? 100 : 1;
  const value = Number.parseFloat(shown.replaceAll(",", "")) * by;
  return Math.abs(value - Number(number[1])) <= 0.5 * 10 ** -(number[2]?.length ?? 0) + 1e-9;
}

/** Whether the tour stands beside the spreadsheet, and not above it as on a phone: style.css. */
const isBeside = (): boolean => matchMedia("(min-width: 1101px)").matches;

/** A long name, which may go on in the next line behind a dot or an underscore. */
const breakable = (name: string): (Node | string)[] => name.split(/(?<=[._])/).flatMap((part) => [el("wbr"), part]);

const short = (title: string): string => title.replace(/ \(\d+ minutes\)$/, "");
