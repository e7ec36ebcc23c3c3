// One entry: what it says, how it ended, where it stands in the tree, and
// whether all that is so.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import * as api from "./api.ts";
import { bytes, count, micros, moment, mood, result, visible } from "./format.ts";
import { check, type Evidence } from "./evidence.ts";
import { hex } from "./bytes.ts";
import { Mismatch } from "./note.ts";
import { useLoad } from "./load.ts";
import { href } from "./query.ts";
import { pathOf } from "./tree.ts";
import { trustedKey, useWatch } from "./watch.ts";

export function EntryPanel(p: { index: number; me: api.Me; close: () => void }) {
  const { value: entry, problem } = useLoad(() => api.entry(p.index), [p.index]);
  const panel = useRef<HTMLElement>(null);
  // In a narrow window it takes the place of the list, and so of what had the focus.
  useLayoutEffect(() => {
    if (!document.querySelector<HTMLElement>(".list")?.offsetParent) panel.current?.focus();
  }, [p.index]);
  return (
    <aside class="entry" ref={panel} tabIndex={-1} aria-label={`Entry ${p.index}`}>
      <header>
        <h2>Entry {count(entry?.index ?? p.index)}</h2>
        {entry && <span class={`tag ${mood(entry)}`}>{result(entry)}</span>}
        <span class="space" />
        <button onClick={p.close} aria-label="Close" title="Close (Esc)">✕</button>
      </header>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {!entry && !problem && <p class="empty">Reading…</p>}
      {entry && <Details entry={entry} me={p.me} />}
    </aside>
  );
}

