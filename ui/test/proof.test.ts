import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";
import { type Bytes, concat, fromBase64, hex, sha256, toBase64, utf8 } from "../src/bytes.ts";
import { cosigners, followers, type Key, keyLine, Mismatch, openCheckpoint, parseCheckpoint, parseKey, signedBy } from "../src/note.ts";
import { checkProof, parseProof } from "../src/proof.ts";
import { checkConsistency, leafHash, nodeHash, pathOf, tilePath } from "../src/tree.ts";

// A log and a witness whose keys the tests hold.
interface Signer {
  key: Key;
  sign(message: string): Promise<Bytes>;
}

async function signer(name: string, alg: number): Promise<Signer> {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  const pub = new Uint8Array(await crypto.subtle.exportKey("raw", (pair as CryptoKeyPair).publicKey));
  const raw = concat(Uint8Array.of(alg), pub);
  const id = hex((await sha256(utf8(name + "\n"), raw)).subarray(0, 4));
  return {
    key: await parseKey(`${name}+${id}+${toBase64(raw)}`),
    sign: async (message) => new Uint8Array(await crypto.subtle.sign("Ed25519", (pair as CryptoKeyPair).privateKey, utf8(message))),
  };
}

const unhex = (s: string) => Uint8Array.from(s.match(/../g)!, (x) => parseInt(x, 16));
const line = (k: Key, sig: Bytes) => `— ${k.name} ${toBase64(concat(unhex(k.id), sig))}\n`;

let log: Signer;
let witness: Signer;
before(async () => {
  log = await signer("example.com/log", 1);
  witness = await signer("witness.example/w1", 4);
});

async function checkpoint(leaves: Bytes[]): Promise<string> {
  const text = `example.com/log\n${leaves.length}\n${toBase64(await root(leaves))}\n`;
  return text + "\n" + line(log.key, await log.sign(text));
}

async function root(leaves: Bytes[]): Promise<Bytes> {
  if (leaves.length < 2) return leaves.length === 1 ? leafHash(leaves[0]!) : sha256();
  let k = 1;
  while (2 * k < leaves.length) k *= 2;
  return nodeHash(await root(leaves.slice(0, k)), await root(leaves.slice(k)));
}

const value = utf8("Q\0\0\0\x0dSELECT 1\0");
const salt = new Uint8Array(32).fill(7);

async function leafOf(i: number): Promise<Bytes> {
  return utf8(`{"v":1,"k":"query","n":${i},"size":${value.length},"c":"${toBase64(await sha256(salt, value))}"}`);
}

async function proof(leaves: Bytes[], index: number, withValue = true): Promise<string> {
  const extra: Record<string, string> = { leaf: toBase64(leaves[index]!) };
  if (withValue) Object.assign(extra, { value: toBase64(value), salt: toBase64(salt) });
  const hashes = await Promise.all(pathOf(index, leaves.length).map((s) => root(leaves.slice(s.from, s.end))));
  return (
    `c2sp.org/tlog-proof@v1\nextra ${toBase64(utf8(JSON.stringify(extra)))}\nindex ${index}\n` +
    hashes.map((h) => toBase64(h) + "\n").join("") + "\n" + (await checkpoint(leaves))
  );
}

test("each entry of trees of each size is shown to be in them", async () => {
  const leaves = await Promise.all(Array.from({ length: 20 }, (_, i) => leafOf(i)));
  for (let size = 1; size <= leaves.length; size++) {
    for (let i = 0; i < size; i++) {
      const shown = await checkProof(await proof(leaves.slice(0, size), i), log.key);
      assert.equal(shown.leaf.n, i);
      assert.equal(shown.checkpoint.size, size);
      assert.deepEqual(shown.value, value);
    }
  }
});

