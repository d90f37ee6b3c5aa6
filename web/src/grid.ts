// The spreadsheet: only the cells in sight are elements, however large the sheet.

import { a1, type Block, type Corners, type Facts, letters, place, type SheetFacts } from "./cells";
import { el, the } from "./dom";
import type { CellStyle, Engine } from "./engine";

interface Cell {
  text: string;
  look: CellStyle;
}

/** A sheet's geometry: where each row and column begins, in pixels, and one place more for where the last ends. */
interface Layout {
  tops: number[];
  lefts: number[];
  frozen: [number, number];
  lines: boolean;
}

/** A stretch of rows or columns in sight: their numbers, where they begin in the view, and how much of it they take. */
interface Stretch {
  from: number;
  to: number;
  start: number;
  size: number;
  shift: number;
}

const HEAD = 22; // the height of the columns' letters
const SIDE = 46; // the width of the rows' numbers
const SPARE = { rows: 40, columns: 8 }; // empty ones behind the last
const SPREAD = 14; // how many empty cells a long text may cover

export interface Hooks {
  edit: (at: Block, input: string) => Promise<void>;
  undo: () => Promise<void>;
  say: (sentence: string) => void;
  shown: (sheet: number) => void;
}

export class Grid {
  private sheet = 0;
  private row = 1;
  private column = 1;
  private marked: Block | null = null;
  private cells = new Map<string, Cell>();
  private layouts = new Map<number, Layout>();
  private layout: Layout = { tops: [0], lefts: [0], frozen: [0, 0], lines: true };
  private asking = false;
  private stale = false;
  private wanted = false;
  private readonly scroller = the("scroller");
  private readonly view = the("view");
  private readonly space = the("space");
  private readonly nameBox = the<HTMLInputElement>("namebox");
  private readonly formula = the<HTMLInputElement>("formula");
  private readonly byPlace = new Map<string, string>();
  private readonly byName = new Map<string, Block>();

  constructor(
    private readonly engine: Engine,
    private readonly facts: Facts,
    private readonly sheets: string[],
    readonly names: Map<string, Block>,
    private readonly hooks: Hooks,
  ) {
    for (const [name, block] of names) {
      this.byPlace.set(`${block.sheet}!${block.row},${block.column}`, name);
      this.byName.set(name.toLowerCase(), block);
    }
    the("names").replaceChildren(...[...names.keys()].sort().map((name) => el("option", { value: name })));
    this.makeTabs();
    this.listen();
  }

  /** Show a sheet, its first cell chosen. */
  async show(sheet: number): Promise<void> {
    await this.jump({ sheet, row: 1, column: 1, height: 1, width: 1 });
  }

  /** Show some cells, and mark them. */
  async jump(block: Block): Promise<void> {
    if (block.sheet !== this.sheet || !this.layouts.has(block.sheet)) {
      this.sheet = block.sheet;
      this.cells.clear();
      this.layout = await this.layoutOf(block.sheet);
      this.scroller.scrollTo(0, 0);
      this.resize();
      this.markTab();
      this.hooks.shown(block.sheet);
    }
    this.marked = block.height * block.width > 1 ? block : null;
    this.choose(block.row, block.column, 0.3);
  }

  /** Ask for all cells again: something was calculated. */
  async refresh(): Promise<void> {
    this.stale = true;
    await this.fetch();
    await this.showContent();
  }

  /** A name, or a place such as D8 or 'Block 0'!D8. */
  find(text: string): Block | null {
    return this.byName.get(text.trim().toLowerCase()) ?? place(text, this.sheets, this.sheet);
  }

  get current(): { sheet: string; row: number; column: number } {
    return { sheet: this.sheets[this.sheet]!, row: this.row, column: this.column };
  }

  private get sheetFacts(): SheetFacts {
    return this.facts.sheets[this.sheets[this.sheet]!] ?? { size: [100, 26], merges: [], links: {}, fills: {}, scales: [] };
  }

  private async layoutOf(sheet: number): Promise<Layout> {
    const known = this.layouts.get(sheet);
    if (known) return known;
    const [rows, columns] = this.facts.sheets[this.sheets[sheet]!]?.size ?? [100, 26];
    const size = { rows: rows + SPARE.rows, columns: columns + SPARE.columns };
    const found = await this.engine.ask("sizes", { sheet, ...size });
    const running = (sizes: number[]) => {
      const ends = [0];
      for (const one of sizes) ends.push(ends.at(-1)! + Math.round(one));
      return ends;
    };
    const layout = { ...found, tops: running(found.rows), lefts: running(found.columns) };
    this.layouts.set(sheet, layout);
    return layout;
  }

