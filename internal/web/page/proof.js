// Checks a c2sp.org/tlog-proof in the browser: signatures and hashes with
// WebCrypto, everything else below. As strict as internal/checkpoint: what is
// not byte for byte as an encoder writes it is refused.
'use strict';

const encoder = new TextEncoder();
const text = bytes => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest('SHA-256', concat(...parts)));
const maxProof = 36 << 20;
const maxShown = 1 << 20; // bytes of a value

function concat(...parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) { out.set(p, at); at += p.length; }
  return out;
}

function same(a, b) { return a.length === b.length && a.every((x, i) => x === b[i]); }
function need(ok, what) { if (!ok) throw new Error(what); }

// fromBase64 accepts only what an encoder writes: no spare bits, no white space.
function fromBase64(s, what) {
  let raw;
  try { raw = atob(s); } catch { need(false, what + ' is not base64'); }
  need(btoa(raw) === s, what + ' is not in canonical base64');
  return Uint8Array.from(raw, c => c.charCodeAt(0));
}

function toBase64(b) { return btoa(Array.from(b, x => String.fromCharCode(x)).join('')); }
function decimal(s, what) {
  need(/^(0|[1-9][0-9]{0,15})$/.test(s) && Number.isSafeInteger(Number(s)), 'bad ' + what);
  return Number(s);
}
function hex(b) { return Array.from(b, x => x.toString(16).padStart(2, '0')).join(''); }
function goodName(s) { return s !== '' && encoder.encode(s).length <= 255 && !/[+\s\p{Cc}]/u.test(s); }

// parseKey takes a verifier key apart: name+id+base64(type || key).
async function parseKey(line, type) {
  const first = line.indexOf('+'), second = line.indexOf('+', first + 1);
  need(first > 0 && second > first, 'not a verifier key: ' + line);
  const name = line.slice(0, first), raw = fromBase64(line.slice(second + 1), 'the key of ' + name);
  need(goodName(name) && raw.length === 33 && raw[0] === type, 'the key of ' + name + ' is not of the right type');
  const id = hex((await sha256(encoder.encode(name + '\n'), raw)).slice(0, 4));
  need(line.slice(first + 1, second) === id, 'the key of ' + name + ' has the wrong id');
  const key = await crypto.subtle.importKey('raw', raw.slice(1), { name: 'Ed25519' }, false, ['verify']);
  return { line, name, id, type, key, pub: hex(raw.slice(1)) };
}

// parsePolicy reads a c2sp.org/tlog-policy, or a single verifier key.
async function parsePolicy(source) {
  const logs = [], witnesses = [], names = new Map(), members = new Set();
  let quorum, lines = source.split('\n');
  if (/^\S+\+[0-9a-f]{8}\+\S+\s*$/.test(source)) lines = ['log ' + source.trim(), 'quorum none'];
  const add = async (list, line, type, label) => {
    const k = await parseKey(line, type);
    need(!list.some(o => o.pub === k.pub), 'policy: a key is listed twice');
    list.push({ ...k, label });
  };
  const free = n => need(n !== 'none' && !names.has(n), 'policy: the name ' + n + ' is taken');
  for (const [i, line] of lines.entries()) {
    need(!/[\x00-\x08\x0a-\x1f\x7f]/.test(line), `policy: line ${i + 1} has a control character`);
    const f = line.split(/[ \t]+/).filter(x => x !== '');
    if (f.length === 0 || f[0].startsWith('#')) continue;
    if (f[0] === 'log' && (f.length === 2 || f.length === 3)) {
      await add(logs, f[1], 1);
    } else if (f[0] === 'witness' && (f.length === 3 || f.length === 4)) {
      free(f[1]);
      await add(witnesses, f[2], 4, f[1]);
      const name = f[1];
      names.set(name, seen => seen.has(name));
    } else if (f[0] === 'group' && f.length >= 4) {
      free(f[1]);
      const of = f.slice(3), k = f[2] === 'any' ? 1 : f[2] === 'all' ? of.length : decimal(f[2], `number in line ${i + 1} of the policy`);
      need(k >= 1 && k <= of.length, `policy: line ${i + 1} wants ${k} of ${of.length}`);
      const rules = of.map(n => {
        need(names.has(n) && !members.has(n), `policy: ${n} is not defined above line ${i + 1}, or is in two groups`);
        members.add(n);
        return names.get(n);
      });
      names.set(f[1], seen => rules.filter(r => r(seen)).length >= k);
    } else if (f[0] === 'quorum' && f.length === 2) {
      need(quorum === undefined, 'policy: two quorum lines');
      need(f[1] === 'none' || names.has(f[1]), `policy: ${f[1]} is not defined`);
      quorum = f[1] === 'none' ? null : names.get(f[1]);
    } else {
      need(false, `policy: line ${i + 1} is not understood`);
    }
  }
  need(quorum !== undefined, 'policy: no quorum line');
  need(logs.length > 0, 'policy: it lists no log');
  return { logs, witnesses, quorum };
}

