// Serves folders that `i2i export --web` wrote, and uses their pages in one Chromium:
//   node drive_site.mjs CHROMIUM
// Each line of the input is a visit, [SITE, ACTIONS] as JSON; ACTIONS is a list of [name, value]; see `actions`.
// Prints for each, as a line of JSON, what the page did, or an `error`. No visitor has anything of the one before.
import { cpSync, createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

let site, server, address, page, found;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".txt": "text/plain",
  ".json": "application/json", ".jpg": "image/jpeg", ".png": "image/png", ".wasm": "application/wasm" };

const answer = (request, response) => {
  const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname).replace(/\/$/, "/index.html");
  const file = path.join(site, name);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream",
    "Cache-Control": "max-age=600", "Last-Modified": statSync(file).mtime.toUTCString() });
  return createReadStream(file).pipe(response);
};

const status = () => page.locator("#status").textContent();
const settled = () => page.waitForFunction(() => document.querySelector("#pair").getAttribute("aria-busy") === "false");
const forget = () => page.evaluate(() => { document.querySelector("#status").textContent = ""; });
const translated = async () => {
  await page.waitForFunction(() => document.querySelector("#progress").hidden
    && /pixels|not translated|no picture/.test(document.querySelector("#status").textContent));
  return status();
};
const clip = () => page.locator("#pair .after").evaluate((element) => getComputedStyle(element).clipPath);

const actions = {
  async open() {
    await page.goto(address);
    await page.waitForSelector("body[data-ready]");
    await page.waitForFunction(() => document.querySelector("#status").textContent);
    return status();
  },
  async choose(file) {
    await forget();
    await page.locator("#file").setInputFiles(file);
    return translated();
  },
  async style(name) {
    await page.getByRole("radio", { name, exact: true }).check({ force: true });
    await settled();
    return status();
  },
  async strength(percent) {
    await page.locator("#strength").fill(String(percent));
    await settled();
  },
  async mix(shares) {
    await page.locator("#mix").setChecked(Boolean(shares));
    for (const [name, share] of Object.entries(shares ?? {})) {
      await page.getByRole("slider", { name: `Share of ${name}`, exact: true }).fill(String(share));
    }
    await settled();
    return status();
  },
  async keep(value) {
    await page.locator("#part").evaluate((part) => { part.open = true; });
    await page.locator(`#keep [value="${value}"]`).check();
    await settled();
  },
  async mask(file) {
    await page.locator("#mask").setInputFiles(file);
    await page.waitForFunction(() => /white parts|expected|no picture/.test(document.querySelector("#status").textContent));
    await settled();
    return status();
  },
  // Paints a line; its ends are shares of the width and the height.
  async paint([from, to]) {
    await page.locator("#part").evaluate((part) => { part.open = true; });
    await page.locator("#paint").click();
    const box = await page.locator("#pair").boundingBox();
    const [start, end] = [from, to].map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
    await page.mouse.move(...start);
    await page.mouse.down();
    await page.mouse.move(...end, { steps: 8 });
    await page.mouse.up();
    await settled();
  },
  async unmask() {
    await page.locator("#unmask").click();
    await settled();
  },
  async save(file) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save").click()]);
    await download.saveAs(file);
    return download.suggestedFilename();
  },
  async divide(keys) {
    const box = await page.locator("#pair").boundingBox();
    const seen = [await clip()];
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.1, box.y + box.height / 2, { steps: 5 });
    await page.mouse.up();
    seen.push(await clip());
    await page.locator("#divider").focus();
    for (const key of keys) await page.keyboard.press(key);
    return [...seen, await clip()];
  },
  async camera() {
    await page.locator("#camera").click();
    await page.waitForFunction(() => document.querySelector("video").videoWidth > 0);
    await forget();
    await page.locator("#shoot").click();
    return translated();
  },
  async kept() {
    await page.waitForFunction(() => document.querySelector("#offline").textContent);
  },
  async stop() {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  },
  async view([width, height, scheme]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
    return page.evaluate(() => document.documentElement.scrollWidth);
  },
  async shot(file) { await page.screenshot({ path: file, fullPage: true }); },
  async visit(name) {
    await page.goto(address + name);
    return page.evaluate(() => document.body.textContent);
  },
  async back() {
    await page.goBack();
    await page.waitForSelector("body[data-ready]");
  },
  async put(folder) { cpSync(folder, site, { recursive: true }); },
  async evaluate(code) { return page.evaluate(code); },
};

async function act(list) {
  for (const [name, value] of list) {
    try {
      found.results.push(await actions[name](value) ?? null);
    } catch (error) {
      throw new Error(`${name} ${value ?? ""}: ${error.message}\n${await status()}\n${found.messages.join("\n")}`);
    }
  }
}

const browser = await chromium.launch({
  executablePath: process.argv[2],
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"],
});
for await (const line of createInterface({ input: process.stdin })) {
  let list;
  [site, list] = JSON.parse(line);
  found = { messages: [], requests: [], results: [] };
  server = createServer(answer);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${server.address().port}/`;
  const visitor = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["camera"] });
  visitor.setDefaultTimeout(100_000);
  page = await visitor.newPage();
  page.on("console", (message) => found.messages.push(message.text()));
  page.on("pageerror", (error) => found.messages.push(error.message));
  visitor.on("request", (request) => found.requests.push(request.url()));
  await act(list).catch((error) => { found = { error: error.message }; });
  await visitor.close();
  server.closeAllConnections();
  server.close();
  console.log(JSON.stringify(found));
}
await browser.close();
