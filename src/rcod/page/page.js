// The page: one photo, one place of the dial. Places that were computed are kept; between two of
// them the dial is answered at once by a blend, and the exact picture follows.

import { draw, peek, resize } from "/page/view.js";

const $ = (id) => document.getElementById(id);
const body = document.body;
const panel = document.querySelector(".panel");
const LEVELS = { fidelity: 0, neutral: 0.5, realism: 1 };
const NAMES = { 0: "Fidelity", 0.5: "Neutral", 1: "Realism" };
const KEPT = 14; // results of a photo that the page keeps
const HELD = 80e6; // pixels of them, levels aside
const BLENDED = 24e6; // pixels above which no levels are fetched ahead
const TOLD = 8e6; // pixels up to which the server can tell a place from five others
const CALM = 220; // ms without a turn before a slow picture is asked for

let about = { largest: 1e8, edges: [0.5, 0.7], dial: true };
let photo = null; // { file, id, width, height }
let held = null; // the photo that the server holds, once it is there
let sending = null; // the AbortController of a photo on its way
let place = { realism: "auto", scale: 4 };
let chosen = 4; // scale that the person wants, where the photo allows it
let results = new Map(); // key -> { bitmap, level, realism, metric, seconds }
let autoPlace = null; // what auto chose for this photo
let inventions = new Map(); // key -> { url, share, mean }
let mapShown = false;
let running = null; // { abort, done } of the one picture under way
let slow = 0; // ms that the last turn of the dial took to be exact
let calm = null; // timer
let epoch = 0; // counts photos, so that late answers to an earlier one are dropped
let turned = 0; // when the dial was last turned

class Refused extends Error {
  constructor(status, sentence, after) {
    super(sentence);
    this.status = status;
    this.after = after;
  }
}

const SILENT = "The server does not answer; is it still running?";
class Late extends Error {} // an answer about a photo that is no longer the one shown

// --- asking the server ---

async function ask(path, options = {}) {
  for (;;) {
    const answer = await fetch(path, options);
    if (answer.ok) return answer;
    let sentence = `the server answered ${answer.status}`;
    try { sentence = (await answer.json()).error ?? sentence; } catch { /* not ours */ }
    const refused = new Refused(answer.status, sentence, Number(answer.headers.get("retry-after")) || 1);
    if (refused.status !== 503) throw refused;
    say(`The server is busy; trying again in ${refused.after} s`);
    await pause(refused.after * 1000, options.signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
  });
}

// A photo that the server has put away meanwhile is sent once more.
async function askOfPhoto(rest, signal, wanted = () => true) {
  const mine = photo; // another one may come meanwhile
  try {
    return await ask(`/page/photos/${mine.id}/${rest}`, { signal });
  } catch (error) {
    if (error.status !== 404 || !wanted()) throw error;
    await send(mine, signal);
    return ask(`/page/photos/${mine.id}/${rest}`, { signal });
  }
}

// What is made of an answer's blob, and its headers; an answer is shown for its own photo only.
async function askToShow(rest, make, signal) {
  const mine = photo;
  try {
    const answer = await askOfPhoto(rest, signal, () => mine === photo), blob = await answer.blob();
    if (mine === photo) return [await make(blob), answer.headers];
  } finally {
    if (mine !== photo) throw new Late();
  }
}

async function send(mine, signal) {
  const form = new FormData();
  form.append("image", mine.file);
  const answer = await ask("/page/photos", { method: "POST", body: form, signal });
  Object.assign(mine, await answer.json());
}

function putAway(old) {
  if (old?.id) fetch(`/page/photos/${old.id}`, { method: "DELETE" }).catch(() => {});
}

// --- a photo comes in ---

async function open(file, note = "") {
  const mine = ++epoch;
  sending?.abort();
  running?.abort.abort();
  await running?.done;
  if (mine !== epoch) return;
  const abort = sending = new AbortController();
  const next = { file }, first = !held;
  if ($("sheet").open) $("sheet").close();
  calmDown();
  showAlert(null);
  body.dataset.state = "reading";
  panel.inert = true; // the dial is not this photo's yet
  show("work");
  showWait("Reading the photo", abort);
  photo = next;
  try {
    await send(next, abort.signal);
    if (mine !== epoch) return putAway(next);
    const wanted = { realism: "auto", scale: fitting() };
    const before = await askBefore(wanted.scale, abort.signal);
    putAway(held);
    held = next;
    place = wanted;
    forget();
    $("file").textContent = file.name;
    tell(note + (photo.note ?? ""));
    body.classList.toggle("seethrough", photo.alpha);
    $("scale").value = String(place.scale);
    showBefore(before, true);
    await turn("auto");
  } catch (error) {
    if (held !== next) putAway(next);
    if (mine !== epoch) return;
    if (first) letGo();
    photo = held;
    if (held) fitting();
    body.dataset.state = held ? "waiting" : "empty";
    show(held ? "work" : "empty");
    if (held) turn(place.realism); // what was shown, or under way
    if (error.name !== "AbortError") showAlert(error instanceof Refused ? `${file.name}: ${error.message}` : SILENT);
  } finally {
    if (mine === epoch) panel.inert = false;
    if (mine === epoch && !running) hideWait();
  }
}

