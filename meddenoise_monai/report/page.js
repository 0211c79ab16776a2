// Image panels: a slider between two pictures, and what lies between them. Without this script the pictures of each
// panel stand side by side.
"use strict";

const RESIDUAL = "residual";

/** The grey values of a stored picture on the image's own scale, as numbers. */
function valuesOf(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const low = Number(image.dataset.low);
  const step = (Number(image.dataset.high) - low) / 255;
  return Float32Array.from({ length: pixels.length / 4 }, (_, place) => low + step * pixels[4 * place]);
}

/** Draw values into a canvas; black is low, white is high. */
function paint(canvas, values, low, high) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  for (let place = 0; place < values.length; place++) {
    const grey = 255 * (values[place] - low) / (high - low);
    picture.data.fill(Math.round(Math.min(255, Math.max(0, grey))), 4 * place, 4 * place + 3);
    picture.data[4 * place + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function setUp(panel) {
  const part = (name) => panel.querySelector(`[data-part="${name}"]`);
  const stored = new Map([...panel.querySelectorAll("img")].map((image) => [image.dataset.name, image]));
  const values = new Map();
  const get = (name) => {
    if (!values.has(name)) values.set(name, valuesOf(stored.get(name)));
    return values.get(name);
  };
  const window_ = [Number(panel.dataset.low), Number(panel.dataset.high)];
  const sigma = Number(panel.dataset.sigma);

  function draw() {
    const before = part("before").value;
    const after = part("after").value;
    // What a denoiser takes from a noisy image is as large as the noise; its errors are some three times smaller.
    const reach = before === "clean" ? sigma : 3 * sigma;
    const first = get(before);
    const second = get(after);
    const difference = second.map((value, place) => value - first[place]);
    const shown = part("switch").checked;
    paint(part("left"), first, ...window_);
    paint(part("right"), second, ...window_);
    paint(part("residual"), difference, -reach, reach);
    panel.dataset.shows = shown ? RESIDUAL : "picture";
    const words = `${after} − ${before}`;
    const ends = `black −${(255 * reach).toFixed(0)}, grey 0, white +${(255 * reach).toFixed(0)} (1/255 of the range)`;
    part("left-label").textContent = before;
    part("right-label").textContent = shown ? words : after;
    part("scale").textContent = shown ? `Right: the residual ${words}; ${ends}.` : "";
    part("left-caption").textContent = before;
    part("right-caption").textContent = after;
    part("residual-caption").textContent = `${words}: ${ends}`;
    part("left").setAttribute("aria-label", before);
    part("right").setAttribute("aria-label", after);
    part("residual").setAttribute("aria-label", words);
  }

  function slide() {
    const share = Number(part("slider").value);
    part("frame").style.setProperty("--share", `${share}%`);
    part("slider").setAttribute("aria-valuetext", `${share} % ${part("before").value}`);
  }

  function zoom() {
    const chosen = part("zoom").value;
    part("frame").style.setProperty("--width", chosen === "fit" ? "100%" : `${chosen * part("left").width}px`);
    part("frame").dataset.zoom = chosen;
  }

  function drag(event) {
    const box = part("frame").getBoundingClientRect();
    part("slider").value = Math.round(100 * (event.clientX - box.left) / box.width);
    slide();
  }

  for (const name of ["left", "right", "residual"]) {
    part(name).width = stored.get("clean").naturalWidth;
    part(name).height = stored.get("clean").naturalHeight;
  }
  for (const name of ["before", "after", "switch"]) part(name).addEventListener("change", () => { draw(); slide(); });
  part("slider").addEventListener("input", slide);
  part("zoom").addEventListener("change", zoom);
  part("frame").addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button === 0) drag(event);
  });
  part("frame").addEventListener("pointermove", (event) => { if (event.buttons & 1) drag(event); });
  draw();
  slide();
  zoom();
  panel.classList.add("ready");
}

for (const panel of document.querySelectorAll(".panel")) {
  Promise.all([...panel.querySelectorAll("img")].map((image) => image.decode())).then(() => setUp(panel));
}
