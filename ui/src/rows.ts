// Statements as they came, one JSON object a line. A million of them are kept
// as the bytes they are; only those on the screen are parsed.

import type { Statement } from "./answers.ts";
import { concat } from "./bytes.ts";

export class Rows {
  length = 0;
  private chunks: { first: number; bytes: Uint8Array; starts: Uint32Array }[] = [];
  private rest: Uint8Array[] = []; // of a line whose end has not come
  private parsed = new Map<number, Statement>();

  /** Adds bytes of an answer; b is kept. */
  append(b: Uint8Array): void {
    const end = b.lastIndexOf(10) + 1;
    if (end === 0) {
      this.rest.push(b);
      return;
    }
    let bytes = b.subarray(0, end);
    if (this.rest.length > 0) {
      bytes = concat(...this.rest, bytes);
      this.rest = [];
    }
    if (end < b.length) this.rest = [b.subarray(end)];
    let n = 0;
    for (let i = bytes.indexOf(10); i >= 0; i = bytes.indexOf(10, i + 1)) n++;
    const starts = new Uint32Array(n + 1);
    for (let i = 0, row = 1; row <= n; row++) {
      i = bytes.indexOf(10, i) + 1;
      starts[row] = i;
    }
    this.chunks.push({ first: this.length, bytes, starts });
    this.length += n;
  }

  /** Adds one object. */
  add(line: string): void {
    this.append(new TextEncoder().encode(line + "\n"));
  }

  /** Forgets the oldest rows, so that about n remain. */
  keep(n: number): void {
    const from = this.chunks.findIndex((c) => c.first >= this.length - n);
    if (from <= 0) return;
    const gone = this.chunks[from]!.first;
    this.chunks = this.chunks.slice(from);
    for (const c of this.chunks) c.first -= gone;
    this.length -= gone;
    this.parsed.clear();
  }

  at(row: number): Statement {
    let s = this.parsed.get(row);
    if (!s) {
      if (this.parsed.size > 500) this.parsed.clear();
      s = JSON.parse(this.line(row)) as Statement;
      this.parsed.set(row, s);
    }
    return s;
  }

  /** The row with this index, if there is one: they are in the order of their indexes, or in the opposite one. */
  find(index: number): number | undefined {
    const back = this.length > 1 && this.at(0).index > this.at(this.length - 1).index;
    let lo = 0;
    for (let hi = this.length; lo < hi; ) {
      const mid = (lo + hi) >> 1;
      if (back ? this.at(mid).index > index : this.at(mid).index < index) lo = mid + 1;
      else hi = mid;
    }
    return lo < this.length && this.at(lo).index === index ? lo : undefined;
  }

  private line(row: number): string {
    let lo = 0;
    for (let hi = this.chunks.length; hi - lo > 1; ) {
      const mid = (lo + hi) >> 1;
      if (this.chunks[mid]!.first <= row) lo = mid;
      else hi = mid;
    }
    const { first, bytes, starts } = this.chunks[lo]!;
    return new TextDecoder().decode(bytes.subarray(starts[row - first], starts[row - first + 1]! - 1));
  }
}
