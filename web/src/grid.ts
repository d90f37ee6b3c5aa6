// The spreadsheet: which sheet and cells are in sight, which cell is chosen, and what a person does to it.

import { a1, type Block, type Facts, place, type SheetFacts } from "./cells";
import { el, the } from "./dom";
import type { Engine } from "./engine";
import { clamp, HEAD, inside, type Layout, nearest, NO_SHEET, range, running, SIDE, type Stretch, stretches } from "./geometry";
import { type Cell, key, paint } from "./paint";
import { Tabs } from "./tabs";

const SPARE = { rows: 40, columns: 8 }; // empty ones behind the last

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
  private readonly cells = new Map<string, Cell>();
  private readonly behind = new Map<string, string>();
  private readonly layouts = new Map<number, Layout>();
  private layout = NO_SHEET;
  private asking = false;
  private stale = false;
  private wanted = false;
  private readonly tabs: Tabs;
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
    this.tabs = new Tabs(sheets, (sheet) => void this.show(sheet));
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
      this.behind.clear();
      const layout = await this.layoutOf(block.sheet);
      if (this.sheet !== block.sheet) return; // another one was chosen since
      this.layout = layout;
      this.scroller.scrollTo(0, 0);
      this.resize();
      this.tabs.mark(block.sheet);
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
    return this.facts.sheets[this.sheets[this.sheet]!] ?? { size: [100, 26], merges: [], links: {}, fills: {}, scales: [], steps: [] };
  }

  private async layoutOf(sheet: number): Promise<Layout> {
    const known = this.layouts.get(sheet);
    if (known) return known;
    const [rows, columns] = this.facts.sheets[this.sheets[sheet]!]?.size ?? [100, 26];
    const size = { rows: rows + SPARE.rows, columns: columns + SPARE.columns };
    const found = await this.engine.ask("sizes", { sheet, ...size });
    const layout = { ...found, tops: running(found.rows), lefts: running(found.columns) };
    this.layouts.set(sheet, layout);
    return layout;
  }

  // ---- what is in sight

  private get rowStretches(): Stretch[] {
    return stretches(this.layout.tops, this.layout.frozen[0], this.scroller.scrollTop, HEAD, this.scroller.clientHeight);
  }

  private get columnStretches(): Stretch[] {
    const { lefts, frozen } = this.layout;
    return stretches(lefts, frozen[1], this.scroller.scrollLeft, SIDE, this.scroller.clientWidth);
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
    if (this.layout === NO_SHEET) return; // no sheet is shown yet
    const [sheet, anew] = [this.sheet, this.stale];
    const rows = this.rowStretches.flatMap(({ from, to }) => range(from, to));
    const columns = this.columnStretches.flatMap(({ from, to }) => range(from, to));
    const missing = rows.filter((row) => anew || columns.some((column) => !this.cells.has(key(row, column))));
    if (missing.length) {
      this.stale = false;
      const asked = anew || !this.behind.size ? this.blocksBehind(sheet) : [];
      const [found, behind] = await Promise.all([
        this.engine.ask("window", { sheet, rows: missing, columns }),
        this.engine.ask("read", { blocks: asked }),
      ]);
      if (sheet !== this.sheet) {
        this.wanted = true;
        return;
      }
      if (anew) this.cells.clear();
      missing.forEach((row, i) =>
        columns.forEach((column, j) => {
          const look = found.styles[found.looks[i]![j]!]!;
          this.cells.set(key(row, column), { text: found.texts[i]![j]!, look });
        }),
      );
      asked.forEach(({ row, column }, i) =>
        behind[i]!.forEach((line, r) => line.forEach((text, c) => this.behind.set(key(row + r, column + c), text))),
      );
    }
    this.draw();
  }

  /** The cells by which others are coloured. */
  private blocksBehind(sheet: number): Block[] {
    return this.sheetFacts.steps.map(({ at, by }) => ({ sheet, row: by[0], column: by[1], height: at[2], width: at[3] }));
  }

  private draw(): void {
    if (this.layout === NO_SHEET) return;
    const { layout, cells, behind, row, column, marked } = this;
    const scene = { layout, cells, behind, row, column, marked, facts: this.sheetFacts };
    this.view.replaceChildren(...paint(scene, this.rowStretches, this.columnStretches));
    this.view.classList.toggle("lined", layout.lines);
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
    const shown = this.cells.get(key(row, column))?.text ?? "";
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
    this.scroller.addEventListener("click", (event) => this.pressed(event));
    this.scroller.addEventListener("dblclick", () => this.edit());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("copy", (event) => {
      event.clipboardData?.setData("text/plain", this.cells.get(key(this.row, this.column))?.text ?? "");
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
    the<HTMLButtonElement>("undo").disabled = false;
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

  private pressed(event: MouseEvent): void {
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
}
