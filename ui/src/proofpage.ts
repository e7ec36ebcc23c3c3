// The page that checks a proof without a server: docs/format/proof.md. It is one
// HTML file (internal/web.ProofPage), with this as its script.

import { type Bytes, text, toBase64, utf8 } from "./bytes.ts";
import { frames } from "./evidence.ts";
import { keyLine, Mismatch, parseCheckpoint } from "./note.ts";
import { parsePolicy, verify } from "./policy.ts";
import { checkEntry, type Extra, parseProof } from "./proof.ts";

const maxProof = 36 << 20;
const maxShown = 1 << 20; // bytes of a value

/** Does it all. Its errors say why the proof shows nothing. */
export async function check(bytes: Bytes, policy: string) {
  if (bytes.length > maxProof) throw new Mismatch("the file is too large for a proof");
  const file = text(bytes);
  if (file === undefined) throw new Mismatch("the file is not text");
  const trusted = await parsePolicy(policy);
  const proof = parseProof(file);
  const checkpoint = parseCheckpoint(proof.checkpoint);
  const verified = await verify(checkpoint, trusted, proof.extra?.succession);
  const shown = await checkEntry(proof, checkpoint);
  return { ...verified, ...shown, extra: proof.extra! };
}

const $ = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;
const utc = (seconds: number) =>
  Math.abs(seconds) <= 8.64e12 ? new Date(seconds * 1000).toISOString().replace(".000", "") : `second ${seconds} of Unix time, which no calendar has`;

