// Shows each style's picture once the server has made it, which it does while no visitor waits.
window.i2iStyles = (count) => {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);

  async function show(number, seconds) {
    const reply = await fetch(`./styles/${number}.jpg`).catch(() => null);
    if (reply?.status === 200) {
      const address = URL.createObjectURL(await reply.blob());
      sheet.insertRule(`#styles label:nth-of-type(${number + 1}) { --thumbnail: url(${address}) }`);
    } else {
      setTimeout(show, 1000 * seconds, number, Math.min(60, 1.5 * seconds));
    }
  }

  for (let number = 0; number < count; number++) show(number, 1);
};
