// Draws the report from the facts that lie in the page. Asks nothing of any network.
"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const measures = facts.measures;
const $ = (id) => document.getElementById(id);
const tones = ["#d1495b", "#2e86ab", "#3d9a50", "#e08e1b", "#8e5bb5", "#4aa7a0", "#8a6d4b", "#c45aa0", "#6b7280", "#99a021"];
let set = facts.sets[0], order = { name: null, down: true }, sides = { left: null, right: null };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}
function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}
const family = (label) => label.split("@")[0];
const families = [...new Set(facts.systems.map(family))];
const tone = (label) => tones[families.indexOf(family(label)) % tones.length];
const shown = (label) => label.replace("@", " ");
const number = (value, name, sign = false) =>
  (sign && value > 0 ? "+" : "") + value.toFixed(measures[name].digits).replace("-", "−");
const names = () => Object.keys(measures).filter((name) =>
  set.means[name] || (name === "fid" && Object.keys(set.fid).length) || set.published.some((row) => name in row.values));
const measured = () => names().filter((name) => set.means[name]);
function mean(label, name) {
  if (name === "fid") return label in set.fid ? [set.fid[label]] : null;
  return (set.means[name] || {})[label] || null;
}
function better(a, b, name) {
  return measures[name].higher === null ? false : measures[name].higher ? a > b : a < b;
}

