// Search: statements of the past that pass the filters in the address.

import { useEffect, useRef, useState } from "preact/hooks";
import { proxyNow, search, type Status } from "./api.ts";
import { count } from "./format.ts";
import { changed, fields, filterOf, href, pinned } from "./query.ts";
import { Rows } from "./rows.ts";
import { Filters, StatementList, type ViewProps } from "./statements.tsx";

// Statements asked for at once: the end of the list asks for as many again.
const [leastAsked, mostAsked] = [2_000, 100_000];

export function Search(p: ViewProps & { kept?: Status["interruptions"] }) {
  const rows = useRef(new Rows());
  const running = useRef<AbortController>(null);
  const [, redraw] = useState(0);
  const [state, setState] = useState<"idle" | "reading" | "more" | "done" | "stopped">("idle");
  const [problem, setProblem] = useState("");
  const [copied, setCopied] = useState(false);
  const asked = useRef(new URLSearchParams());
  const filter = filterOf(p.query).toString();
  const newest = p.query.get("order") !== "log";
  const all = p.query.get("all") === "true";

  const read = (behind?: number) => {
    const stop = new AbortController();
    running.current = stop;
    setState("reading");
    const before = rows.current.length;
    const limit = Math.min(Math.max(before, leastAsked), mostAsked);
    let frame = 0;
    const progress = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        redraw((n) => n + 1);
      });
    };
    const words = changed(asked.current, { limit: String(limit), ...(behind !== undefined && (newest ? { to: String(behind - 1) } : { from: String(behind + 1) })) });
    search(words, rows.current, stop.signal, progress).then(
      () => setState(rows.current.length - before >= limit && !(newest && rows.current.at(rows.current.length - 1).index === 0) ? "more" : "done"),
      (e) => {
        if (running.current !== stop) return;
        setState(stop.signal.aborted ? "stopped" : "done");
        if (!stop.signal.aborted) setProblem(e.message);
      },
    );
  };
  useEffect(() => {
    rows.current = new Rows();
    setProblem("");
    setCopied(false);
    // Times that count back from now must not move on from one page to the next.
    asked.current = filterOf(pinned(new URLSearchParams(filter || "since=1h"), proxyNow()));
    if (newest) asked.current.set("order", "newest");
    if (all) asked.current.set("all", "true");
    read();
    return () => running.current?.abort();
  }, [filter, newest, all]);

  const next = () => read(rows.current.at(rows.current.length - 1).index);
  const copy = () => {
    const address = new URL(href("search", changed(asked.current, { order: newest ? undefined : "log" })), location.href);
    navigator.clipboard.writeText(address.href).then(() => setCopied(true), () => prompt("Address of this search", address.href));
  };
  const n = rows.current.length;
  return (
    <section class="view" aria-label="Search">
      <Filters query={p.query} me={p.me} apply={p.go} action="Search" />
      <div class="bar">
        <span role="status">{count(n)}{state === "more" || state === "reading" || state === "stopped" ? " so far" : ""} found{filter ? "" : " in the last hour"}</span>
        {state === "reading" && <button onClick={() => running.current?.abort()}>Stop</button>}
        {(state === "more" || state === "stopped") && <button onClick={next} disabled={n === 0}>{newest ? "Older" : "Later"}</button>}
        <span class="space" />
        {(all || !filter || p.query.has("since") || p.query.has("until")) && <label class="check" title="Times say where in the log to look. What was recorded while the clock was set back can be missed so: read every entry instead.">
          <input type="checkbox" checked={all} onChange={(e) => p.go(changed(p.query, { all: e.currentTarget.checked ? "true" : undefined }))} /> Read every entry
        </label>}
        <button onClick={() => p.go(changed(p.query, { order: newest ? "log" : undefined }))} title="Change the order">{newest ? "Newest first ↓" : "Oldest first ↑"}</button>
        {n > 0 && <>
          <button onClick={copy}>{copied ? "Copied" : "Copy address"}</button>
          <a class="button" href={"/api/v1/search?" + asked.current} download="pgnotary.jsonl">Download</a>
        </>}
      </div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {n > 0 ? <StatementList label="Statements found" rows={rows.current} entry={p.entry} open={(i) => p.open(rows.current.at(i).index)}
        onEnd={state === "more" ? next : undefined} />
        : state === "reading" ? <p class="empty">Reading…</p>
        : !problem && <p class="empty">Nothing in the log passes these filters.{pruned(p.query, p.kept)}</p>}
    </section>
  );
}

/** That nothing is found where nothing is left is no answer. */
function pruned(query: URLSearchParams, kept: Status["interruptions"]): string {
  const from = Number(query.get("from") ?? 0);
  if (fields.some((f) => f.content && query.get(f.name)) && kept && kept.first_value > Math.max(kept.first_entry, from)) {
    return ` Texts and parameters before entry ${count(kept.first_value)} were pruned: nothing there is found by them.`;
  }
  return kept && kept.first_entry > from ? ` Entries before ${count(kept.first_entry)} were pruned.` : "";
}
