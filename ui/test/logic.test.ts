import assert from "node:assert/strict";
import { test } from "node:test";
import type { Statement, Status } from "../src/api.ts";
import { concat, toBase64, utf8 } from "../src/bytes.ts";
import { frames, parameters, statementText } from "../src/evidence.ts";
import { bytes, many, micros, moment, mood, result, short, span, summary, visible, when, who } from "../src/format.ts";
import { emptyHistory, extend, quantile } from "../src/history.ts";
import { changed, duration, fields, filterOf, href, instant, parseRoute, pinned } from "../src/query.ts";
import { Rows } from "../src/rows.ts";
import { timeline } from "../src/timeline.ts";

test("rows come in pieces of any size", () => {
  const lines = Array.from({ length: 50 }, (_, i) => JSON.stringify({ index: i, statement: `SELECT 'ü${"x".repeat(i)}'` }) + "\n");
  const all = utf8(lines.join(""));
  for (const size of [1, 2, 7, 100, all.length]) {
    const rows = new Rows();
    for (let i = 0; i < all.length; i += size) rows.append(all.subarray(i, i + size));
    assert.equal(rows.length, 50);
    for (const i of [0, 1, 25, 48, 49]) assert.deepEqual(rows.at(i), JSON.parse(lines[i]!));
  }
});

test("old rows are forgotten", () => {
  const rows = new Rows();
  for (let i = 0; i < 100; i++) rows.add(`{"index":${i}}`);
  rows.at(3);
  rows.keep(10);
  assert.equal(rows.length, 10);
  assert.equal(rows.at(0).index, 90);
  rows.add('{"index":100}');
  assert.equal(rows.at(10).index, 100);
  rows.keep(1000);
  assert.equal(rows.length, 11);
});

test("addresses", () => {
  const text = `it's 100% "A&B" = ? # ü`;
  const route = parseRoute(href("search", { text, entry: "7" }));
  assert.equal(route.view, "search");
  assert.equal(route.query.get("text"), text);
  assert.equal(filterOf(route.query).toString(), new URLSearchParams({ text }).toString());
  assert.equal(parseRoute("#/entry/42").query.get("entry"), "42");
  assert.equal(parseRoute("").view, "");
  assert.equal(changed(route.query, { text: undefined, user: "a" }).toString(), "entry=7&user=a");
  assert.equal(new Set(fields.map((f) => f.name)).size, fields.length);
});

test("times that count back become fixed", () => {
  const now = Date.parse("2026-11-26T12:00:00Z");
  assert.equal(duration("1h30m"), 5_400_000);
  assert.equal(duration("1.5s"), 1500);
  assert.equal(duration("30d"), 30 * 86_400_000);
  for (const bad of ["", "5", "m", "1x", "-1h", "1h "]) assert.equal(duration(bad), undefined, bad);
  const q = pinned(new URLSearchParams("since=15m&user=a"), now);
  assert.equal(q.toString(), "since=2026-11-26T11%3A45%3A00.000Z&user=a&until=2026-11-26T12%3A00%3A00.000Z");
  assert.equal(pinned(q, now + 1000).toString(), q.toString());
  assert.equal(pinned(new URLSearchParams("to=5"), now).toString(), "to=5");
  assert.match(pinned(new URLSearchParams("since=99999999999h"), now).toString(), /^since=99999999999h&/);
});

