// Puts the statements of a session into transactions.

import type { Statement } from "./api.ts";

export type Fate = "committed" | "undone" | "open" | "unknown" | "";

/** A line of the time line; begin and end are milliseconds since 1970. */
export type Line =
  | { kind: "tx"; fate: Fate; begin: number; end: number; statements: number; first: number }
  | { kind: "statement"; fate: Fate; begin: number; end: number; statement: Statement };

const end = (s: Statement) => Date.parse(s.time) + (s.outcome?.duration_us ?? 0) / 1000;

/**
 * A transaction begins with the statement that leaves the session in one
 * (outcome.tx T or E) and ends with the one that leaves it outside (I). Each
 * gets a line of its own in front of its statements.
 */
export function timeline(statements: Statement[]): Line[] {
  const lines: Line[] = [];
  let inside: Statement[] = [];
  const single = (s: Statement, fate: Fate): Line => ({ kind: "statement", fate, begin: Date.parse(s.time), end: end(s), statement: s });
  const close = (over: boolean) => {
    if (inside.length === 0) return;
    const fate = fateOf(inside, over);
    lines.push({ kind: "tx", fate, begin: Date.parse(inside[0]!.time), end: Math.max(...inside.map(end)), statements: inside.filter((s) => s.kind !== "parse" && s.kind !== "bind").length, first: inside[0]!.index });
    for (const s of inside) lines.push(single(s, fate));
    inside = [];
  };
  for (const s of statements) {
    const tx = s.outcome?.tx;
    if (tx === "T" || tx === "E") inside.push(s);
    else if (inside.length > 0 && s.kind !== "disconnect") {
      inside.push(s);
      if (tx === "I") close(true);
    } else {
      close(s.kind === "disconnect");
      lines.push(single(s, ""));
    }
  }
  close(false);
  return lines;
}

function fateOf(statements: Statement[], over: boolean): Fate {
  const told = new Set(statements.map((s) => s.outcome?.committed).filter((c) => c !== undefined));
  if (told.has(true)) return told.has(false) ? "unknown" : "committed";
  if (told.has(false)) return "undone";
  return over ? "unknown" : "open";
}
