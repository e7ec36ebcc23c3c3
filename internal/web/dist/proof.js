"use strict";
var proofpage = (() => {
  var __defProp = Object.defineProperty;
  var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
  var __getOwnPropNames = Object.getOwnPropertyNames;
  var __hasOwnProp = Object.prototype.hasOwnProperty;
  var __export = (target, all) => {
    for (var name in all)
      __defProp(target, name, { get: all[name], enumerable: true });
  };
  var __copyProps = (to, from, except, desc) => {
    if (from && typeof from === "object" || typeof from === "function") {
      for (let key of __getOwnPropNames(from))
        if (!__hasOwnProp.call(to, key) && key !== except)
          __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
    }
    return to;
  };
  var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

  // src/proofpage.ts
  var proofpage_exports = {};
  __export(proofpage_exports, {
    check: () => check
  });

  // src/bytes.ts
  var encoder = new TextEncoder();
  var utf8 = (s) => encoder.encode(s);
  function text(b) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(b);
    } catch {
      return void 0;
    }
  }
  function concat(...parts) {
    const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const p of parts) {
      out.set(p, at);
      at += p.length;
    }
    return out;
  }
  function equal(a, b) {
    return a.length === b.length && a.every((x, i) => x === b[i]);
  }
  function hex(b) {
    return Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
  }
  function toBase64(b) {
    let s = "";
    for (let i = 0; i < b.length; i += 32768) s += String.fromCharCode(...b.subarray(i, i + 32768));
    return btoa(s);
  }
  function fromBase64(s) {
    let raw;
    try {
      raw = atob(s);
    } catch {
      return void 0;
    }
    if (btoa(raw) !== s) return void 0;
    const out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }
  function fromDecimal(s) {
    const n = /^(0|[1-9][0-9]{0,15})$/.test(s) ? Number(s) : NaN;
    return Number.isSafeInteger(n) ? n : void 0;
  }
  async function sha256(...parts) {
    return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));
  }

  // src/format.ts
  var grouped = new Intl.NumberFormat("en");

  // src/note.ts
  var Mismatch = class extends Error {
  };
  var maxSignatures = 64;
  var maxBytes = 64 << 10;
  var validName = (s) => s !== "" && utf8(s).length <= 255 && !/[+\u0085\p{Cc}]|(?!\ufeff)\s/u.test(s);
  async function parseKey(line) {
    const [name = "", id = "", b64 = "", ...rest] = line.split("+");
    const raw = fromBase64([b64, ...rest].join("+"));
    if (!validName(name) || !raw || raw.length !== 33 || raw[0] !== 1 && raw[0] !== 4) {
      throw new Mismatch(`not a verifier key: ${line.slice(0, 300)}`);
    }
    if (hex((await sha256(utf8(name + "\n"), raw)).subarray(0, 4)) !== id) throw new Mismatch("the key does not have this id");
    return { name, id, witness: raw[0] === 4, public: raw.slice(1) };
  }
  function parseCheckpoint(signed) {
    const bad = (what) => {
      throw new Mismatch("malformed checkpoint: " + what);
    };
    if (utf8(signed).length > maxBytes) return bad("it is too long");
    const cut = signed.indexOf("\n\n");
    if (cut < 0) return bad("no empty line before the signatures");
    const text2 = signed.slice(0, cut + 1);
    const [origin = "", sizeText = "", rootText = "", ...more] = text2.split("\n");
    const size = fromDecimal(sizeText);
    const root = fromBase64(rootText);
    if (more.length !== 1 || !validName(origin)) return bad("want origin, size and root");
    if (size === void 0 || root?.length !== 32) return bad("size or root");
    const lines = signed.slice(cut + 2).split("\n");
    if (lines.pop() !== "" || lines.length === 0 || lines.length > maxSignatures) return bad("its signatures");
    const signatures = lines.map((line) => {
      const [, name = "", b64 = ""] = /^— ([^ ]+) ([^ ]+)$/.exec(line) ?? [];
      const raw = fromBase64(b64);
      if (!raw || raw.length < 5 || !validName(name)) return bad("a signature line");
      return { name, id: hex(raw.subarray(0, 4)), bytes: raw.slice(4) };
    });
    return { origin, size, root, text: text2, signatures };
  }
  async function signedBy(c, key) {
    const [line, second] = c.signatures.filter((s) => s.name === key.name && s.id === key.id);
    if (!line) return void 0;
    if (second) throw new Mismatch(`two signatures of key ${key.name}+${key.id}`);
    let { bytes } = line;
    let message = c.text;
    let time;
    if (key.witness) {
      const stamp = bytes.length > 8 ? new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0) : 0n;
      if (stamp > BigInt(Number.MAX_SAFE_INTEGER)) throw new Mismatch("the time of a cosignature is out of range");
      time = Number(stamp);
      message = `cosignature/v1
time ${time}
${c.text}`;
      bytes = bytes.slice(8);
    }
    const pub = await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]);
    if (bytes.length !== 64 || !await crypto.subtle.verify("Ed25519", pub, bytes, utf8(message))) {
      throw new Mismatch(`the signature of key ${key.name}+${key.id} does not verify`);
    }
    return { time };
  }
  var signs = async (key, b64, message) => {
    const sig = fromBase64(b64);
    return sig?.length === 64 && crypto.subtle.verify("Ed25519", await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]), sig, utf8(message));
  };
  async function followers(key, succession) {
    const lines = succession.split("\n");
    if (lines.pop() !== "" || succession.length > maxBytes) return [];
    for (; lines.length > 0; lines.shift()) {
      const chain = [key];
      for (const line of lines) {
        const from = chain.at(-1);
        const [vkey = "", byOld = "", byNew = "", ...more] = line.split(" ");
        const next = await parseKey(vkey).catch(() => void 0);
        if (!next) break;
        const message = `pgnotary/succession@v1
${keyLine(from)}
${keyLine(next)}
`;
        if (more.length > 0 || next.witness || next.name !== key.name || !await signs(from, byOld, message) || !await signs(next, byNew, message)) break;
        chain.push(next);
      }
      if (chain.length > lines.length) return chain.slice(1);
    }
    return [];
  }
  var keyLine = (k) => `${k.name}+${k.id}+${toBase64(concat(Uint8Array.of(k.witness ? 4 : 1), k.public))}`;

  // src/tree.ts
  var leafPrefix = Uint8Array.of(0);
  var nodePrefix = Uint8Array.of(1);
  var leafHash = (leaf) => sha256(leafPrefix, leaf);
  var nodeHash = (left, right) => sha256(nodePrefix, left, right);
  function pathOf(index, size) {
    const steps = [];
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
  function largestPowerBelow(n) {
    let k = 1;
    while (2 * k < n) k *= 2;
    return k;
  }
  async function climb(index, size, leaf, proof) {
    if (index >= size) throw new Mismatch(`entry ${index} is not in a tree of ${size} entries`);
    const path = pathOf(index, size);
    if (path.length !== proof.length) throw new Mismatch(`the proof has ${proof.length} hashes, not ${path.length}`);
    const way = [leaf];
    let hash = leaf;
    for (const [i, step] of path.entries()) {
      hash = step.left ? await nodeHash(proof[i], hash) : await nodeHash(hash, proof[i]);
      way.push(hash);
    }
    return way;
  }

  // src/proof.ts
  var header = "c2sp.org/tlog-proof@v1";
  var maxValues = 16 << 20;
  function parseProof(file) {
    const bad = (what) => {
      throw new Mismatch("malformed proof: " + what);
    };
    const cut = file.indexOf("\n\n");
    const lines = file.slice(0, Math.max(cut, 0)).split("\n");
    if (cut < 0 || lines.shift() !== header) return bad("it does not begin with " + header);
    const extra = lines[0]?.startsWith("extra ") ? parseExtra(lines.shift().slice(6)) : void 0;
    const [, indexText = ""] = /^index (\d+)$/.exec(lines.shift() ?? "") ?? [];
    const index = fromDecimal(indexText);
    if (index === void 0) return bad("no index");
    const hashes = lines.map((line) => {
      const h = fromBase64(line);
      return h?.length === 32 ? h : bad("a hash");
    });
    if (hashes.length > 63) return bad("too many hashes");
    return { index, hashes, checkpoint: file.slice(cut + 2), extra };
  }
  function parseExtra(b64) {
    const bad = () => {
      throw new Mismatch("malformed proof: the extra line");
    };
    const json = text(fromBase64(b64) ?? new Uint8Array());
    let j;
    try {
      j = JSON.parse(json ?? "");
      const canonical = {
        leaf: j.leaf,
        ..."value" in j && { value: j.value, salt: j.salt },
        ...j.related?.length > 0 && { related: j.related.map((r) => ({ index: r.index, hashes: r.hashes, leaf: r.leaf, value: r.value, salt: r.salt })) },
        ...j.succession && { succession: j.succession }
      };
      if (JSON.stringify(canonical) !== json) return bad();
    } catch {
      return bad();
    }
    const part = (s, size) => {
      const b = typeof s === "string" ? fromBase64(s) : void 0;
      return b && (size === void 0 || b.length === size) ? b : bad();
    };
    const related = (j.related ?? []).map((r) => ({
      index: (typeof r.index === "number" ? fromDecimal(String(r.index)) : void 0) ?? bad(),
      hashes: r.hashes.map((h) => part(h, 32)),
      leaf: part(r.leaf),
      value: part(r.value),
      salt: part(r.salt, 32)
    }));
    if (related.length > 4 || related.some((r) => r.hashes.length > 63)) return bad();
    const value = "value" in j ? { value: part(j.value), salt: part(j.salt, 32) } : void 0;
    if (related.reduce((n, r) => n + r.value.length, value?.value.length ?? 0) > maxValues) return bad();
    return { leaf: part(j.leaf), related, ...value, ..."succession" in j && { succession: text(part(j.succession)) ?? "" } };
  }
  async function checkEntry(p, checkpoint) {
    if (!p.extra) throw new Mismatch("the proof does not carry its entry");
    const { leaf: raw, value, salt, related } = p.extra;
    const way = await inTree(p.index, raw, p.hashes, checkpoint);
    const leaf = parseLeaf(raw);
    if (value) await holds(p.index, leaf, value, salt);
    for (const r of related) {
      if (leaf.parse !== r.index && leaf.bind !== r.index) throw new Mismatch(`the entry does not go back to entry ${r.index}, which the proof carries`);
      await inTree(r.index, r.leaf, r.hashes, checkpoint);
      await holds(r.index, parseLeaf(r.leaf), r.value, r.salt);
    }
    return { index: p.index, checkpoint, leafText: text(raw), leaf, value, way, siblings: p.hashes };
  }
  async function inTree(index, leaf, hashes, checkpoint) {
    const way = await climb(index, checkpoint.size, await leafHash(leaf), hashes);
    if (!equal(way.at(-1), checkpoint.root)) throw new Mismatch(`entry ${index} is not in the tree of the checkpoint`);
    return way;
  }
  function parseLeaf(raw) {
    let leaf;
    try {
      leaf = JSON.parse(text(raw) ?? "");
    } catch {
      leaf = void 0;
    }
    const l = leaf;
    if (typeof l !== "object" || l === null || l.v !== 1 || typeof l.k !== "string") throw new Mismatch("the entry is not one of pgnotary");
    return l;
  }
  async function holds(index, leaf, value, salt) {
    if ((leaf.size ?? 0) !== value.length || leaf.c !== toBase64(await sha256(salt, value))) {
      throw new Mismatch(`the value of entry ${index} is not the one the entry commits to`);
    }
  }

  // src/evidence.ts
  function frames(value) {
    const out = [];
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    for (let at = 0; at + 5 <= value.length; ) {
      const size = view.getUint32(at + 1);
      if (size < 4 || at + 1 + size > value.length) break;
      out.push({ type: String.fromCharCode(value[at]), body: value.slice(at + 5, at + 1 + size) });
      at += 1 + size;
    }
    return out;
  }

  // src/policy.ts
  function need(ok, what) {
    if (!ok) throw new Mismatch(what);
  }
  async function parsePolicy(source) {
    const logs = [];
    const witnesses = [];
    const rules = /* @__PURE__ */ new Map();
    const members = /* @__PURE__ */ new Set();
    const keys = /* @__PURE__ */ new Set();
    let quorum;
    const lines = /^\S+\+[0-9a-f]{8}\+\S+\s*$/.test(source) ? ["log " + source.trim(), "quorum none"] : source.split("\n");
    const key = async (line, witness) => {
      const k = await parseKey(line);
      need(k.witness === witness, `policy: the key of ${k.name} is not that of a ${witness ? "witness" : "log"}`);
      const id = `${witness} ${hex(k.public)}`;
      need(!keys.has(id), "policy: a key is listed twice");
      keys.add(id);
      return k;
    };
    const free = (name) => need(name !== "none" && !rules.has(name), `policy: the name ${name} is taken`);
    for (const [i, line] of lines.entries()) {
      need(!/[\x00-\x08\x0a-\x1f\x7f]/.test(line), `policy: line ${i + 1} has a control character`);
      const [word, a = "", b = "", ...rest] = line.split(/[ \t]+/).filter((x) => x !== "");
      const n = line.split(/[ \t]+/).filter((x) => x !== "").length;
      if (word === void 0 || word.startsWith("#")) continue;
      if (word === "log" && (n === 2 || n === 3)) {
        logs.push(await key(a, false));
      } else if (word === "witness" && (n === 3 || n === 4)) {
        free(a);
        witnesses.push({ label: a, key: await key(b, true) });
        rules.set(a, (seen) => seen.has(a));
      } else if (word === "group" && n >= 4) {
        free(a);
        const k = b === "any" ? 1 : b === "all" ? rest.length : fromDecimal(b) ?? 0;
        need(k >= 1 && k <= rest.length, `policy: line ${i + 1} wants ${b} of ${rest.length}`);
        const of = rest.map((name) => {
          const rule = rules.get(name);
          need(rule && !members.has(name), `policy: ${name} is not defined above line ${i + 1}, or is in two groups`);
          members.add(name);
          return rule;
        });
        rules.set(a, (seen) => of.filter((rule) => rule(seen)).length >= k);
      } else if (word === "quorum" && n === 2) {
        need(quorum === void 0, "policy: two quorum lines");
        need(a === "none" || rules.has(a), `policy: ${a} is not defined`);
        quorum = a === "none" ? null : rules.get(a);
      } else {
        need(false, `policy: line ${i + 1} is not understood`);
      }
    }
    need(quorum !== void 0, "policy: no quorum line");
    need(logs.length > 0, "policy: it lists no log");
    return { logs, witnesses, quorum };
  }
  async function verify(c, policy, succession = "") {
    const trusted = policy.logs.filter((k) => k.name === c.origin);
    need(trusted.length > 0, `your policy does not know the log ${c.origin}`);
    const later = (await Promise.all(trusted.map((k) => followers(k, succession)))).flat();
    const all = new Map([...trusted, ...later].map((k) => [keyLine(k), k]));
    let by;
    for (const k of all.values()) if (await signedBy(c, k)) by ??= k;
    need(by, "the checkpoint is not signed by the log of your policy");
    const cosigned = [];
    for (const w of policy.witnesses) {
      const found = await signedBy(c, w.key);
      if (found) cosigned.push({ name: w.label, time: found.time });
    }
    need(policy.quorum === null || policy.quorum(new Set(cosigned.map((w) => w.name))), `too few witnesses cosigned it: ${cosigned.length} of your policy’s ${policy.witnesses.length}`);
    return { by, cosigned, successor: !trusted.includes(by) };
  }

  // src/proofpage.ts
  var maxProof = 36 << 20;
  var maxShown = 1 << 20;
  async function check(bytes, policy) {
    if (bytes.length > maxProof) throw new Mismatch("the file is too large for a proof");
    const file = text(bytes);
    if (file === void 0) throw new Mismatch("the file is not text");
    const trusted = await parsePolicy(policy);
    const proof = parseProof(file);
    const checkpoint = parseCheckpoint(proof.checkpoint);
    const verified = await verify(checkpoint, trusted, proof.extra?.succession);
    const shown = await checkEntry(proof, checkpoint);
    return { ...verified, ...shown, extra: proof.extra };
  }
  var $ = (id) => document.getElementById(id);
  var utc = (seconds) => Math.abs(seconds) <= 864e10 ? new Date(seconds * 1e3).toISOString().replace(".000", "") : `second ${seconds} of Unix time, which no calendar has`;
  var listed = (name) => !name ? "-" : /^-$|[",]|^\s|\s$/.test(name) ? JSON.stringify(name) : name;
  function printable(bytes) {
    return Array.from(new TextDecoder().decode(bytes), (c) => /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(c) && c !== "\n" && c !== "	" ? "\\x" + c.codePointAt(0).toString(16).padStart(2, "0") : c).join("");
  }
  function readable(value) {
    if (value.length > maxShown) return printable(value.subarray(0, maxShown)) + "\n…";
    const all = frames(value);
    if (all.reduce((n, f) => n + 5 + f.body.length, 0) !== value.length) return printable(value);
    const upToZero = (b) => b.subarray(0, b.indexOf(0) < 0 ? b.length : b.indexOf(0));
    return all.map(({ type, body }) => {
      if (type === "Q") return printable(upToZero(body));
      const name = upToZero(body);
      if (type === "P") return `Parse "${printable(name)}": ${printable(upToZero(body.subarray(name.length + 1)))}`;
      return `${printable(utf8(type))}, ${body.length} bytes: ${printable(body)}`;
    }).join("\n");
  }
  function whatHappened(l) {
    let s = l.k;
    if (l.of !== void 0) s += " of entry " + l.of;
    if (l.tags) s += ": " + l.tags.join(", ");
    if (l.sqlstate) s += ", error " + l.sqlstate;
    if (l.end) s += ", " + l.end;
    if (l.committed !== void 0) s += l.committed ? ", committed" : ", rolled back";
    for (const [k, v] of Object.entries(l.facts ?? {})) s += `, ${k} ${listed(String(v))}`;
    return s;
  }
  function showFacts(rows) {
    $("facts").replaceChildren(...rows.filter(([, v]) => v !== void 0 && v !== "").flatMap(([k, v]) => {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = k;
      dd.textContent = printable(utf8(String(v)));
      return [dt, dd];
    }));
  }
  function elsewhere(extra, index) {
    if (index === void 0) return void 0;
    const r = extra.related.find((r2) => r2.index === index);
    return r ? `proven, in entry ${index}: ${readable(r.value).slice(0, 1e4)}` : `in entry ${index}, which needs a proof of its own`;
  }
  function showValid({ index, checkpoint, extra, by, cosigned, successor, leafText, ...shown }) {
    const leaf = shown.leaf;
    $("result").className = "valid";
    $("verdict").textContent = "Valid: the log has this entry";
    const first = Math.min(...cosigned.map((c) => c.time));
    let meaning = cosigned.length > 0 ? `The log recorded this at ${utc(first)} at the latest, and cannot take it back or change it without its witnesses noticing.` : "Whoever has the key of the log signed this. Your policy asks for no witness, so nobody else is known to have seen it.";
    if (cosigned.length > 0 && Date.parse(leaf.t) > (first + 60) * 1e3) {
      meaning += " But the proxy’s clock said a later time than theirs: one of them was wrong, or the entry was dated ahead.";
    }
    $("meaning").textContent = meaning;
    const { value } = extra;
    showFacts([
      ["who", leaf.user === void 0 && leaf.client === void 0 ? void 0 : `user ${listed(leaf.user)}, database ${listed(leaf.db)}, application ${listed(leaf.app)}, client ${listed(leaf.client)}`],
      ["when", leaf.t + ", by the clock of the proxy"],
      ["what", whatHappened(leaf)],
      ["text", elsewhere(extra, leaf.parse)],
      ["parameters", elsewhere(extra, leaf.bind)],
      ["session", leaf.s && leaf.s + (leaf.n === void 0 ? "" : `, number ${leaf.n} in it`)],
      ["value", value ? `proven, ${value.length} bytes` : leaf.c && `${leaf.size ?? 0} bytes, not in the proof: the entry has a commitment to it`],
      ["log", checkpoint.origin],
      ["index", index],
      ["checkpoint", `over ${checkpoint.size} entries, root ${toBase64(checkpoint.root)}`],
      ["key", keyLine(by) + (successor ? ", a successor of the key that you trust, named by it" : "")],
      ...cosigned.map((c) => ["witness", `${c.name}, at ${utc(c.time)}`])
    ]);
    $("statement").hidden = !value;
    if (value) $("value").textContent = readable(value);
    $("leaf-box").hidden = false;
    $("leaf").textContent = printable(utf8(leafText));
  }
  function showInvalid(why) {
    $("result").className = "invalid";
    $("verdict").textContent = "Not valid";
    $("meaning").textContent = why;
    showFacts([]);
    $("statement").hidden = $("leaf-box").hidden = true;
  }
  var proofBytes;
  var run = 0;
  async function update() {
    const turn = ++run;
    const policy = $("policy").value;
    $("result").hidden = true;
    if (!proofBytes || policy.trim() === "") return;
    let show;
    try {
      if (!globalThis.crypto?.subtle) throw new Error("this browser does not let the page compute here: open it with https, from localhost, or as a file");
      const found = await check(proofBytes, policy);
      show = () => showValid(found);
    } catch (e) {
      const { name, message } = e;
      show = () => showInvalid(name === "NotSupportedError" ? "this browser cannot check Ed25519 signatures" : message);
    }
    if (turn !== run) return;
    show();
    $("result").hidden = false;
  }
  async function takeProof(file) {
    if (!file) return;
    proofBytes = new Uint8Array(await file.arrayBuffer());
    await update();
  }
  async function takePolicy(file) {
    if (!file) return;
    $("policy").value = await file.text();
    await update();
  }
  function accept(box, take) {
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
  $("proof-file").addEventListener("change", (e) => takeProof(e.target.files?.[0]));
  $("policy-file").addEventListener("change", (e) => takePolicy(e.target.files?.[0]));
  $("policy").addEventListener("input", () => void update());
  accept($("proof-input"), takeProof);
  accept($("policy-input"), takePolicy);
  return __toCommonJS(proofpage_exports);
})();