  // ---- what is in sight

  private stretches(sizes: number[], frozen: number, scrolled: number, head: number, room: number): Stretch[] {
    const last = sizes.length - 1;
    const held = sizes[Math.min(frozen, last)]! > room * 0.6 ? 0 : Math.min(frozen, last); // a phone is narrow
    const stretches: Stretch[] = [];
    if (held) stretches.push({ from: 1, to: held, start: head, size: sizes[held]!, shift: 0 });
    const start = head + sizes[held]!;
    const begins = sizes[held]! + scrolled;
    let from = Math.max(held + 1, upTo(sizes, begins));
    const to = Math.min(last, upTo(sizes, begins + room - start));
    if (from > last) from = last;
    stretches.push({ from, to: Math.max(from, to), start, size: Math.max(0, room - start), shift: scrolled });
    return stretches;
  }

  private get rowStretches(): Stretch[] {
    return this.stretches(this.layout.tops, this.layout.frozen[0], this.scroller.scrollTop, HEAD, this.scroller.clientHeight);
  }

  private get columnStretches(): Stretch[] {
    const { lefts, frozen } = this.layout;
    return this.stretches(lefts, frozen[1], this.scroller.scrollLeft, SIDE, this.scroller.clientWidth);
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.scroller;
    Object.assign(this.view.style, { width: `${clientWidth}px`, height: `${clientHeight}px` });
    Object.assign(this.space.style, {
      width: `${SIDE + this.layout.lefts.at(-1)!}px`,
      height: `${HEAD + this.layout.tops.at(-1)!}px`,
      marginTop: `${-clientHeight}px`,
    });
    this.scroller.setAttribute("aria-rowcount", String(this.layout.tops.length - 1));
    this.scroller.setAttribute("aria-colcount", String(this.layout.lefts.length - 1));
    this.scroller.setAttribute("aria-label", `Sheet ${this.sheets[this.sheet]}`);
  }

  /** Get the cells in sight that are not known; while an answer is on its way, what is asked later waits. */
  private async fetch(): Promise<void> {
    if (this.asking) {
      this.wanted = true;
      return;
    }
    this.asking = true;
    try {
      do {
        this.wanted = false;
        await this.fetchOnce();
      } while (this.wanted);
    } finally {
      this.asking = false;
    }
  }

  private async fetchOnce(): Promise<void> {
    if (this.layout.tops.length === 1) return; // no sheet is shown yet
    const [sheet, anew] = [this.sheet, this.stale];
    const rows = this.rowStretches.flatMap(({ from, to }) => range(from, to));
    const columns = this.columnStretches.flatMap(({ from, to }) => range(from, to));
    const missing = rows.filter((row) => anew || columns.some((column) => !this.cells.has(`${row},${column}`)));
    if (missing.length) {
      this.stale = false;
      const found = await this.engine.ask("window", { sheet, rows: missing, columns });
      if (sheet !== this.sheet) {
        this.wanted = true;
        return;
      }
      if (anew) this.cells.clear();
      missing.forEach((row, i) =>
        columns.forEach((column, j) => {
          const look = found.styles[found.looks[i]![j]!]!;
          this.cells.set(`${row},${column}`, { text: found.texts[i]![j]!, look });
        }),
      );
    }
    this.draw();
  }

  private draw(): void {
    if (this.layout.tops.length === 1) return;
    const rows = this.rowStretches;
    const columns = this.columnStretches;
    const panes: HTMLElement[] = [el("div", { class: "corner", role: "presentation" })];
    for (const across of columns) panes.push(this.heads(across, "column"));
    for (const down of rows) panes.push(this.heads(down, "row"));
    for (const down of rows) for (const across of columns) panes.push(this.pane(down, across));
    this.view.replaceChildren(...panes);
    this.view.classList.toggle("lined", this.layout.lines);
  }

  private heads(stretch: Stretch, kind: "row" | "column"): HTMLElement {
    const isRow = kind === "row";
    const ends = isRow ? this.layout.tops : this.layout.lefts;
    const pane = el("div", { class: `heads ${kind}s`, role: "presentation" });
    const size = isRow ? { top: stretch.start, height: stretch.size } : { left: stretch.start, width: stretch.size };
    lay(pane, size);
    for (const i of range(stretch.from, stretch.to)) {
      const start = ends[i - 1]! - stretch.shift - (stretch.start - (isRow ? HEAD : SIDE));
      const length = ends[i]! - ends[i - 1]!;
      const head = el("div", { class: "head" }, isRow ? String(i) : letters(i));
      if (i === (isRow ? this.row : this.column)) head.classList.add("here");
      lay(head, isRow ? { top: start, height: length } : { left: start, width: length });
      pane.append(head);
    }
    return pane;
  }

