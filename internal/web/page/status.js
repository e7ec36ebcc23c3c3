"use strict";

// Asks for the figures once a second and shows them. The rate is the
// difference of two answers, by the server's clock.

const points = 120; // seconds shown in the chart
const rates = [];
let last = null;

const byId = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en").format;

function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

function show(s) {
  for (const el of document.querySelectorAll("[data-f]")) {
    const v = s[el.dataset.f];
    setText(el, v === undefined || v === "" ? "–" : typeof v === "number" ? count(v) : v);
  }
  const now = Date.parse(s.now);
  if (last && last.started === s.started && now > last.now) {
    rates.push((s.statements_total - last.statements) * 1000 / (now - last.now));
    if (rates.length > points) rates.shift();
    setText(byId("rate"), short(rates[rates.length - 1]));
    draw();
  }
  last = { started: s.started, now, statements: s.statements_total };

  const open = s.entries - s.checkpoint_size;
  setText(byId("unsigned"), open > 0 ? count(open) + " not yet signed" : "all signed");
  setText(byId("batch"), s.batch_entries ? s.batch_entries.toFixed(1) : "–");
  const ms = s.commit_us >= 1000;
  setText(byId("commit"), s.commit_us ? (ms ? (s.commit_us / 1000).toFixed(1) : s.commit_us.toFixed(0)) : "–");
  setText(byId("commit-unit"), ms ? "ms" : "µs");
  const [bytes, unit] = size(s.bytes_total);
  setText(byId("bytes"), bytes);
  setText(byId("bytes-unit"), unit);
  setText(byId("signed"), s.checkpoint_time ? span(now - Date.parse(s.checkpoint_time)) + " ago" : "–");
  setText(byId("uptime"), span(now - Date.parse(s.started)));

  state(s.ready ? "ready" : "down", s.ready ? "recording" : "not ready");
  problem(s.problem || "");
}

function state(cls, text) {
  const el = byId("state");
  el.className = "state " + cls;
  setText(el, text);
}

function problem(text) {
  const el = byId("problem");
  el.hidden = text === "";
  setText(el, text);
}

function draw() {
  const top = Math.max(...rates, 1);
  const at = rates.map((r, i) =>
    (points - rates.length + i).toFixed(0) + " " + (30 - 28 * r / top).toFixed(2));
  byId("line").setAttribute("d", "M" + at.join("L"));
  byId("area").setAttribute("d",
    "M" + at.join("L") + "L" + (points - 1) + " 32L" + (points - rates.length) + " 32Z");
}

function short(n) {
  if (n >= 10000) return (n / 1000).toFixed(1) + "k";
  return n >= 10 || n === 0 ? n.toFixed(0) : n.toFixed(1);
}

function size(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return [i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1), units[i]];
}

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + s % 60 + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

async function poll() {
  try {
    const r = await fetch("/api/v1/status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (r.status === 401 || r.status === 403) {
      state("down", "no access");
      problem((await r.json()).error);
    } else if (r.ok) {
      show(await r.json());
    } else {
      throw new Error("HTTP " + r.status);
    }
  } catch {
    state("down", "no answer");
    problem("The proxy does not answer. The figures below are the last ones it gave.");
  }
  setTimeout(poll, 1000);
}

poll();
