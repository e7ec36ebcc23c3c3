// Watches over the log on behalf of whoever has the page open: the key must
// stay the one that was seen first, and each checkpoint must continue the one
// before, of this visit or an earlier one. Both are kept by the browser.

import { useEffect, useState } from "preact/hooks";
import * as api from "./api.ts";
import { type Bytes, fromBase64, toBase64 } from "./bytes.ts";
import { type Checkpoint, followers, type Key, keyLine, Mismatch, openCheckpoint, parseKey } from "./note.ts";
import { checkConsistency, tilePath } from "./tree.ts";

export interface Watch {
  state: "checking" | "fits" | "mismatch" | "unknown";
  why?: string; // of a mismatch, or why it could not be checked
  key?: string; // the line that checks the log
  offered?: string; // the line that the server gives now, if it is another
  since?: number; // when this browser saw the key first
  size?: number; // entries of the checkpoint checked last
  checkpoint?: Checkpoint; // that one
}

interface Kept {
  key: string;
  since: number;
  size: number;
  root: string;
}

const place = "pgnotary.log";
let now: Watch = { state: "checking" };
const listeners = new Set<(w: Watch) => void>();

function kept(): Kept | undefined {
  try {
    return JSON.parse(localStorage.getItem(place) ?? "") as Kept;
  } catch {
    return undefined;
  }
}

const keep = (k: Kept) => localStorage.setItem(place, JSON.stringify(k));

function tell(w: Watch) {
  now = w;
  for (const f of listeners) f(w);
}

/** Takes another key for the log's from now on. */
export async function trust(line: string): Promise<void> {
  await parseKey(line.trim());
  keep({ key: line.trim(), since: Date.now(), size: 0, root: "" });
  await look();
}

/** The key that proofs are checked with; throws a Mismatch if the server's is another one. */
export async function trustedKey(): Promise<Key> {
  if (!kept()) await look();
  const k = kept();
  if (!k) throw new api.Refused(0, now.why ?? "There is no key yet.");
  if (now.offered) throw new Mismatch("the server gives another key than the one this browser knows: see Health");
  return parseKey(k.key);
}

async function tiles(level: number, n: number, width: number): Promise<Bytes[]> {
  const raw = await api.tile(tilePath(level, n, width));
  return Array.from({ length: Math.floor(raw.length / 32) }, (_, i) => raw.slice(32 * i, 32 * i + 32));
}

async function look(): Promise<void> {
  try {
    const line = (await api.logFile("vkey")).trim();
    const k: Kept = kept() ?? { key: line, since: Date.now(), size: 0, root: "" };
    if (line !== k.key) k.key = keyLine((await followers(await parseKey(k.key), await api.logFile("succession").catch(() => ""))).at(-1) ?? (await parseKey(k.key)));
    now = { ...now, key: k.key, since: k.since, offered: line === k.key ? undefined : line };
    if (now.offered) throw new Mismatch("The server gives another key than the one this browser knows.");
    const key = await parseKey(k.key);
    const c = await openCheckpoint(await api.logFile("checkpoint"), key);
    await checkConsistency(tiles, k.size, fromBase64(k.root) ?? new Uint8Array(), c.size, c.root);
    keep({ ...k, key: keyLine(key), size: c.size, root: toBase64(c.root) });
    tell({ ...now, state: "fits", why: undefined, size: c.size, checkpoint: c });
  } catch (e) {
    const why = e instanceof Error ? e.message : String(e);
    tell({ ...now, state: e instanceof Mismatch ? "mismatch" : "unknown", why });
  }
}

let running = false;

async function run() {
  for (running = true; listeners.size > 0; ) {
    if (!document.hidden) await look();
    await new Promise((r) => setTimeout(r, 5000));
  }
  running = false;
}

export function useWatch(): Watch {
  const [w, set] = useState(now);
  useEffect(() => {
    listeners.add(set);
    set(now);
    if (!running) void run();
    return () => void listeners.delete(set);
  }, []);
  return w;
}
