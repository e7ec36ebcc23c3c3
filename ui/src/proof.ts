// Checks a .tlog-proof file (docs/format/proof.md), with nothing but the file
// and a key: that the log signed the checkpoint, that the entry is in its tree,
// and that the value is the one the entry commits to.

import { type Bytes, equal, fromBase64, fromDecimal, sha256, text, toBase64 } from "./bytes.ts";
import { type Checkpoint, type Key, Mismatch, openCheckpoint } from "./note.ts";
import { climb, leafHash } from "./tree.ts";

export { Mismatch } from "./note.ts";

export interface Proof {
  index: number;
  hashes: Bytes[];
  checkpoint: string; // signed
  leaf?: Bytes;
  value?: Bytes;
  salt?: Bytes;
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

/** Takes a proof file apart; nothing is verified yet. */
export function parseProof(file: string): Proof {
  const bad = (what: string): never => {
    throw new Mismatch("malformed proof: " + what);
  };
  const cut = file.indexOf("\n\n");
  const lines = file.slice(0, Math.max(cut, 0)).split("\n");
  if (cut < 0 || lines.shift() !== header) return bad("it does not begin with " + header);
  const extra = lines[0]?.startsWith("extra ") ? parseExtra(lines.shift()!.slice(6)) : {};
  const [, indexText = ""] = /^index (\d+)$/.exec(lines.shift() ?? "") ?? [];
  const index = fromDecimal(indexText);
  if (index === undefined) return bad("no index");
  const hashes = lines.map((line) => {
    const h = fromBase64(line);
    return h?.length === 32 ? h : bad("a hash");
  });
  if (hashes.length > 63) return bad("too many hashes");
  return { index, hashes, checkpoint: file.slice(cut + 2), ...extra };
}

/** Reads pgnotary's own part, which must be spelled as pgnotary spells it. */
function parseExtra(b64: string): Pick<Proof, "leaf" | "value" | "salt"> {
  const bad = new Mismatch("malformed proof: the extra line");
  const json = text(fromBase64(b64) ?? new Uint8Array());
  let found: Record<string, unknown>;
  try {
    found = JSON.parse(json ?? "");
  } catch {
    throw bad;
  }
  if (typeof found !== "object" || found === null) throw bad;
  const part = (key: string) => (typeof found[key] === "string" ? fromBase64(found[key]) : undefined);
  const extra = { leaf: part("leaf"), value: part("value"), salt: part("salt") };
  const again: Record<string, string> = {};
  for (const [key, b] of Object.entries(extra)) if (b) again[key] = toBase64(b);
  // What is not needed here: the server shows related entries in proofs of
  // their own, and the key is the last one already.
  for (const key of ["related", "succession"]) if (key in found) again[key] = found[key] as string;
  if (!extra.leaf || JSON.stringify(again) !== json || (extra.value && extra.salt?.length !== 32)) throw bad;
  return extra;
}

/** Verifies a proof file with the key of the log; throws a Mismatch if it shows nothing. */
export async function checkProof(file: string, key: Key): Promise<Shown> {
  const p = parseProof(file);
  return checkEntry(p, await openCheckpoint(p.checkpoint, key));
}

/** Verifies the entry of a proof against its checkpoint, which somebody has opened with the keys of a policy. */
export async function checkEntry(p: Proof, checkpoint: Checkpoint): Promise<Shown> {
  if (!p.leaf) throw new Mismatch("the proof does not carry its entry");
  const way = await climb(p.index, checkpoint.size, await leafHash(p.leaf), p.hashes);
  if (!equal(way.at(-1)!, checkpoint.root)) throw new Mismatch("the entry is not in the tree of the checkpoint");
  const leafText = text(p.leaf);
  let leaf: unknown;
  try {
    leaf = JSON.parse(leafText ?? "");
  } catch {
    throw new Mismatch("the entry is not one of pgnotary");
  }
  if (typeof leaf !== "object" || leaf === null) throw new Mismatch("the entry is not one of pgnotary");
  const facts = leaf as Record<string, unknown>;
  if (p.value && p.salt) {
    if ((facts.size ?? 0) !== p.value.length || facts.c !== toBase64(await sha256(p.salt, p.value))) {
      throw new Mismatch("the value is not the one the entry commits to");
    }
  }
  return { index: p.index, checkpoint, leafText: leafText!, leaf: facts, value: p.value, way, siblings: p.hashes };
}
