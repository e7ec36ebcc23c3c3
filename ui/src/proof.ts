// Checks a .tlog-proof file (docs/format/proof.md), with nothing but the file
// and a key: that the log signed the checkpoint, that the entry is in its tree,
// and that the value is the one the entry commits to.

import { type Bytes, equal, fromBase64, fromDecimal, sha256, text, toBase64 } from "./bytes.ts";
import { type Checkpoint, type Key, Mismatch, openCheckpoint } from "./note.ts";
import { climb, leafHash } from "./tree.ts";

export { Mismatch } from "./note.ts";

/** What the extra line carries. */
export interface Extra {
  leaf: Bytes;
  value?: Bytes;
  salt?: Bytes;
  related: Related[]; // entries that this one goes back to
  succession?: string; // how keys of the log named one another
}

export interface Related {
  index: number;
  hashes: Bytes[];
  leaf: Bytes;
  value: Bytes;
  salt: Bytes;
}

export interface Proof {
  index: number;
  hashes: Bytes[];
  checkpoint: string; // signed
  extra?: Extra;
}

/** What a proof has shown. */
export interface Shown {
  index: number;
  checkpoint: Checkpoint;
  leafText: string;
  leaf: Record<string, unknown>;
  value?: Bytes; // undefined if the proof does not carry it
  way: Bytes[]; // hashes from the leaf's to the root
  siblings: Bytes[];
}

const header = "c2sp.org/tlog-proof@v1";
const maxValues = 16 << 20; // bytes of all values

/** Takes a proof file apart; nothing is verified yet. */
export function parseProof(file: string): Proof {
  const bad = (what: string): never => {
    throw new Mismatch("malformed proof: " + what);
  };
  const cut = file.indexOf("\n\n");
  const lines = file.slice(0, Math.max(cut, 0)).split("\n");
  if (cut < 0 || lines.shift() !== header) return bad("it does not begin with " + header);
  const extra = lines[0]?.startsWith("extra ") ? parseExtra(lines.shift()!.slice(6)) : undefined;
  const [, indexText = ""] = /^index (\d+)$/.exec(lines.shift() ?? "") ?? [];
  const index = fromDecimal(indexText);
  if (index === undefined) return bad("no index");
  const hashes = lines.map((line) => {
    const h = fromBase64(line);
    return h?.length === 32 ? h : bad("a hash");
  });
  if (hashes.length > 63) return bad("too many hashes");
  return { index, hashes, checkpoint: file.slice(cut + 2), extra };
}

/** Reads pgnotary's own part, which must be spelled as pgnotary spells it. */
function parseExtra(b64: string): Extra {
  const bad = (): never => {
    throw new Mismatch("malformed proof: the extra line");
  };
  const json = text(fromBase64(b64) ?? new Uint8Array());
  let j: any; // checked against the canonical form below
  try {
    j = JSON.parse(json ?? "");
    const canonical = {
      leaf: j.leaf, ...("value" in j && { value: j.value, salt: j.salt }),
      ...(j.related?.length > 0 && { related: j.related.map((r: any) => ({ index: r.index, hashes: r.hashes, leaf: r.leaf, value: r.value, salt: r.salt })) }),
      ...(j.succession && { succession: j.succession }),
    };
    if (JSON.stringify(canonical) !== json) return bad();
  } catch {
    return bad();
  }
  const part = (s: unknown, size?: number): Bytes => {
    const b = typeof s === "string" ? fromBase64(s) : undefined;
    return b && (size === undefined || b.length === size) ? b : bad();
  };
  const related: Related[] = (j.related ?? []).map((r: any) => ({
    index: (typeof r.index === "number" ? fromDecimal(String(r.index)) : undefined) ?? bad(), hashes: (r.hashes as unknown[]).map((h) => part(h, 32)),
    leaf: part(r.leaf), value: part(r.value), salt: part(r.salt, 32),
  }));
  if (related.length > 4 || related.some((r) => r.hashes.length > 63)) return bad();
  const value = "value" in j ? { value: part(j.value), salt: part(j.salt, 32) } : undefined;
  if (related.reduce((n, r) => n + r.value.length, value?.value.length ?? 0) > maxValues) return bad();
  return { leaf: part(j.leaf), related, ...value, ...("succession" in j && { succession: text(part(j.succession)) ?? "" }) };
}

/** Verifies a proof file with the key of the log; throws a Mismatch if it shows nothing. */
export async function checkProof(file: string, key: Key): Promise<Shown> {
  const p = parseProof(file);
  return checkEntry(p, await openCheckpoint(p.checkpoint, key));
}

/** Verifies the entry of a proof against its checkpoint, which somebody has opened with the keys of a policy. */
export async function checkEntry(p: Proof, checkpoint: Checkpoint): Promise<Shown> {
  if (!p.extra) throw new Mismatch("the proof does not carry its entry");
  const { leaf: raw, value, salt, related } = p.extra;
  const way = await inTree(p.index, raw, p.hashes, checkpoint);
  const leaf = parseLeaf(raw);
  if (value) await holds(p.index, leaf, value, salt!);
  for (const r of related) {
    if (leaf.parse !== r.index && leaf.bind !== r.index) throw new Mismatch(`the entry does not go back to entry ${r.index}, which the proof carries`);
    await inTree(r.index, r.leaf, r.hashes, checkpoint);
    await holds(r.index, parseLeaf(r.leaf), r.value, r.salt);
  }
  return { index: p.index, checkpoint, leafText: text(raw)!, leaf, value, way, siblings: p.hashes };
}

async function inTree(index: number, leaf: Bytes, hashes: Bytes[], checkpoint: Checkpoint): Promise<Bytes[]> {
  const way = await climb(index, checkpoint.size, await leafHash(leaf), hashes);
  if (!equal(way.at(-1)!, checkpoint.root)) throw new Mismatch(`entry ${index} is not in the tree of the checkpoint`);
  return way;
}

function parseLeaf(raw: Bytes): Record<string, unknown> {
  let leaf: unknown;
  try {
    leaf = JSON.parse(text(raw) ?? "");
  } catch {
    leaf = undefined;
  }
  const l = leaf as Record<string, unknown> | null | undefined;
  if (typeof l !== "object" || l === null || l.v !== 1 || typeof l.k !== "string") throw new Mismatch("the entry is not one of pgnotary");
  return l;
}

async function holds(index: number, leaf: Record<string, unknown>, value: Bytes, salt: Bytes): Promise<void> {
  if ((leaf.size ?? 0) !== value.length || leaf.c !== toBase64(await sha256(salt, value))) {
    throw new Mismatch(`the value of entry ${index} is not the one the entry commits to`);
  }
}