function letGo() {
  putAway(held);
  photo = held = null;
}

function forget() {
  for (const { bitmap } of results.values()) bitmap.close();
  for (const { url } of inventions.values()) URL.revokeObjectURL(url);
  results = new Map();
  inventions = new Map();
  autoPlace = lastShown = null;
  say(""); // nothing of the photo before
  $("map").hidden = true;
  $("after").width = 1; // no picture of the photo before
  URL.revokeObjectURL($("before").src);
  $("before").removeAttribute("src");
}

async function askBefore(scale, signal) {
  return (await askToShow(`before?scale=${scale}`, load, signal))[0];
}

function showBefore(url, fresh) {
  const size = target(), pixels = size[0] * size[1] / 1e6;
  URL.revokeObjectURL($("before").src);
  $("before").src = url;
  resize(...size, fresh);
  $("size").textContent = `${photo.width} × ${photo.height} becomes ${size.join(" × ")}, ${pixels.toFixed(pixels < 0.1 ? 2 : pixels < 10 ? 1 : 0)} megapixels`;
}

async function load(blob) {
  const picture = new Image(), url = URL.createObjectURL(blob);
  await new Promise((resolve) => { picture.onload = picture.onerror = resolve; picture.src = url; });
  return url;
}

// The scale chosen, or the largest that this server allows for the photo.
function fitting() {
  const most = Math.sqrt(about.largest / (photo.width * photo.height));
  let best = 1;
  for (const option of $("scale").options) {
    const scale = Number(option.value);
    option.disabled = scale > most;
    if (scale <= Math.min(most, chosen)) best = scale;
  }
  return best;
}

const target = () => [photo.width, photo.height].map((side) => Math.max(1, even(side * place.scale)));
const even = (x) => (x % 1 === 0.5 && Math.floor(x) % 2 === 0 ? Math.floor(x) : Math.round(x)); // as Python rounds

// --- the dial ---

const number = (realism) => (realism === "auto" ? autoPlace : LEVELS[realism] ?? realism);
const keyOf = (realism, scale = place.scale) => `${number(realism)}@${scale}`;

function turn(realism) {
  turned = performance.now();
  place = { ...place, realism };
  if ($("alert-text").textContent === SILENT) showAlert(null); // or it is said anew
  paintDial();
  const kept = results.get(keyOf(realism));
  if (kept) {
    results.delete(keyOf(realism));
    results.set(keyOf(realism), kept);
    paint(kept);
    return afterwards();
  }
  blend();
  if (slow > 400 && typeof realism === "number") {
    clearTimeout(calm);
    calm = setTimeout(compute, CALM);
    return undefined;
  }
  return compute();
}

// The nearest places below and above that are kept, mixed.
function blend() {
  const wanted = number(place.realism);
  if (wanted === null) return;
  const here = [...results.entries()]
    .map(([key, result]) => [key.split("@"), result])
    .filter(([[, scale]]) => Number(scale) === place.scale)
    .map(([[realism], result]) => [Number(realism), result])
    .sort(([a], [b]) => a - b);
  const below = here.filter(([realism]) => realism <= wanted).pop();
  const above = here.find(([realism]) => realism >= wanted);
  if (!below || !above || below === above) {
    body.dataset.state = "waiting";
    say("The picture follows");
    return;
  }
  draw([[below[1].bitmap, 1], [above[1].bitmap, (wanted - below[0]) / (above[0] - below[0])]]);
  body.dataset.state = "blend";
  body.dataset.shown = String(wanted);
  measure("rcod blend");
  say("Preview; the exact picture follows");
}

function compute() { // one picture at a time; the latest place is asked for when it is done
  if (running || !photo?.id) return;
  const abort = new AbortController();
  running = { abort };
  running.done = exact(abort);
}

