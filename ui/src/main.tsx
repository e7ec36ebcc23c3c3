// The page: which view is shown, who looks, and the keys that work everywhere.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api.ts";
import { EntryPanel } from "./entry.tsx";
import { type Answering, Health } from "./health.tsx";
import { emptyHistory, extend } from "./history.ts";
import { Live } from "./live.tsx";
import { changed, href, useRoute } from "./query.ts";
import { Search } from "./search.tsx";
import { Sessions } from "./sessions.tsx";
import { useWatch } from "./watch.ts";
import "./style.css";

const views = [["live", "Live"], ["search", "Search"], ["sessions", "Sessions"], ["health", "Health"]] as const;

function App() {
  const route = useRoute();
  const [me, setMe] = useState<api.Me | null>(); // null: nobody
  const [history, setHistory] = useState(emptyHistory);
  const [answering, setAnswering] = useState<Answering>("connecting");
  const help = useRef<HTMLDialogElement>(null);
  const watch = useWatch();

  useEffect(() => {
    api.onExpired(() => setMe(null));
    api.me().then(setMe, () => setMe(null));
  }, []);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    let here = true;
    const poll = async () => {
      try {
        const s = await api.status();
        setHistory((h) => extend(h, s));
        setAnswering("yes");
      } catch (e) {
        const code = e instanceof api.Refused ? e.code : 0;
        setAnswering(code === 401 ? "log in" : "no answer");
      }
      if (here) timer = setTimeout(poll, 1000);
    };
    void poll();
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [me]);

  const view = route.view === "entry" ? "entry" : (views.find(([v]) => v === route.view)?.[0] ?? (me && me.role !== "operator" ? "live" : "health"));
  const shown = route.query.get("entry");
  const entry = shown !== null && /^\d+$/.test(shown) ? Number(shown) : undefined;
  const go = (query: URLSearchParams) => void (location.hash = href(view, query));
  const open = (index: number) => (view === "health" ? void (location.hash = href("entry/" + index)) : go(changed(route.query, { entry: String(index) })));
  const close = () => (view === "entry" ? void (location.hash = href("live")) : go(changed(route.query, { entry: undefined })));

  useEffect(() => {
    const key = (e: KeyboardEvent) => {
      const typing = e.target instanceof HTMLInputElement || e.target instanceof HTMLSelectElement;
      if (e.key === "Escape" && !help.current?.open) {
        if (typing) (e.target as HTMLElement).blur();
        else if (entry !== undefined) return close();
        focusList();
        return;
      }
      if (typing || e.ctrlKey || e.metaKey || e.altKey || help.current?.open || localStorage.getItem("pgnotary.keys") === "off") return;
      const n = Number(e.key);
      if (n >= 1 && n <= views.length) location.hash = href(views[n - 1]![0]);
      else if (e.key === "/") document.querySelector<HTMLElement>(".filters input")?.focus();
      else if (e.key === "?") help.current?.showModal();
      else if (e.key === "p") dispatchEvent(new CustomEvent("pgnotary", { detail: "pause" }));
      else if (e.key === "c") document.querySelector<HTMLElement>(".proof button.primary")?.click();
      else if ((e.key === "j" || e.key === "ArrowDown") && e.target === document.body) focusList();
      else return;
      e.preventDefault();
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  });
  const opened = useRef(false);
  useEffect(() => {
    if (opened.current && entry === undefined) focusList(); // only now it may be there again
    opened.current = entry !== undefined;
  }, [entry]);
  useEffect(() => void (document.title = `${entry !== undefined ? `Entry ${entry} · ` : ""}${views.find(([v]) => v === view)?.[1] ?? "Entry"} · pgnotary`), [view, entry]);

  const state = answering === "yes" ? (history.last?.ready ? "ready" : "down") : answering === "no answer" ? "down" : "waiting";
  const props = { query: route.query, go, open, entry };
  const reader = me && me.role !== "operator" ? me : undefined;
  return (
    <div class="page">
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to content</a>
      <header class="top">
        <img src="/icon.svg" alt="" width="28" height="28" />
        <div class="name"><h1>pgnotary</h1><p>{history.last?.origin}</p></div>
        <nav aria-label="Views">{views.map(([v, name]) => <a href={href(v)} aria-current={v === view ? "page" : undefined}>{name}</a>)}</nav>
        <span class="space" />
        {watch.state === "mismatch" && <a class="dot down" href={href("health")}>does not verify</a>}
        {watch.state === "fits" && <a class="dot ready" href={href("health")} title={`${watch.size} entries continue what this browser saw before`}>verified</a>}
        <span class={`dot ${state}`} role="status">{state === "ready" ? "recording" : answering === "yes" ? "not ready" : answering}</span>
        {me && <span class="me"><span>{me.name}</span> <small>{me.role}</small> <button onClick={() => api.logout().finally(() => setMe(null))}>Log out</button></span>}
        <button onClick={() => help.current?.showModal()} aria-label="Keys" title="Keys (?)">?</button>
      </header>
      <main id="main" tabIndex={-1} class={entry !== undefined && reader ? `with-entry ${view}` : view}>
        {view === "health" ? <>
          {me === null && <Login done={setMe} />}
          <Health history={history} answering={answering} me={me ?? undefined} open={open} />
        </>
          : me === undefined ? <p class="empty">…</p>
          : me === null ? <Login done={setMe} />
          : !reader ? <p class="empty">Entries are for the roles auditor and investigator. This token's is {me.role}.</p>
          : view === "live" ? <Live {...props} me={reader} />
          : view === "search" ? <Search {...props} me={reader} kept={history.last?.interruptions} />
          : view === "sessions" ? <Sessions {...props} me={reader} /> : null}
        {entry !== undefined && reader && <EntryPanel index={entry} me={reader} close={close} />}
      </main>
      <Help dialog={help} />
    </div>
  );
}