// follow adds to the keys of the policy those that took their place, as far as
// each is named by the one before and itself.
async function follow(policy, succession) {
  const lines = succession.split('\n');
  need(lines.pop() === '', 'the succession is cut');
  for (let key, trusted = [...policy.logs]; lines.length > 0; lines.shift()) {
    for (key of trusted) {
      let from = key, added = [];
      for (const line of lines) {
        const f = line.split(' ');
        if (f.length !== 3) break;
        const next = await parseKey(f[0], 1), message = encoder.encode(`pgnotary/succession@v1\n${from.line}\n${next.line}\n`);
        const signed = async (k, sig) => crypto.subtle.verify('Ed25519', k.key, fromBase64(sig, 'a signature'), message);
        if (next.name !== from.name || !await signed(from, f[1]) || !await signed(next, f[2])) break;
        added.push(next);
        from = next;
      }
      if (added.length === lines.length) policy.logs.push(...added.filter(k => !policy.logs.some(o => o.line === k.line)));
    }
  }
}

// parseNote takes a signed checkpoint apart.
function parseNote(note) {
  const at = note.indexOf('\n\n');
  need(at > 0, 'the checkpoint has no signatures');
  const body = note.slice(0, at + 1), lines = body.split('\n');
  need(lines.length === 4, 'the checkpoint is not of three lines');
  const root = fromBase64(lines[2], 'the root'), size = decimal(lines[1], 'size of the checkpoint');
  need(root.length === 32 && goodName(lines[0]), 'bad checkpoint');
  const rest = note.slice(at + 2);
  need(rest.endsWith('\n'), 'the checkpoint is cut');
  const sigs = rest.slice(0, -1).split('\n').map(line => {
    const m = /^— (\S+) (\S+)$/.exec(line);
    need(m && goodName(m[1]), 'bad signature line');
    const raw = fromBase64(m[2], 'a signature');
    need(raw.length >= 5, 'bad signature line');
    return { name: m[1], id: hex(raw.slice(0, 4)), sig: raw.slice(4) };
  });
  need(sigs.length <= 64, 'too many signatures');
  return { body, origin: lines[0], size, root, rootText: lines[2], sigs };
}

// signedBy returns whether a key signed the note, and for a witness when. A
// line of a known key that is wrong spoils the note, whatever the others say.
async function signedBy(note, key) {
  const lines = note.sigs.filter(s => s.name === key.name && s.id === key.id);
  need(lines.length <= 1, 'two signatures of ' + key.name);
  if (lines.length === 0) return { ok: false };
  let { sig } = lines[0], body = note.body, time = 0;
  if (key.type === 4) {
    need(sig.length === 72, 'the cosignature of ' + key.name + ' is invalid');
    const t = new DataView(sig.buffer, sig.byteOffset).getBigUint64(0);
    body = `cosignature/v1\ntime ${t}\n${body}`;
    sig = sig.slice(8);
    time = Number(t);
  }
  need(await crypto.subtle.verify('Ed25519', key.key, sig, encoder.encode(body)), 'the signature of ' + key.name + ' is invalid');
  return { ok: true, time };
}

