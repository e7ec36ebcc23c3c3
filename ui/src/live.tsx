// The stream of statements as they come.

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api.ts";
import { count } from "./format.ts";
import { changed, filterOf } from "./query.ts";
import { Rows } from "./rows.ts";
import { Filters, StatementList, type ViewProps } from "./statements.tsx";

const most = 100_000; // rows kept; older ones are found by a search

export function Live(p: ViewProps) {
  const rows = useRef(new Rows());
  const [, redraw] = useState(0);
  const [state, setState] = useState("connecting");
  const [problem, setProblem] = useState("");
  const [paused, setPaused] = useState(false);
  const [follow, setFollow] = useState(true);
  const held = useRef<string[]>([]);
  const pausedNow = useRef(false);
  pausedNow.current = paused;
  const filter = filterOf(p.query).toString();

  useEffect(() => {
    rows.current = new Rows();
    held.current = [];
    setFollow(true);
    setProblem("");
    let frame = 0;
    let last = ""; // id up to which everything came
    let retry: ReturnType<typeof setTimeout>;
    let source: EventSource;
    const draw = () => {
      frame = 0;
      if (!pausedNow.current) {
        for (const line of held.current) rows.current.add(line);
        held.current = [];
        if (rows.current.length > most * 1.1) rows.current.keep(most);
      } else if (held.current.length > most) held.current.splice(0, held.current.length - most);
      redraw((n) => n + 1);
    };
    const connect = () => {
      const words = new URLSearchParams(filter);
      if (last !== "") {
        words.delete("since");
        words.set("from", String(Number(last) + 1));
      }
      source = new EventSource("/api/v1/tail?" + words);
      source.onopen = () => setState("streaming");
      source.onmessage = (e) => {
        last = e.lastEventId || last;
        held.current.push(e.data as string);
        frame ||= requestAnimationFrame(draw);
      };
      source.addEventListener("end", () => {
        source.close();
        setState("ended");
      });
      source.onerror = () => {
        setState("connecting");
        if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
        // The browser does not say why: ask.
        api.statements({ ...Object.fromEntries(new URLSearchParams(filter)), limit: "1", from: "0", to: "0" }).catch((e) => {
          if (e instanceof api.Refused && [400, 401, 403].includes(e.code)) {
            setState("refused");
            setProblem(e.message);
            return "refused";
          }
        }).then((end) => end !== "refused" && (retry = setTimeout(connect, 2000)));
      };
    };
    connect();
    const timer = setInterval(() => held.current.length > 0 && draw(), 250);
    return () => {
      source.close();
      clearTimeout(retry);
      clearInterval(timer);
      cancelAnimationFrame(frame);
    };
  }, [filter]);

  useEffect(() => {
    const key = (e: Event) => void setPaused((was) => ((e as CustomEvent).detail === "pause" ? !was : was));
    addEventListener("pgnotary", key);
    return () => removeEventListener("pgnotary", key);
  }, []);

  const n = rows.current.length;
  return (
    <section class="view" aria-label="Live">
      <Filters query={p.query} me={p.me} apply={p.go} action="Filter" without={["until", "to", "from"]} />
      <div class="bar">
        <span class={`dot ${paused ? "waiting" : state === "streaming" ? "ready" : state === "refused" ? "down" : "waiting"}`}>
          {paused ? `paused, ${count(held.current.length)} more` : state}
        </span>
        <span>{count(n)} shown</span>
        <span class="space" />
        {!follow && !paused && <button onClick={() => setFollow(true)}>Go to the newest</button>}
        <button aria-pressed={paused} onClick={() => setPaused(!paused)}>{paused ? "Continue" : "Pause"}</button>
      </div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {n > 0 ? <StatementList label="Statements as they come" rows={rows.current} entry={p.entry} follow={follow && !paused} onFollow={setFollow}
        open={(i) => p.open(rows.current.at(i).index)} />
        : !problem && <div class="empty">
          <p>Statements appear here as they are recorded{filter ? ", if they pass the filter" : ""}.</p>
          {!p.query.has("since") && <p><button onClick={() => p.go(changed(p.query, { since: "15m" }))}>Begin 15 minutes ago</button></p>}
        </div>}
    </section>
  );
}
