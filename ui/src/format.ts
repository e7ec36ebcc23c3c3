// How figures, times and results are written.

import type { Statement } from "./answers.ts";

/** A number of things. */
export const many = (n: number, thing: string) => `${count(n)} ${n === 1 ? thing : thing.replace(/y$/, "ie") + "s"}`;

const grouped = new Intl.NumberFormat("en");

export const count = (n: number) => grouped.format(n);

/** Three digits and what they count: 1.23k. */
export function short(n: number): string {
  for (const [unit, at] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const) {
    if (n >= at) return (n / at).toPrecision(3) + unit;
  }
  return n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toPrecision(2);
}

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)} ${units[i]}`;
}

/** A duration of microseconds. */
export function micros(us: number): string {
  if (us < 1000) return `${us.toFixed(0)} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
  return span(us / 1000);
}

/** A longer duration, of milliseconds. */
export function span(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const pad = (n: number, width = 2) => String(n).padStart(width, "0");

/** The time of day, local, with milliseconds. */
export function clock(time: string | number): string {
  const t = new Date(time);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}.${pad(t.getMilliseconds(), 3)}`;
}

/** The time of day, with the day if it is another than today, or the date alone if it is of another year. */
export function when(time: string | number): string {
  const [then, now] = [moment(time), moment(Date.now())];
  if (then.slice(0, 4) !== now.slice(0, 4)) return then.slice(0, 10); // no room for more
  return then.slice(0, 10) === now.slice(0, 10) ? clock(time) : then.slice(5);
}

/** Day and time of day, local. */
export function moment(time: string | number): string {
  const t = new Date(time);
  if (isNaN(t.getTime())) return "no time that a calendar has"; // a witness may sign any number
  return `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${clock(time).slice(0, 8)}`;
}

export type Mood = "failed" | "undone" | "slow" | "";

const slowMicros = 1_000_000;

/** What stands out about a statement. */
export function mood(s: Statement): Mood {
  if (s.outcome?.error || s.error || s.kind === "violation" || s.kind === "gap") return "failed";
  if (s.outcome?.committed === false || s.outcome?.skipped || s.outcome?.discarded) return "undone";
  return (s.outcome?.duration_us ?? 0) >= slowMicros ? "slow" : "";
}

/** How a statement ended, in a word or two. */
export function result(s: Statement): string {
  const o = s.outcome;
  const error = o?.error ?? s.error;
  if (error) return `ERROR ${error.sqlstate}`;
  if (!o) return ["query", "execute", "parse", "bind", "function_call"].includes(s.kind) ? "no end yet" : s.kind;
  if (o.skipped) return "skipped";
  if (o.discarded) return "discarded";
  const tags = o.tags ?? (o.tag === undefined ? [] : [o.tag]);
  const tag = tags.length === 0 ? s.kind : tags.length === 1 ? tags[0]! : `${tags[0]} +${tags.length - 1}`;
  return o.suspended ? tag + " …" : o.committed === false && !/^(BEGIN|ROLLBACK)/.test(tag) ? tag + " · undone" : tag;
}

/** A client's text with what would not be seen, or would change how the rest is seen, as escapes. */
export const visible = (text: string) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c, at) =>
    c === "\n" || c === "\t" || (c === "\r" && text[at + 1] === "\n") ? c : "\\u" + c.codePointAt(0)!.toString(16).padStart(4, "0"));

const most = 2000; // characters of a line: more are on no screen

const line = (text: string) => visible(text.slice(0, most).replace(/\s+/g, " ").trim());

/** What happened, on one line. */
export function summary(s: Statement): string {
  if (s.statement !== undefined) return line(s.statement);
  if (s.error?.message) return line(s.error.message);
  if (s.notice) return line(s.notice.message);
  if (s.request) return line([s.facts?.reader, s.request].filter(Boolean).join(": "));
  const facts = Object.entries(s.facts ?? {}).map(([k, v]) => `${k}=${v}`);
  if (s.messages !== undefined) facts.unshift(`${count(s.messages)} messages, ${bytes(s.bytes ?? 0)}`);
  return visible(facts.join("  "));
}

export const who = (s: { user?: string; database?: string }) => (s.user ? visible(`${s.user}@${s.database ?? ""}`) : "");
