// What the page asks of the engine in its worker, one question after the other.

import type { Block } from "./cells";

export interface CellStyle {
  fill: string;
  ink: string;
  size: number;
  bold: boolean;
  italic: boolean;
  underline: boolean;
  mono: boolean;
  align: string;
  top: boolean;
  wrap: boolean;
  lines: string[];
}

export interface Asked {
  load: { engine: ArrayBuffer; book: ArrayBuffer };
  calculate: { cells: { at: Block; input: string }[] };
  undo: Record<string, never>;
  read: { blocks: Block[] };
  content: { at: Block };
  sizes: { sheet: number; rows: number; columns: number };
  window: { sheet: number; rows: number[]; columns: number[] };
}

export interface Answers {
  load: { sheets: string[]; names: [string, Block][] };
  calculate: { seconds: number };
  undo: { done: boolean };
  read: string[][][];
  content: string;
  sizes: { rows: number[]; columns: number[]; frozen: [number, number]; lines: boolean };
  window: { texts: string[][]; looks: number[][]; styles: CellStyle[] };
}

export type Question = keyof Asked;

interface Waiting {
  resolve: (answer: never) => void;
  reject: (why: Error) => void;
}

export class Engine {
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor(private readonly worker: Worker) {
    worker.onmessage = ({ data }) => this.answered(data);
    worker.onerror = (event) => this.fail(event.message || "the engine could not be started");
  }

  ask<Q extends Question>(question: Q, asked: Asked[Q], hand: Transferable[] = []): Promise<Answers[Q]> {
    const id = ++this.last;
    return new Promise<Answers[Q]>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (answer: never) => void, reject });
      this.worker.postMessage({ id, question, asked }, hand);
    });
  }

  private answered(data: { id: number; answer?: unknown; error?: string; dead?: boolean }): void {
    const waiting = this.waiting.get(data.id);
    this.waiting.delete(data.id);
    if (data.error === undefined) waiting?.resolve(data.answer as never);
    else waiting?.reject(new Error(data.dead ? `the engine stopped (${data.error}); load the page again` : data.error));
  }

  private fail(why: string): void {
    for (const { reject } of this.waiting.values()) reject(new Error(why));
    this.waiting.clear();
  }
}
