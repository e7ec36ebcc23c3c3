// How the log is doing: figures and charts from the status, what interrupted
// it, and whether it still fits what this browser saw before.

import { useEffect, useState } from "preact/hooks";
import { type Me, statements, type Status } from "./api.ts";
import { Chart } from "./chart.tsx";
import { bytes, count, many, micros, moment, short, span, summary } from "./format.ts";
import type { History } from "./history.ts";
import { useLoad } from "./load.ts";
import { cosigners } from "./note.ts";
import { href } from "./query.ts";
import { trust, useWatch } from "./watch.ts";

export type Answering = "connecting" | "yes" | "log in" | "no answer";

export function Health({ history: h, answering, me, open }: { history: History; answering: Answering; me?: Me; open: (index: number) => void }) {
  const s = h.last;
  if (!s || answering === "log in") {
    const why = answering === "log in" ? "Here figures are for those with a token." : answering === "no answer" ? "The proxy does not answer." : "Asking the proxy…";
    return <section class="view"><p class="empty">{why}</p></section>;
  }
  const now = Date.parse(s.now);
  const last = (values: (number | null)[], unit: (n: number) => string) => {
    const v = values.findLast((v) => v !== null);
    return v === undefined || v === null ? "–" : unit(v);
  };
  const commits = s.commits.counts.reduce((a, b) => a + b, 0);
  const unsigned = s.entries - s.checkpoint_size;
  return (
    <section class="view health" aria-label="Health" tabIndex={0}>
      {answering === "no answer" && <p class="problem" role="alert">The proxy does not answer. The figures are the last ones it gave.</p>}
      {s.problem && <p class="problem" role="alert">{s.problem}</p>}
      <Trust />
      <div class="charts">
        <Chart title="Statements per second" figure={last(h.statements, short)} times={h.times} unit={short}
          series={[{ label: "statements", color: "--accent-now", values: h.statements }]} />
        <Chart title="Log written per second" figure={last(h.logBytes, bytes)} times={h.times} unit={bytes} powers
          series={[{ label: "bytes", color: "--accent-now", values: h.logBytes }]} />
        <Chart title="Commit latency" figure={last(h.slowest, (v) => "≤ " + micros(v))} times={h.times} unit={micros}
          series={[{ label: "median", color: "--accent-now", values: h.median }, { label: "99 of 100", color: "--wait-now", values: h.slowest }]} />
      </div>
      <div class="tiles">
        <Tile name="Entries" figure={count(s.entries)} note={unsigned > 0 ? `${count(unsigned)} not yet signed` : "all signed"} />
        <Tile name="Last checkpoint" figure={s.checkpoint_time ? ago(now - Date.parse(s.checkpoint_time)) : "none yet"} note={`of ${count(s.checkpoint_size)} entries`} />
        <Tile name="Sessions" figure={count(s.sessions)} note={`${count(s.sessions_total)} since the start, ${count(s.refusals_total)} refused`} />
        <Tile name="Statements" figure={short(s.statements_total)} note={`${bytes(s.bytes_total)} passed since the start`} />
        <Tile name="Log written" figure={bytes(s.log_bytes_total)} note={s.backlog_bytes > 0 ? `${bytes(s.backlog_bytes)} waiting for the disk` : "nothing waits for the disk"} />
        <Tile name="Commits" figure={short(commits)} note={commits > 0 ? `${micros((1e6 * s.commits.sum_s) / commits)} and ${s.batch_entries.toFixed(1)} entries each, mean` : ""} />
      </div>
      <div class="cards">
        <Witnesses status={s} />
        {s.sinks && <article>
          <h2>Sinks</h2>
          <ul>{s.sinks.map((k) => <li>{k.name} <span class={k.lag_s > 60 ? "bad" : "note"}>{k.lag_entries > 0 ? `${many(k.lag_entries, "entry")} behind, ${span(1000 * k.lag_s)}` : "has everything"}</span>
            <span class="note">, {count(k.sent_total)} sent, {many(k.failures_total, "failure")}</span></li>)}</ul>
        </article>}
        <Interruptions status={s} me={me} open={open} />
        <article>
          <h2>This proxy</h2>
          <dl>
            <dt>clients</dt><dd>{s.listen}</dd><dt>server</dt><dd>{s.upstream}</dd><dt>durability</dt><dd>{s.durability}</dd>
            <dt>running for</dt><dd>{span(now - Date.parse(s.started))}</dd><dt>version</dt><dd>{s.version}</dd>
          </dl>
          <p class="links"><a href="/log/checkpoint">checkpoint</a><a href="/log/vkey">verifier key</a><a href="/proof">proof page</a><a href="/metrics">metrics</a><a href="/readyz">readiness</a></p>
        </article>
      </div>
    </section>
  );
}

const ago = (ms: number) => (ms < 3000 ? "just now" : span(ms) + " ago");

