// The Merkle tree of RFC 6962 and its tiles (c2sp.org/tlog-tiles). Sizes and
// indexes are numbers below 2^53, so arithmetic is used and not 32-bit operators.

import { type Bytes, equal, sha256 } from "./bytes.ts";
import { Mismatch } from "./note.ts";

const leafPrefix = Uint8Array.of(0);
const nodePrefix = Uint8Array.of(1);

export const leafHash = (leaf: Uint8Array) => sha256(leafPrefix, leaf);
export const nodeHash = (left: Uint8Array, right: Uint8Array) => sha256(nodePrefix, left, right);

/** One step from a leaf up to the root: which subtree the hash beside it is of. */
export interface Step {
  left: boolean; // the sibling stands on the left
  from: number; // first entry below the sibling
  end: number; // behind its last one
}

/** The siblings of an entry from its own level up, as an inclusion proof lists them. */
export function pathOf(index: number, size: number): Step[] {
  const steps: Step[] = [];
  for (let from = 0, end = size; end - from > 1; ) {
    const split = from + largestPowerBelow(end - from);
    if (index < split) {
      steps.push({ left: false, from: split, end });
      end = split;
    } else {
      steps.push({ left: true, from, end: split });
      from = split;
    }
  }
  return steps.reverse();
}

function largestPowerBelow(n: number): number {
  let k = 1;
  while (2 * k < n) k *= 2;
  return k;
}

/** Follows an inclusion proof and returns all hashes on the way; the last one is the root. */
export async function climb(index: number, size: number, leaf: Bytes, proof: Bytes[]): Promise<Bytes[]> {
  if (index >= size) throw new Mismatch(`entry ${index} is not in a tree of ${size} entries`);
  const path = pathOf(index, size);
  if (path.length !== proof.length) throw new Mismatch(`the proof has ${proof.length} hashes, not ${path.length}`);
  const way = [leaf];
  let hash = leaf;
  for (const [i, step] of path.entries()) {
    hash = step.left ? await nodeHash(proof[i]!, hash) : await nodeHash(hash, proof[i]!);
    way.push(hash);
  }
  return way;
}

/** Asks for a tile: its hashes, at least width of them. */
export type Tiles = (level: number, n: number, width: number) => Promise<Bytes[]>;

/** The path of a tile of c2sp.org/tlog-tiles. */
export function tilePath(level: number, n: number, width: number): string {
  let path = String(n % 1000).padStart(3, "0");
  for (n = Math.floor(n / 1000); n > 0; n = Math.floor(n / 1000)) path = `x${String(n % 1000).padStart(3, "0")}/${path}`;
  return `tile/${level}/${path}${width < 256 ? `.p/${width}` : ""}`;
}

/** The root of the entries [from, end) of a tree of size entries, from its tiles. */
async function rangeHash(tiles: Tiles, size: number, from: number, end: number): Promise<Bytes> {
  const n = end - from;
  if (n > 1 && (Math.log2(n) % 1 !== 0 || from % n !== 0)) {
    const split = from + largestPowerBelow(n);
    return nodeHash(await rangeHash(tiles, size, from, split), await rangeHash(tiles, size, split, end));
  }
  // A full subtree: the nearest tile level below holds the hashes it is made of.
  const level = Math.floor(Math.log2(n) / 8);
  const unit = 256 ** level;
  const first = from / unit;
  const tile = Math.floor(first / 256);
  const width = Math.min(256, Math.floor(size / unit) - tile * 256);
  let hashes = (await tiles(level, tile, width)).slice(first % 256, (first % 256) + n / unit);
  if (hashes.length !== n / unit) throw new Mismatch("a tile is too short");
  while (hashes.length > 1) {
    const above: Bytes[] = [];
    for (let i = 0; i < hashes.length; i += 2) above.push(await nodeHash(hashes[i]!, hashes[i + 1]!));
    hashes = above;
  }
  return hashes[0]!;
}

/**
 * Checks that a tree of newSize entries begins with the tree of oldSize
 * entries: the hashes of full subtrees that make up the old root, together with
 * those behind them, must make up the new one.
 */
export async function checkConsistency(tiles: Tiles, oldSize: number, oldRoot: Bytes, newSize: number, newRoot: Bytes): Promise<void> {
  if (oldSize > newSize) throw new Mismatch(`the log had ${oldSize} entries and now has ${newSize}`);
  if (oldSize === newSize || oldSize === 0) {
    if (oldSize === newSize && !equal(oldRoot, newRoot)) throw new Mismatch("another root for the same number of entries");
    return;
  }
  const cache = new Map<string, Promise<Bytes>>();
  const range = (from: number, end: number) => {
    const key = `${from}-${end}`;
    if (!cache.has(key)) cache.set(key, rangeHash(tiles, newSize, from, end));
    return cache.get(key)!;
  };
  // root returns the old and the new hash of [from, end); they are computed
  // from the same subtrees wherever the old tree has them, so equal roots mean
  // equal entries.
  const root = async (from: number, end: number): Promise<[Bytes | undefined, Bytes]> => {
    if (from >= oldSize) return [undefined, await range(from, end)];
    if (end <= oldSize) {
      const h = await range(from, end);
      return [h, h];
    }
    const split = from + largestPowerBelow(end - from);
    const [oldLeft, newLeft] = await root(from, split);
    const [oldRight, newRight] = await root(split, end);
    return [oldRight ? await nodeHash(oldLeft!, oldRight) : oldLeft, await nodeHash(newLeft, newRight)];
  };
  const [before, now] = await root(0, newSize);
  if (!equal(now, newRoot)) throw new Mismatch("the log's tiles do not fit its checkpoint");
  if (!before || !equal(before, oldRoot)) throw new Mismatch(`the first ${oldSize} entries are not those that this browser saw before`);
}
