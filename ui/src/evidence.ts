// Checks what the page shows of a statement against proofs: each claim against
// the entry that makes it, and each entry against the tree.

import type { Entry } from "./api.ts";
import { type Bytes, text, toBase64 } from "./bytes.ts";
import { count } from "./format.ts";
import { type Key, Mismatch } from "./note.ts";
import { checkProof, type Shown } from "./proof.ts";

/** One thing that was checked; ok is undefined for what cannot be told from the log. */
export interface Claim {
  what: string;
  ok: boolean | undefined;
}

export interface Evidence {
  claims: Claim[];
  shown: Shown; // the statement's own entry
}

/** Asks for the proof of an entry, with its value or without. */
export type Prove = (index: number, value: boolean) => Promise<string>;

/** Finds the entry that ended the transaction of a statement; undefined if it is not known. */
export type Settlement = (s: Entry) => Promise<number | undefined>;

/** Checks s with proofs of its entry and of those it refers to; of values only if the reader may see them. Throws a Mismatch if one does not verify. */
export async function check(s: Entry, values: boolean, prove: Prove, settlement: Settlement, key: Key): Promise<Evidence> {
  const claims: Claim[] = [];
  const claim = (what: string, ok: boolean | undefined) => void claims.push({ what, ok });
  const get = async (index: number, value: boolean) => {
    const shown = await checkProof(await prove(index, value && values), key);
    if (shown.index !== index) throw new Mismatch(`asked for entry ${index}, the proof is of entry ${shown.index}`);
    return shown;
  };
  const own = await get(s.index, s.leaf.c !== undefined);
  const { leaf } = own;
  claim(`Entry ${s.index} is in the tree of ${count(own.checkpoint.size)} entries that ${own.checkpoint.origin} signed`, true);
  const facts: [unknown, unknown][] = [
    [s.time, leaf.t], [s.session, leaf.s], [s.kind, leaf.k], [s.user, cut(leaf.user)], [s.database, cut(leaf.db)],
    [s.application, cut(leaf.app)], [s.client, cut(leaf.client)],
  ];
  claim("When, who, from where and what kind are as in the entry",
    JSON.stringify(s.leaf) === JSON.stringify(leaf) && facts.every(([a, b]) => a === b || (b === undefined && leaf.k !== "connect")) &&
    Object.entries(s.facts ?? {}).every(([k, v]) => (leaf.facts as Record<string, string>)?.[k] === v));

  if (s.statement !== undefined) {
    const source = typeof leaf.parse === "number" && !frame(own.value, "P") ? await get(leaf.parse, true) : own;
    const sent = statementText(source.value);
    claim(`The text is what entry ${source.index} holds`, sent === undefined ? undefined : sent === s.statement);
  }
  if (s.params && s.params.length > 0) {
    const source = typeof leaf.bind === "number" && !frame(own.value, "B") && !frame(own.value, "F") ? await get(leaf.bind, true) : own;
    const sent = parameters(source.value);
    claim(`The parameters are those that entry ${source.index} holds`,
      sent && (sent.length === s.params.length && sent.every((p, i) => p === (s.params![i]!.raw ?? null))));
  }
  if (s.outcome) {
    const o = s.outcome;
    const end = await get(o.index, false);
    const l = end.leaf;
    const tags = o.tags ?? (o.tag === undefined ? undefined : [o.tag]);
    claim(`The result is what entry ${o.index} says of entry ${s.index}`,
      l.of === s.index && (l.tags === undefined || JSON.stringify(l.tags) === JSON.stringify(tags)) &&
      (o.rows ?? 0) === ("rows" in o ? (l.rows ?? 0) : 0) && (o.bytes ?? 0) === ("bytes" in o ? (l.bytes ?? 0) : 0) &&
      (o.duration_us === undefined || o.duration_us === (l.us ?? 0)) && (l.tx === undefined || o.tx === l.tx) && (o.error?.sqlstate || undefined) === l.sqlstate &&
      (o.skipped ?? false) === (l.end === "skipped"));
    if (o.committed !== undefined) {
      // Within a transaction the entry that ended it tells, or one right behind that.
      const tells = (x: Shown) => typeof x.leaf.committed === "boolean" && x.leaf.s === leaf.s && Number(x.leaf.since ?? x.leaf.of) <= s.index && s.index <= Number(x.leaf.of);
      let teller = end;
      const at = tells(end) ? undefined : await settlement(s);
      for (let i = at; i !== undefined && i < at! + 4 && i < end.checkpoint.size && !tells(teller); i++) teller = await get(i, false);
      claim(`It was ${o.committed ? "committed" : "rolled back"}${tells(teller) ? `, as entry ${teller.index} says` : ""}`,
        tells(teller) ? teller.leaf.committed === o.committed : undefined);
    }
  }
  return { claims, shown: own };
}

// Names are cut in leaves; a cut one is shown in full from the value.
const cut = (name: unknown) => (typeof name === "string" && name.endsWith("…") ? undefined : name);

interface Frame {
  type: string;
  body: Bytes;
}

/** The messages in a value. */
export function frames(value: Bytes): Frame[] {
  const out: Frame[] = [];
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  for (let at = 0; at + 5 <= value.length; ) {
    const size = view.getUint32(at + 1);
    if (size < 4 || at + 1 + size > value.length) break;
    out.push({ type: String.fromCharCode(value[at]!), body: value.slice(at + 5, at + 1 + size) });
    at += 1 + size;
  }
  return out;
}

const frame = (value: Bytes | undefined, type: string) => value && frames(value).find((f) => f.type === type)?.body;

/** The text in the first Query or Parse of a value; undefined if there is none or it is not UTF-8. */
export function statementText(value: Bytes | undefined): string | undefined {
  const query = frame(value, "Q");
  const parse = frame(value, "P");
  if (query) return text(query.subarray(0, query.indexOf(0)));
  if (!parse) return undefined;
  const name = parse.indexOf(0) + 1;
  return text(parse.subarray(name, parse.indexOf(0, name)));
}

/** The parameters in the first Bind or FunctionCall of a value in base64, null for NULL. */
export function parameters(value: Bytes | undefined): (string | null)[] | undefined {
  const bind = frame(value, "B");
  const call = frame(value, "F");
  const body = bind ?? call;
  if (!body) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  let at = bind ? body.indexOf(0, body.indexOf(0) + 1) + 1 : 4; // names of portal and statement, or the function
  const out: (string | null)[] = [];
  try {
    at += 2 + 2 * view.getUint16(at); // formats
    const n = view.getUint16(at);
    at += 2;
    for (let i = 0; i < n; i++) {
      const size = view.getInt32(at);
      at += 4;
      if (size < 0) out.push(null);
      else if (at + size > body.length) return undefined;
      else out.push(toBase64(body.subarray(at, at + size)));
      at += Math.max(size, 0);
    }
  } catch {
    return undefined; // cut short
  }
  return out;
}
