// The page in a real Chromium, against a running pgnotary. internal/e2e starts
// both: PAGE_URL, PAGE_INVESTIGATOR and PAGE_AUDITOR (tokens) say where and as
// whom. The workload is that of page_test.go there, with a statement
// `SELECT 'tick N'` every tenth of a second. Pictures go to PAGE_PICTURES, if set.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { after, afterEach, before, test } from "node:test";
import process from "node:process";
import { chromium } from "playwright-core";

const { PAGE_URL: base, PAGE_INVESTIGATOR: investigator, PAGE_AUDITOR: auditor, PAGE_PICTURES: pictures } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// How long it waits for what has to come: no test passes slower by it.
const patience = { timeout: 120_000 };

let browser;
let contexts = [];
before(async () => {
  browser = await chromium.launch({
    ...patience,
    executablePath: "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});
after(() => browser.close());
afterEach(async () => {
  for (const c of contexts) {
    for (const p of c.pages()) await p.unrouteAll({ behavior: "ignoreErrors" }); // of requests that are under way
    await c.close();
  }
  contexts = [];
});

/** A page at an address; whatever it asks of others, or does against its policy, fails the test. */
async function visit(t, hash, { url = base, token = investigator, colorScheme = "light", viewport = { width: 1280, height: 800 }, setUp } = {}) {
  const context = await browser.newContext({ colorScheme, viewport });
  contexts.push(context);
  const page = await context.newPage();
  context.setDefaultTimeout(patience.timeout);
  const faults = [];
  page.on("request", (r) => r.url().startsWith(url + "/") || faults.push("request of " + r.url()));
  page.on("pageerror", (e) => faults.push(e.stack ?? e.message));
  page.on("console", (m) => /Content Security Policy|Trusted/i.test(m.text()) && faults.push(m.text()));
  t.after(() => assert.deepEqual(faults, []));
  if (token) assert.equal((await page.request.post(url + "/api/v1/login", { data: { token }, ...patience })).status(), 200);
  await setUp?.(page);
  await page.goto(`${url}/${hash}`);
  return page;
}

/** Another address of the page, once it is drawn: of two at once it would see the second only. */
async function go(page, hash) {
  await page.goto(`${base}/${hash}`);
  const view = /^#\/(\w+)/.exec(hash)[1];
  if (view !== "entry") await page.locator(`nav a[aria-current=page][href="#/${view}"]`).waitFor();
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((v) => v.impact === "serious" || v.impact === "critical");
  assert.deepEqual(bad.map((v) => `${what}: ${v.id}: ${v.nodes[0].html}: ${v.nodes[0].failureSummary}`), []);
}

const row = (page, text) => page.locator(".rows .row", { hasText: text }).first();
const verdict = (page) => page.locator(".proof .verdict");
const picture = async (page, name) => {
  if (!pictures) return;
  await page.mouse.move(0, 0); // off what it would light up
  await page.screenshot({ path: `${pictures}/${name}.png` });
};
const verified = (page) => verdict(page).getByText("✓ Verified in this browser", { exact: true }).waitFor();

test("without a token there is health only", async (t) => {
  const page = await visit(t, "#/live", { token: "" });
  await page.getByRole("heading", { name: "Log in to see entries" }).waitFor();
  await accessible(page, "login");
  await page.getByLabel("Token").fill("pgn_wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("the token is not known").waitFor();
  assert.equal(await page.locator(".row").count(), 0);
  await page.getByRole("link", { name: "Health" }).click();
  await page.getByText("✓ The log continues what was signed before").waitFor();
  await page.getByText("0 gaps, ").waitFor();
  assert.equal(await page.locator(".events").count(), 0);
  await page.setViewportSize({ width: 1280, height: 700 });
  const [main, health] = await page.evaluate(() => ["main", ".view.health"].map((s) => document.querySelector(s)).map((e) => e.scrollHeight - e.clientHeight));
  assert.ok(main > 0 && health <= 0, "the page scrolls, not a part of it");
  await accessible(page, "health without a login");
  await page.getByLabel("Token").fill(investigator);
  await page.keyboard.press("Enter");
  await page.locator(".events").waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Token").waitFor();
});

test("statements appear as they come", async (t) => {
  const page = await visit(t, "#/live");
  await row(page, "SELECT 'tick").waitFor();
  const last = () => page.locator(".rows .row").last().textContent();
  const was = await last();
  await page.waitForFunction((was) => [...document.querySelectorAll(".rows .row")].at(-1)?.textContent !== was, was);
  await page.keyboard.press("p");
  await page.getByText(/paused, \d+ more/).waitFor();
  const paused = await last();
  await page.getByText(/paused, ([3-9]|\d\d+) more/).waitFor();
  assert.equal(await last(), paused);
  await page.keyboard.press("p");
  await page.waitForFunction((was) => [...document.querySelectorAll(".rows .row")].at(-1)?.textContent !== was, paused);

  await go(page, "#/live?since=1h&user=nobody");
  await page.getByText("Statements appear here as they are recorded, if they pass the filter.").waitFor();
  await go(page, "#/live?regex=(");
  await page.getByRole("alert").getByText("regex").waitFor();
});

test("the stream goes on after the connection broke", async (t) => {
  const sockets = new Set();
  let away = false;
  const between = createServer((client) => {
    if (away) return client.on("error", () => {}).destroy();
    const server = connect(Number(new URL(base).port), "127.0.0.1");
    for (const [from, to] of [[client, server], [server, client]]) {
      sockets.add(from.on("error", () => to.destroy()).on("close", () => to.destroy()));
      from.pipe(to);
    }
  });
  await new Promise((r) => between.listen(0, "127.0.0.1", r));
  t.after(() => between.close());
  const page = await visit(t, "#/live?text=tick", { url: `http://127.0.0.1:${between.address().port}` });
  await row(page, "SELECT 'tick").waitFor();
  const shown = async () => (await page.locator(".rows .row .text").allTextContents()).map((s) => Number(/tick (\d+)/.exec(s)?.[1]));
  away = true;
  for (const s of sockets) s.destroy();
  await page.getByText("connecting").waitFor();
  const before = (await shown()).at(-1);
  away = false;
  await page.getByText("streaming").waitFor();
  await page.waitForFunction((n) => Number(/tick (\d+)/.exec([...document.querySelectorAll(".rows .row .text")].at(-1)?.textContent)?.[1]) > n + 5, before);
  const numbers = await shown();
  assert.ok(numbers.length > 1);
  numbers.forEach((n, i) => assert.equal(n, numbers[0] + i, `none is missing and none comes twice: ${numbers}`));
});

test("a search is its address", async (t) => {
  const page = await visit(t, "#/search?user=alice&sqlstate=42501&since=1h");
  await row(page, "DELETE FROM accounts").waitFor();
  await page.getByRole("status").getByText(/^1 found/).waitFor();
  assert.equal(await page.getByLabel("User").inputValue(), "alice");
  assert.equal(await page.getByLabel("SQLSTATE").inputValue(), "42501"); // the other filters are open
  await page.getByRole("button", { name: "Clear" }).click();
  await page.getByLabel("Text contains").fill("<img");
  await page.keyboard.press("Enter");
  await row(page, "<img src=x onerror=alert(1)>").waitFor();
  assert.match(page.url(), /#\/search\?text=%3Cimg$/);
  await page.goBack();
  await page.goBack();
  await row(page, "DELETE FROM accounts").waitFor();
  await go(page, "#/search?text=accounts&since=1h");
  await row(page, "DELETE FROM accounts").waitFor();
  const indexes = () => page.locator(".rows .row .index").allTextContents().then((all) => all.map(Number));
  const newest = await indexes();
  await page.getByRole("button", { name: "Newest first" }).click();
  await page.getByRole("button", { name: "Oldest first" }).waitFor();
  await page.waitForFunction((i) => document.querySelector(".rows .row .index")?.textContent === String(i), newest.at(-1));
  assert.deepEqual(await indexes(), newest.toReversed());
  assert.deepEqual(newest, newest.toSorted((a, b) => b - a));
  // Times may be those of a clock that was set back.
  await page.getByLabel("Read every entry").check();
  await page.waitForURL(/all=true/);
  const download = page.getByRole("link", { name: "Download" });
  await page.waitForFunction(() => document.querySelector("a[download]")?.href.includes("all=true"));
  assert.ok((await download.getAttribute("href")).includes("since=20"), "the times count as before");
  assert.deepEqual(await indexes(), newest.toReversed());
  await go(page, "#/search?user=alice");
  await row(page, "DELETE FROM accounts").waitFor();
  assert.equal(await page.getByLabel("Read every entry").count(), 0); // nothing is looked for by time
  await go(page, `#/search?text=${encodeURIComponent("no such text 'Ö'")}`);
  await page.getByText("Nothing in the log passes these filters.").waitFor();
  await page.route("**/api/v1/status", async (route) => {
    const answer = await route.fetch(patience);
    const status = await answer.json();
    await route.fulfill({ response: answer, json: { ...status, interruptions: { ...status.interruptions, first_entry: 10, first_value: 20 } } });
  });
  await page.getByText("Texts and parameters before entry 20 were pruned").waitFor();
  await go(page, "#/search?user=nobody");
  await page.getByText("Entries before 10 were pruned.").waitFor();
  await page.unroute("**/api/v1/status");
  // A day as people write it is fixed when it is asked for, so that the address says the same elsewhere.
  await page.getByLabel("Since").fill("2026-01-30 22:15");
  await page.keyboard.press("Enter");
  await page.waitForURL(/since=2026-01-\d\dT\d\d%3A\d\d%3A00\.000Z/);
  await go(page, "#/search?sqlstate=any&since=1h");
  await row(page, "DELETE FROM accounts").waitFor();
  assert.equal(await page.locator(".rows .row:not(.failed)").count(), 0);
  await go(page, "#/search?since=yesterday");
  await page.getByRole("alert").getByText("since").waitFor();
});

test("the keys lead from a search to a proof and back", async (t) => {
  const page = await visit(t, "#/search?text=balance+*&kind=execute");
  await row(page, "UPDATE accounts").waitFor();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.name), "text");
  await page.keyboard.press("Escape");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  const panel = page.locator("aside.entry");
  await panel.getByText("UPDATE accounts SET balance").first().waitFor();
  await panel.getByRole("cell", { name: "1000000" }).waitFor();
  assert.match(page.url(), /entry=\d+/);
  await page.keyboard.press("c");
  await verified(page);
  const claims = await verdict(page).locator("li").allTextContents();
  assert.equal(claims.length, 6);
  for (const c of claims) assert.match(c, /^✓ /);
  assert.match(claims[5], /It was rolled back, as entry \d+ says/);
  await accessible(page, "entry");
  await page.keyboard.press("Escape");
  await panel.waitFor({ state: "detached" });
  await page.keyboard.press("3");
  await page.getByRole("grid", { name: "Sessions" }).waitFor();
  await page.keyboard.press("?");
  await page.getByRole("heading", { name: "Keys" }).waitFor();
  await page.getByLabel("Use single keys").uncheck();
  await page.keyboard.press("Escape");
  await page.keyboard.press("4");
  await page.getByRole("grid", { name: "Sessions" }).waitFor();
});

test("an entry can be printed", async (t) => {
  const page = await visit(t, "#/search?text=balance+*&kind=execute");
  await row(page, "UPDATE accounts").click();
  await page.locator("aside.entry .details").waitFor();
  const panel = page.locator("aside.entry");
  await page.setViewportSize({ width: 800, height: 300 });
  await page.emulateMedia({ media: "print" });
  const whole = () => page.evaluate(() => [...document.querySelectorAll("main, aside.entry, .details")].every((e) => e.scrollHeight <= e.clientHeight + 1));
  assert.ok(await whole(), "nothing of it is out of sight");
  assert.equal(await page.locator(".list").isVisible(), false);
  assert.equal(await panel.getByRole("button").count(), 0);
  await page.emulateMedia({ media: "screen" });
  await page.setViewportSize({ width: 1600, height: 800 });
  // An entry on its own is a column, at the top.
  await go(page, `#/entry/${/entry=(\d+)/.exec(page.url())[1]}`);
  await panel.getByText("UPDATE accounts").first().waitFor();
  const box = await panel.boundingBox();
  const main = await page.locator("main").boundingBox();
  assert.ok(box.width < 1000 && Math.abs(box.y - main.y) < 2, JSON.stringify([box, main]));
});

test("the keys do without a list in a narrow window", async (t) => {
  const page = await visit(t, "#/search?text=balance+*&kind=execute", { viewport: { width: 800, height: 600 } });
  await row(page, "UPDATE accounts").waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.locator("aside.entry .details").waitFor();
  assert.equal(await page.locator(".list").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "ASIDE");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.ariaLabel), "Close");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.matches(".list"));
  await page.keyboard.press("Enter"); // the row it was
  await page.locator("aside.entry .details").waitFor();
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.activeElement.matches(".list"));
});