const focusList = () => document.querySelector<HTMLElement>(".list")?.focus();

function Login({ done }: { done: (me: api.Me) => void }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const send = (e: Event) => {
    e.preventDefault();
    api.login(token.trim()).then(done, (e) => setProblem(e.message));
  };
  return (
    <form class="login" onSubmit={send} aria-label="Log in">
      <h2>Log in to see entries</h2>
      <input name="username" autocomplete="username" value="pgnotary" hidden readOnly />
      <label class="field"><span>Token</span>
        <input type="password" name="token" value={token} onInput={(e) => setToken(e.currentTarget.value)} placeholder="pgn_…" autocomplete="current-password" required /></label>
      <button class="primary">Log in</button>
      {problem && <p class="problem" role="alert">{problem}</p>}
      <p class="note">Without tokens of your own there is one in the file <code>token</code> of the data directory;
        <code> pgnotary token</code> makes others. Each look at entries is recorded.</p>
    </form>
  );
}

const keys = [["1 – 4", "live, search, sessions, health"], ["/", "to the filters"], ["j k ↓ ↑", "along the list; also Page up and down, Home, End"], ["Enter", "open the entry"],
  ["c", "check its proof"], ["Esc", "close it, back to the list"], ["p", "pause the stream"], ["?", "these keys"]] as const;

function Help({ dialog }: { dialog: preact.RefObject<HTMLDialogElement | null> }) {
  const [off, setOff] = useState(localStorage.getItem("pgnotary.keys") === "off");
  return (
    <dialog ref={dialog} aria-labelledby="keys">
      <h2 id="keys">Keys</h2>
      <dl>{keys.map(([k, what]) => <><dt><kbd>{k}</kbd></dt><dd>{what}</dd></>)}</dl>
      <label><input type="checkbox" checked={!off} onChange={(e) => {
        setOff(!e.currentTarget.checked);
        localStorage.setItem("pgnotary.keys", e.currentTarget.checked ? "on" : "off");
      }} /> Use single keys</label>
      <form method="dialog"><button class="primary">Close</button></form>
    </dialog>
  );
}

render(<App />, document.getElementById("app")!);