test("no byte of a proof can be changed", async () => {
  const leaves = await Promise.all(Array.from({ length: 5 }, (_, i) => leafOf(i)));
  const file = await proof(leaves, 3);
  await checkProof(file, log.key);
  for (let i = 0; i < file.length; i++) {
    const code = file.charCodeAt(i);
    const bad = file.slice(0, i) + String.fromCharCode(code ^ (code === 0x2014 ? 0x20 : 1)) + file.slice(i + 1);
    await assert.rejects(checkProof(bad, log.key), Mismatch, `byte ${i}: ${JSON.stringify(bad.slice(i - 5, i + 5))}`);
    await assert.rejects(checkProof(file.slice(0, i), log.key), Mismatch, `cut at ${i}`);
  }
});

test("a proof with another value, index, leaf or key shows nothing", async () => {
  const leaves = await Promise.all(Array.from({ length: 6 }, (_, i) => leafOf(i)));
  const file = await proof(leaves, 2);
  const [before = "", b64 = "", after = ""] = file.split(/extra (\S+)/);
  const extra = JSON.parse(atob(b64));
  const withExtra = (x: object) => before + "extra " + btoa(JSON.stringify(x)) + after;
  await checkProof(withExtra(extra), log.key);
  const other = await signer("example.com/log", 1);
  for (const [what, bad, key] of [
    ["value", withExtra({ ...extra, value: toBase64(utf8("Q\0\0\0\x0dSELECT 2\0")) }), log.key],
    ["salt", withExtra({ ...extra, salt: toBase64(new Uint8Array(32)) }), log.key],
    ["no salt", withExtra({ leaf: extra.leaf, value: extra.value }), log.key],
    ["order", withExtra({ value: extra.value, leaf: extra.leaf, salt: extra.salt }), log.key],
    ["leaf", withExtra({ ...extra, leaf: toBase64(leaves[1]!) }), log.key],
    ["index", file.replace("index 2", "index 3"), log.key],
    ["key", file, other.key],
    ["witness's key", file, witness.key],
  ] as const) {
    await assert.rejects(checkProof(bad, key), Mismatch, what);
  }
  const without = await checkProof(await proof(leaves, 2, false), log.key);
  assert.equal(without.value, undefined);
});

test("a proof that pgnotary made", async () => {
  const [key = "", ...rest] = readFileSync("test/testdata/proof.txt", "utf8").split("\n");
  const file = rest.join("\n");
  const shown = await checkProof(file, await parseKey(key));
  assert.equal(parseProof(file).index, shown.index);
  assert.match(String.fromCharCode(...shown.value!), /UPDATE accounts SET balance/);
});

test("cosignatures", async () => {
  const leaves = await Promise.all(Array.from({ length: 3 }, (_, i) => leafOf(i)));
  const signed = await checkpoint(leaves);
  const { text } = parseCheckpoint(signed);
  const time = 1_750_000_000;
  const stamp = new Uint8Array(8);
  new DataView(stamp.buffer).setBigUint64(0, BigInt(time));
  const sig = await witness.sign(`cosignature/v1\ntime ${time}\n${text}`);
  const cosigned = signed + line(witness.key, concat(stamp, sig));
  assert.equal((await openCheckpoint(cosigned, log.key)).size, 3);
  assert.deepEqual(await signedBy(parseCheckpoint(cosigned), witness.key), { time });
  assert.equal(await signedBy(parseCheckpoint(signed), witness.key), undefined);
  stamp[7]! ^= 1;
  const forged = signed + line(witness.key, concat(stamp, sig));
  await assert.rejects(signedBy(parseCheckpoint(forged), witness.key), Mismatch);
  const other = await signer("witness.example/w1", 4);
  for (const [note, keys, ok] of [
    [cosigned, [keyLine(witness.key)], true], [forged, [keyLine(witness.key)], false], [cosigned, [], undefined], [cosigned, [keyLine(other.key)], undefined],
  ] as const) {
    const [who, ...more] = await cosigners(parseCheckpoint(note), [...keys]);
    assert.deepEqual([who?.name, who?.ok, more.length], ["witness.example/w1", ok, 0]);
  }
  assert.deepEqual(await cosigners(parseCheckpoint(signed), [keyLine(witness.key)]), []);
  const twice = cosigned + line(witness.key, concat(stamp, sig));
  await assert.rejects(signedBy(parseCheckpoint(twice), witness.key), Mismatch);
});

