// The picture: moved, zoomed, and split into before and after. Its place on the screen belongs
// to the person: nothing here changes when another result is drawn.

const view = document.getElementById("view");
const stage = document.getElementById("stage");
const canvas = document.getElementById("after");
const before = document.getElementById("before");
const split = document.getElementById("split");
const zoomed = document.getElementById("zoom");
const tagBefore = document.getElementById("tag-before");
const tagAfter = document.getElementById("tag-after");
const pen = canvas.getContext("2d");

let width = 1, height = 1; // of the result, pixels
let zoom = 1, left = 0, top = 0; // CSS pixels per result pixel, and where the result's corner is
let fitted = true; // as long as the person has not zoomed or moved
let part = 0.5; // where the split is, of the view's width
let peeking = false;

const density = () => window.devicePixelRatio || 1;

function fitZoom() {
  const margin = 0.96;
  return Math.min(view.clientWidth / width, view.clientHeight / height) * margin;
}

function place() {
  stage.style.width = `${width}px`;
  stage.style.height = `${height}px`;
  stage.style.transform = `translate(${left}px, ${top}px) scale(${zoom})`;
  stage.classList.toggle("coarse", zoom * density() >= 3);
  zoomed.value = `${Math.round(zoom * density() * 100)} %`;
  const x = part * view.clientWidth;
  const inside = peeking ? width : Math.max(0, Math.min(width, (x - left) / zoom));
  before.style.clipPath = `inset(0 ${width - inside}px 0 0)`;
  split.style.left = `${x}px`;
  split.hidden = peeking;
  tagBefore.hidden = !peeking && inside <= 0;
  tagAfter.hidden = peeking || inside >= width;
}

export function fit() {
  zoom = fitZoom();
  left = (view.clientWidth - width * zoom) / 2;
  top = (view.clientHeight - height * zoom) / 2;
  fitted = true;
  place();
}

export function zoomTo(next, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  next = Math.max(Math.min(fitZoom() / 2, 1), Math.min(next, 16 / density()));
  left = x - ((x - left) / zoom) * next;
  top = y - ((y - top) / zoom) * next;
  zoom = next;
  fitted = false;
  keepInSight();
  place();
}

function keepInSight() { // a corner of the picture stays in the view
  const rest = 60;
  left = Math.max(rest - width * zoom, Math.min(left, view.clientWidth - rest));
  top = Math.max(rest - height * zoom, Math.min(top, view.clientHeight - rest));
}

function move(x, y) {
  left += x;
  top += y;
  fitted = false;
  keepInSight();
  place();
}

function setSplit(x) {
  part = Math.max(0, Math.min(1, x / view.clientWidth));
  place();
}

export function peek(on) {
  peeking = on;
  place();
}

// A result of another size covers the same part of the view.
export function resize(nextWidth, nextHeight, fresh) {
  const ratio = nextWidth / width;
  width = nextWidth;
  height = nextHeight;
  if (fresh || fitted) {
    if (fresh) part = 0.5;
    fit();
  } else {
    zoom /= ratio;
    place();
  }
}

// Lay pictures over each other: [[bitmap, opacity], ...], the first opaque.
export function draw(layers) {
  const [bitmap] = layers[0];
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  pen.globalAlpha = 1;
  pen.globalCompositeOperation = "copy";
  for (const [picture, opacity] of layers) {
    pen.globalAlpha = opacity;
    pen.drawImage(picture, 0, 0);
    pen.globalCompositeOperation = "source-over";
  }
}

// Hands: one finger or the mouse moves, two fingers or the wheel zoom, the handle splits.
const fingers = new Map();

view.addEventListener("pointerdown", (event) => {
  if (event.target.closest("button, .wait")) return;
  const at = { x: event.clientX, y: event.clientY, split: event.target.closest(".split") !== null };
  fingers.set(event.pointerId, at);
  view.setPointerCapture(event.pointerId);
  view.classList.toggle("moving", !at.split);
});

view.addEventListener("pointermove", (event) => {
  const last = fingers.get(event.pointerId);
  if (!last) return;
  const box = view.getBoundingClientRect();
  const [x, y] = [event.clientX, event.clientY];
  if (last.split) setSplit(x - box.left);
  else if (fingers.size === 1) move(x - last.x, y - last.y);
  else if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
    const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    const ratio = apart({ x, y }, other) / Math.max(apart(last, other), 1);
    zoomTo(zoom * ratio, (x + other.x) / 2 - box.left, (y + other.y) / 2 - box.top);
    move((x - last.x) / 2, (y - last.y) / 2);
  }
  fingers.set(event.pointerId, { ...last, x, y });
});

for (const end of ["pointerup", "pointercancel"]) {
  view.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    if (fingers.size === 0) view.classList.remove("moving");
  });
}

view.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = view.getBoundingClientRect();
  const step = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002));
  zoomTo(zoom * step, event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

view.addEventListener("dblclick", (event) => {
  if (event.target.closest("button, .wait, .split")) return;
  const box = view.getBoundingClientRect();
  if (fitted) zoomTo(1 / density(), event.clientX - box.left, event.clientY - box.top);
  else fit();
});

document.querySelector(".tools").addEventListener("click", (event) => {
  const wanted = event.target.dataset.zoom;
  if (wanted === "in") zoomTo(zoom * 1.5);
  if (wanted === "out") zoomTo(zoom / 1.5);
  if (wanted === "fit") fit();
  if (wanted === "one") zoomTo(1 / density());
});

view.addEventListener("keydown", (event) => {
  if (event.target !== view) return;
  const way = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
  if (!way) return;
  event.preventDefault();
  if (event.shiftKey) setSplit(part * view.clientWidth - way[0] / 2);
  else move(...way);
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("select, dialog") || event.ctrlKey || event.metaKey || view.offsetParent === null) return;
  if (event.key === "+" || event.key === "=") zoomTo(zoom * 1.5);
  if (event.key === "-") zoomTo(zoom / 1.5);
  if (event.key === "0") fit();
  if (event.key === " " && !event.target.closest("button, a, input[type=checkbox]")) {
    event.preventDefault();
    if (!event.repeat) peek(true);
  }
});
document.addEventListener("keyup", (event) => { if (event.key === " " && peeking) peek(false); });

new ResizeObserver(() => { if (fitted) fit(); else place(); }).observe(view);
