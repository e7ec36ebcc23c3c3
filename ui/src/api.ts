// The HTTP API of docs/api.md.

import type { Entry, Me, Session, Statement, Status } from "./answers.ts";
import { Rows } from "./rows.ts";

export type * from "./answers.ts";

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
