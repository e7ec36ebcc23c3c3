// Drives the proof page in Chromium: node proofpage.js URL SCREENSHOT <cases.json.
// A case is {proof, policy}, both base64; prints for each what the page says, as JSON,
// and at last the requests it made, the errors it logged, and what its policy refused.
'use strict';
const { chromium } = require('../../../ui/node_modules/playwright-core');

(async () => {
  const [url, screenshot] = process.argv.slice(2);
  const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await (await browser.newContext({ viewport: { width: 1000, height: 1100 }, offline: url.startsWith('file:') })).newPage();
    const requests = [], errors = [];
    page.on('request', r => requests.push(r.url()));
    page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
    page.on('pageerror', e => errors.push(String(e)));
    await page.goto(url);
    const results = [];
    for (const c of cases) {
      if (c.typed) { // through the controls, as a person does
        await page.fill('#policy', Buffer.from(c.policy, 'base64').toString());
        await page.setInputFiles('#proof-file', { name: 'x.tlog-proof', mimeType: 'text/plain', buffer: Buffer.from(c.proof, 'base64') });
        await page.waitForFunction(() => !document.getElementById('result').hidden);
        await page.waitForTimeout(100);
        results.push(await page.evaluate(() => {
          const r = document.getElementById('result');
          return { valid: r.className === 'valid', text: r.innerText };
        }));
        if (c.shot) await page.screenshot({ path: screenshot, fullPage: true });
      } else {
        results.push(await page.evaluate(async c => {
          const bytes = Uint8Array.from(atob(c.proof), x => x.charCodeAt(0));
          try { await proofpage.check(bytes, new TextDecoder().decode(Uint8Array.from(atob(c.policy), x => x.charCodeAt(0)))); return { valid: true }; } catch (e) { return { valid: false, text: e.message }; }
        }, c));
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
