// Cells and blocks of them. Sheets count from 0, rows and columns from 1, as in IronCalc.

export interface Block {
  sheet: number;
  row: number;
  column: number;
  height: number;
  width: number;
}

/** What the page must know of a workbook besides IronCalc's file: xlgpt/view/convert.py writes it. */
export interface Facts {
  model: string;
  file: string;
  parameters: number;
  formulas: number;
  prompts: string[];
  switches: Record<string, string>;
  room: { tokens: number; bytes: number; new: number };
  heads: number;
  sheets: Record<string, SheetFacts>;
}

export interface SheetFacts {
  size: [number, number];
  merges: Corners[];
  links: Record<string, string>;
  fills: Record<string, string>; // of cells that are coloured where they show something
  scales: Scale[];
  steps: Steps[];
}

/** Cells that are coloured by their own numbers: the stops of a scale, from the lowest. */
export interface Scale {
  at: Corners;
  stops: [number, string][];
}

/** Cells that are coloured by the numbers in other cells, which begin at a row and column: steps, the highest first. */
export interface Steps {
  at: Corners;
  by: [number, number];
  steps: [number, string][];
}

/** Row, column, height, width. */
export type Corners = [number, number, number, number];

export function letters(column: number): string {
  const rest = Math.floor((column - 1) / 26);
  return (rest ? letters(rest) : "") + String.fromCharCode(65 + ((column - 1) % 26));
}

export const a1 = (row: number, column: number): string => `${letters(column)}${row}`;

function columnOf(text: string): number {
  return [...text.toUpperCase()].reduce((sum, letter) => 26 * sum + letter.charCodeAt(0) - 64, 0);
}

const PLACE = /^(?:(?:'((?:[^']|'')+)'|([^'!]+))!)?\$?([A-Za-z]{1,3})\$?(\d{1,7})(?::\$?([A-Za-z]{1,3})\$?(\d{1,7}))?$/;

/** The cells that 'Block 0'!$D$8:$F$9 or D8 mean; `here` is the sheet of a place that names none. */
export function place(text: string, sheets: string[], here = 0): Block | null {
  const found = PLACE.exec(text.trim());
  if (!found) return null;
  const named = found[1]?.replaceAll("''", "'") ?? found[2];
  const sheet = named === undefined ? here : sheets.indexOf(named);
  const [row, column] = [Number(found[4]), columnOf(found[3]!)];
  const [last, right] = found[6] ? [Number(found[6]), columnOf(found[5]!)] : [row, column];
  if (sheet < 0 || row < 1 || row > 1048576 || column > 16384) return null;
  return { sheet, row, column, height: last - row + 1, width: right - column + 1 };
}

/** One cell of a block, by row and column from 0. */
export function cellOf(block: Block, row = 0, column = 0): Block {
  return { sheet: block.sheet, row: block.row + row, column: block.column + column, height: 1, width: 1 };
}
