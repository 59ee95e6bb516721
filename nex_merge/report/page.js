"use strict";
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const figures = JSON.parse(byId("figures").textContent);

// Figures name their colours as CSS variables, whose values depend on the theme.
function coloured(item, style) {
  if (typeof item === "string") {
    const variable = /^var\((--[a-z-]+)\)$/.exec(item);
    return variable ? style.getPropertyValue(variable[1]).trim() : item;
  }
  if (Array.isArray(item)) return item.map((part) => coloured(part, style));
  if (item === null || typeof item !== "object") return item;
  return Object.fromEntries(Object.entries(item).map(([key, part]) => [key, coloured(part, style)]));
}

const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

function draw(place) {
  const figure = coloured(figures[place.dataset.figure], getComputedStyle(root));
  Plotly.react(place, figure.data, figure.layout, config);
}

function canDraw(place) {
  if (figures[place.dataset.figure].data[0].type !== "parcoords") return true;
  if (document.createElement("canvas").getContext("webgl")) return true;
  place.textContent = "This figure requires WebGL, which this browser does not support. The values are in the leaderboard.";
  return false;
}

const places = [...document.querySelectorAll(".plot")].filter(canDraw);
places.forEach(draw);
document.querySelectorAll("select[data-plot]").forEach((select) =>
  select.addEventListener("change", () => {
    const place = byId(select.dataset.plot);
    place.dataset.figure = select.value;
    draw(place);
  }));

// The system's theme, until the button chooses one.
const theme = byId("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
function applyTheme() {
  theme.textContent = isDark() ? "Light theme" : "Dark theme";
  places.forEach(draw);
}
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  applyTheme();
});
system.addEventListener("change", applyTheme);
theme.textContent = isDark() ? "Light theme" : "Dark theme";
theme.hidden = false;

const copyStatus = byId("copy-status");
function copy(button) {
  const source = byId(button.dataset.copy);
  const announce = (text) => { button.textContent = copyStatus.textContent = text; };
  const select = () => {
    getSelection().selectAllChildren(source);
    announce(document.execCommand("copy") ? "Copied" : "Selected; press Ctrl+C or ⌘C");
  };
  if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(() => announce("Copied"), select);
  else select();
}
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});

// The leaderboard.
const table = byId("leaderboard");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => row.cells[at].dataset.value;

  function sort(at) {
    const head = heads[at];
    const now = head.getAttribute("aria-sort");
    const descending = now ? now === "ascending" : head.dataset.descending === "1";
    const order = (a, b) => {
      const [x, y] = [key(a, at), key(b, at)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const ascending = head.dataset.text ? x.localeCompare(y) : x - y;
      return descending ? -ascending : ascending;
    };
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    rows.sort(order).forEach((row) => body.append(row));
    count(`Sorted by ${head.dataset.name}, ${descending ? "descending" : "ascending"}. `);
  }

  const [words, state, method] = ["words", "state", "method"].map(byId);
  function count(start = "") {
    const shown = rows.filter((row) => !row.hidden).length;
    byId("count").textContent = `${start}${shown} of ${rows.length} trials shown.`;
  }
  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word))
        || (state.value && row.dataset.state !== state.value)
        || (method.value && row.dataset.method !== method.value);
    });
    count();
  }
  [words, state, method].forEach((input) => input.addEventListener("input", filter));
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => sort(at)));

  const boxes = [...document.querySelectorAll("#columns input")];
  const show = () => boxes.forEach((box, at) => {
    heads[at].hidden = !box.checked;
    rows.forEach((row) => { row.cells[at].hidden = !box.checked; });
  });
  boxes.forEach((box) => box.addEventListener("change", show));
  byId("all").addEventListener("click", () => { boxes.forEach((box) => { box.checked = true; }); show(); });
  byId("few").addEventListener("click", () => { boxes.forEach((box) => { box.checked = box.defaultChecked; }); show(); });
  show();
  count();
}