function Tile(p: { name: string; figure: string; note: string }) {
  return <article><h2>{p.name}</h2><p class="figure">{p.figure}</p><p class="note">{p.note}</p></article>;
}

/** What this browser knows of the log, and the key it knows it by. */
function Trust() {
  const w = useWatch();
  const [line, setLine] = useState("");
  const [wrong, setWrong] = useState("");
  const take = (key: string) => trust(key).then(() => {
    setLine("");
    setWrong("");
  }, (e) => setWrong(e.message));
  return (
    <article class={`trust ${w.state}`}>
      <h2>Checked by this browser</h2>
      <p class="verdict" role="status">{
        w.state === "fits" ? `✓ The log continues what was signed before: ${count(w.size ?? 0)} entries` :
        w.state === "mismatch" ? `✗ ${w.why}` : w.state === "checking" ? "Checking…" : `Could not be checked: ${w.why}`
      }</p>
      {w.offered && <p class="buttons"><button onClick={() => take(w.offered!)}>Know the log by the new key from now on</button>
        <span class="note">Only if you know why it changed: <code>{w.offered}</code></span></p>}
      {w.key && <details>
        <summary>Key, known {w.since ? "since " + moment(w.since) : ""}</summary>
        <p><code>{w.key}</code></p>
        <p class="note">This browser took it from the server at first. Compare it with the line that was copied when the log was made, or paste that line:</p>
        <form onSubmit={(e) => { e.preventDefault(); void take(line); }}>
          <label class="field"><span>Verifier key you kept</span><input value={line} onInput={(e) => setLine(e.currentTarget.value)} spellcheck={false} autocomplete="off" /></label>
          <button disabled={!line}>Use it</button>
        </form>
        {wrong && <p class="problem" role="alert">{wrong}</p>}
      </details>}
    </article>
  );
}

function Witnesses({ status: s }: { status: Status }) {
  const { checkpoint } = useWatch();
  const [seen, setSeen] = useState<Awaited<ReturnType<typeof cosigners>>>([]);
  useEffect(() => void (checkpoint && cosigners(checkpoint, s.witnesses?.keys ?? []).then(setSeen, () => setSeen([]))), [checkpoint]);
  return (
    <article>
      <h2>Witnesses</h2>
      {s.witnesses && <dl>
        <dt>seen by enough of them</dt><dd>{many(s.witnesses.size, "entry")}</dd>
        <dt>cosignatures</dt><dd>{count(s.witnesses.cosignatures_total)}, {many(s.witnesses.failures_total, "request")} without one</dd>
        <dt>disagreements</dt><dd class={s.witnesses.alarms_total > 0 ? "bad" : ""}>{count(s.witnesses.alarms_total)}</dd>
      </dl>}
      {seen.length > 0 && <ul>{seen.map((x) => (
        <li class={x.ok === false ? "bad" : ""}>{x.ok ? "✓ " : x.ok === false ? "✗ does not verify: " : "? not checked here: "}{x.name} <span class="note">{moment(x.time)}</span></li>
      ))}</ul>}
      {!s.witnesses && seen.length === 0 ? <p class="note">None. Only copies of a checkpoint that others keep show that the log was not rewritten.</p>
        : <p class="note">{seen.some((x) => x.ok !== undefined)
          ? <>✓ is checked in this browser, with the witness keys that this server gives. Whether they are those that you trust, <code>pgnotary verify --policy</code> tells.</>
          : <>As the log says; nothing of it is checked here. <code>pgnotary verify --policy</code> does.</>}</p>}
    </article>
  );
}

const kinds = "gap,recover,violation,prune,hold,erase,start,stop";

function Interruptions({ status: { interruptions: n }, me, open }: { status: Status; me?: Me; open: (index: number) => void }) {
  const reader = me && me.role !== "operator";
  return (
    <article>
      <h2>Gaps and interruptions, last day</h2>
      {n ? <p class={n.gaps > 0 ? "bad" : ""}>{many(n.gaps, "gap")}, {many(n.recoveries, "crash recovery")}, {many(n.violations, "violation")}, {many(n.starts, "start")}</p>
        : <p class="note">Not counted yet.</p>}
      {reader && <Events open={open} />}
    </article>
  );
}

function Events({ open }: { open: (index: number) => void }) {
  const { value, problem } = useLoad((signal) => statements({ kind: kinds, since: "24h", order: "newest", limit: "6" }, signal), []);
  return <>
    {problem && <p class="problem" role="alert">{problem}</p>}
    {value && <ul class="events">{value.map((s) => (
      <li><button class="link" onClick={() => open(s.index)}>{s.kind}</button> <time dateTime={s.time} class="note">{moment(s.time)}</time> <span class="note">{summary(s).slice(0, 80)}</span></li>
    ))}</ul>}
    <p class="links"><a href={href("search", { kind: kinds, since: "24h" })}>All of them</a></p>
  </>;
}