// verifyNote holds a checkpoint to the policy.
async function verifyNote(note, policy) {
  const known = policy.logs.filter(l => l.name === note.origin);
  need(known.length > 0, `your policy does not know the log ${note.origin}`);
  let by;
  for (const l of known) {
    const { ok } = await signedBy(note, l);
    if (ok && !by) by = l;
  }
  need(by, 'the checkpoint is not signed by the log of your policy');
  const cosigned = [], seen = new Set();
  for (const w of policy.witnesses) {
    const { ok, time } = await signedBy(note, w);
    if (ok) { cosigned.push({ name: w.label, time }); seen.add(w.label); }
  }
  need(policy.quorum === null || policy.quorum(seen), `too few witnesses cosigned it: ${seen.size} of your policy’s ${policy.witnesses.length}`);
  return { by, cosigned };
}

// parseProof takes the file apart.
function parseProof(bytes) {
  need(bytes.length <= maxProof, 'the file is too large for a proof');
  let all;
  try { all = text(bytes); } catch { need(false, 'the file is not text'); }
  const at = all.indexOf('\n\n');
  need(all.startsWith('c2sp.org/tlog-proof@v1\n') && at > 0, 'this is not a c2sp.org/tlog-proof@v1 file');
  const lines = all.slice(0, at).split('\n').slice(1);
  let extra;
  if (lines.length && lines[0].startsWith('extra ')) extra = fromBase64(lines.shift().slice(6), 'the extra line');
  need(lines.length && lines[0].startsWith('index '), 'no index line');
  const index = decimal(lines.shift().slice(6), 'index');
  need(lines.length <= 63, 'too many hashes');
  const hashes = lines.map(l => fromBase64(l, 'a hash'));
  need(hashes.every(h => h.length === 32), 'bad hash line');
  return { extra, index, hashes, note: parseNote(all.slice(at + 2)) };
}

// parseExtra returns leaf, value and salt as pgnotary puts them there.
function parseExtra(extra) {
  need(extra, 'the proof does not carry its entry');
  let j;
  try { j = JSON.parse(text(extra)); } catch { need(false, 'the proof does not carry its entry'); }
  const canonical = { leaf: j.leaf, ...('value' in j && { value: j.value, salt: j.salt }), ...('related' in j && { related: j.related.map(r => ({ index: r.index, hashes: r.hashes, leaf: r.leaf, value: r.value, salt: r.salt })) }), ...('succession' in j && { succession: j.succession }) };
  need(JSON.stringify(canonical) === text(extra) && typeof j.leaf === 'string', 'the extra line is not in canonical form');
  const out = { leaf: fromBase64(j.leaf, 'the entry') };
  out.related = (j.related ?? []).map(r => ({
    index: decimal(String(r.index), 'index'),
    hashes: r.hashes.map(h => fromBase64(h, 'a hash')),
    leaf: fromBase64(r.leaf, 'an entry'), value: fromBase64(r.value, 'a value'), salt: fromBase64(r.salt, 'a salt'),
  }));
  need(out.related.length <= 4 && out.related.every(r => r.hashes.length <= 63 && r.hashes.every(h => h.length === 32) && r.salt.length === 32), 'bad related entry');
  if ('succession' in j) out.succession = text(fromBase64(j.succession, 'the succession'));
  if ('value' in j) {
    out.value = fromBase64(j.value, 'the value');
    out.salt = fromBase64(j.salt, 'the salt');
    need(out.salt.length === 32, 'bad salt');
  }
  return out;
}