async function exact(abort) {
  const mine = epoch, wanted = place, first = results.size === 0, start = performance.now();
  const stopWatching = watch(abort, first);
  try {
    const [bitmap, headers] = await askToShow(`result?realism=${wanted.realism}&scale=${wanted.scale}`, createImageBitmap, abort.signal);
    if (mine !== epoch) return bitmap.close();
    const spent = performance.now() - start;
    keep(wanted, headers, bitmap, spent);
    if (!first) slow = spent;
  } catch (error) {
    if (mine === epoch) await goBack(error);
    return undefined;
  } finally {
    stopWatching();
    running = null;
  }
  const kept = results.get(keyOf(place.realism));
  if (!kept) return turn(place.realism); // turned on meanwhile
  paint(kept);
  return afterwards();
}

// What could not be made leaves what was shown before.
async function goBack(error) {
  failed(error);
  const last = lastShown;
  const kept = last && results.get(keyOf(last.place.realism, last.place.scale));
  if (!kept) return say("");
  const resized = place.scale !== last.place.scale;
  stand(last);
  if (resized) showBefore(await askBefore(place.scale), false);
  paint(kept);
  if (error.name === "AbortError") say("Cancelled");
}

function keep(wanted, headers, bitmap, spent) {
  const realism = Number(headers.get("x-rcod-realism"));
  if (wanted.realism === "auto") autoPlace = realism;
  const metric = headers.get("x-rcod-metric");
  if (metric !== null) photo.metric = Number(metric);
  const at = `${wanted.realism === "auto" ? realism : number(wanted.realism)}@${wanted.scale}`;
  results.get(at)?.bitmap.close();
  const told = headers.get("x-rcod-told") === "true";
  results.set(at, { bitmap, timestep: headers.get("x-rcod-timestep"), spent, told });
  const pixels = bitmap.width * bitmap.height;
  const few = pixels > BLENDED ? 2 : Math.max(5, Math.min(KEPT, Math.floor(HELD / pixels)));
  for (const [old, { bitmap: picture }] of results) {
    if (results.size <= few) break;
    const level = Object.values(LEVELS).some((l) => old === `${l}@${place.scale}`);
    if (old !== at && (!level || few === 2)) { picture.close(); results.delete(old); }
  }
}

let lastShown = null; // where the page stood with the exact picture on the screen

function paint(result) {
  draw([[result.bitmap, 1]]);
  lastShown = { place, chosen };
  body.dataset.state = "exact";
  body.dataset.shown = String(number(place.realism));
  measure("rcod exact");
  paintDial();
  const seconds = `${(result.spent / 1000).toFixed(2)} s`;
  say(result.told
    ? "Fast preview (checked on a detail, about 2 of 255); the download is exact."
    : `Exact picture at timestep ${result.timestep}, made in ${seconds}`);
  $("download").disabled = false;
  hideWait();
}

// From the turn until it is on the screen.
function measure(name) {
  const start = turned;
  requestAnimationFrame(() => setTimeout(() => performance.measure(name, { start, end: performance.now() })));
}

// What is done once the person rests: the invention's number, then the levels to blend between.
async function afterwards() {
  if (!about.dial) return;
  const mine = epoch, at = keyOf(place.realism);
  const still = () => mine === epoch && at === keyOf(place.realism) && !running;
  clearTimeout(calm);
  await pause(results.size > 1 ? 60 : 0);
  if (!still()) return;
  try {
    await showInvention(still);
    if (target()[0] * target()[1] > BLENDED) return;
    const between = target()[0] * target()[1] > TOLD ? [] : [0.15, 0.85];
    for (const realism of [0, 1, 0.5, ...between]) {
      if (!still()) return;
      if (results.has(keyOf(realism))) continue;
      const wanted = { realism, scale: place.scale };
      const start = performance.now();
      const [bitmap, headers] = await askToShow(`result?realism=${realism}&scale=${wanted.scale}`, createImageBitmap);
      keep(wanted, headers, bitmap, slow = performance.now() - start);
    }
    if (between.length) slow = 0; // from now on the server needs no network to answer
    body.dataset.ahead = "true";
  } catch (error) {
    failed(error);
  }
}

