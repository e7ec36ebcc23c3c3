// Addresses within the page: `#/search?user=alice&entry=42`. What is behind the
// hash is not sent to any server, and a copied address shows the same again.

import { useEffect, useState } from "preact/hooks";

export interface Field {
  name: string;
  label: string;
  hint: string;
  content?: boolean; // asks about values: investigators only
  main?: boolean; // shown without asking for more
  choices?: string[];
}

const kinds = "query execute parse bind function_call copy result connect auth disconnect cancel replication violation notice gap recover start stop heartbeat config prune hold erase";

/** The filters of the API that select statements. */
export const fields: Field[] = [
  { name: "text", label: "Text contains", hint: "accounts", content: true, main: true },
  { name: "user", label: "User", hint: "alice", main: true },
  { name: "database", label: "Database", hint: "app", main: true },
  { name: "since", label: "Since", hint: "15m, 7d, or a date", main: true },
  { name: "until", label: "Until", hint: "5m" },
  { name: "application", label: "Application", hint: "psql" },
  { name: "client", label: "Client", hint: "10.0.0.0/8" },
  { name: "session", label: "Session", hint: "beginning of its id" },
  { name: "kind", label: "Kind", hint: "query,execute", choices: kinds.split(" ") },
  { name: "class", label: "Class", hint: "WRITE,DDL", content: true, choices: ["READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "UNKNOWN"] },
  { name: "relation", label: "Relation", hint: "public.users", content: true },
  { name: "regex", label: "Text matches", hint: "(?i)drop\\s+table", content: true },
  { name: "param", label: "Parameter is", hint: "42", content: true },
  { name: "fingerprint", label: "Fingerprint", hint: "of a statement", content: true },
  { name: "sqlstate", label: "SQLSTATE", hint: "42501, 23, any" },
  { name: "min-duration", label: "Took at least", hint: "500ms" },
  { name: "from", label: "From index", hint: "0" },
  { name: "to", label: "To index", hint: "1000" },
];

export interface Route {
  view: string;
  query: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const [path = "", ...query] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", arg] = path.split("/");
  const words = new URLSearchParams(query.join("?"));
  if (view === "entry" && arg) words.set("entry", arg);
  return { view, query: words };
}

export function href(view: string, query: URLSearchParams | Record<string, string> = {}): string {
  const words = new URLSearchParams(query).toString();
  return `#/${view}${words ? "?" + words : ""}`;
}

/** The same query with some words set, or removed where the value is undefined. */
export function changed(query: URLSearchParams, words: Record<string, string | undefined>): URLSearchParams {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(words)) {
    if (value === undefined || value === "") next.delete(name);
    else next.set(name, value);
  }
  return next;
}

/** What of a query the API is asked. */
export function filterOf(query: URLSearchParams): URLSearchParams {
  const out = new URLSearchParams();
  for (const { name } of fields) {
    const value = query.get(name)?.trim();
    if (value) out.set(name, value);
  }
  return out;
}

const units: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 1e-3, µs: 1e-3, ns: 1e-6 };

/** Milliseconds of a duration as Go writes it or in days, or undefined. */
export function duration(s: string): number | undefined {
  if (/^\d{1,5}d$/.test(s)) return parseInt(s) * 24 * units.h!;
  if (!/^(\d+(\.\d+)?(h|ms|m|s|us|µs|ns))+$/.test(s)) return undefined;
  return [...s.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g)].reduce((sum, [, n, unit]) => sum + Number(n) * units[unit!]!, 0);
}

/** A date, or a day and time as the page shows them, in the form of the API; anything else as it is. */
export function instant(s: string, end: boolean): string {
  const parts = /^(\d{4}-\d\d-\d\d)(?:[ T](\d\d?:\d\d(?::\d\d(?:\.\d+)?)?))?$/.exec(s.trim());
  if (!parts) return s;
  const t = new Date(`${parts[1]}T${(parts[2] ?? (end ? "23:59:59.999" : "00:00")).padStart(5, "0")}`);
  return isNaN(t.getTime()) ? s : t.toISOString();
}

/** The query with times that count back from now made fixed, for others to see the same. */
export function pinned(query: URLSearchParams, now: number): URLSearchParams {
  const fix = (name: string) => {
    const ms = duration(query.get(name) ?? "");
    return ms === undefined || ms > now ? (query.get(name) ?? undefined) : new Date(now - ms).toISOString();
  };
  return changed(query, { since: fix("since"), until: fix("until") ?? (query.has("to") ? undefined : new Date(now).toISOString()) });
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const listen = () => setHash(location.hash);
    addEventListener("hashchange", listen);
    listen(); // it may have changed since the first drawing
    return () => removeEventListener("hashchange", listen);
  }, []);
  return parseRoute(hash);
}
