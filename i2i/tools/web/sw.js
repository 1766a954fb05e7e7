// Keeps the page, the runtime, and the networks that were used, so that all work without a network connection.
// i2i fills in the two names below. Another version is another cache, which the page has when it is loaded again.

const VERSION = "$version";
const FILES = $files;
const NAME = `i2i ${registration.scope} ${VERSION}`;

// "no-cache" asks the server whether its copy is newer: a kept file is never older than this one.
const keep = async (files) => {
  const cache = await caches.open(NAME);
  for (const file of files) {
    if (!(await cache.match(file))) await cache.add(new Request(file, { cache: "no-cache" }));
  }
};

const drop = async () => {
  const ours = (await caches.keys()).filter((name) => name.startsWith(`i2i ${registration.scope} `) && name !== NAME);
  await Promise.all(ours.map((name) => caches.delete(name)));
};

const found = async (request) => {
  const cache = await caches.open(NAME);
  const address = request.url.replace(/index\.html(?=$|\?)/, ""); // two names of the page
  return (await cache.match(address, { ignoreSearch: true })) ?? fetch(request);
};

addEventListener("install", (event) => event.waitUntil(keep(FILES).then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(drop().then(() => clients.claim())));
addEventListener("message", (event) => {
  event.waitUntil(keep(event.data.keep).then(() => event.source.postMessage({ kept: event.data.keep })));
});
addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(registration.scope)) {
    event.respondWith(found(event.request));
  }
});