test("every entry of the workload verifies", async (t) => {
  const page = await visit(t, "#/search?to=60");
  await page.locator(".rows .row").nth(10).waitFor();
  const answer = await page.request.get(`${base}/api/v1/search?to=60`, patience);
  const entries = (await answer.text()).trim().split("\n").map((l) => JSON.parse(l));
  assert.ok(new Set(entries.map((e) => e.kind)).size >= 7);
  for (const e of entries) {
    const begun = Date.now();
    await go(page, `#/entry/${e.index}`);
    await page.getByRole("button", { name: "Check the proof" }).click();
    await verdict(page).locator("p").waitFor();
    const text = await verdict(page).innerText();
    // What was committed may stand in an entry further on.
    assert.ok(text.startsWith("✓ Verified in this browser") && !text.replace(/^\? Not shown by it: It was.*$/m, "").includes("\n?"), `entry ${e.index}, ${e.kind}: ${text}`);
    await page.waitForTimeout(Math.max(0, begun + 250 - Date.now())); // below the limit on requests
  }
});

test("an answer that was tampered with does not verify", async (t) => {
  const page = await visit(t, "#/search?text=balance+*&kind=execute");
  await row(page, "UPDATE accounts").click();
  await page.getByRole("button", { name: "Check the proof" }).click();
  await verified(page);
  const hash = page.url().slice(base.length + 1);
  const index = /entry=(\d+)/.exec(hash)[1];

  const tampered = async (path, change, want) => {
    await page.route(path, async (route) => {
      const answer = await route.fetch(patience);
      await route.fulfill({ response: answer, body: change(await answer.text()) });
    });
    await go(page, "#/health");
    await go(page, hash);
    await page.getByRole("button", { name: "Check the proof" }).click();
    await page.locator(".verdict .bad").first().waitFor();
    const text = await verdict(page).innerText();
    assert.match(text, /^✗ Does not verify/);
    assert.match(text, want);
    assert.equal(await page.getByText("✓ Verified").count(), 0);
    await page.unroute(path);
  };
  const extra = (file, change) => file.replace(/extra (\S+)/, (_, b64) => {
    const x = JSON.parse(Buffer.from(b64, "base64"));
    change(x);
    return "extra " + Buffer.from(JSON.stringify(x)).toString("base64");
  });
  const swap = (b64, a, b) => Buffer.from(Buffer.from(b64, "base64").toString("latin1").replace(a, b), "latin1").toString("base64");
  const ours = new RegExp(`/api/v1/proof/${index}(\\?|$)`);
  const entry = `**/api/v1/entry/${index}`;
  const json = (change) => (body) => {
    const e = JSON.parse(body);
    change(e);
    return JSON.stringify(e);
  };
  await tampered(ours, (f) => extra(f, (x) => (x.leaf = swap(x.leaf, "alice", "mallo"))), /not in the tree/);
  await tampered(ours, (f) => extra(f, (x) => (x.value = swap(x.value, "alice", "mallo"))), /not the one the entry commits to/);
  await tampered(ours, (f) => f.replace(/\n(\d+)\n(\S+)\n\n/, (m, n, root) => `\n${Number(n) + 1}\n${root}\n\n`), /signature/);
  await tampered("**/api/v1/proof/*?value=true", (f) => extra(f, (x) => (x.value = swap(x.value, "UPDATE", "SELECT"))), /not the one the entry commits to/);
  await tampered(entry, json((e) => (e.statement = "SELECT 1")), /Not so: The text/);
  await tampered(entry, json((e) => (e.user = "mallory")), /Not so: When, who/);
  await tampered(entry, json((e) => (e.params[0].raw = "AAAA")), /Not so: The parameters/);
  await tampered(entry, json((e) => (e.outcome.tag = "UPDATE 2")), /Not so: The result/);
  await tampered(entry, json((e) => (e.outcome.committed = true)), /Not so: It was committed/);
  await tampered(entry, json((e) => (e.outcome.index -= 3)), /Not so: The result/);
});

