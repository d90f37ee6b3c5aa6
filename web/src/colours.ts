// Conditional formats: IronCalc would calculate all of them at each edit, so the page colours the cells in sight.

import type { Scale, Steps } from "./cells";
import { inside } from "./geometry";

/** The colour that a colour scale gives a cell by its own number; nothing where there is none. */
export function shadeOf(scales: Scale[], row: number, column: number, text: string): string {
  const scale = text && scales.find(({ at }) => inside(at, row, column));
  if (!scale) return "";
  const value = numberOf(text);
  if (Number.isNaN(value)) return "";
  const { stops } = scale;
  const above = stops.findIndex(([at]) => value <= at);
  if (above <= 0) return stops.at(above)![1];
  const [[low, from], [high, to]] = [stops[above - 1]!, stops[above]!];
  return blend(from, to, (value - low) / (high - low));
}

/** The colour that a cell has by the number in another cell: that of the highest step that it reaches. */
export function stepOf(all: Steps[], row: number, column: number, textAt: (row: number, column: number) => string): string {
  const found = all.find(({ at }) => inside(at, row, column));
  if (!found) return "";
  const { at, by, steps } = found;
  const value = numberOf(textAt(row - at[0] + by[0], column - at[1] + by[1]));
  return steps.find(([least]) => value >= least)?.[1] ?? "";
}

/** What a cell shows as a number: 17% is 0.17. */
const numberOf = (text: string): number => Number.parseFloat(text.replaceAll(",", "")) / (text.endsWith("%") ? 100 : 1);

function blend(from: string, to: string, share: number): string {
  const parts = (colour: string) => [1, 3, 5].map((i) => Number.parseInt(colour.slice(i, i + 2), 16));
  const [a, b] = [parts(from), parts(to)];
  return `rgb(${a.map((one, i) => Math.round(one + share * (b[i]! - one))).join(" ")})`;
}
