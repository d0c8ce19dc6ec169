// A browser as a process, which takes commands as `driver.mjs` does: see there.
//
//   node browser.mjs FOLDER CHROMIUM

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [folder, executablePath] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { chromium } = require("playwright-core");
const { build } = require("esbuild");

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

const script = await build({
  entryPoints: [fileURLToPath(new URL("page.jsx", import.meta.url))],
  bundle: true,
  write: false,
  jsx: "automatic",
  nodePaths: [`${folder}/node_modules`],
  define: { "process.env.NODE_ENV": '"development"' },
});
const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="root"></div><script src="/page.js"></script>`;
const pages = createServer(({ url }, response) => {
  const isScript = url === "/page.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script.outputFiles[0].contents : html);
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
  visit: async ({ server, channel }) => {
    await page.goto(`${address}?${new URLSearchParams({ server, channel })}`);
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
