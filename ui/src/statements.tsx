// Statements in a list, and the form that selects them.

import { useState } from "preact/hooks";
import type { Me } from "./api.ts";
import { micros, moment, mood, result, summary, when, who } from "./format.ts";
import { type Column, List, type ListProps } from "./list.tsx";
import { changed, type Field, fields, instant } from "./query.ts";
import type { Rows } from "./rows.ts";

/** What each view of entries is given. */
export type ViewProps = { query: URLSearchParams; me: Me; go: (q: URLSearchParams) => void; open: (index: number) => void; entry?: number };

const columns: Column[] = [
  { name: "Index", class: "index" },
  { name: "Time", class: "time" },
  { name: "User", class: "who" },
  { name: "Took", class: "took" },
  { name: "Result", class: "result" },
  { name: "Statement", class: "text" },
];

export function StatementList(p: { rows: Rows } & Pick<ListProps, "label" | "open" | "follow" | "onFollow" | "onEnd"> & { entry?: number }) {
  const { rows, entry, ...rest } = p;
  const current = entry === undefined ? undefined : rows.find(entry);
  return (
    <List {...rest} columns={columns} length={rows.length} current={current}
      mood={(i) => mood(rows.at(i))}
      cells={(i) => {
        const s = rows.at(i);
        const us = s.outcome?.duration_us;
        return [
          s.index, <time dateTime={s.time} title={moment(s.time)}>{when(s.time)}</time>, who(s),
          us === undefined ? "" : micros(us), result(s), summary(s),
        ];
      }} />
  );
}

/** The form of filters; it changes nothing before it is sent. */
export function Filters(p: { query: URLSearchParams; me: Me; apply: (q: URLSearchParams) => void; without?: string[]; action: string }) {
  const [words, setWords] = useState<Record<string, string>>({});
  const value = (f: Field) => words[f.name] ?? p.query.get(f.name) ?? "";
  const usable = fields.filter((f) => !p.without?.includes(f.name) && (!f.content || p.me.role === "investigator"));
  const more = usable.filter((f) => !f.main);
  const [open, setOpen] = useState(more.some((f) => p.query.get(f.name)));
  const input = (f: Field) => (
    <label key={f.name} class={`field ${f.name} ${value(f) ? "set" : ""}`}>
      <span>{f.label}</span>
      <input name={f.name} value={value(f)} placeholder={f.hint} list={f.choices && `choices-${f.name}`} spellcheck={false} autocomplete="off"
        onInput={(e) => setWords({ ...words, [f.name]: e.currentTarget.value })} />
      {f.choices && <datalist id={`choices-${f.name}`}>{f.choices.map((c) => <option value={c} />)}</datalist>}
    </label>
  );
  const send = (e: Event) => {
    e.preventDefault();
    const times = Object.fromEntries(["since", "until"].filter((n) => words[n]).map((n) => [n, instant(words[n]!, n === "until")]));
    p.apply(changed(p.query, { ...words, ...times, entry: undefined }));
    setWords({});
  };
  const clear = () => {
    p.apply(changed(p.query, { ...Object.fromEntries(fields.map((f) => [f.name, undefined])), all: undefined }));
    setWords({});
  };
  return (
    <form class={open ? "filters open" : "filters"} role="search" onSubmit={send}>
      {usable.filter((f) => f.main).map(input)}
      <div class="buttons">
        <button class="primary">{p.action}</button>
        <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Fewer" : "More"} filters</button>
        {fields.some((f) => p.query.get(f.name)) && <button type="button" onClick={clear}>Clear</button>}
      </div>
      {open && <div class="more">{more.map(input)}</div>}
    </form>
  );
}
