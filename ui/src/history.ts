// Rates and latencies out of successive answers about the status.

import type { Status } from "./api.ts";

const longest = 300; // answers kept, one a second

export interface History {
  times: number[]; // seconds since 1970
  statements: (number | null)[]; // per second
  logBytes: (number | null)[]; // per second
  median: (number | null)[]; // microseconds of a commit
  slowest: (number | null)[]; // of which one in a hundred is slower
  last?: Status;
}

export const emptyHistory: History = { times: [], statements: [], logBytes: [], median: [], slowest: [] };

/** The history with one more answer. */
export function extend(h: History, s: Status): History {
  const was = h.last;
  if (!was || was.started !== s.started) return { ...emptyHistory, last: s };
  const seconds = (Date.parse(s.now) - Date.parse(was.now)) / 1000;
  if (seconds <= 0) return h;
  const counts = s.commits.counts.map((n, i) => n - (was.commits.counts[i] ?? 0));
  const add = <T>(list: T[], v: T) => [...list, v].slice(-longest);
  return {
    times: add(h.times, Date.parse(s.now) / 1000),
    statements: add(h.statements, (s.statements_total - was.statements_total) / seconds),
    logBytes: add(h.logBytes, (s.log_bytes_total - was.log_bytes_total) / seconds),
    median: add(h.median, quantile(s.commits.bounds_s, counts, 0.5)),
    slowest: add(h.slowest, quantile(s.commits.bounds_s, counts, 0.99)),
    last: s,
  };
}

/** Microseconds below which the part q of the observations lies: the bound of its bucket. Null if there are none. */
export function quantile(bounds: number[], counts: number[], q: number): number | null {
  const total = counts.reduce((a, b) => a + b, 0);
  if (total === 0) return null;
  let n = 0;
  for (const [i, c] of counts.entries()) {
    n += c;
    if (n >= q * total) return 1e6 * (bounds[i] ?? 2 * bounds.at(-1)!);
  }
  return null;
}
