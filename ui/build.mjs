// node build.mjs [DIR]     builds the page, into ../internal/web/dist unless told
// node build.mjs --check   builds it elsewhere and compares
// node build.mjs --test    builds the tests for node --test, into .test
import { build } from "esbuild";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

process.chdir(import.meta.dirname);
const dist = "../internal/web/dist";

async function page(dir) {
  rmSync(dir, { recursive: true, force: true });
  await build({
    entryPoints: { app: "src/main.tsx" },
    outdir: dir,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["chrome120", "firefox121", "safari17.2"],
    jsx: "automatic",
    jsxImportSource: "preact",
    charset: "utf8",
    legalComments: "eof",
    logLevel: "warning",
  });
  // The proof page is read by people who want to know what it does: not minified.
  await build({
    entryPoints: { proof: "src/proofpage.ts" },
    outdir: dir,
    bundle: true,
    format: "iife",
    globalName: "proofpage",
    target: "es2022",
    charset: "utf8",
    logLevel: "warning",
  });
  for (const file of ["index.html", "icon.svg", "proof.html", "proof.css"]) cpSync(join("src", file), join(dir, file));
}

const arg = process.argv[2] ?? dist;
if (arg === "--test") {
  const tests = readdirSync("test").filter((f) => f.endsWith(".test.ts"));
  rmSync(".test", { recursive: true, force: true });
  await build({
    entryPoints: tests.map((f) => join("test", f)),
    outdir: ".test",
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    jsx: "automatic",
    jsxImportSource: "preact",
    sourcemap: "inline",
    logLevel: "warning",
  });
} else if (arg === "--check") {
  const dir = mkdtempSync(join(tmpdir(), "pgnotary-ui-"));
  await page(dir);
  const names = [...new Set([...readdirSync(dir), ...readdirSync(dist)])];
  const differ = names.filter((f) => {
    try {
      return !readFileSync(join(dir, f)).equals(readFileSync(join(dist, f)));
    } catch {
      return true;
    }
  });
  rmSync(dir, { recursive: true });
  if (differ.length > 0) {
    console.error(`internal/web/dist is not what ui/ builds (${differ.join(", ")}): run npm run build in ui/`);
    process.exit(1);
  }
} else {
  await page(arg);
}
