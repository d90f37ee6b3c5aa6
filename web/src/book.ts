// The workbook as the page uses it: values by name, and cells to fill in.

import { type Block, cellOf, type Facts } from "./cells";
import type { Engine } from "./engine";

export type Inputs = Record<string, string>;

export class Book {
  constructor(
    readonly engine: Engine,
    readonly facts: Facts,
    readonly sheets: string[],
    readonly names: Map<string, Block>,
  ) {}

  has(name: string): boolean {
    return this.names.has(name);
  }

  /** The cells of a name. Throws where the workbook lacks it. */
  named(name: string): Block {
    const block = this.names.get(name);
    if (!block) throw new Error(`the workbook has no cells named ${name}`);
    return block;
  }

  /** What the cells of some names show, row by row; nothing for a name that is not there. */
  async read(...names: string[]): Promise<Record<string, string[][]>> {
    const there = names.filter((name) => this.has(name));
    const found = await this.engine.ask("read", { blocks: there.map((name) => this.named(name)) });
    return Object.fromEntries(there.map((name, i) => [name, found[i]!]));
  }

  /** The first cell of each name with what is to be typed into it; names that are not there are left out. */
  cells(inputs: Inputs): { at: Block; input: string }[] {
    const there = Object.entries(inputs).filter(([name]) => this.has(name));
    return there.map(([name, input]) => ({ at: cellOf(this.named(name)), input }));
  }

  /** The switch without which nothing is calculated on a sheet. */
  switchOf(sheet: number): string | undefined {
    return this.facts.switches[this.sheets[sheet]!];
  }
}