// rootOf follows an inclusion proof, RFC 9162 2.1.3.2.
async function rootOf(index, size, leaf, hashes) {
  need(index < size, `the checkpoint covers ${size} entries, and this is number ${index}`);
  let fn = BigInt(index), sn = BigInt(size) - 1n, r = await sha256(Uint8Array.of(0), leaf);
  for (const p of hashes) {
    need(sn !== 0n, 'the proof has too many hashes');
    if ((fn & 1n) || fn === sn) {
      r = await sha256(Uint8Array.of(1), p, r);
      while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else {
      r = await sha256(Uint8Array.of(1), r, p);
    }
    fn >>= 1n; sn >>= 1n;
  }
  need(sn === 0n, 'the proof has too few hashes');
  return r;
}

// check does it all and returns what there is to show. Its errors say why the
// proof shows nothing.
async function check(bytes, policySource) {
  const policy = await parsePolicy(policySource), proof = parseProof(bytes), extra = parseExtra(proof.extra);
  const trusted = policy.logs.map(l => l.line);
  if (extra.succession !== undefined) await follow(policy, extra.succession);
  const { by, cosigned } = await verifyNote(proof.note, policy);
  const root = await rootOf(proof.index, proof.note.size, extra.leaf, proof.hashes);
  need(same(root, proof.note.root), 'the entry is not in the tree of the checkpoint');
  let leaf;
  try { leaf = JSON.parse(text(extra.leaf)); } catch { need(false, 'the log has this entry, but it is not one of pgnotary’s'); }
  need(leaf !== null && leaf.v === 1 && typeof leaf.t === 'string' && typeof leaf.k === 'string', 'the log has this entry, but it is not one of pgnotary’s');
  if (extra.value) {
    const c = toBase64(await sha256(extra.salt, extra.value));
    need(leaf.c === c && (leaf.size ?? 0) === extra.value.length, 'the value in it is not the one the entry commits to');
  }
  for (const r of extra.related) {
    need(leaf.parse === r.index || leaf.bind === r.index, `the entry does not go back to entry ${r.index}, which is in it`);
    need(same(await rootOf(r.index, proof.note.size, r.leaf, r.hashes), proof.note.root), `entry ${r.index} is not in the tree of the checkpoint`);
    const of = JSON.parse(text(r.leaf));
    need(of.c === toBase64(await sha256(r.salt, r.value)) && (of.size ?? 0) === r.value.length, `the value of entry ${r.index} is not the one it commits to`);
  }
  return { proof, extra, leaf, by, cosigned, successor: !trusted.includes(by.line) };
}

const $ = id => document.getElementById(id);
const utc = seconds => new Date(seconds * 1000).toISOString().replace('.000', '');

// printable shows a value: text as it is, other bytes as escapes.
function printable(bytes) {
  return Array.from(new TextDecoder('utf-8').decode(bytes), c => /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(c) && c !== '\n' && c !== '\t' ? '\\x' + c.codePointAt(0).toString(16).padStart(2, '0') : c).join('');
}

function whatHappened(l) {
  let s = l.k;
  if (l.of !== undefined) s += ' of entry ' + l.of;
  if (l.tags) s += ': ' + l.tags.join(', ');
  if (l.sqlstate) s += ', error ' + l.sqlstate;
  if (l.end) s += ', ' + l.end;
  if (l.committed !== undefined) s += l.committed ? ', committed' : ', rolled back';
  for (const [k, v] of Object.entries(l.facts ?? {})) s += `, ${k} ${v}`;
  return s;
}

function showFacts(rows) {
  $('facts').replaceChildren(...rows.filter(([, v]) => v !== undefined && v !== '').flatMap(([k, v]) => {
    const dt = document.createElement('dt'), dd = document.createElement('dd');
    dt.textContent = k;
    dd.textContent = printable(encoder.encode(String(v)));
    return [dt, dd];
  }));
}

// elsewhere says what of the statement is in another entry.
function elsewhere(extra, index) {
  if (index === undefined) return undefined;
  const r = extra.related.find(r => r.index === index);
  return r ? `proven, in entry ${index}: ${printable(r.value.subarray(0, 10000))}` : `in entry ${index}, which needs a proof of its own`;
}

function showValid({ proof, extra, leaf, by, cosigned, successor }) {
  $('result').className = 'valid';
  $('verdict').textContent = 'Valid: the log has this entry';
  const first = cosigned.length ? Math.min(...cosigned.map(c => c.time)) : 0;
  $('meaning').textContent = cosigned.length
    ? `The log recorded this at ${utc(first)} at the latest, and cannot take it back or change it without its witnesses noticing.`
    : 'Whoever has the key of the log signed this. Your policy asks for no witness, so nobody else is known to have seen it.';
  if (cosigned.length && Date.parse(leaf.t) > (first + 60) * 1000) {
    $('meaning').textContent += ' But the proxy’s clock said a later time than theirs: one of them was wrong, or the entry was dated ahead.';
  }
  const has = extra.value !== undefined;
  showFacts([
    ['who', leaf.user === undefined && leaf.client === undefined ? undefined
      : `user ${leaf.user || '-'}, database ${leaf.db || '-'}, application ${leaf.app || '-'}, client ${leaf.client || '-'}`],
    ['when', leaf.t + ', by the clock of the proxy'],
    ['what', whatHappened(leaf)],
    ['text', elsewhere(extra, leaf.parse)],
    ['parameters', elsewhere(extra, leaf.bind)],
    ['session', leaf.s && `${leaf.s}, number ${leaf.n} in it`],
    ['value', has ? `proven, ${extra.value.length} bytes` : leaf.c && `${leaf.size ?? 0} bytes, not in the proof: the entry has a commitment to it`],
    ['log', proof.note.origin],
    ['index', proof.index],
    ['checkpoint', `over ${proof.note.size} entries, root ${proof.note.rootText}`],
    ['key', by.line + (successor ? ', a successor of the key that you trust, named by it' : '')],
    ...cosigned.map(c => ['witness', `${c.name}, at ${utc(c.time)}`]),
  ]);
  $('statement').hidden = !has;
  if (has) $('value').textContent = printable(extra.value.subarray(0, maxShown)) + (extra.value.length > maxShown ? '\n…' : '');
  $('leaf-box').hidden = false;
  $('leaf').textContent = printable(extra.leaf);
}

function showInvalid(why) {
  $('result').className = 'invalid';
  $('verdict').textContent = 'Not valid';
  $('meaning').textContent = why;
  showFacts([]);
  $('statement').hidden = $('leaf-box').hidden = true;
}

let proofBytes, run = 0;

async function update() {
  const turn = ++run, policy = $('policy').value;
  if (!proofBytes || policy.trim() === '') { $('result').hidden = true; return; }
  let show;
  try {
    need(globalThis.crypto?.subtle, 'this browser does not let the page compute here: open it with https, from localhost, or as a file');
    const found = await check(proofBytes, policy);
    show = () => showValid(found);
  } catch (e) {
    show = () => showInvalid(e.name === 'NotSupportedError' ? 'this browser cannot check Ed25519 signatures' : e.message);
  }
  if (turn !== run) return; // something else was chosen meanwhile
  show();
  $('result').hidden = false;
}

async function takeProof(file) { if (file) { proofBytes = new Uint8Array(await file.arrayBuffer()); await update(); } }
async function takePolicy(file) { if (file) { $('policy').value = await file.text(); await update(); } }

function accept(box, take) {
  box.addEventListener('dragover', e => { e.preventDefault(); box.classList.add('over'); });
  box.addEventListener('dragleave', () => box.classList.remove('over'));
  box.addEventListener('drop', e => { e.preventDefault(); box.classList.remove('over'); take(e.dataTransfer.files[0]); });
}

$('proof-file').addEventListener('change', e => takeProof(e.target.files[0]));
$('policy-file').addEventListener('change', e => takePolicy(e.target.files[0]));
$('policy').addEventListener('input', update);
accept($('proof-input'), takeProof);
accept($('policy-input'), takePolicy);
