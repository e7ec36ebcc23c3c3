// The HTTP API of docs/api.md.

import { Rows } from "./rows.ts";

export type Role = "operator" | "auditor" | "investigator";

export interface Me {
  name: string;
  role: Role;
}

export interface ServerMessage {
  sqlstate: string;
  message: string;
  [part: string]: string;
}

export interface Outcome {
  index: number;
  tag?: string;
  tags?: string[];
  rows?: number;
  bytes?: number;
  duration_us?: number;
  tx?: "I" | "T" | "E";
  committed?: boolean;
  skipped?: boolean;
  suspended?: boolean;
  discarded?: boolean;
  error?: ServerMessage;
}

export interface Param {
  type?: string;
  format: string;
  value: string | null;
  raw?: string;
}

export interface Statement {
  index: number;
  time: string;
  session?: string;
  user?: string;
  database?: string;
  application?: string;
  client?: string;
  kind: string;
  statement?: string;
  params?: Param[];
  malformed?: boolean;
  unavailable?: boolean;
  too_large?: boolean;
  facts?: Record<string, string>;
  outcome?: Outcome;
  error?: ServerMessage;
  notice?: ServerMessage;
  request?: string;
  messages?: number;
  bytes?: number;
  sql?: { class: string[]; relations?: string[]; fingerprint?: string; complete?: boolean };
}

/** The answer about one entry. */
export interface Entry extends Statement {
  leaf: Record<string, unknown>;
  value?: string;
  rendering?: string;
}

export interface Session {
  session: string;
  user?: string;
  database?: string;
  application?: string;
  client?: string;
  first: number;
  last: number;
  begin: string;
  end: string;
  connected: boolean;
  open: boolean;
  statements: number;
  errors: number;
  rolled_back: number;
  rows: number;
}

export interface Status {
  version: string;
  origin: string;
  started: string;
  now: string;
  ready: boolean;
  problem?: string;
  durability: string;
  listen: string;
  upstream: string;
  entries: number;
  checkpoint_size: number;
  checkpoint_root?: string;
  checkpoint_time?: string;
  sessions: number;
  sessions_total: number;
  statements_total: number;
  refusals_total: number;
  bytes_total: number;
  backlog_bytes: number;
  log_bytes_total: number;
  batch_entries: number;
  commits: { bounds_s: number[]; counts: number[]; sum_s: number };
  sinks?: { name: string; next: number; lag_entries: number; lag_s: number; sent_total: number; failures_total: number }[];
  witnesses?: { size: number; cosignatures_total: number; failures_total: number; alarms_total: number; keys: string[] };
  interruptions?: { since: string; gaps: number; recoveries: number; violations: number; starts: number; stops: number; first_entry: number; first_value: number };
}

/** An answer that is not what was asked for; code is 0 if there was none. */
export class Refused extends Error {
  constructor(readonly code: number, why: string) {
    super(why);
  }
}

let expired = () => {};

/** Calls f whenever an answer says that a token is needed. */
export const onExpired = (f: () => void) => void (expired = f);

let ahead = 0; // ms that the proxy's clock is ahead of this browser's

/** The time by the proxy's clock, which entries go by; at most a second and a request's time more. */
export const proxyNow = () => Date.now() + ahead;

async function ask(path: string, init?: RequestInit, tries = 4): Promise<Response> {
  let r: Response;
  try {
    const sent = Date.now();
    r = await fetch(path, init);
    const date = Date.parse(r.headers.get("Date") ?? ""); // of whole seconds
    if (!isNaN(date)) ahead = date + 999 - sent;
  } catch (e) {
    if (init?.signal?.aborted) throw e;
    throw new Refused(0, "The proxy does not answer.");
  }
  if (r.ok) return r;
  if (r.headers.has("Retry-After") && tries > 1) { // too many at once
    await new Promise((wait) => setTimeout(wait, 1000));
    return ask(path, init, tries - 1);
  }
  let why = `The proxy answers ${r.status}.`;
  try {
    why = (await r.json()).error;
  } catch {
    // not one of the API's own answers
  }
  if (r.status === 401) expired();
  throw new Refused(r.status, why);
}

const json = async <T>(path: string, init?: RequestInit): Promise<T> => (await ask(path, init)).json();

export const me = () => json<Me>("/api/v1/me");
export const login = (token: string) => json<Me>("/api/v1/login", { method: "POST", body: JSON.stringify({ token }) });
export const logout = () => ask("/api/v1/logout", { method: "POST" });
export const status = () => json<Status>("/api/v1/status", { signal: AbortSignal.timeout(5000) });
export const entry = (index: number) => json<Entry>(`/api/v1/entry/${index}`);
export const sessions = (since: string) => json<{ since: string; sessions: Session[] }>("/api/v1/sessions?limit=10000&since=" + encodeURIComponent(since));
export const proof = async (index: number, value: boolean) => (await ask(`/api/v1/proof/${index}${value ? "?value=true" : ""}`)).text();
export const logFile = async (path: string) => (await ask("/log/" + path)).text();
export const tile = async (path: string) => new Uint8Array(await (await ask("/log/" + path)).arrayBuffer());

/** The index of the outcome that ended the transaction of s, if it is not far away. */
export async function settlement(s: Statement): Promise<number | undefined> {
  const found = await statements({ session: s.session ?? "", from: String(s.index), limit: "500" });
  return found.find(({ outcome: o }) => o?.tx === "I" && o.committed !== undefined)?.outcome!.index;
}

/** All that a search finds. */
export async function statements(query: Record<string, string>, signal = new AbortController().signal): Promise<Statement[]> {
  const rows = new Rows();
  await search(new URLSearchParams(query), rows, signal, () => {});
  return Array.from({ length: rows.length }, (_, i) => rows.at(i));
}

/** Reads a search into rows as it comes. */
export async function search(query: URLSearchParams, rows: Rows, signal: AbortSignal, progress: () => void): Promise<void> {
  const r = await ask("/api/v1/search?" + query, { signal });
  const reader = r.body!.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rows.append(value);
      progress();
    }
  } catch (e) {
    if (signal.aborted) throw e;
    throw new Refused(0, "The answer broke off: what is shown is not all.");
  }
}