/* The table */
function value(label, column) {
  if (column === "seconds") return set.costs[label]?.[0] ?? null;
  if (column === "memory") return set.costs[label]?.[1] ?? null;
  return mean(label, column)?.[0] ?? null;
}
function sorted(rows, read) {
  if (order.name === null) return rows;
  return [...rows].sort((one, other) => {
    const [a, b] = [read(one), read(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return order.down ? b - a : a - b;
  });
}
function showTable() {
  const columns = names(), versus = $("versus").value, head = make("tr");
  const costs = Object.keys(set.costs).length ? ["seconds", "memory"] : [];
  head.append(make("th", { scope: "col", textContent: "system" }));
  for (const name of [...columns, ...costs]) {
    const label = measures[name]?.label ?? { seconds: "s / picture", memory: "peak MB" }[name];
    const arrow = { true: " ↑", false: " ↓" }[measures[name]?.higher] ?? "";
    const button = make("button", { type: "button", textContent: label + arrow });
    button.addEventListener("click", () => {
      const first = measures[name] ? measures[name].higher !== false : false;
      order = { name, down: order.name === name ? !order.down : first };
      showTable();
    });
    const cell = make("th", { scope: "col" }, button);
    if (order.name === name) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    head.append(cell);
  }
  $("table").tHead.replaceChildren(head);
  const body = $("table").tBodies[0];
  body.replaceChildren(...sorted(facts.systems, (label) => value(label, order.name)).map((label) => {
    const dot = make("span", { className: "swatch" });
    dot.style.background = tone(label);
    const row = make("tr", {}, make("td", {}, dot, shown(label)));
    for (const name of columns) row.append(cellOf(label, name, versus));
    const cost = set.costs[label];
    if (costs.length) row.append(
      make("td", { textContent: cost ? cost[0].toFixed(cost[0] < 0.1 ? 3 : 2) : "" }),
      make("td", { textContent: cost ? cost[1].toFixed(0) : "" }));
    return row;
  }));
  $("published").replaceChildren(...sorted(set.published, (row) => row.values[order.name] ?? null).map((row) => {
    const line = make("tr", {}, make("td", {}, row.system, make("span", { className: "tag", textContent: "published" })));
    for (const name of columns) line.append(make("td", { textContent: name in row.values ? number(row.values[name], name) : "" }));
    for (const _ of costs) line.append(make("td"));
    return line;
  }));
}
function cellOf(label, name, versus) {
  const cell = make("td"), found = mean(label, name);
  if (!found) return cell;
  const difference = versus && versus !== label ? set.differences[name]?.[label]?.[versus] : null;
  if (difference) {
    const sure = difference[1] > 0 || difference[2] < 0;
    cell.append(number(difference[0], name, true));
    if (difference.length > 1) cell.append(make("small", { textContent: `${number(difference[1], name, true)} … ${number(difference[2], name, true)}` }));
    if (sure && measures[name].higher !== null) cell.className = better(difference[0], 0, name) ? "better" : "worse";
    return cell;
  }
  cell.append(number(found[0], name));
  if (found.length > 1) cell.append(make("small", { textContent: `${number(found[1], name)} … ${number(found[2], name)}` }));
  const all = facts.systems.map((one) => mean(one, name)?.[0]).filter((one) => one !== undefined);
  if (measures[name].higher !== null && all.length > 1 && !all.some((one) => better(one, found[0], name))) cell.className = "best";
  return cell;
}

/* Plots */
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(at);
  return found;
}
const nice = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
function axis(values, flip, from, to) {
  const low = Math.min(...values), high = Math.max(...values), room = (high - low || 1) * 0.08;
  const ends = flip ? [high + room, low - room] : [low - room, high + room];
  return { low: low - room, high: high + room, at: (value) => from + (to - from) * (value - ends[0]) / (ends[1] - ends[0]) };
}
function showPlane() {
  const [xName, yName] = [$("plane-x").value, $("plane-y").value], box = $("plane");
  const width = Math.max(320, box.clientWidth || 900), height = Math.min(520, Math.max(340, width * 0.55));
  const points = facts.systems.map((label) => ({ label, x: mean(label, xName), y: mean(label, yName) })).filter((one) => one.x && one.y);
  const known = set.published.filter((row) => xName in row.values && yName in row.values)
    .map((row) => ({ label: row.system, x: row.values[xName], y: row.values[yName] }));
  if (!points.length) return box.replaceChildren(make("p", { className: "dim", textContent: "Nothing was measured by both." }));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${measures[yName].label} over ${measures[xName].label}` });
  const x = axis([...points.flatMap((one) => one.x), ...known.map((one) => one.x)], measures[xName].higher === false, 54, width - 16);
  const y = axis([...points.flatMap((one) => one.y), ...known.map((one) => one.y)], measures[yName].higher === false, height - 42, 12);
  for (const at of ticks(x.low, x.high)) svg.append(draw("line", { class: "grid", x1: x.at(at), x2: x.at(at), y1: 12, y2: height - 42 }),
    draw("text", { class: "faint", x: x.at(at), y: height - 26, "text-anchor": "middle" }, nice(at)));
  for (const at of ticks(y.low, y.high)) svg.append(draw("line", { class: "grid", x1: 54, x2: width - 16, y1: y.at(at), y2: y.at(at) }),
    draw("text", { class: "faint", x: 48, y: y.at(at) + 4, "text-anchor": "end" }, nice(at)));
  const way = (name) => (measures[name].higher === false ? ", falling" : "");
  svg.append(draw("text", { x: width - 16, y: height - 8, "text-anchor": "end" }, `${measures[xName].label}${way(xName)} →`),
    draw("text", { x: 14, y: 14, transform: `rotate(-90 14 14)`, "text-anchor": "end" }, `${measures[yName].label}${way(yName)} →`));
  const taken = [];
  for (const one of points) taken.push([x.at(one.x[0]) - 7, y.at(one.y[0]) - 7, 14, 14]);
  const free = (box) => !taken.some((one) => box[0] < one[0] + one[2] && one[0] < box[0] + box[2] && box[1] < one[1] + one[3] && one[1] < box[1] + box[3]);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const write = (px, py, text, kind) => {
    const wide = pen.measureText(text).width + 2;
    const tries = [[px + 9, py + 4], [px - wide - 9, py + 4], [px - wide / 2, py - 10], [px - wide / 2, py + 20], [px + 9, py - 9], [px + 9, py + 17], [px - wide - 9, py - 9], [px - wide - 9, py + 17]];
    if (kind !== "faint") for (const far of [-24, 32, -38, 46]) tries.push([Math.min(px - wide / 2, width - wide - 5), py + far]);
    const inside = ([left, base]) => left > 56 && left + wide < width - 4 && base > 14 && base < height - 44;
    const place = tries.find((one) => inside(one) && free([one[0], one[1] - 11, wide, 14]));
    if (!place && kind === "faint") return;
    const [left, base] = place ?? tries.find(inside) ?? [width - wide - 5, py + 4];
    taken.push([left, base - 11, wide, 14]);
    svg.append(draw("text", { x: left, y: base, class: `halo ${kind}` }, text));
  };
  for (const name of families) {
    const rank = { fidelity: 0, neutral: 0.5, realism: 1 };
    const dial = points.filter((one) => family(one.label) === name && one.label.includes("@") && !one.label.endsWith("@auto"))
      .map((one) => ({ ...one, rank: rank[one.label.split("@")[1]] ?? Number(one.label.split("@")[1]) })).sort((a, b) => a.rank - b.rank);
    if (dial.length > 1) svg.append(draw("polyline", { points: dial.map((one) => `${x.at(one.x[0])},${y.at(one.y[0])}`).join(" "), fill: "none", stroke: tone(name), "stroke-width": 2.5, opacity: 0.75 }));
  }
  for (const one of points) {
    const [px, py, color] = [x.at(one.x[0]), y.at(one.y[0]), tone(one.label)];
    if (one.x.length > 1) svg.append(draw("line", { x1: x.at(one.x[1]), x2: x.at(one.x[2]), y1: py, y2: py, stroke: color, opacity: 0.45 }));
    if (one.y.length > 1) svg.append(draw("line", { x1: px, x2: px, y1: y.at(one.y[1]), y2: y.at(one.y[2]), stroke: color, opacity: 0.45 }));
    const mark = draw("circle", { cx: px, cy: py, r: 6, fill: color });
    mark.append(draw("title", {}, `${shown(one.label)}: ${number(one.x[0], xName)}, ${number(one.y[0], yName)}`));
    svg.append(mark);
  }
  for (const one of points) write(x.at(one.x[0]), y.at(one.y[0]), shown(one.label), "");
  for (const one of known) {
    const mark = draw("circle", { cx: x.at(one.x), cy: y.at(one.y), r: 4.5, fill: "none", stroke: "currentColor", opacity: 0.6 });
    mark.append(draw("title", {}, `${one.label}, published: ${number(one.x, xName)}, ${number(one.y, yName)}`));
    svg.append(mark);
  }
  for (const one of known) write(x.at(one.x), y.at(one.y), one.label, "faint");
  box.replaceChildren(svg);
}
function showSpread() {
  const name = $("spread-m").value, columns = set.values[name] ?? {}, box = $("spread");
  const labels = facts.systems.filter((label) => columns[label]), width = Math.max(320, box.clientWidth || 900);
  if (!labels.length) return box.replaceChildren();
  const left = Math.min(170, 14 + 7 * Math.max(...labels.map((one) => one.length))), line = 40, height = labels.length * line + 34;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${measures[name].label} of every picture` });
  const x = axis(labels.flatMap((label) => columns[label]), false, left, width - 14);
  for (const at of ticks(x.low, x.high)) svg.append(draw("line", { class: "grid", x1: x.at(at), x2: x.at(at), y1: 4, y2: height - 24 }),
    draw("text", { class: "faint", x: x.at(at), y: height - 8, "text-anchor": "middle" }, nice(at)));
  labels.forEach((label, row) => {
    const mid = row * line + line / 2 + 4, values = [...columns[label]].sort((a, b) => a - b);
    const at = (share) => { const place = share * (values.length - 1), low = Math.floor(place); return values[low] + (values[Math.min(low + 1, values.length - 1)] - values[low]) * (place - low); };
    svg.append(draw("text", { x: left - 10, y: mid + 4, "text-anchor": "end" }, shown(label)));
    columns[label].forEach((value, index) => {
      const dot = draw("circle", { cx: x.at(value), cy: mid + ((index * 7) % 11 - 5) * 1.9, r: 2.6, fill: tone(label), opacity: 0.5 });
      dot.append(draw("title", {}, `${set.pictures[index]}: ${number(value, name)}`));
      svg.append(dot);
    });
    svg.append(draw("rect", { x: x.at(at(0.25)), y: mid - 13, width: Math.max(1, x.at(at(0.75)) - x.at(at(0.25))), height: 26, fill: "none", stroke: "currentColor", rx: 3 }),
      draw("line", { x1: x.at(at(0.5)), x2: x.at(at(0.5)), y1: mid - 13, y2: mid + 13, stroke: "currentColor", "stroke-width": 2 }));
  });
  box.replaceChildren(svg);
}

