// Where rows and columns stand, in pixels. Rows and columns count from 1.

import type { Corners } from "./cells";

export const HEAD = 22; // the height of the columns' letters
export const SIDE = 46; // the width of the rows' numbers

/** A sheet's geometry: where each row and column begins, and one place more for where the last ends. */
export interface Layout {
  tops: number[];
  lefts: number[];
  frozen: [number, number];
  lines: boolean;
}

export const NO_SHEET: Layout = { tops: [0], lefts: [0], frozen: [0, 0], lines: true };

/** A stretch of rows or columns in sight: their numbers, where they begin in the view, and how much of it they take. */
export interface Stretch {
  from: number;
  to: number;
  start: number;
  size: number;
  shift: number;
}

export interface Box {
  top: number;
  left: number;
  width: number;
  height: number;
}

/** Where each begins, and where the last ends. */
export function running(sizes: number[]): number[] {
  const ends = [0];
  for (const one of sizes) ends.push(ends.at(-1)! + Math.round(one));
  return ends;
}

/** What is in sight of rows or columns: the frozen ones, where they leave room, and those that are scrolled to. */
export function stretches(ends: number[], frozen: number, scrolled: number, head: number, room: number): Stretch[] {
  const last = ends.length - 1;
  const held = ends[Math.min(frozen, last)]! > room * 0.6 ? 0 : Math.min(frozen, last); // a phone is narrow
  const start = head + ends[held]!;
  const begins = ends[held]! + scrolled;
  const from = Math.min(Math.max(held + 1, upTo(ends, begins)), last);
  const to = Math.min(last, upTo(ends, begins + room - start));
  const moving = { from, to: Math.max(from, to), start, size: Math.max(0, room - start), shift: scrolled };
  return held ? [{ from: 1, to: held, start: head, size: ends[held]!, shift: 0 }, moving] : [moving];
}

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

/** The scroll position that shows what stands from start to end: the present one, or the closest, or at a share. */
export function nearest(now: number, start: number, end: number, size: number, share: number): number {
  if (start >= now && end <= now + size) return now;
  if (share) return Math.max(0, start - share * size);
  return start < now ? start : Math.max(0, Math.min(start, end - size));
}

export const range = (from: number, to: number): number[] => Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);

export const clamp = (value: number, least: number, most: number): number => Math.min(Math.max(value, least), most);

export function inside([row, column, height, width]: Corners, r: number, c: number): boolean {
  return r >= row && r < row + height && c >= column && c < column + width;
}
