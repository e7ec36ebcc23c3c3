// Signed checkpoints and the keys that check them (c2sp.org/tlog-checkpoint,
// signed-note, tlog-cosignature), as strict as internal/checkpoint.

import { type Bytes, concat, equal, fromBase64, fromDecimal, hex, sha256, toBase64, utf8 } from "./bytes.ts";

/** Why something does not verify. Everything else that is thrown means that it could not be checked. */
export class Mismatch extends Error {}

/** A verifier key: of a log, or of a witness. */
export interface Key {
  name: string;
  id: string; // 8 hex digits
  witness: boolean;
  public: Bytes; // Ed25519, 32 bytes
}

export interface Checkpoint {
  origin: string;
  size: number;
  root: Bytes;
  text: string; // what is signed
  signatures: { name: string; id: string; bytes: Bytes }[];
}

const maxSignatures = 64;
const maxBytes = 64 << 10; // of a checkpoint, and of a succession

const validName = (s: string) => s !== "" && utf8(s).length <= 255 && !/[+\u0085\p{Cc}]|(?!\ufeff)\s/u.test(s);

/** Reads `name+id+base64`. */
export async function parseKey(line: string): Promise<Key> {
  const [name = "", id = "", b64 = "", ...rest] = line.split("+");
  const raw = fromBase64([b64, ...rest].join("+"));
  if (!validName(name) || !raw || raw.length !== 33 || (raw[0] !== 1 && raw[0] !== 4)) {
    throw new Mismatch(`not a verifier key: ${line.slice(0, 300)}`);
  }
  if (hex((await sha256(utf8(name + "\n"), raw)).subarray(0, 4)) !== id) throw new Mismatch("the key does not have this id");
  return { name, id, witness: raw[0] === 4, public: raw.slice(1) };
}

/** Takes a signed checkpoint apart; nothing is verified yet. */
export function parseCheckpoint(signed: string): Checkpoint {
  const bad = (what: string): never => {
    throw new Mismatch("malformed checkpoint: " + what);
  };
  if (utf8(signed).length > maxBytes) return bad("it is too long");
  const cut = signed.indexOf("\n\n");
  if (cut < 0) return bad("no empty line before the signatures");
  const text = signed.slice(0, cut + 1);
  const [origin = "", sizeText = "", rootText = "", ...more] = text.split("\n");
  const size = fromDecimal(sizeText);
  const root = fromBase64(rootText);
  if (more.length !== 1 || !validName(origin)) return bad("want origin, size and root");
  if (size === undefined || root?.length !== 32) return bad("size or root");
  const lines = signed.slice(cut + 2).split("\n");
  if (lines.pop() !== "" || lines.length === 0 || lines.length > maxSignatures) return bad("its signatures");
  const signatures = lines.map((line) => {
    const [, name = "", b64 = ""] = /^— ([^ ]+) ([^ ]+)$/.exec(line) ?? [];
    const raw = fromBase64(b64);
    if (!raw || raw.length < 5 || !validName(name)) return bad("a signature line");
    return { name, id: hex(raw.subarray(0, 4)), bytes: raw.slice(4) };
  });
  return { origin, size, root, text, signatures };
}

/**
 * Reports whether key signed the checkpoint, and for a witness when (Unix
 * seconds). A line of that key that does not verify is a Mismatch, and so is a
 * second one.
 */
export async function signedBy(c: Checkpoint, key: Key): Promise<{ time?: number } | undefined> {
  const [line, second] = c.signatures.filter((s) => s.name === key.name && s.id === key.id);
  if (!line) return undefined;
  if (second) throw new Mismatch(`two signatures of key ${key.name}+${key.id}`);
  let { bytes } = line;
  let message = c.text;
  let time: number | undefined;
  if (key.witness) {
    const stamp = bytes.length > 8 ? new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0) : 0n;
    if (stamp > BigInt(Number.MAX_SAFE_INTEGER)) throw new Mismatch("the time of a cosignature is out of range");
    time = Number(stamp);
    message = `cosignature/v1\ntime ${time}\n${c.text}`;
    bytes = bytes.slice(8);
  }
  const pub = await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]);
  if (bytes.length !== 64 || !(await crypto.subtle.verify("Ed25519", pub, bytes, utf8(message)))) {
    throw new Mismatch(`the signature of key ${key.name}+${key.id} does not verify`);
  }
  return { time };
}

/** Returns the checkpoint in signed if the log with this key signed it. */
export async function openCheckpoint(signed: string, key: Key): Promise<Checkpoint> {
  const c = parseCheckpoint(signed);
  if (key.witness) throw new Mismatch("the key is that of a witness, not of a log");
  if (c.origin !== key.name) throw new Mismatch(`the checkpoint is of log ${c.origin}, not of ${key.name}`);
  if (!(await signedBy(c, key))) throw new Mismatch(`no signature of key ${key.name}+${key.id}`);
  if (c.size === 0 && !equal(c.root, await sha256())) throw new Mismatch("the root of an empty tree is wrong");
  return c;
}

/** Who else signed a checkpoint: when (milliseconds), and whether that verifies; undefined if keys, which are verifier keys, has none of it. */
export async function cosigners(c: Checkpoint, keys: string[]): Promise<{ name: string; time: number; ok?: boolean }[]> {
  const known = await Promise.all(keys.map(parseKey));
  return Promise.all(c.signatures.filter((s) => s.name !== c.origin && s.bytes.length === 72).map(async (s) => {
    const key = known.find((k) => k.witness && k.name === s.name && k.id === s.id);
    const time = 1000 * Number(new DataView(s.bytes.buffer, s.bytes.byteOffset).getBigUint64(0));
    return { name: s.name, time, ok: key && (await signedBy(c, key).then(() => true, () => false)) };
  }));
}

const signs = async (key: Key, b64: string, message: string) => {
  const sig = fromBase64(b64);
  return sig?.length === 64 && crypto.subtle.verify("Ed25519", await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]), sig, utf8(message));
};

/**
 * The keys that took the place of key, one after the other, by a succession
 * (docs/format/checkpoint.md): each named by the one before and by itself, up to
 * the last one. None if key is not in it, or is the last, or it is not well formed from there on.
 */
export async function followers(key: Key, succession: string): Promise<Key[]> {
  const lines = succession.split("\n");
  if (lines.pop() !== "" || succession.length > maxBytes) return [];
  for (; lines.length > 0; lines.shift()) { // the lines before are of predecessors of key
    const chain = [key];
    for (const line of lines) {
      const from = chain.at(-1)!;
      const [vkey = "", byOld = "", byNew = "", ...more] = line.split(" ");
      const next = await parseKey(vkey).catch(() => undefined);
      if (!next) break;
      const message = `pgnotary/succession@v1\n${keyLine(from)}\n${keyLine(next)}\n`;
      if (more.length > 0 || next.witness || next.name !== key.name || !(await signs(from, byOld, message)) || !(await signs(next, byNew, message))) break;
      chain.push(next);
    }
    if (chain.length > lines.length) return chain.slice(1);
  }
  return [];
}

export const keyLine = (k: Key) => `${k.name}+${k.id}+${toBase64(concat(Uint8Array.of(k.witness ? 4 : 1), k.public))}`;
