// Policies (c2sp.org/tlog-policy): which logs are trusted, and which witnesses
// must have seen a checkpoint.

import { fromDecimal, hex } from "./bytes.ts";
import { type Checkpoint, followers, type Key, keyLine, Mismatch, parseKey, signedBy } from "./note.ts";

type Rule = (seen: Set<string>) => boolean;

export interface Policy {
  logs: Key[];
  witnesses: { label: string; key: Key }[];
  quorum: Rule | null; // null asks for no witness
}

function need(ok: unknown, what: string): asserts ok {
  if (!ok) throw new Mismatch(what);
}

/** Reads a policy, or a single verifier key. */
export async function parsePolicy(source: string): Promise<Policy> {
  const logs: Key[] = [];
  const witnesses: Policy["witnesses"] = [];
  const rules = new Map<string, Rule>();
  const members = new Set<string>();
  const keys = new Set<string>();
  let quorum: Rule | null | undefined;
  const lines = /^\S+\+[0-9a-f]{8}\+\S+\s*$/.test(source) ? ["log " + source.trim(), "quorum none"] : source.split("\n");
  const key = async (line: string, witness: boolean) => {
    const k = await parseKey(line);
    need(k.witness === witness, `policy: the key of ${k.name} is not that of a ${witness ? "witness" : "log"}`);
    const id = `${witness} ${hex(k.public)}`;
    need(!keys.has(id), "policy: a key is listed twice");
    keys.add(id);
    return k;
  };
  const free = (name: string) => need(name !== "none" && !rules.has(name), `policy: the name ${name} is taken`);
  for (const [i, line] of lines.entries()) {
    need(!/[\x00-\x08\x0a-\x1f\x7f]/.test(line), `policy: line ${i + 1} has a control character`);
    const [word, a = "", b = "", ...rest] = line.split(/[ \t]+/).filter((x) => x !== "");
    const n = line.split(/[ \t]+/).filter((x) => x !== "").length;
    if (word === undefined || word.startsWith("#")) continue;
    if (word === "log" && (n === 2 || n === 3)) {
      logs.push(await key(a, false));
    } else if (word === "witness" && (n === 3 || n === 4)) {
      free(a);
      witnesses.push({ label: a, key: await key(b, true) });
      rules.set(a, (seen) => seen.has(a));
    } else if (word === "group" && n >= 4) {
      free(a);
      const k = b === "any" ? 1 : b === "all" ? rest.length : (fromDecimal(b) ?? 0);
      need(k >= 1 && k <= rest.length, `policy: line ${i + 1} wants ${b} of ${rest.length}`);
      const of = rest.map((name) => {
        const rule = rules.get(name);
        need(rule && !members.has(name), `policy: ${name} is not defined above line ${i + 1}, or is in two groups`);
        members.add(name);
        return rule;
      });
      rules.set(a, (seen) => of.filter((rule) => rule(seen)).length >= k);
    } else if (word === "quorum" && n === 2) {
      need(quorum === undefined, "policy: two quorum lines");
      need(a === "none" || rules.has(a), `policy: ${a} is not defined`);
      quorum = a === "none" ? null : rules.get(a)!;
    } else {
      need(false, `policy: line ${i + 1} is not understood`);
    }
  }
  need(quorum !== undefined, "policy: no quorum line");
  need(logs.length > 0, "policy: it lists no log");
  return { logs, witnesses, quorum };
}

export interface Verified {
  by: Key;
  successor: boolean; // by is not in the policy, but took the place of one that is
  cosigned: { name: string; time: number }[]; // Unix seconds
}

/** Holds a checkpoint to a policy. */
export async function verify(c: Checkpoint, policy: Policy, succession = ""): Promise<Verified> {
  const trusted = policy.logs.filter((k) => k.name === c.origin);
  need(trusted.length > 0, `your policy does not know the log ${c.origin}`);
  const later = (await Promise.all(trusted.map((k) => followers(k, succession)))).flat();
  const all = new Map([...trusted, ...later].map((k) => [keyLine(k), k]));
  let by: Key | undefined;
  for (const k of all.values()) if (await signedBy(c, k)) by ??= k;
  need(by, "the checkpoint is not signed by the log of your policy");
  const cosigned: Verified["cosigned"] = [];
  for (const w of policy.witnesses) {
    const found = await signedBy(c, w.key);
    if (found) cosigned.push({ name: w.label, time: found.time! });
  }
  need(policy.quorum === null || policy.quorum(new Set(cosigned.map((w) => w.name))), `too few witnesses cosigned it: ${cosigned.length} of your policy’s ${policy.witnesses.length}`);
  return { by, cosigned, successor: !trusted.includes(by) };
}