test("a log that was rewritten or has another key shows", async (t) => {
  // The page looks every 5 s, which nobody has to wait for.
  const page = await visit(t, "#/health", { setUp: (page) => page.clock.install() });
  const soon = () => page.clock.fastForward(5000);
  await page.getByText("✓ The log continues what was signed before").waitFor();
  const old = await (await page.request.get(base + "/log/checkpoint", patience)).text();
  await page.locator(".events").waitFor();
  await soon();
  await page.waitForFunction((n) => {
    const kept = JSON.parse(localStorage.getItem("pgnotary.log"));
    return kept.size > n;
  }, Number(old.split("\n")[1]));
  await page.route("**/log/checkpoint", (r) => r.fulfill({ body: old }));
  await soon();
  await page.getByText(/✗ the log had \d+ entries and now has \d+/).waitFor();
  await page.getByRole("link", { name: "does not verify" }).waitFor();
  await page.unroute("**/log/checkpoint");
  await soon();
  await page.getByText("✓ The log continues what was signed before").waitFor();
  const key = await (await page.request.get(base + "/log/vkey", patience)).text();
  await page.route("**/log/vkey", (r) => r.fulfill({ body: key.replace(/\+[0-9a-f]{8}\+/, "+00000000+") }));
  await soon();
  await page.getByText("✗ The server gives another key than the one this browser knows.").waitFor();
  await page.getByText("Only if you know why it changed").waitFor();
  await accessible(page, "mismatch");
});

