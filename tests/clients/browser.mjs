// A browser as a process, which takes commands as `driver.mjs` does: see there.
//
//   node browser.mjs FOLDER CHROMIUM [SITE]
//
// It shows what `page.jsx` makes, or the files of the folder SITE.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [folder, executablePath, site] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { chromium } = require("playwright-core");
const { build } = require("esbuild");

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function bundled() {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("page.jsx", import.meta.url))],
    bundle: true,
    write: false,
    jsx: "automatic",
    nodePaths: [`${folder}/node_modules`],
    define: { "process.env.NODE_ENV": '"development"' },
  });
  const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="root"></div><script src="/page.js"></script>`;
  const files = { "/index.html": html, "/page.js": outputFiles[0].contents };
  return (name) => files[name];
}

const file = site === undefined ? await bundled() : (name) => readFile(join(site, name));
const types = { ".css": "text/css", ".html": "text/html", ".js": "text/javascript" };
const pages = createServer(async ({ url }, response) => {
  const { pathname } = new URL(url, "http://page");
  const name = pathname === "/" ? "/index.html" : pathname;
  response.setHeader("Content-Type", types[extname(name)]);
  response.end(await file(name));
});
await new Promise((listening) => pages.listen(0, "127.0.0.1", listening));
const address = `http://127.0.0.1:${pages.address().port}/`;

// Chromium itself would look for its maker's servers.
const args = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage();
page.on("pageerror", (error) => say({ uncaught: error.stack ?? String(error) }));
page.on("console", (message) => say({ log: message.text() }));

const commands = {
  visit: async (parameters) => {
    await page.goto(`${address}?${new URLSearchParams(parameters)}`);
  },
  fill: ({ selector, text }) => page.fill(selector, text),
  click: ({ selector }) => page.click(selector),
  evaluate: ({ expression }) => page.evaluate(expression),
  until: async ({ expression }) => (await page.waitForFunction(expression)).jsonValue(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...parameters } = JSON.parse(line);
  try {
    say({ id, value: (await commands[command](parameters)) ?? null });
  } catch (error) {
    say({ id, error: { message: error.message } });
  }
}
await browser.close();
process.exit();