/* Pictures */
function showPictures() {
  const all = facts.pictures[set.name];
  $("pictures-note").textContent = `${all.length} pictures whose scores lie furthest apart, each where results differ most, enlarged; WebP of quality 92. Drag the line, or use the arrow keys.`;
  const labels = Object.keys(all[0]?.crops ?? {});
  if (!labels.includes(sides.left)) sides.left = labels.includes("bicubic") ? "bicubic" : labels[0];
  if (!labels.includes(sides.right)) sides.right = labels.find((one) => one.includes("@")) ?? labels.at(-1);
  $("choices").replaceChildren(...["left", "right"].map((side) => {
    const choice = make("select", { id: `side-${side}` }, ...labels.map((one) => make("option", { value: one, textContent: shown(one), selected: one === sides[side] })));
    choice.addEventListener("change", () => { sides[side] = choice.value; showPictures(); });
    return make("label", {}, `${side} `, choice);
  }));
  $("pictures").replaceChildren(...all.map(figureOf));
}
function figureOf(one) {
  const pair = make("div", { className: "pair" });
  const slider = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
  slider.setAttribute("aria-label", `${one.name}: ${shown(sides.left)} to ${shown(sides.right)}`);
  slider.addEventListener("input", () => pair.style.setProperty("--at", `${slider.value}%`));
  pair.append(make("img", { src: one.crops[sides.left], alt: shown(sides.left), draggable: false }),
    make("img", { src: one.crops[sides.right], alt: shown(sides.right), className: "right", draggable: false }),
    make("span", { className: "name l", textContent: shown(sides.left) }), make("span", { className: "name r", textContent: shown(sides.right) }),
    make("span", { className: "edge" }), slider);
  const frame = make("i"), [left, top, side] = one.place, [width, height] = one.size;
  Object.assign(frame.style, { left: `${100 * left / width}%`, top: `${100 * top / height}%`, width: `${100 * side / width}%`, height: `${100 * side / height}%` });
  const numbers = [sides.left, sides.right].filter((label) => one.scores[label]).map((label) => make("div", {
    textContent: `${shown(label)}: ` + ["psnr", "lpips", "lpips-hed", "niqe"].filter((name) => name in one.scores[label])
      .map((name) => `${measures[name].label} ${number(one.scores[label][name], name)}`).join(", ") }));
  const caption = make("figcaption", {}, make("div", { className: "thumb" }, make("img", { src: one.thumb, alt: "" }), frame),
    make("div", { className: "numbers" }, make("h3", { textContent: one.name }), ...numbers));
  return make("figure", {}, pair, caption);
}