async function showInvention(still) {
  const at = keyOf(place.realism);
  if (!inventions.has(at)) {
    const [url, headers] = await askToShow(`invention?realism=${number(place.realism)}&scale=${place.scale}`, URL.createObjectURL);
    inventions.set(at, { url, share: Number(headers.get("x-rcod-share")), mean: Number(headers.get("x-rcod-mean")) });
    if (inventions.size > 3 * KEPT) {
      const [oldest, { url: stale }] = inventions.entries().next().value;
      URL.revokeObjectURL(stale);
      inventions.delete(oldest);
    }
  }
  if (still()) paintInvention();
}

function paintInvention() {
  const found = inventions.get(keyOf(place.realism));
  $("map").hidden = !mapShown || !found;
  $("view").classList.toggle("mapped", mapShown);
  $("legend").hidden = !mapShown;
  $("map-button").setAttribute("aria-pressed", String(mapShown));
  $("map-button").textContent = mapShown ? "Hide the map" : "Show where";
  $("share").value = found ? `${(100 * found.share).toFixed(found.share < 0.1 ? 1 : 0)} %` : "–";
  $("share-text").textContent = found && found.share === 0
    ? "This is the fidelity result itself; every level is measured against it."
    : `of the fine detail is not in the fidelity result${found ? ` (${found.mean.toFixed(1)} of 255 in the mean)` : ""}.`;
  if (mapShown && found && $("map").src !== found.url) $("map").src = found.url;
}

function paintDial() {
  const { realism } = place, at = number(realism);
  const name = NAMES[at];
  $("dial").value = at ?? 0.5;
  $("dial").setAttribute("aria-valuetext", at === null ? "auto" : name ?? at.toFixed(2));
  $("dial-number").value = at === null ? "–" : at.toFixed(2);
  for (const button of document.querySelectorAll("[data-level]")) {
    const level = button.dataset.level;
    button.setAttribute("aria-pressed", String(realism === "auto" ? level === "auto" : LEVELS[level] === at));
  }
  paintAuto();
  paintInvention();
}

function paintAuto() {
  const shown = place.realism === "auto" && autoPlace !== null && photo?.metric !== undefined;
  $("auto").hidden = !shown;
  if (!shown) return;
  const damage = 1 - photo.metric, edges = about.edges.map((edge) => 1 - edge).sort((a, b) => a - b);
  const words = ["light", "moderate", "heavy"];
  const zone = edges.filter((edge) => damage > edge).length;
  $("auto-text").textContent = `Auto thinks the damage is ${words[zone] ?? "heavy"} and chose ${NAMES[autoPlace] ?? autoPlace.toFixed(2)}. It is a rough guess.`;
  const bounds = [0, ...edges, 1];
  const bars = edges.concat(1).map((end, i) => {
    const bar = document.createElement("i");
    bar.style.flexGrow = String(end - bounds[i]);
    bar.classList.toggle("on", i === zone);
    return bar;
  });
  $("gauge").replaceChildren(...bars, $("gauge-mark"));
  $("gauge-mark").style.left = `${100 * Math.max(0, Math.min(1, damage))}%`;
}

// --- waiting ---

function watch(abort, first) {
  const begin = performance.now();
  const timer = setInterval(async () => {
    if (performance.now() - begin < 500 || !photo?.id) return;
    try {
      const { position, fraction } = await (await fetch(`/page/photos/${photo.id}/progress`)).json();
      if (abort.signal.aborted || running?.abort !== abort) return;
      const text = position > 0 ? `${position} ${position === 1 ? "photo is" : "photos are"} before yours` : "Restoring";
      showWait(text, abort, position > 0 ? null : fraction, !first);
    } catch { /* the picture's own request says what is wrong */ }
  }, 400);
  if (first) showWait("Restoring", abort);
  return () => { clearInterval(timer); hideWait(); };
}

function showWait(text, abort, fraction = null, small = false) {
  $("wait").hidden = false;
  $("wait").classList.toggle("small-wait", small);
  $("wait-text").textContent = text;
  if (fraction > 0) $("wait-bar").value = fraction;
  else $("wait-bar").removeAttribute("value");
  $("cancel").onclick = () => abort.abort();
}

function hideWait() { $("wait").hidden = true; }
function calmDown() { clearTimeout(calm); hideWait(); }
function tell(note) { $("note").textContent = note; $("note").hidden = !note; }
function say(text) { if ($("status").textContent !== text) $("status").textContent = text; }

function failed(error) {
  if (error instanceof Late) return;
  hideWait();
  if (error.name === "AbortError") {
    say("Cancelled");
    if (results.size === 0) { forget(); letGo(); body.dataset.state = "empty"; show("empty"); }
    return;
  }
  showAlert(error instanceof Refused ? error.message : SILENT);
}

