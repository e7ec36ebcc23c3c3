// Sessions on a common time axis, and one session with its transactions.

import { useState } from "preact/hooks";
import * as api from "./api.ts";
import { clock, count, many, micros, moment, mood, result, summary, visible, when, who } from "./format.ts";
import { List } from "./list.tsx";
import { useLoad } from "./load.ts";
import { changed, href } from "./query.ts";
import type { ViewProps } from "./statements.tsx";
import { timeline } from "./timeline.ts";

export function Sessions(p: ViewProps) {
  const id = p.query.get("session");
  return id ? <One key={id} {...p} id={id} /> : <All {...p} />;
}

const spans = [["15m", "15 minutes"], ["1h", "hour"], ["6h", "6 hours"], ["24h", "day"], ["168h", "week"]] as const;

function All(p: ViewProps) {
  const since = p.query.get("since") ?? "1h";
  const [find, setFind] = useState("");
  const { value: answer, problem, load } = useLoad(async () => {
    const a = await api.sessions(since);
    return { since: Date.parse(a.since), until: api.proxyNow(), sessions: a.sessions.reverse() };
  }, [since]);
  const shown = answer?.sessions.filter((s) => [s.session, s.user, s.database, s.application, s.client].some((t) => t?.includes(find))) ?? [];
  const open = shown.filter((s) => s.open).length;
  const start = Math.max(answer?.since ?? 0, Math.min(...shown.map((s) => Date.parse(s.begin))));
  const bar = (s: api.Session) => <Bar from={Date.parse(s.begin) - start} to={(s.open ? answer!.until : Date.parse(s.end)) - start} of={answer!.until - start}
    class={s.errors > 0 ? "failed" : s.open ? "open" : ""} />;
  return (
    <section class="view" aria-label="Sessions">
      <form class="filters" role="search" onSubmit={(e) => e.preventDefault()}>
        <label class="field"><span>Active in the last</span>
          <select value={since} onChange={(e) => p.go(changed(p.query, { since: e.currentTarget.value }))}>
            {spans.map(([v, text]) => <option value={v}>{text}</option>)}
          </select></label>
        <label class="field text"><span>User, database, client, application or id</span>
          <input name="find" value={find} placeholder="alice" onInput={(e) => setFind(e.currentTarget.value)} spellcheck={false} autocomplete="off" /></label>
        <div class="buttons"><button type="button" onClick={load}>Reload</button></div>
      </form>
      <div class="bar"><span role="status">{many(shown.length, "session")}, {count(open)} open</span>
        <span class="space" />{shown.length > 0 && answer && <span>{moment(start)} to {moment(answer.until)}</span>}</div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {shown.length > 0 ? (
        <List label="Sessions" length={shown.length}
          columns={[{ name: "Begin", class: "time" }, { name: "User", class: "who" }, { name: "Client", class: "client" }, { name: "Application", class: "app" },
            { name: "Statements", class: "num" }, { name: "Errors", class: "num" }, { name: "Undone", class: "num" }, { name: "Time", class: "span" }]}
          mood={(i) => (shown[i]!.errors > 0 ? "failed" : shown[i]!.rolled_back > 0 ? "undone" : "")}
          cells={(i) => {
            const s = shown[i]!;
            return [<time dateTime={s.begin} title={moment(s.begin)}>{s.connected ? "" : "… "}{when(s.begin)}</time>, who(s) || "not logged in", s.client, visible(s.application ?? ""),
              count(s.statements), s.errors > 0 ? count(s.errors) : "", s.rolled_back > 0 ? count(s.rolled_back) : "", bar(s)];
          }}
          open={(i) => p.go(new URLSearchParams({ session: shown[i]!.session, from: String(shown[i]!.first), since }))} />
      ) : !problem && <p class="empty">{answer ? "No session in this time." : "Reading…"}</p>}
    </section>
  );
}

/** A stretch of a time axis. */
function Bar(p: { from: number; to: number; of: number; class: string }) {
  const part = (ms: number) => `${Math.min(100, Math.max(0, (100 * ms) / Math.max(1, p.of)))}%`;
  return <span class="track"><span class={`stretch ${p.class}`} style={{ left: part(p.from), width: part(p.to - p.from) }} /></span>;
}

const most = 50_000; // statements of a session shown

function One(p: ViewProps & { id: string }) {
  const { value, problem, load } = useLoad(async (signal) => {
    const found = await api.statements({ session: p.id, limit: String(most), from: p.query.get("from") ?? "" }, signal);
    return { first: found[0], n: found.length, lines: timeline(found) };
  }, [p.id]);
  const { first, n = 0, lines } = value ?? {};
  const start = first ? Date.parse(first.time) : 0;
  const finish = lines?.reduce((end, l) => Math.max(end, l.end), start + 1) ?? 0;
  return (
    <section class="view" aria-label="Session">
      <div class="bar title">
        <a href={href("sessions", changed(new URLSearchParams(), { since: p.query.get("since") ?? undefined }))}>← Sessions</a>
        <h2>Session <code>{p.id}</code></h2>
        {first && <span>{[who(first), first.client, visible(first.application ?? "")].filter(Boolean).join(" · ")}</span>}
        <span class="space" />
        <button onClick={load}>Reload</button>
        <a class="button" href={href("search", { session: p.id })}>Search in it</a>
      </div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {lines && first ? <>
        <div class="bar"><span role="status">{count(n)} entries{n < most ? "" : " (the first ones)"}, {many(lines.filter((l) => l.kind === "tx").length, "transaction")} of several statements</span>
          <span class="space" /><span>{moment(start)}, {micros(1000 * (finish - start))}</span></div>
        <List label="Transactions and statements" length={lines.length}
          columns={[{ name: "Time", class: "time" }, { name: "Took", class: "took" }, { name: "Result", class: "result" }, { name: "Statement", class: "text" }, { name: "When", class: "span" }]}
          mood={(i) => {
            const l = lines[i]!;
            return l.kind === "tx" ? `tx ${l.fate}` : `${mood(l.statement)} ${l.fate && `in-tx ${l.fate}`}`;
          }}
          cells={(i) => {
            const l = lines[i]!;
            const bar = <Bar from={l.begin - start} to={l.end - start} of={finish - start} class={l.kind === "statement" && mood(l.statement) === "failed" ? "failed" : l.fate} />;
            if (l.kind === "tx") return [clock(l.begin), micros(1000 * (l.end - l.begin)), fates[l.fate], `Transaction of ${count(l.statements)} statements`, bar];
            const s = l.statement;
            return [<time dateTime={s.time} title={moment(s.time)}>{clock(s.time)}</time>, s.outcome?.duration_us === undefined ? "" : micros(s.outcome.duration_us), result(s), summary(s), bar];
          }}
          current={lines.findIndex((l) => l.kind === "statement" && l.statement.index === p.entry)}
          open={(i) => {
            const l = lines[i]!;
            p.open(l.kind === "tx" ? l.first : l.statement.index);
          }} />
      </> : !problem && <p class="empty">{lines ? "The log has no entries of this session here." : "Reading…"}</p>}
    </section>
  );
}

const fates = { committed: "committed", undone: "rolled back", open: "not ended", unknown: "not known", "": "" };