  private pane(down: Stretch, across: Stretch): HTMLElement {
    const pane = el("div", { class: "pane", role: "rowgroup" });
    lay(pane, { top: down.start, left: across.start, height: down.size, width: across.size });
    const y = (row: number) => this.layout.tops[row - 1]! - down.shift - (down.start - HEAD);
    const x = (column: number) => this.layout.lefts[column - 1]! - across.shift - (across.start - SIDE);
    const merges = this.sheetFacts.merges.filter(([row, , height]) => row <= down.to && row + height > down.from);
    const running = across.from > 1 && across.shift === 0; // texts may run over from the columns that stay in sight
    for (const row of range(down.from, down.to)) {
      const line = el("div", { role: "row", "aria-rowindex": row });
      for (const column of range(running ? 1 : across.from, across.to)) {
        const merge = merges.find((at) => inside(at, row, column));
        if (merge && (merge[0] !== row || (merge[1] !== column && column !== across.from))) continue;
        const from = merge ? merge[1] : column;
        const cell = this.cells.get(`${row},${from}`);
        if (!cell || (column < across.from && !cell.text)) continue;
        const until = merge ? merge[1] + merge[3] : from + 1;
        const lastRow = merge ? merge[0] + merge[2] : row + 1;
        line.append(this.element(row, from, cell, {
          top: y(row),
          left: x(from),
          width: this.layout.lefts[until - 1]! - this.layout.lefts[from - 1]!,
          height: this.layout.tops[lastRow - 1]! - this.layout.tops[row - 1]!,
        }));
      }
      pane.append(line);
    }
    if (this.marked) {
      const { row, column, height, width } = this.marked;
      const mark = el("div", { class: "mark" });
      const [bottom, right] = [row + height - 1, column + width - 1];
      lay(mark, {
        top: y(row),
        left: x(column),
        height: this.layout.tops[Math.min(bottom, this.layout.tops.length - 1)]! - this.layout.tops[row - 1]!,
        width: this.layout.lefts[Math.min(right, this.layout.lefts.length - 1)]! - this.layout.lefts[column - 1]!,
      });
      pane.append(mark);
    }
    return pane;
  }

  private element(row: number, column: number, cell: Cell, box: Box): HTMLElement {
    const { text, look } = cell;
    const link = this.sheetFacts.links[a1(row, column)];
    const made = el("div", { class: "cell", role: "gridcell", "aria-colindex": column, "data-at": a1(row, column) });
    lay(made, box);
    const style = made.style;
    const fill = this.shade(row, column, text) || (text && this.sheetFacts.fills[a1(row, column)]) || look.fill;
    if (fill && fill !== "#FFFFFF") style.background = fill;
    if (look.ink) style.color = look.ink;
    style.fontSize = `${Math.round(look.size * 1.18)}px`;
    if (look.bold) style.fontWeight = "600";
    if (look.italic) style.fontStyle = "italic";
    if (look.underline) style.textDecoration = "underline";
    if (look.mono) made.classList.add("mono");
    if (look.wrap) made.classList.add("wrap");
    if (look.top) made.classList.add("top");
    if (link) made.classList.add("link");
    const side = sideOf(look.align, text);
    if (side !== "left") made.classList.add(side);
    look.lines.forEach((colour, i) => {
      if (colour) made.style.setProperty(`border-${["top", "right", "bottom", "left"][i]}-color`, colour);
    });
    if (row === this.row && column === this.column) {
      made.classList.add("here");
      made.id = "here";
    }
    if (!text) return made;
    const words = el("span", {}, text);
    if (!look.wrap && side === "left") words.style.maxWidth = `${box.width - 6 + this.freeBehind(row, column)}px`;
    made.append(words);
    return made;
  }

  /** How many pixels of empty cells stand to the right, over which a long text may run. */
  private freeBehind(row: number, column: number): number {
    if (this.sheetFacts.merges.some((at) => inside(at, row, column))) return 0;
    let next = column + 1;
    while (next <= column + SPREAD && next < this.layout.lefts.length) {
      const there = this.cells.get(`${row},${next}`);
      if (!there || there.text) break;
      next++;
    }
    return this.layout.lefts[next - 1]! - this.layout.lefts[column]!;
  }

