// Opens a page in Chromium, uses it by mouse and keyboard, and prints what it found as JSON.
// node drive.mjs CHROMIUM PAGE [FOLDER_FOR_SCREENSHOTS]; without the folder it opens the page and no more
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, file, folder] = process.argv.slice(2);
const profile = mkdtempSync(path.join(tmpdir(), "i2i-browser-"));
const address = pathToFileURL(file).href;
const found = { messages: [], requests: [] };

async function open(options) {
  const browser = await chromium.launchPersistentContext(path.join(profile, String(Math.random())), {
    executablePath,
    headless: true,
    viewport: { width: 1000, height: 800 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
    ...options,
  });
  const page = browser.pages()[0] ?? await browser.newPage();
  page.on("console", (message) => found.messages.push(message.text()));
  page.on("pageerror", (error) => found.messages.push(error.message));
  page.on("dialog", (dialog) => { found.messages.push("dialog: " + dialog.message()); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!request.url().startsWith("data:")) found.requests.push(request.url());
  });
  await page.goto(address);
  return [browser, page];
}

const shot = (target, name) => target.screenshot({ path: path.join(folder, name + ".png") });

async function compare(page) {
  const pair = page.locator(".pair").first();
  const at = () => pair.evaluate((element) => getComputedStyle(element.querySelector(".after")).clipPath);
  await pair.scrollIntoViewIfNeeded();
  found.compare = { middle: await at() };
  found.boxes = [await pair.locator(".before").boundingBox(), await pair.locator(".after").boundingBox()];
  await shot(pair, "compare-middle");
  const box = await pair.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.1, box.y + box.height / 2, { steps: 5 });
  await page.mouse.up();
  found.compare.dragged = await at();
  await shot(pair, "compare-dragged");
  await pair.locator("input").focus();
  for (let i = 0; i < 5; i++) await page.keyboard.press("ArrowRight");
  found.compare.pressed = await at();
  await page.keyboard.press("End");
  found.compare.end = await at();
  await shot(pair, "compare-end");
}

async function scrub(page) {
  const range = page.locator(".scrubber input");
  const state = async () => ({
    visible: await page.locator(".grids figure:visible").evaluateAll((all) => all.map((one) => one.dataset.step)),
    said: await range.getAttribute("aria-valuetext"),
  });
  found.scrub = { first: await state() };
  await shot(page.locator(".grids figure:visible"), "grid-last");
  await range.focus();
  await page.keyboard.press("Home");
  found.scrub.home = await state();
  await shot(page.locator(".grids figure:visible"), "grid-first");
  await page.locator(".scrubber button").last().click();
  found.scrub.later = await state();
  const box = await range.boundingBox();
  await page.mouse.click(box.x + box.width - 3, box.y + box.height / 2);
  found.scrub.clicked = await state();
}

async function chart(page) {
  const svg = page.locator("svg[data-points]").first();
  const readout = svg.locator("xpath=..").locator(".readout");
  found.chart = { plain: await readout.textContent() };
  await svg.hover({ position: { x: 60, y: 50 } });
  found.chart.hovered = await readout.textContent();
  await page.mouse.move(0, 0);
  await svg.focus();
  await page.keyboard.press("Home");
  found.chart.home = await readout.textContent();
}

async function use(page) {
  await shot(page, "light");
  await compare(page);
  await scrub(page);
  await chart(page);
  await page.setViewportSize({ width: 360, height: 700 });
  found.phone = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.emulateMedia({ colorScheme: "dark" });
  await shot(page, "dark");
  await page.emulateMedia({ media: "print" });
  found.print = await page.locator("input:visible").count();
  const box = (name) => page.locator(`.pair .${name}`).first().boundingBox();
  found.printed = { before: await box("before"), after: await box("after") };
}

async function withoutScripts() {
  const [browser, page] = await open({ javaScriptEnabled: false });
  found.plain = {
    grids: await page.locator(".grids figure:visible").count(),
    pictures: await page.locator(".pair img:visible").count(),
    lines: await page.locator("svg .line").count(),
    hints: await page.locator(".hint:visible").count(),
    text: await page.locator("#numbers").innerText(),
    ranges: await page.locator("input:visible").count(),
  };
  await shot(page, "plain");
  await browser.close();
}

try {
  const [browser, page] = await open({});
  found.title = await page.title();
  if (folder) {
    await use(page);
    await withoutScripts();
  }
  await browser.close();
  console.log(JSON.stringify(found));
} finally {
  rmSync(profile, { recursive: true, force: true });
}
