// Uses the page of `i2i serve` in Chromium, and prints what it saw as JSON.
// node drive_serve.mjs CHROMIUM ADDRESS FOLDER PICTURE...; screenshots and downloads go to FOLDER
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const [executablePath, address, folder, ...pictures] = process.argv.slice(2);
const profile = mkdtempSync(path.join(tmpdir(), "i2i-browser-"));
const found = { messages: [], requests: [] };

let newest;

async function open(name, scheme = "light") {
  const browser = await chromium.launchPersistentContext(path.join(profile, name), {
    executablePath,
    headless: true,
    acceptDownloads: true,
    colorScheme: scheme,
    viewport: { width: 1280, height: 900 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
  const page = browser.pages()[0] ?? (await browser.newPage());
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && found.messages.push(message.text()));
  page.on("pageerror", (error) => found.messages.push(String(error)));
  page.on("request", (request) => found.requests.push(request.url()));
  newest = page;
  await page.goto(address);
  await page.locator("#go").waitFor({ timeout: 60000 });
  return [browser, page];
}

const shot = (page, name) => page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
const rows = (page) => page.locator("#report tbody tr").evaluateAll((all) =>
  all.map((row) => [...row.cells].map((cell) => cell.textContent)));

async function drop(page, files) {
  await page.locator("#files input[type=file]").setInputFiles(files);
  await page.locator("#files .file-preview, #files table").first().waitFor({ timeout: 60000 });
}

async function translate(page, count) {
  await page.locator("#go").click();
  await page.waitForFunction((expected) => document.querySelectorAll("#report tbody tr").length === expected, count,
    { timeout: 120000 });
}

async function download(page, button, name) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.locator(button).click()]);
  await file.saveAs(path.join(folder, name));
  return file.suggestedFilename();
}

async function paint(page) {
  await page.getByText("Options", { exact: true }).click();
  await page.getByText("Mask: translate a part").click();
  const canvas = page.locator("#mask canvas");
  await canvas.waitFor({ timeout: 60000 });
  await canvas.scrollIntoViewIfNeeded();
  await page.waitForTimeout(500);
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.5);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.5, { steps: 8 });
  await page.mouse.up();
}

async function slide(page) {
  const box = await page.locator("#slider .slider-wrap, #slider").first().boundingBox();
  const cut = () => page.locator("#slider img").evaluateAll((all) => all.map((one) => getComputedStyle(one).clipPath));
  const before = await cut();
  const handle = await page.locator("#slider .outer, #slider [role=slider]").first().boundingBox();
  const from = [handle.x + handle.width / 2, box.y + box.height / 2];
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.2, from[1], { steps: 5 });
  await page.mouse.up();
  return { before, after: await cut() };
}

try {
  const [browser, page] = await open("one");
  await page.waitForFunction(() => document.querySelectorAll("#slider img").length === 2, null, { timeout: 40000 });
  await page.waitForTimeout(500);
  await shot(page, "first");
  await drop(page, pictures);
  await translate(page, pictures.length);
  found.rows = await rows(page);
  await page.waitForTimeout(500);
  await shot(page, "translated");
  found.slider = await slide(page);
  found.one = await download(page, "#one", "one.bin");
  found.zip = await download(page, "#zip", "all.zip");
  await shot(page, "slid");
  const labels = page.locator("#styles label");
  found.styles = await labels.allInnerTexts();
  for (let number = 1; number < found.styles.length; number++) await labels.nth(number).click();
  await translate(page, pictures.length - 1 ? (pictures.length - 1) * found.styles.length + 1 : found.styles.length);
  found.several = await rows(page);
  await page.locator("#gallery .caption-label").nth(found.styles.length).waitFor();
  found.gallery = await page.locator("#gallery .caption-label").allInnerTexts();
  await page.waitForTimeout(500);
  await shot(page, "several");
  found.offered = await page.locator("#mix").isVisible();
  await page.locator("#mix input[type=checkbox]").check();
  await page.locator("#mix .shares input").last().focus();
  for (let step = 0; step < 25; step++) await page.keyboard.press("ArrowLeft");
  found.shares = await page.locator("#mix .shares output").allInnerTexts();
  await translate(page, (pictures.length - 1) * (found.styles.length + 1) + 1);
  found.mixed = await rows(page);
  await page.locator("#gallery .caption-label").nth(found.styles.length + 1).waitFor();
  await page.waitForTimeout(500);
  await shot(page, "mixed");
  found.mixedZip = await download(page, "#zip", "mixed.zip");
  await page.locator("#mix input[type=checkbox]").uncheck();
  for (let number = 1; number < found.styles.length; number++) await labels.nth(number).click();
  await paint(page);
  await page.locator("#go").click();
  await page.waitForFunction(() => document.querySelectorAll("#report tbody tr").length === 2, null, { timeout: 40000 });
  await page.waitForTimeout(500);
  found.masked = await download(page, "#one", "masked.bin");
  await shot(page, "masked");
  await page.setViewportSize({ width: 360, height: 740 });
  found.phone = await page.evaluate(() => document.documentElement.scrollWidth);
  await shot(page, "phone");
  await browser.close();

  const visitors = await Promise.all([open("two"), open("three", "dark")]);
  await Promise.all(visitors.map(([, one], number) => drop(one, [pictures[number % pictures.length]])));
  await Promise.all(visitors.map(([, one]) => translate(one, 1)));
  found.visitors = await Promise.all(visitors.map(([, one]) => rows(one)));
  await shot(visitors[1][1], "dark");
  await Promise.all(visitors.map(([one]) => one.close()));
  console.log(JSON.stringify(found));
} catch (error) {
  console.error(error);
  if (newest && !newest.isClosed()) {
    console.error(await newest.locator(".toast-wrap").allInnerTexts(), await rows(newest));
    await shot(newest, "failure");
  }
  throw error;
} finally {
  rmSync(profile, { recursive: true, force: true });
}