  /** The colour that a colour scale gives a cell. */
  private shade(row: number, column: number, text: string): string {
    const scale = text && this.sheetFacts.scales.find(({ at }) => inside(at, row, column));
    if (!scale) return "";
    const value = Number.parseFloat(text) / (text.endsWith("%") ? 100 : 1);
    if (Number.isNaN(value)) return "";
    const { stops } = scale;
    const above = stops.findIndex(([at]) => value <= at);
    if (above <= 0) return stops.at(above)![1];
    const [[low, from], [high, to]] = [stops[above - 1]!, stops[above]!];
    return blend(from, to, (value - low) / (high - low));
  }

  // ---- what is chosen

  /** Choose a cell and scroll to it; where that is far, it comes to stand at a share of the way into the view. */
  private choose(row: number, column: number, share = 0): void {
    const { tops, lefts } = this.layout;
    this.row = clamp(row, 1, tops.length - 1);
    this.column = clamp(column, 1, lefts.length - 1);
    const merge = this.sheetFacts.merges.find((at) => inside(at, this.row, this.column));
    if (merge) [this.row, this.column] = [merge[0], merge[1]];
    this.reveal(share);
    this.draw();
    this.scroller.setAttribute("aria-activedescendant", "here");
    void this.fetch();
    void this.showContent();
  }

  private reveal(share: number): void {
    const { tops, lefts } = this.layout;
    const down = this.rowStretches.at(-1)!;
    const across = this.columnStretches.at(-1)!;
    if (this.row > (this.rowStretches[1] ? this.rowStretches[0]!.to : 0)) {
      const held = down.start - HEAD;
      const [start, end] = [tops[this.row - 1]! - held, tops[this.row]! - held];
      this.scroller.scrollTop = nearest(this.scroller.scrollTop, start, end, down.size, share);
    }
    if (this.column > (this.columnStretches[1] ? this.columnStretches[0]!.to : 0)) {
      const held = across.start - SIDE;
      const [start, end] = [lefts[this.column - 1]! - held, lefts[this.column]! - held];
      this.scroller.scrollLeft = nearest(this.scroller.scrollLeft, start, end, across.size, share);
    }
  }

  private async showContent(): Promise<void> {
    const [sheet, row, column] = [this.sheet, this.row, this.column];
    const name = this.byPlace.get(`${sheet}!${row},${column}`);
    if (document.activeElement !== this.nameBox) this.nameBox.value = name ?? a1(row, column);
    const at = { sheet, row, column, height: 1, width: 1 };
    const content = await this.engine.ask("content", { at }).catch(() => "");
    if (sheet !== this.sheet || row !== this.row || column !== this.column) return;
    if (document.activeElement !== this.formula) this.formula.value = content;
    const shown = this.cells.get(`${row},${column}`)?.text ?? "";
    the("chosen").textContent = `${name ?? ""} ${a1(row, column)}: ${shown || "empty"}${content !== shown ? `, ${content}` : ""}`;
  }

  private async commit(): Promise<void> {
    const at = { sheet: this.sheet, row: this.row, column: this.column, height: 1, width: 1 };
    const input = this.formula.value;
    this.scroller.focus({ preventScroll: true });
    if (input === (await this.engine.ask("content", { at }).catch(() => null))) return;
    await this.hooks.edit(at, input);
  }

  // ---- what a person does

