// Pictures as the page holds them: { pixels, height, width }, RGBA bytes.

const MOST_PIXELS = 1 << 24; // the most that a canvas holds on a phone

// The pixels of an image on white, scaled down if they are too many.
export function pixelsOf(image, background = "white") {
  const { width, height } = image;
  const share = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * share));
  canvas.height = Math.max(1, Math.floor(height * share));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { pixels: data, width: canvas.width, height: canvas.height };
}

export async function pictureAt(file) {
  const image = Object.assign(new Image(), { src: file });
  await image.decode();
  return pixelsOf(image);
}
