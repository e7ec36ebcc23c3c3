// Drives the proof page in Chromium: node proofpage.js URL SCREENSHOT <cases.json.
// A case is {proof, policy}, both base64; prints for each what the page says, as JSON,
// and at last the requests it made, the errors it logged, and what its policy refused.
'use strict';
const { chromium } = require('../../../ui/node_modules/playwright-core');

(async () => {
  const [url, screenshot] = process.argv.slice(2);
  const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const browser = await chromium.launch({
    timeout: 120_000,
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await (await browser.newContext({ viewport: { width: 1000, height: 1100 }, offline: url.startsWith('file:') })).newPage();
    page.setDefaultTimeout(120_000);
    const requests = [], errors = [];
    page.on('request', r => requests.push(r.url()));
    page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
    page.on('pageerror', e => errors.push(String(e)));
    await page.goto(url);
    const results = [];
    const forget = () => page.evaluate(() => { document.getElementById('verdict').textContent = ''; });
    const verdict = () => page.waitForFunction(() => !document.getElementById('result').hidden && document.getElementById('verdict').textContent !== '');
    let proof = false; // one is there: another policy has it checked again
    for (let i = 0; i < cases.length;) {
      const c = cases[i];
      if (c.typed) { // through the controls, as a person does
        i++;
        await forget();
        await page.fill('#policy', Buffer.from(c.policy, 'base64').toString());
        if (proof) await verdict();
        await forget();
        await page.setInputFiles('#proof-file', { name: 'x.tlog-proof', mimeType: 'text/plain', buffer: Buffer.from(c.proof, 'base64') });
        await verdict();
        proof = true;
        results.push(await page.evaluate(() => {
          const r = document.getElementById('result');
          return { valid: r.className === 'valid', text: r.innerText };
        }));
        if (c.shot) await page.screenshot({ path: screenshot, fullPage: true });
      } else {
        const end = cases.findIndex((c, j) => j > i && c.typed);
        const some = cases.slice(i, end < 0 ? cases.length : end);
        i += some.length;
        results.push(...await page.evaluate(async some => {
          const bytes = s => Uint8Array.from(atob(s), x => x.charCodeAt(0));
          const found = [];
          for (const c of some) {
            try { await proofpage.check(bytes(c.proof), new TextDecoder().decode(bytes(c.policy))); found.push({ valid: true }); } catch (e) { found.push({ valid: false, text: e.message }); }
          }
          return found;
        }, some));
      }
    }
    const ownErrors = errors.splice(0);
    // What the policy of the page forbids: a request, and a script of somebody else.
    await page.evaluate(() => fetch('data:text/plain,x').catch(() => {}));
    const injected = await page.evaluate(() => {
      const s = document.createElement('script');
      s.textContent = 'window.injected = true';
      document.body.append(s);
      return window.injected === true;
    });
    console.log(JSON.stringify({ results, requests, errors: ownErrors, refused: errors, injected }));
  } finally {
    await browser.close();
  }
})().catch(e => { console.error(e); process.exit(1); });
