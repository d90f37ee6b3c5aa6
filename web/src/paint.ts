// Draws what is in sight of a sheet: letters, numbers, cells. Only these are elements, however large the sheet is.

import { a1, type Block, letters, type SheetFacts } from "./cells";
import { shadeOf, stepOf } from "./colours";
import { el } from "./dom";
import type { CellStyle } from "./engine";
import { type Box, HEAD, inside, type Layout, range, SIDE, type Stretch } from "./geometry";

const SPREAD = 14; // how many empty cells a long text may cover

export interface Cell {
  text: string;
  look: CellStyle;
}

/** A sheet, what is known of its cells, and what is chosen. `behind`: texts of the cells that colour others. */
export interface Scene {
  layout: Layout;
  facts: SheetFacts;
  cells: Map<string, Cell>;
  behind: Map<string, string>;
  row: number;
  column: number;
  marked: Block | null;
}

export const key = (row: number, column: number): string => `${row},${column}`;

/** The panes of a sheet: beside and below the frozen ones, the others. */
export function paint(scene: Scene, rows: Stretch[], columns: Stretch[]): HTMLElement[] {
  return [
    el("div", { class: "corner", role: "presentation" }),
    ...columns.map((across) => heads(scene, across, "column")),
    ...rows.map((down) => heads(scene, down, "row")),
    ...rows.flatMap((down) => columns.map((across) => pane(scene, down, across))),
  ];
}

function heads(scene: Scene, stretch: Stretch, kind: "row" | "column"): HTMLElement {
  const isRow = kind === "row";
  const ends = isRow ? scene.layout.tops : scene.layout.lefts;
  const made = el("div", { class: `heads ${kind}s`, role: "presentation" });
  lay(made, isRow ? { top: stretch.start, height: stretch.size } : { left: stretch.start, width: stretch.size });
  for (const i of range(stretch.from, stretch.to)) {
    const start = ends[i - 1]! - stretch.shift - (stretch.start - (isRow ? HEAD : SIDE));
    const length = ends[i]! - ends[i - 1]!;
    const head = el("div", { class: "head" }, isRow ? String(i) : letters(i));
    if (i === (isRow ? scene.row : scene.column)) head.classList.add("here");
    lay(head, isRow ? { top: start, height: length } : { left: start, width: length });
    made.append(head);
  }
  return made;
}

function pane(scene: Scene, down: Stretch, across: Stretch): HTMLElement {
  const { layout, facts, marked } = scene;
  const made = el("div", { class: "pane", role: "rowgroup" });
  lay(made, { top: down.start, left: across.start, height: down.size, width: across.size });
  const y = (row: number) => layout.tops[row - 1]! - down.shift - (down.start - HEAD);
  const x = (column: number) => layout.lefts[column - 1]! - across.shift - (across.start - SIDE);
  const merges = facts.merges.filter(([row, , height]) => row <= down.to && row + height > down.from);
  const running = across.from > 1 && across.shift === 0; // texts may run over from the columns that stay in sight
  for (const row of range(down.from, down.to)) {
    const line = el("div", { role: "row", "aria-rowindex": row });
    for (const column of range(running ? 1 : across.from, across.to)) {
      const merge = merges.find((at) => inside(at, row, column));
      if (merge && (merge[0] !== row || (merge[1] !== column && column !== across.from))) continue;
      const from = merge ? merge[1] : column;
      const cell = scene.cells.get(key(row, from));
      if (!cell || (column < across.from && !cell.text)) continue;
      const [height, width] = merge ? [merge[2], merge[3]] : [1, 1];
      line.append(element(scene, row, from, cell, boxOf(layout, y(row), x(from), row, from, height, width)));
    }
    made.append(line);
  }
  if (marked) {
    const { row, column, height, width } = marked;
    const mark = el("div", { class: "mark", role: "presentation" });
    lay(mark, boxOf(layout, y(row), x(column), row, column, height, width));
    made.append(mark);
  }
  return made;
}

function boxOf(
  { tops, lefts }: Layout, top: number, left: number, row: number, column: number, height: number, width: number,
): Box {
  const size = (ends: number[], from: number, count: number) =>
    ends[Math.min(from - 1 + count, ends.length - 1)]! - ends[from - 1]!;
  return { top, left, height: size(tops, row, height), width: size(lefts, column, width) };
}

function element(scene: Scene, row: number, column: number, cell: Cell, box: Box): HTMLElement {
  const { text, look } = cell;
  const made = el("div", { class: "cell", role: "gridcell", "aria-colindex": column, "data-at": a1(row, column) });
  lay(made, box);
  const fill = fillOf(scene, row, column, cell);
  if (fill && fill !== "#FFFFFF") made.style.background = fill;
  if (look.ink) made.style.color = look.ink;
  made.style.fontSize = `${Math.round(look.size * 1.18)}px`;
  if (look.bold) made.style.fontWeight = "600";
  if (look.italic) made.style.fontStyle = "italic";
  if (look.underline) made.style.textDecoration = "underline";
  const side = sideOf(look.align, text);
  const kinds = { mono: look.mono, wrap: look.wrap, top: look.top, link: scene.facts.links[a1(row, column)], [side]: side !== "left" };
  for (const [kind, is] of Object.entries(kinds)) made.classList.toggle(kind, Boolean(is));
  look.lines.forEach((colour, i) => {
    if (colour) made.style.setProperty(`border-${["top", "right", "bottom", "left"][i]}-color`, colour);
  });
  if (row === scene.row && column === scene.column) {
    made.classList.add("here");
    made.id = "here";
    made.setAttribute("aria-selected", "true");
  }
  if (!text) return made;
  const words = el("span", {}, text);
  if (!look.wrap && side === "left") words.style.maxWidth = `${box.width - 6 + freeBehind(scene, row, column)}px`;
  made.append(words);
  return made;
}

/** A cell's background: by its own value, by another cell's, where it shows something, or as it is formatted. */
function fillOf({ facts, behind }: Scene, row: number, column: number, { text, look }: Cell): string {
  return (
    shadeOf(facts.scales, row, column, text) ||
    stepOf(facts.steps, row, column, (r, c) => behind.get(key(r, c)) ?? "") ||
    (text && facts.fills[a1(row, column)]) ||
    look.fill
  );
}

/** How many pixels of empty cells stand to the right, over which a long text may run. */
function freeBehind({ facts, layout, cells }: Scene, row: number, column: number): number {
  if (facts.merges.some((at) => inside(at, row, column))) return 0;
  let next = column + 1;
  while (next <= column + SPREAD && next < layout.lefts.length) {
    const there = cells.get(key(row, next));
    if (!there || there.text) break;
    next++;
  }
  return layout.lefts[next - 1]! - layout.lefts[column]!;
}

function sideOf(align: string, text: string): "left" | "center" | "right" {
  if (align === "center" || align === "right" || align === "left") return align;
  return text !== "" && !Number.isNaN(Number(text.replace(/[,%]/g, ""))) ? "right" : "left";
}

function lay(made: HTMLElement, box: Partial<Box>): void {
  for (const [side, pixels] of Object.entries(box)) made.style.setProperty(side, `${pixels}px`);
}