test("a proxy that is not ready, or does not answer, shows", async (t) => {
  const page = await visit(t, "#/health");
  await page.getByText("recording").waitFor();
  await page.route("**/api/v1/status", async (route) => {
    const answer = await route.fetch(patience);
    const sinks = [{ name: "siem", next: 1, lag_entries: 1200, lag_s: 90, sent_total: 5, failures_total: 1 }];
    const witnesses = { size: 12, cosignatures_total: 3, failures_total: 1, alarms_total: 2 };
    await route.fulfill({ response: answer, json: { ...(await answer.json()), ready: false, problem: "the disk is full", sinks, witnesses } });
  });
  await page.getByText("not ready", { exact: true }).waitFor();
  await page.getByRole("alert").getByText("the disk is full").waitFor();
  await page.getByText("1,200 entries behind, 1 min 30 s").waitFor();
  await page.getByText("12 entries", { exact: true }).waitFor();
  await accessible(page, "not ready");
  await picture(page, "not-ready");
  await page.unroute("**/api/v1/status");
  await page.route("**/api/v1/status", (r) => r.abort());
  await page.getByRole("alert").getByText("The proxy does not answer.").waitFor();
  await page.unroute("**/api/v1/status");
  await page.getByText("recording").waitFor();
});

test("sessions and their transactions are time lines", async (t) => {
  const page = await visit(t, "#/sessions");
  await page.getByLabel("User, database, client, application or id").fill("alice");
  await page.getByRole("status").getByText("1 session,").waitFor();
  await row(page, "alice@postgres").click();
  await row(page, "Transaction of 3 statements").waitFor();
  assert.match(await row(page, "Transaction of 3 statements").getAttribute("class"), /tx undone/);
  await row(page, "Transaction of 4 statements").waitFor();
  assert.match(await row(page, "Transaction of 4 statements").getAttribute("class"), /tx committed/);
  const bars = await page.locator(".rows .stretch").evaluateAll((all) => all.map((b) => b.getBoundingClientRect().width));
  assert.ok(bars.length > 5 && bars.every((w) => w >= 1));
  await accessible(page, "session");
  await page.setViewportSize({ width: 1280, height: 620 });
  await picture(page, "session");
});

