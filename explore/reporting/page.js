"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const STEP = 100;  // rows of a table that are drawn at a time

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // Some browsers keep the clipboard from pages opened as files.
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

async function copied(button, text) {
  await copy(text);
  const before = button.dataset.name ??= button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// A table whose rows lie in a script beside it: of many, those are drawn that somebody scrolls to.
class Rows {
  constructor(source) {
    const key = source.dataset.rows, find = (kind) => document.querySelector(`[data-${kind}="${key}"]`);
    Object.assign(this, JSON.parse(source.textContent));
    this.all = Array.from({length: this.rows}, (_, row) => row);
    this.order = this.kept = this.all;
    this.table = document.getElementById(`${key}-table`);
    this.count = find("count");
    this.heading();
    this.body = this.table.createTBody();
    this.draw();
    const around = this.table.parentElement;
    around.addEventListener("scroll", () => {
      if (around.scrollTop + 2 * around.clientHeight > around.scrollHeight) this.more();
    });
    find("table").addEventListener("click", ({target}) => copied(target, this.text()));
    find("filter")?.addEventListener("input", ({target}) => this.filter(target.value));
  }

  kind(column) {
    return column.numbers ? "number" : column.wide ? "wide" : "";
  }

  heading() {
    const row = this.table.createTHead().insertRow();
    this.columns.forEach((column, place) => {
      const button = element("button", column.name);
      button.type = "button";
      button.addEventListener("click", () => this.sort(place));
      row.append(element("th", undefined, column.numbers ? "number" : ""));
      row.lastChild.append(button);
    });
    this.table.classList.toggle("commanded", this.commands.length > 0);
    if (this.commands.length) row.append(element("th", "command"));
  }

  draw() {
    this.kept = this.wanted ? this.order.filter((row) => this.wanted.every((word) => this.words(row).includes(word))) : this.order;
    this.body.replaceChildren();
    this.more();
    this.count.textContent = this.wanted ? `${this.kept.length.toLocaleString("en")} of ${this.rows.toLocaleString("en")} rows` : "";
  }

  more() {
    const from = this.body.rows.length;
    this.body.append(...this.kept.slice(from, from + STEP).map((row) => this.row(row)));
  }

  row(row) {
    const line = element("tr");
    for (const column of this.columns) line.append(element("td", column.texts[row], this.kind(column)));
    if (this.commands.length) {
      const button = element("button", "Copy");
      button.type = "button";
      button.addEventListener("click", () => { copied(button, this.commands[row]); this.show(row); });
      line.append(element("td"));
      line.lastChild.append(button);
    }
    return line;
  }

  sort(place) {
    const headings = this.table.tHead.rows[0].cells, up = headings[place].getAttribute("aria-sort") !== "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    headings[place].setAttribute("aria-sort", up ? "ascending" : "descending");
    const {numbers, texts} = this.columns[place], sign = up ? 1 : -1;
    const {compare} = new Intl.Collator("en", {numeric: true}), missing = (row) => texts[row] === "–";
    this.order = [...this.all].sort((a, b) =>
      missing(a) - missing(b) || sign * (numbers ? numbers[a] - numbers[b] : compare(texts[a], texts[b])));  // missing ones last
    this.draw();
  }

  filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.wanted = words.length ? words : undefined;
    this.draw();
  }

  words(row) {
    this.searchable ??= this.all.map((each) => this.columns.map(({texts}) => texts[each]).join(" ").toLowerCase());
    return this.searchable[row];
  }

  // As spreadsheets paste it: full numbers, in the order that is shown, without what is filtered out.
  text() {
    const names = [...this.columns.map(({name}) => name), ...(this.commands.length ? ["command"] : [])];
    const lines = this.kept.map((row) => [
      ...this.columns.map(({texts, numbers}) => (numbers ? numbers[row] ?? "" : texts[row] === "–" ? "" : texts[row])),
      ...(this.commands.length ? [this.commands[row]] : []),
    ]);
    return [names, ...lines].map((cells) => cells.map((cell) => String(cell).replace(/\s+/g, " ")).join("\t")).join("\n");
  }

  find(trial) {
    return this.commands.length ? this.columns[0].numbers.indexOf(trial) : -1;
  }

  show(row) {
    const told = document.getElementById("told");
    told.children[0].textContent = `#${this.columns[0].texts[row]} copied`;
    told.children[1].textContent = this.commands[row];
    told.hidden = false;
  }
}

const known = new Map();
function rows(source) {
  if (!known.has(source)) known.set(source, new Rows(source));
  return known.get(source);
}

// The command of a trial whose point was clicked.
function tell(trial) {
  const table = [...document.querySelectorAll("[data-rows]")].map(rows).find((one) => one.find(trial) >= 0);
  if (!table) return;
  copy(table.commands[table.find(trial)]);
  table.show(table.find(trial));
}

// What the template of a picture leaves to the page.
function colours() {
  const css = getComputedStyle(document.documentElement), color = (name) => css.getPropertyValue(name).trim();
  return {font: {color: color("--soft")}, hoverlabel: {bgcolor: color("--card"), bordercolor: color("--line"), font: {color: color("--ink")}}};
}

// Plotly takes longer to start than all else that the page does: words and tables come before it.
let started;
function start() {
  return started ??= new Promise((resolve) => setTimeout(() => {
    document.head.append(element("script", document.getElementById("plotly").textContent));
    resolve();
  }));
}

// A phone has room for fewer labels.
function narrow(data, layout) {
  layout.annotations = layout.annotations?.filter(({name}) => name !== "wide");
  for (const trace of data) if (trace.meta?.narrow) trace.text = trace.meta.narrow;
}

async function draw(source) {
  await start();
  const target = document.getElementById(`${source.dataset.figure}-figure`), {data, layout} = JSON.parse(source.textContent);
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;  // A finger scrolls the page.
  if (target.clientWidth < 600) narrow(data, layout);
  await Plotly.newPlot(target, data, {...layout, ...colours()}, {responsive: true, displayModeBar: false});
  target.on("plotly_click", ({points: [point]}) => { if (point.customdata !== undefined) tell(point.customdata); });
  dark.addEventListener("change", () => Plotly.relayout(target, colours()));
}

// Pictures and tables are made when somebody comes near them, or prints the page.
const unmade = new Map();
for (const source of document.querySelectorAll("[data-figure]")) unmade.set(document.getElementById(`${source.dataset.figure}-figure`), () => draw(source));
for (const source of document.querySelectorAll("[data-rows]")) unmade.set(document.getElementById(`${source.dataset.rows}-table`).parentElement, () => rows(source));
function reveal(target) {
  const make = unmade.get(target);
  unmade.delete(target);
  make?.();
}
const near = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => reveal(one.target)), {rootMargin: "400px"});
for (const target of unmade.keys()) near.observe(target);
addEventListener("beforeprint", () => [...unmade.keys()].forEach(reveal));

document.addEventListener("click", ({target}) => {
  if (target.matches("[data-copy]")) copied(target, target.dataset.copy);
  if (target.matches("[data-close]")) target.parentElement.hidden = true;
});
