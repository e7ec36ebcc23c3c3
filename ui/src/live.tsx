// The stream of statements as they come.

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api.ts";
import { count } from "./format.ts";
import { changed, filterOf } from "./query.ts";
import { Rows } from "./rows.ts";
import { Filters, StatementList, type ViewProps } from "./statements.tsx";

const most = 100_000; // rows kept; older ones are found by a search
const sleepAfter = 10_000; // ms without anybody looking

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
    const begun = api.proxyNow() - 2000;
    let away: ReturnType<typeof setTimeout>;
    let asleep = false; // nobody looks
    let over = false;
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
    const connect = (again = false) => {
      const words = new URLSearchParams(filter);
      if (last !== "") {
        words.delete("since");
        words.set("from", String(Number(last) + 1));
      } else if (again && !words.has("since")) words.set("since", new Date(begun).toISOString());
      source = new EventSource("/api/v1/tail?" + words);
      source.onopen = () => setState("streaming");
      source.onmessage = (e) => {
        last = e.lastEventId || last;
        held.current.push(e.data as string);
        frame ||= requestAnimationFrame(draw);
      };
      source.addEventListener("end", () => {
        source.close();
        over = true;
        setState("ended");
      });
      source.onerror = () => {
        setState("connecting");
        if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
        // The browser does not say why: ask.
        api.statements({ ...Object.fromEntries(new URLSearchParams(filter)), limit: "1", from: "0", to: "0" }).catch((e) => {
          if (e instanceof api.Refused && [400, 401, 403].includes(e.code)) {
            over = true;
            setState("refused");
            setProblem(e.message);
          }
        }).then(() => {
          if (!over && !asleep) retry = setTimeout(connect, 2000, true);
        });
      };
    };
    connect();
    // Without TLS a browser opens six connections to a server: pages that nobody looks at must not keep them.
    const look = () => {
      clearTimeout(away);
      if (over) return;
      if (document.hidden) {
        away = setTimeout(() => {
          asleep = true;
          source.close();
          clearTimeout(retry);
          setState("asleep");
        }, sleepAfter);
      } else if (asleep) {
        asleep = false;
        setState("connecting");
        void wake();
      }
    };
    const wake = async () => {
      if (last !== "" && filter === "") { // of what came meanwhile no more than is kept: a statement has two entries
        const entries = await api.status().then((s) => s.entries, () => 0);
        last = String(Math.max(Number(last), entries - 2 * most));
      }
      if (!over && !asleep) connect(true);
    };
    look();
    document.addEventListener("visibilitychange", look);
    const timer = setInterval(() => held.current.length > 0 && draw(), 250);
    return () => {
      over = true;
      source.close();
      clearTimeout(retry);
      clearTimeout(away);
      document.removeEventListener("visibilitychange", look);
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