test("a clock that is behind hides nothing", async (t) => {
  const page = await visit(t, "#/search?text=tick&since=5m", { setUp: (page) => page.clock.setSystemTime(Date.now() - 600_000) });
  await row(page, "SELECT 'tick").waitFor();
});

test("a request that is one too many is asked again", async (t) => {
  const page = await visit(t, "#/health");
  await page.locator(".events").waitFor();
  let asked = 0;
  await page.route("**/api/v1/search?*", (route) =>
    ++asked < 3 ? route.fulfill({ status: 429, headers: { "Retry-After": "1" }, json: { error: "more than 20 requests a second" } }) : route.continue());
  await go(page, "#/search?sqlstate=42501&since=1h");
  await row(page, "DELETE FROM accounts").waitFor();
  assert.equal(asked, 3);
});

test("an auditor sees no texts and checks proofs all the same", async (t) => {
  const page = await visit(t, "#/search?user=alice&kind=execute", { token: auditor });
  await row(page, "UPDATE 1").click();
  await page.getByText("The text is for investigators").waitFor();
  assert.equal(await page.getByText("UPDATE accounts").count(), 0);
  assert.equal(await page.getByLabel("Text contains").count(), 0);
  await page.getByRole("button", { name: "Check the proof" }).click();
  await verified(page);
});