function Details({ entry: s, me }: { entry: api.Entry; me: api.Me }) {
  const error = s.outcome?.error ?? s.error ?? s.notice;
  return (
    <div class="details" tabIndex={0} role="region" aria-label="Details">
      {s.statement !== undefined ? <pre class="sql"><code>{visible(s.statement)}</code></pre>
        : me.role === "auditor" && s.outcome && <p class="note">The text is for investigators; this token's role is auditor.</p>}
      {s.too_large ? <p class="note">The value is too large to be shown here. On the proxy’s machine: pgnotary show {s.index}</p>
        : s.unavailable && <p class="note">The value is no longer there.</p>}
      {s.malformed && <p class="note">The message could not be read to its end; it was recorded as it came.</p>}
      {s.params && <Params params={s.params} />}
      {s.rendering && s.params && <details><summary>With parameters in place</summary><pre class="sql"><code>{visible(s.rendering)}</code></pre>
        <p class="note">A rendering: nobody sent this text.</p></details>}
      {error && <section class="error"><h3>{error.severity ?? "Error"} {error.sqlstate}</h3><p>{visible(error.message)}</p>
        {["detail", "hint", "where"].map((k) => error[k] && <p class="note">{k}: {visible(error[k])}</p>)}</section>}
      <section><h3>What happened</h3><dl>{facts(s).map(([k, v]) => <><dt>{k}</dt><dd>{typeof v === "string" ? visible(v) : v}</dd></>)}</dl></section>
      <Proof key={s.index} entry={s} me={me} />
      <details><summary>Leaf</summary><pre><code>{visible(JSON.stringify(s.leaf, null, 1))}</code></pre></details>
    </div>
  );
}

function facts(s: api.Entry) {
  const o = s.outcome;
  const list: [string, preact.ComponentChildren][] = [["time", <time dateTime={s.time}>{moment(s.time)} <small>{s.time}</small></time>], ["kind", s.kind]];
  if (s.user) list.push(["user", s.user], ["database", s.database]);
  if (s.application) list.push(["application", s.application]);
  if (s.client) list.push(["client", s.client]);
  if (s.session) list.push(["session", <a href={href("sessions", { session: s.session, entry: String(s.index) })}>{s.session}</a>]);
  if (o?.duration_us !== undefined) list.push(["took", micros(o.duration_us)]);
  if (o?.tags ?? o?.tag) list.push(["result", (o?.tags ?? [o?.tag]).join(", ")]);
  if (o?.rows) list.push(["rows sent", `${count(o.rows)} (${bytes(o.bytes ?? 0)})`]);
  if (o && o.tag !== undefined) {
    list.push(["transaction", o.committed === true ? "committed" : o.committed === false ? "rolled back" : o.tx === "I" ? "not known" : "not ended when this was read"]);
  }
  if (o?.skipped) list.push(["skipped", "the server ignored it after an earlier error"]);
  if (s.request) list.push(["request", s.request]);
  if (s.messages !== undefined) list.push(["data", `${count(s.messages)} messages, ${bytes(s.bytes ?? 0)}`]);
  if (s.sql) list.push(["class", s.sql.class.join(", ") + (s.sql.complete === false ? " (not all of it was understood)" : "")]);
  if (s.sql?.relations) list.push(["relations", s.sql.relations.map((r) => <><a href={href("search", { relation: r, since: "24h" })}>{visible(r)}</a> </>)]);
  if (s.sql?.fingerprint) list.push(["fingerprint", <a href={href("search", { fingerprint: s.sql.fingerprint, since: "24h" })}>{s.sql.fingerprint}</a>]);
  for (const [k, v] of Object.entries(s.facts ?? {})) list.push([k, v]);
  return list;
}

function Params({ params }: { params: api.Param[] }) {
  return (
    <table class="params">
      <thead><tr><th scope="col">Parameter</th><th scope="col">Type</th><th scope="col">Value</th></tr></thead>
      <tbody>{params.map((v, i) => (
        <tr><td>${i + 1}</td><td title={`sent as ${v.format}`}>{v.type ?? "unknown"}</td>
          <td class="value">{v.value === null ? <em>NULL</em> : v.value === "" ? <em>empty</em> : visible(v.value)}</td></tr>
      ))}</tbody>
    </table>
  );
}

type Verdict = { state: "none" | "checking" } | { state: "ok" | "bad"; evidence: Evidence } | { state: "bad" | "unknown"; why: string };

function Proof({ entry: s, me }: { entry: api.Entry; me: api.Me }) {
  const [v, set] = useState<Verdict>({ state: "none" });
  const watch = useWatch();
  const values = me.role === "investigator";
  const run = async () => {
    set({ state: "checking" });
    try {
      const evidence = await check(s, values, api.proof, api.settlement, await trustedKey());
      set({ state: evidence.claims.some((c) => c.ok === false) ? "bad" : "ok", evidence });
    } catch (e) {
      const why = e instanceof Error ? e.message : String(e);
      set({ state: e instanceof Mismatch ? "bad" : "unknown", why });
    }
  };
  const evidence = "evidence" in v ? v.evidence : undefined;
  const size = evidence?.shown.checkpoint.size ?? watch.size ?? 0;
  return (
    <section class="proof">
      <h3>Proof</h3>
      <div class="verdict" role="status">
        {v.state === "ok" && <p class="ok">✓ Verified in this browser{evidence?.claims.some((c) => c.ok === undefined) ? ", but for what is marked ?" : ""}</p>}
        {v.state === "bad" && <p class="bad">✗ Does not verify{"why" in v ? `: ${v.why}` : ""}</p>}
        {v.state === "unknown" && <p class="wait">Could not be checked: {"why" in v && v.why}</p>}
        {evidence && <ul>{evidence.claims.map((c) => (
          <li class={c.ok === false ? "bad" : c.ok ? "ok" : "wait"}>{c.ok === false ? "✗ Not so: " : c.ok ? "✓ " : "? Not shown by it: "}{c.what}</li>
        ))}</ul>}
      </div>
      <p class="buttons">
        <button class="primary" onClick={run} disabled={v.state === "checking"}>{v.state === "checking" ? "Checking…" : v.state === "none" ? "Check the proof" : "Check again"}</button>
        <a class="button" href={`/api/v1/proof/${s.index}${values && s.leaf.c !== undefined ? "?value=true" : ""}`} download={`${s.index}.tlog-proof`}>Download it</a>
      </p>
      {size > s.index && <Place index={s.index} size={size} evidence={evidence} />}
    </section>
  );
}

/** The way from an entry to the root, with the subtree beside each step. */
function Place({ index, size, evidence }: { index: number; size: number; evidence?: Evidence }) {
  const steps = pathOf(index, size);
  const range = (from: number, end: number) => (end - from === 1 ? `entry ${count(from)}` : `entries ${count(from)}–${count(end - 1)}`);
  const hash = (b?: Uint8Array) => b && <code title={hex(b)}>{hex(b).slice(0, 12)}…</code>;
  return (
    <details class="place" open={steps.length <= 8}>
      <summary>Place in the tree: {count(index)} of {count(size)}, {steps.length} steps below the root</summary>
      <ol reversed>
        <li class="root"><span>root of {count(size)} entries</span>{hash(evidence?.shown.way.at(-1))}</li>
        {steps.map((s, i) => ({ ...s, i })).reverse().map((s) => (
          <li class={s.left ? "left" : "right"}><span>{s.left ? "left" : "right"}: {range(s.from, s.end)}</span>{hash(evidence?.shown.siblings[s.i])}</li>
        ))}
        <li class="leaf"><span>this entry</span>{hash(evidence?.shown.way[0])}</li>
      </ol>
    </details>
  );
}