  private listen(): void {
    new ResizeObserver(() => {
      this.resize();
      void this.fetch();
    }).observe(this.scroller);
    this.scroller.addEventListener("scroll", () => requestAnimationFrame(() => {
      this.draw();
      void this.fetch();
    }));
    this.scroller.addEventListener("pointerdown", (event) => this.pressed(event));
    this.scroller.addEventListener("dblclick", () => this.edit());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("copy", (event) => {
      event.clipboardData?.setData("text/plain", this.cells.get(`${this.row},${this.column}`)?.text ?? "");
      event.preventDefault();
    });
    this.formula.addEventListener("keydown", (event) => {
      if (event.key === "Enter") void this.commit();
      if (event.key === "Escape") {
        this.scroller.focus({ preventScroll: true });
        void this.showContent();
      }
    });
    this.nameBox.addEventListener("focus", () => this.nameBox.select());
    this.nameBox.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.goTo(this.nameBox.value);
      if (event.key === "Escape") this.scroller.focus();
    });
    the("undo").addEventListener("click", () => void this.hooks.undo());
  }

  private goTo(text: string): void {
    const block = this.find(text);
    if (!block) {
      this.hooks.say(`There is no name and no cell “${text}”.`);
      return;
    }
    this.scroller.focus({ preventScroll: true });
    void this.jump(block);
  }

  private pressed(event: PointerEvent): void {
    const pressed = (event.target as HTMLElement).closest<HTMLElement>("[data-at]");
    if (!pressed) return;
    const at = place(pressed.dataset.at!, this.sheets, this.sheet)!;
    this.marked = null;
    this.choose(at.row, at.column);
    this.follow();
  }

  private follow(): boolean {
    const link = this.sheetFacts.links[a1(this.row, this.column)];
    const target = link && this.find(link);
    if (target) void this.jump(target);
    return Boolean(target);
  }

  private edit(start?: string): void {
    if (start !== undefined) this.formula.value = start;
    this.formula.focus();
  }

  private key(event: KeyboardEvent): void {
    const page = Math.max(1, this.rowStretches.at(-1)!.to - this.rowStretches.at(-1)!.from - 1);
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      PageUp: [-page, 0],
      PageDown: [page, 0],
    };
    const [rows, columns] = this.sheetFacts.size;
    const ends: Record<string, [number, number]> = {
      Home: event.ctrlKey ? [1, 1] : [this.row, 1],
      End: event.ctrlKey ? [rows, columns] : [this.row, columns],
    };
    const move = moves[event.key];
    if (move) this.walk(this.row + move[0], this.column + move[1]);
    else if (ends[event.key]) this.walk(...ends[event.key]!);
    else if (event.key === "F2") this.edit();
    else if (event.key === "Enter") this.follow() || this.edit();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) void this.hooks.undo();
    else if (event.key === "Delete" || event.key === "Backspace") {
      this.formula.value = "";
      void this.commit();
    } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
      this.edit("");
      return; // the letter goes into the formula bar
    } else return;
    event.preventDefault();
  }

  private walk(row: number, column: number): void {
    const merge = this.sheetFacts.merges.find((at) => inside(at, this.row, this.column));
    if (merge && row > this.row) row = Math.max(row, merge[0] + merge[2]);
    if (merge && column > this.column) column = Math.max(column, merge[1] + merge[3]);
    this.marked = null;
    this.choose(row, column);
  }

  private makeTabs(): void {
    const tabs = this.sheets.map((name, i) => {
      const tab = el("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-controls": "scroller" }, name);
      tab.addEventListener("click", () => void this.show(i));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        const next = (i + step + this.sheets.length) % this.sheets.length;
        the(`tab-${next}`).focus();
        void this.show(next);
      });
      return tab;
    });
    the("tabs").replaceChildren(...tabs);
  }

  private markTab(): void {
    this.sheets.forEach((_, i) => {
      const tab = the(`tab-${i}`);
      const isHere = i === this.sheet;
      tab.setAttribute("aria-selected", String(isHere));
      tab.tabIndex = isHere ? 0 : -1;
      if (isHere) tab.parentElement!.scrollLeft = tab.offsetLeft - tab.parentElement!.clientWidth / 2;
    });
  }
}

interface Box {
  top?: number;
  left?: number;
  width: number;
  height?: number;
}

function lay(element: HTMLElement, box: Partial<Box>): void {
  for (const [side, pixels] of Object.entries(box)) element.style.setProperty(side, `${pixels}px`);
}

const range = (from: number, to: number): number[] => Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);

const clamp = (value: number, least: number, most: number): number => Math.min(Math.max(value, least), most);

/** The first row or column that ends behind a place: `ends[i]` is where the i-th ends. */
function upTo(ends: number[], at: number): number {
  let [low, high] = [1, ends.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle]! > at) high = middle;
    else low = middle + 1;
  }
  return low;
}

function inside([row, column, height, width]: Corners, r: number, c: number): boolean {
  return r >= row && r < row + height && c >= column && c < column + width;
}

/** The scroll position that shows what stands from start to end: the present one, or the closest, or at a share. */
function nearest(now: number, start: number, end: number, size: number, share: number): number {
  if (start >= now && end <= now + size) return now;
  if (share) return Math.max(0, start - share * size);
  return start < now ? start : Math.max(0, Math.min(start, end - size));
}

function sideOf(align: string, text: string): "left" | "center" | "right" {
  if (align === "center" || align === "right" || align === "left") return align;
  return text !== "" && !Number.isNaN(Number(text.replace(/[,%]/g, ""))) ? "right" : "left";
}

function blend(from: string, to: string, share: number): string {
  const parts = (colour: string) => [1, 3, 5].map((i) => Number.parseInt(colour.slice(i, i + 2), 16));
  const [a, b] = [parts(from), parts(to)];
  return `rgb(${a.map((one, i) => Math.round(one + share * (b[i]! - one))).join(" ")})`;
}