/** A name in a list with commas. */
const listed = (name?: string) => (!name ? "-" : /^-$|[",]|^\s|\s$/.test(name) ? JSON.stringify(name) : name);

/** A value: text as it is, other bytes as escapes. */
function printable(bytes: Uint8Array): string {
  return Array.from(new TextDecoder().decode(bytes), (c) =>
    /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(c) && c !== "\n" && c !== "\t" ? "\\x" + c.codePointAt(0)!.toString(16).padStart(2, "0") : c).join("");
}

/** A value message by message, as pgnotary check shows it; as it is if it is no messages. */
function readable(value: Bytes): string {
  if (value.length > maxShown) return printable(value.subarray(0, maxShown)) + "\n…";
  const all = frames(value);
  if (all.reduce((n, f) => n + 5 + f.body.length, 0) !== value.length) return printable(value);
  const upToZero = (b: Uint8Array) => b.subarray(0, b.indexOf(0) < 0 ? b.length : b.indexOf(0));
  return all.map(({ type, body }) => {
    if (type === "Q") return printable(upToZero(body));
    const name = upToZero(body);
    if (type === "P") return `Parse "${printable(name)}": ${printable(upToZero(body.subarray(name.length + 1)))}`;
    return `${printable(utf8(type))}, ${body.length} bytes: ${printable(body)}`;
  }).join("\n");
}

type Leaf = { [key: string]: any }; // in the tree, so as pgnotary wrote it

function whatHappened(l: Leaf): string {
  let s = l.k;
  if (l.of !== undefined) s += " of entry " + l.of;
  if (l.tags) s += ": " + l.tags.join(", ");
  if (l.sqlstate) s += ", error " + l.sqlstate;
  if (l.end) s += ", " + l.end;
  if (l.committed !== undefined) s += l.committed ? ", committed" : ", rolled back";
  for (const [k, v] of Object.entries(l.facts ?? {})) s += `, ${k} ${listed(String(v))}`;
  return s;
}

function showFacts(rows: [string, unknown][]): void {
  $("facts").replaceChildren(...rows.filter(([, v]) => v !== undefined && v !== "").flatMap(([k, v]) => {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = k;
    dd.textContent = printable(utf8(String(v)));
    return [dt, dd];
  }));
}

/** What of the statement is in another entry. */
function elsewhere(extra: Extra, index: number | undefined): string | undefined {
  if (index === undefined) return undefined;
  const r = extra.related.find((r) => r.index === index);
  return r ? `proven, in entry ${index}: ${readable(r.value).slice(0, 10000)}` : `in entry ${index}, which needs a proof of its own`;
}

function showValid({ index, checkpoint, extra, by, cosigned, successor, leafText, ...shown }: Awaited<ReturnType<typeof check>>): void {
  const leaf = shown.leaf as Leaf;
  $("result").className = "valid";
  $("verdict").textContent = "Valid: the log has this entry";
  const first = Math.min(...cosigned.map((c) => c.time));
  let meaning = cosigned.length > 0
    ? `The log recorded this at ${utc(first)} at the latest, and cannot take it back or change it without its witnesses noticing.`
    : "Whoever has the key of the log signed this. Your policy asks for no witness, so nobody else is known to have seen it.";
  if (cosigned.length > 0 && Date.parse(leaf.t) > (first + 60) * 1000) {
    meaning += " But the proxy’s clock said a later time than theirs: one of them was wrong, or the entry was dated ahead.";
  }
  $("meaning").textContent = meaning;
  const { value } = extra;
  showFacts([
    ["who", leaf.user === undefined && leaf.client === undefined ? undefined
      : `user ${listed(leaf.user)}, database ${listed(leaf.db)}, application ${listed(leaf.app)}, client ${listed(leaf.client)}`],
    ["when", leaf.t + ", by the clock of the proxy"],
    ["what", whatHappened(leaf)],
    ["text", elsewhere(extra, leaf.parse)],
    ["parameters", elsewhere(extra, leaf.bind)],
    ["session", leaf.s && leaf.s + (leaf.n === undefined ? "" : `, number ${leaf.n} in it`)],
    ["value", value ? `proven, ${value.length} bytes` : leaf.c && `${leaf.size ?? 0} bytes, not in the proof: the entry has a commitment to it`],
    ["log", checkpoint.origin],
    ["index", index],
    ["checkpoint", `over ${checkpoint.size} entries, root ${toBase64(checkpoint.root)}`],
    ["key", keyLine(by) + (successor ? ", a successor of the key that you trust, named by it" : "")],
    ...cosigned.map((c): [string, string] => ["witness", `${c.name}, at ${utc(c.time)}`]),
  ]);
  $("statement").hidden = !value;
  if (value) $("value").textContent = readable(value);
  $("leaf-box").hidden = false;
  $("leaf").textContent = printable(utf8(leafText));
}

function showInvalid(why: string): void {
  $("result").className = "invalid";
  $("verdict").textContent = "Not valid";
  $("meaning").textContent = why;
  showFacts([]);
  $("statement").hidden = $("leaf-box").hidden = true;
}

let proofBytes: Bytes | undefined;
let run = 0;

async function update(): Promise<void> {
  const turn = ++run;
  const policy = $<HTMLTextAreaElement>("policy").value;
  $("result").hidden = true;
  if (!proofBytes || policy.trim() === "") return;
  let show: () => void;
  try {
    if (!globalThis.crypto?.subtle) throw new Error("this browser does not let the page compute here: open it with https, from localhost, or as a file");
    const found = await check(proofBytes, policy);
    show = () => showValid(found);
  } catch (e) {
    const { name, message } = e as Error;
    show = () => showInvalid(name === "NotSupportedError" ? "this browser cannot check Ed25519 signatures" : message);
  }
  if (turn !== run) return; // something else was chosen meanwhile
  show();
  $("result").hidden = false;
}

async function takeProof(file?: File): Promise<void> {
  if (!file) return;
  proofBytes = new Uint8Array(await file.arrayBuffer());
  await update();
}

async function takePolicy(file?: File): Promise<void> {
  if (!file) return;
  $<HTMLTextAreaElement>("policy").value = await file.text();
  await update();
}

function accept(box: HTMLElement, take: (file?: File) => Promise<void>): void {
  box.addEventListener("dragover", (e) => {
    e.preventDefault();
    box.classList.add("over");
  });
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (e) => {
    e.preventDefault();
    box.classList.remove("over");
    void take(e.dataTransfer?.files[0]);
  });
}

$("proof-file").addEventListener("change", (e) => takeProof((e.target as HTMLInputElement).files?.[0]));
$("policy-file").addEventListener("change", (e) => takePolicy((e.target as HTMLInputElement).files?.[0]));
$("policy").addEventListener("input", () => void update());
accept($("proof-input"), takeProof);
accept($("policy-input"), takePolicy);