/* All of it */
function fill(select, options, chosen) {
  select.replaceChildren(...options.map((name) => make("option", { value: name, textContent: measures[name]?.label ?? shown(name), selected: name === chosen })));
}
function told(value) {
  if (value === null) return "not installed";
  return typeof value === "object" ? Object.entries(value).map(([key, one]) => `${key} ${told(one)}`).join("; ") || "none" : String(value);
}
function show() {
  $("lead").textContent = `${set.name}: ${set.pictures.length} pictures, ${facts.systems.length} systems. rcod ${facts.rcod}, protocol ${facts.fingerprint}.`;
  $("table-note").textContent = "Small figures are 95 % bootstrap intervals over the pictures; bold is best of those measured here. Choose a system under “against” for paired differences: coloured where the interval leaves out zero. Fewer than six pictures have no intervals."
    + (set.published.length ? " Published rows are as their papers print them, for the whole set." : "");
  $("missing").replaceChildren(...Object.entries(facts.missing).map(([name, why]) => make("li", { textContent: `${measures[name].label} is blank: ${why}` })));
  const all = measured(), pick = (wanted) => wanted.find((name) => all.includes(name)) ?? all[0];
  fill($("plane-x"), all, pick(["psnr", "ssim"]));
  fill($("plane-y"), all, pick(["musiq", "niqe", "lpips", "lpips-hed"]));
  fill($("spread-m"), all, pick(["lpips", "lpips-hed", "psnr", "niqe"]));
  for (const button of $("sets").children) button.setAttribute("aria-pressed", String(button.textContent === set.name));
  showTable(); showPlane(); showSpread(); showPictures();
}
$("versus").append(...facts.systems.map((label) => make("option", { value: label, textContent: shown(label) })));
$("versus").addEventListener("change", showTable);
for (const id of ["plane-x", "plane-y"]) $(id).addEventListener("change", showPlane);
$("spread-m").addEventListener("change", showSpread);
if (facts.sets.length > 1) $("sets").append(...facts.sets.map((one) => {
  const button = make("button", { type: "button", textContent: one.name });
  button.addEventListener("click", () => { set = one; show(); });
  return button;
}));
$("protocol").replaceChildren(...[["fingerprint", facts.fingerprint], ...Object.entries(facts.protocol)].flatMap(([key, value]) =>
  [make("dt", { textContent: key }), make("dd", {}, make("code", { textContent: told(value) }))]));
let timer = 0;
addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => { showPlane(); showSpread(); }, 150); });
show();