function showAlert(text) {
  $("alert").hidden = text === null;
  $("alert-text").textContent = text ?? "";
}

function show(part) {
  $("empty").hidden = part !== "empty";
  $("work").hidden = part !== "work";
  $("another").hidden = $("file").hidden = part !== "work";
}

// --- buttons, keys, files ---

$("dial").addEventListener("input", (event) => turn(Number(event.target.value)));
for (const button of document.querySelectorAll("[data-level]")) {
  button.addEventListener("click", () => turn(button.dataset.level === "auto" ? "auto" : LEVELS[button.dataset.level]));
}
$("map-button").addEventListener("click", () => { mapShown = !mapShown; paintInvention(); });
$("scale").addEventListener("change", async (event) => {
  const before = { place, chosen }, scale = Number(event.target.value);
  stand({ place: { ...place, scale }, chosen: scale });
  try {
    showBefore(await askBefore(place.scale), false);
    await turn(place.realism);
  } catch (error) {
    if (error instanceof Late) return;
    stand(before);
    failed(error);
  }
});

function stand(next) {
  ({ place, chosen } = next);
  $("scale").value = String(place.scale);
}

const stem = () => photo.file.name.replace(/\.[^.]*$/, "") || "photo";

$("download").addEventListener("click", async () => {
  const format = $("format").value, name = `${stem()}-${place.scale}x.${format}`;
  const strip = $("strip").checked ? "gps" : "nothing", mine = photo;
  $("download").disabled = true;
  try {
    const answer = await askOfPhoto(`result?realism=${place.realism}&scale=${place.scale}&format=${format}&strip=${strip}`);
    save(await answer.blob(), name);
    showAlert(null);
    if (mine === photo) tell(answer.headers.get("x-rcod-note"));
  } catch (error) {
    failed(error);
  } finally {
    $("download").disabled = false;
  }
});

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

$("strip").addEventListener("change", () => { $("placed").hidden = $("strip").checked; });

$("sheet-button").addEventListener("click", async () => {
  $("sheet-button").disabled = true;
  try {
    const [url] = await askToShow(`sheet?scale=${place.scale}`, URL.createObjectURL);
    URL.revokeObjectURL($("sheet-image").src);
    $("sheet-image").src = $("sheet-save").href = url;
    $("sheet-save").download = `${stem()}-levels.png`;
    $("sheet").showModal();
  } catch (error) {
    failed(error);
  } finally {
    $("sheet-button").disabled = false;
  }
});
$("sheet-close").addEventListener("click", () => $("sheet").close());
$("alert-close").addEventListener("click", () => showAlert(null));
$("another").addEventListener("click", () => $("pick").click());
$("pick").addEventListener("change", (event) => {
  if (event.target.files.length) open(event.target.files[0]);
  event.target.value = "";
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    const name = `${button.dataset.example}.jpg`;
    try {
      open(new File([await (await ask(`/page/${name}`)).blob()], name, { type: "image/jpeg" }));
    } catch (error) {
      failed(error);
    }
  });
}

document.addEventListener("dragover", (event) => { event.preventDefault(); body.classList.add("dragging"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) body.classList.remove("dragging"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  body.classList.remove("dragging");
  const { files } = event.dataTransfer;
  if (!files.length) return;
  open(files[0], files.length > 1 ? `${files[0].name} was opened, the first of ${files.length}: one photo at a time. ` : "");
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) open(file);
});
document.addEventListener("keydown", (event) => {
  if (event.target.closest("select, dialog") || event.ctrlKey || event.metaKey || event.altKey || panel.inert || $("work").hidden) return;
  const level = ["fidelity", "neutral", "realism", "auto"][Number(event.key) - 1];
  if (level && about.dial) turn(level === "auto" ? "auto" : LEVELS[level]);
  if ((event.key === "m" || event.key === "M") && about.dial) $("map-button").click();
});
window.addEventListener("blur", () => peek(false));

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("rcod-theme", root.dataset.theme);
});
const theme = localStorage.getItem("rcod-theme");
if (theme) document.documentElement.dataset.theme = theme;

try {
  about = await (await ask("/page/about")).json();
  body.classList.toggle("dialless", !about.dial);
  $("limits").textContent = `${about.formats.join(", ")}; up to ${about.megapixels} megapixels and ${about.megabytes} MB. Photos stay in the memory of the machine that serves this page and are put away after ${about.minutes} minutes.`;
} catch (error) {
  failed(error);
}