test("figures", () => {
  assert.deepEqual([0, 7, 0.123, 999, 1234, 5.6e6].map(short), ["0", "7", "0.12", "999", "1.23k", "5.60M"]);
  assert.deepEqual([0, 1023, 1024, 1.5 * 2 ** 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
  assert.deepEqual([0, 999, 1000, 12_345, 1.5e6, 6e7].map(micros), ["0 µs", "999 µs", "1.00 ms", "12.3 ms", "1.50 s", "1 min 0 s"]);
  assert.deepEqual([0, 61_000, 3_600_000, 90_000_000].map(span), ["0 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
  assert.deepEqual([many(1, "gap"), many(0, "recovery"), many(1234, "start")], ["1 gap", "0 recoveries", "1,234 starts"]);
});

const statement = (s: Partial<Statement>): Statement => ({ index: 0, time: "2026-11-26T12:00:00Z", kind: "query", ...s });

test("times that no calendar has", () => {
  assert.equal(moment(1000 * 2 ** 53), "no time that a calendar has");
  assert.match(moment(0), /^19/);
});

test("what cannot be seen is shown", () => {
  assert.equal(visible("a\u202eb\u0000\u001b[31m\u009b\u200b\r\n\tc\rd\u2028é漢"), "a\\u202eb\\u0000\\u001b[31m\\u009b\\u200b\r\n\tc\\u000dd\\u2028é漢");
  const s = { index: 1, time: "2026-01-02T00:00:00Z", kind: "query", user: "rtl\u202egnp", database: "d", statement: "SELECT\r\n  1\u202e" + "x".repeat(1e6) };
  assert.equal(who(s), "rtl\\u202egnp@d");
  assert.ok(summary(s).startsWith("SELECT 1\\u202exx") && summary(s).length < 3000);
});

test("days of other years", () => {
  const now = new Date();
  const at = (year: number) => new Date(year, now.getMonth(), now.getDate(), 3, 4, 5);
  assert.equal(when(at(now.getFullYear()).toISOString()), "03:04:05.000");
  assert.match(when(at(now.getFullYear() - 1).toISOString()), new RegExp(`^${now.getFullYear() - 1}-\\d\\d-\\d\\d$`));
});

test("times as people write them", () => {
  const local = (...at: [number, number, number, number?, number?, number?, number?]) => new Date(...at).toISOString();
  assert.equal(instant("2026-01-30", false), local(2026, 0, 30));
  assert.equal(instant("2026-01-30", true), local(2026, 0, 30, 23, 59, 59, 999));
  assert.equal(instant(" 2026-01-30 22:15 ", false), local(2026, 0, 30, 22, 15));
  assert.equal(instant("2026-01-30 9:15", false), local(2026, 0, 30, 9, 15));
  assert.equal(instant("2026-01-30T22:15:07.5", true), local(2026, 0, 30, 22, 15, 7, 500));
  for (const s of ["15m", "2026-01-30T22:15:00Z", "2026-13-01", "yesterday", ""]) assert.equal(instant(s, false), s);
});

test("what stands out", () => {
  const o = { index: 1 };
  for (const [s, want, word] of [
    [{ outcome: { ...o, tag: "SELECT 1" } }, "", "SELECT 1"],
    [{ outcome: { ...o, tags: ["A", "B", "C"] } }, "", "A +2"],
    [{ outcome: { ...o, tag: "UPDATE 1", committed: false } }, "undone", "UPDATE 1 · undone"],
    [{ outcome: { ...o, error: { sqlstate: "42501", message: "" } } }, "failed", "ERROR 42501"],
    [{ outcome: { ...o, tag: "SELECT 1", duration_us: 2e6 } }, "slow", "SELECT 1"],
    [{ outcome: { ...o, skipped: true } }, "undone", "skipped"],
    [{}, "", "no end yet"],
    [{ kind: "gap" }, "failed", "gap"],
  ] as [Partial<Statement>, string, string][]) {
    assert.equal(mood(statement(s)), want, word);
    assert.equal(result(statement(s)), word);
  }
  assert.equal(summary(statement({ statement: " SELECT\n\t1 " })), "SELECT 1");
  assert.equal(summary(statement({ kind: "notice", facts: { read: "search", reader: "bob" }, request: "/api/v1/search?user=alice" })), "bob: /api/v1/search?user=alice");
});

test("statements in transactions", () => {
  const s = (index: number, tx: "I" | "T" | "E" | undefined, committed?: boolean, kind = "query") => statement({ index, kind, outcome: tx && { index, tx, committed } });
  const lines = timeline([
    s(1, undefined, undefined, "connect"), s(2, "I", true), // alone
    s(3, "T", true), s(4, "T", undefined, "parse"), s(5, "T", true), s(6, "I", true), // committed
    s(7, "T", false), s(8, "E", false), s(9, "I", false), // rolled back
    s(10, "T"), s(11, "T"), // not ended
  ]);
  assert.deepEqual(lines.map((l) => (l.kind === "tx" ? `${l.fate}:${l.statements}` : l.statement.index)),
    [1, 2, "committed:3", 3, 4, 5, 6, "undone:3", 7, 8, 9, "open:2", 10, 11]);
  const cut = timeline([s(1, "T"), s(2, undefined, undefined, "disconnect")]);
  assert.deepEqual(cut.map((l) => (l.kind === "tx" ? l.fate : l.statement.index)), ["unknown", 1, 2]);
  assert.deepEqual(timeline([]), []);
});

test("latencies and rates are differences", () => {
  const status = (now: string, statements: number, counts: number[]) =>
    ({ started: "s", now, statements_total: statements, log_bytes_total: 10 * statements, commits: { bounds_s: [0.001, 0.01], counts, sum_s: 0 } }) as Status;
  let h = extend(emptyHistory, status("2026-11-26T12:00:00Z", 10, [1, 1, 1]));
  assert.equal(h.times.length, 0);
  h = extend(h, status("2026-11-26T12:00:02Z", 30, [100, 2, 1]));
  assert.deepEqual([h.statements[0], h.logBytes[0], h.median[0], h.slowest[0]], [10, 100, 1000, 1000]);
  assert.equal(extend(h, status("2026-11-26T12:00:02Z", 30, [])), h);
  assert.equal(quantile([1], [0, 0], 0.5), null);
  assert.equal(quantile([0.001, 0.01], [1, 0, 1], 0.99), 20_000);
});

test("messages in values", () => {
  const message = (type: string, body: Uint8Array) => {
    const b = concat(utf8(type), new Uint8Array(4), body);
    new DataView(b.buffer).setUint32(1, body.length + 4);
    return b;
  };
  const bind = concat(utf8("portal\0name\0"), Uint8Array.of(0, 1, 0, 1, 0, 2, 255, 255, 255, 255, 0, 0, 0, 2, 65, 66, 0, 0));
  const value = concat(message("P", utf8("name\0SELECT $1, $2\0\0\0")), message("B", bind), message("E", utf8("\0\0\0\0\0")));
  assert.deepEqual(frames(value).map((f) => f.type), ["P", "B", "E"]);
  assert.equal(statementText(value), "SELECT $1, $2");
  assert.deepEqual(parameters(value), [null, toBase64(utf8("AB"))]);
  for (let n = 0; n < value.length; n++) {
    frames(value.slice(0, n)); // ends, and throws nothing
    parameters(message("B", bind.slice(0, Math.min(n, bind.length))));
    statementText(value.slice(0, n));
  }
  assert.equal(parameters(message("B", bind.slice(0, -3))), undefined);
  assert.equal(statementText(message("Q", Uint8Array.of(0xff, 0))), undefined);
});