test("a key is followed to those that took its place", async () => {
  const second = await signer("example.com/log", 1);
  const third = await signer("example.com/log", 1);
  const line = async (from: Signer, to: Signer, by = from) => {
    const message = `pgnotary/succession@v1\n${keyLine(from.key)}\n${keyLine(to.key)}\n`;
    return `${keyLine(to.key)} ${toBase64(await by.sign(message))} ${toBase64(await to.sign(message))}\n`;
  };
  const all = (await line(log, second)) + (await line(second, third));
  assert.deepEqual(await followers(log.key, all), [second.key, third.key]);
  assert.deepEqual(await followers(second.key, all), [third.key]);
  assert.deepEqual(await followers(third.key, all), []);
  assert.deepEqual(await followers(log.key, ""), []);
  assert.deepEqual(await followers(log.key, await line(second, third)), []);
  assert.deepEqual(await followers(log.key, await line(log, second, third)), [], "not signed by the old key");
});

test("keys have one spelling", async () => {
  const raw = concat(Uint8Array.of(1), log.key.public);
  const good = `${log.key.name}+${log.key.id}+${toBase64(raw)}`;
  await parseKey(good);
  for (const bad of ["", "a", good + "\n", good.replace("log+", "gol+"), good.slice(0, -1), ` ${good}`, good.toUpperCase()]) {
    await assert.rejects(parseKey(bad), Mismatch, bad);
  }
});

test("consistency from tiles", async () => {
  const leaves = await Promise.all(Array.from({ length: 600 }, async (_, i) => utf8(`leaf ${i}`)));
  const hashes = await Promise.all(leaves.map(leafHash));
  const tilesOf = (size: number, all = hashes) => async (level: number, n: number, width: number) => {
    const unit = 256 ** level;
    const out: Bytes[] = [];
    for (let i = n * 256; i < n * 256 + width; i++) {
      let row = all.slice(i * unit, Math.min((i + 1) * unit, size));
      while (row.length > 1) row = await Promise.all(Array.from({ length: row.length / 2 }, (_, j) => nodeHash(row[2 * j]!, row[2 * j + 1]!)));
      if (row[0]) out.push(row[0]);
    }
    return out;
  };
  const roots = new Map<number, Bytes>();
  for (const n of [0, 1, 3, 8, 255, 256, 257, 513, 600]) roots.set(n, await root(leaves.slice(0, n)));
  for (const [a, rootA] of roots) {
    for (const [b, rootB] of roots) {
      const check = checkConsistency(tilesOf(b), a, rootA, b, rootB);
      await (a <= b ? check : assert.rejects(check, Mismatch));
      if (a > 0 && a <= b) await assert.rejects(checkConsistency(tilesOf(b), a, await sha256(rootA), b, rootB), Mismatch, `${a} ${b}`);
    }
  }
  // A log that was rewritten fits itself, but not what was seen before.
  const rewritten = hashes.with(100, await leafHash(utf8("another")));
  const top = async (h: Bytes[]): Promise<Bytes> => {
    if (h.length === 1) return h[0]!;
    let k = 1;
    while (2 * k < h.length) k *= 2;
    return nodeHash(await top(h.slice(0, k)), await top(h.slice(k)));
  };
  const newRoot = await top(rewritten);
  await checkConsistency(tilesOf(600, rewritten), 100, await root(leaves.slice(0, 100)), 600, newRoot);
  await assert.rejects(checkConsistency(tilesOf(600, rewritten), 257, roots.get(257)!, 600, newRoot), /not those that this browser saw/);
  await assert.rejects(checkConsistency(tilesOf(600, rewritten), 257, roots.get(257)!, 600, roots.get(600)!), /tiles do not fit/);
  assert.equal(tilePath(0, 259, 5), "tile/0/259.p/5");
  assert.equal(tilePath(1, 1234067, 256), "tile/1/x001/x234/067");
  assert.equal(fromBase64("AB=="), undefined);
});
