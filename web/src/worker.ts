// IronCalc in a worker: it calculates while the page stays alive.

import init, { Model } from "@ironcalc/wasm";
import type { Color } from "@ironcalc/wasm";
import type { Answers, Asked, CellStyle, Question } from "./engine";
import { type Block, place } from "./cells";

let model: Model;
let sheets: string[] = [];

const about: { [K in Question]: (asked: Asked[K]) => Answers[K] | Promise<Answers[K]> } = {
  async load({ engine, book }) {
    await init({ module_or_path: engine });
    model = Model.from_bytes(new Uint8Array(book), "en");
    model.pauseEvaluation(); // each answer is one calculation, however many cells are set for it
    sheets = model.getWorksheetsProperties().map((sheet) => sheet.name);
    const names: [string, Block][] = [];
    for (const { name, formula } of model.getDefinedNameList()) {
      const block = place(formula, sheets);
      if (block) names.push([name, block]);
    }
    return { sheets, names };
  },
  calculate({ cells }) {
    const began = performance.now();
    for (const { at, input } of cells) fill(at, input);
    model.evaluate();
    return { seconds: (performance.now() - began) / 1000 };
  },
  undo() {
    if (!model.canUndo()) return { done: false };
    model.undo();
    model.evaluate();
    return { done: true };
  },
  read({ blocks }) {
    return blocks.map(({ sheet, row, column, height, width }) =>
      Array.from({ length: height }, (_, i) =>
        Array.from({ length: width }, (_, j) => model.getFormattedCellValue(sheet, row + i, column + j)),
      ),
    );
  },
  content({ at }) {
    const content = model.getCellContent(at.sheet, at.row, at.column);
    const isText = model.getCellStyle(at.sheet, at.row, at.column).style.num_fmt === "@";
    return isText && content.startsWith("'") ? content.slice(1) : content;
  },
  sizes({ sheet, rows, columns }) {
    return {
      rows: Array.from({ length: rows }, (_, i) => model.getRowHeight(sheet, i + 1)),
      columns: Array.from({ length: columns }, (_, i) => model.getColumnWidth(sheet, i + 1)),
      frozen: [model.getFrozenRowsCount(sheet), model.getFrozenColumnsCount(sheet)],
      lines: model.getShowGridLines(sheet),
    };
  },
  window({ sheet, rows, columns }) {
    const styles: CellStyle[] = [];
    const known = new Map<string, number>();
    const texts: string[][] = [];
    const looks: number[][] = [];
    for (const row of rows) {
      texts.push(columns.map((column) => model.getFormattedCellValue(sheet, row, column)));
      looks.push(columns.map((column) => {
        const style = model.getCellStyle(sheet, row, column).style;
        const key = JSON.stringify(style);
        if (!known.has(key)) known.set(key, styles.push(styleOf(style)) - 1);
        return known.get(key)!;
      }));
    }
    return { texts, looks, styles };
  },
};

/** Type into a cell. In one that is formatted as text all is text, also "=1+1" and "007"; nothing empties it. */
function fill({ sheet, row, column }: Block, input: string): void {
  const isText = model.getCellStyle(sheet, row, column).style.num_fmt === "@";
  if (input === "") model.rangeClearContents(sheet, row, column, row, column);
  else model.setUserInput(sheet, row, column, isText ? `'${input}` : input);
}

function styleOf(style: ReturnType<Model["getCellStyle"]>["style"]): CellStyle {
  const colour = (given: Color) => (given === undefined ? "" : model.resolveColor(given));
  const { font, fill, border, alignment } = style;
  const line = (side: { color?: Color } | undefined) => (side ? colour(side.color) || "#D5DBE1" : "");
  return {
    fill: colour(fill.color),
    ink: colour(font.color),
    size: font.sz,
    bold: font.b,
    italic: font.i,
    underline: font.u,
    mono: font.name === "Consolas",
    align: alignment?.horizontal ?? "general",
    top: alignment?.vertical === "top",
    wrap: alignment?.wrap_text ?? false,
    lines: [line(border.top), line(border.right), line(border.bottom), line(border.left)],
  };
}

self.onmessage = async ({ data }: MessageEvent<{ id: number; question: Question; asked: never }>) => {
  try {
    self.postMessage({ id: data.id, answer: await about[data.question](data.asked) });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    self.postMessage({ id: data.id, error: why, dead: error instanceof WebAssembly.RuntimeError });
  }
};