test("a million statements", async (t) => {
  const page = await visit(t, "#/health", { setUp: (page) => page.addInitScript(() => {
    const real = globalThis.fetch;
    globalThis.fetch = (path, init) => {
      if (!String(path).startsWith("/api/v1/search?") || !String(path).includes("million")) return real(path, init);
      if (String(path).includes("to=")) return Promise.resolve(new Response(""));
      let i = 0;
      return Promise.resolve(new Response(new ReadableStream({
        pull(c) {
          if (i === 1e6) return c.close();
          let s = "";
          for (const end = i + 5000; i < end; i++) {
            s += `{"index":${2e6 - 2 * i},"time":"2026-11-26T01:32:27.105626658Z","session":"d0da6aafa53340b1","user":"alice","database":"postgres","application":"demo","client":"127.0.0.1:44838","kind":"execute","statement":"SELECT number ${i} FROM t WHERE id = $1","params":[{"type":"int4","format":"binary","value":"2","raw":"AAAAAg=="}],"outcome":{"index":${2e6 - 2 * i + 1},"tag":"SELECT 1","rows":1,"bytes":26,"duration_us":395,"tx":"I","committed":true}}\n`;
          }
          c.enqueue(new TextEncoder().encode(s));
        },
      })));
    };
  }) });
  const begin = Date.now();
  await go(page, "#/search?text=million");
  await page.getByText("1,000,000 so far found").waitFor({ timeout: 600_000 });
  const read = Date.now();
  await page.locator(".list").focus();
  await page.keyboard.press("End");
  await row(page, "SELECT number 999999 FROM").waitFor();
  const end = Date.now();
  await page.locator(".list").evaluate((el) => (el.scrollTop = el.scrollHeight / 2));
  await row(page, /SELECT number (499|500)\d\d\d FROM/).waitFor();
  assert.ok((await page.locator(".rows .row").count()) < 100);
  const frame = await page.locator(".list").evaluate(async (el) => {
    const times = [];
    for (let i = 0; i < 60; i++) {
      el.scrollTop = ((i * 7919) % 60) / 60 * el.scrollHeight;
      const was = performance.now();
      await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
      times.push(performance.now() - was);
    }
    return times.sort((a, b) => a - b)[30];
  });
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.locator(".list").getAttribute("aria-rowcount"), "1000001");
  t.diagnostic(`read in ${read - begin} ms, to the end in ${end - read} ms, a jump of the scroll bar is drawn in ${frame.toFixed(1)} ms (median, two frames)`);
});

for (const colorScheme of ["light", "dark"]) {
  test(`all views are accessible in ${colorScheme}`, async (t) => {
    const page = await visit(t, "#/live?since=1h", { colorScheme });
    await row(page, "SELECT 'tick").waitFor();
    await accessible(page, "live");
    await go(page, "#/search?user=alice");
    await row(page, "DELETE FROM accounts").waitFor();
    await accessible(page, "search");
    await row(page, "UPDATE 1 · undone").click();
    await page.getByRole("button", { name: "Check the proof" }).click();
    await verified(page);
    await accessible(page, "entry");
    await page.setViewportSize({ width: 1340, height: 1080 });
    await picture(page, `page-${colorScheme}`);
    await page.setViewportSize({ width: 1280, height: 800 });
    await go(page, "#/sessions");
    await row(page, "alice@postgres").waitFor();
    await accessible(page, "sessions");
    await go(page, "#/health");
    await page.locator("canvas").nth(2).waitFor();
    await page.getByText("0 gaps").waitFor();
    await accessible(page, "health");
    if (pictures) await page.waitForTimeout(20_000);
    await picture(page, `health-${colorScheme}`);
    await page.keyboard.press("?");
    await page.getByRole("heading", { name: "Keys" }).waitFor();
    await accessible(page, "keys");
  });
}

test("a narrow window", async (t) => {
  const page = await visit(t, "#/search?user=alice", { viewport: { width: 380, height: 700 } });
  await row(page, "ERROR 42501").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 380);
  await row(page, "ERROR 42501").click();
  await page.getByText("permission denied for table accounts").waitFor();
  await picture(page, "narrow");
  // As narrow as WCAG has it: nothing lies over anything else.
  await page.setViewportSize({ width: 320, height: 700 });
  const [name, dot] = await Promise.all([".top h1", ".top .dot"].map((s) => page.locator(s).first().boundingBox()));
  assert.ok(name.x + name.width <= dot.x || name.y + name.height <= dot.y, JSON.stringify([name, dot]));
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
});
