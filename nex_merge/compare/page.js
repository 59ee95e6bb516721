"use strict";
// What a judge says is kept in the browser under the comparison's id, and given back as a file.
const data = JSON.parse(document.getElementById("data").textContent);
const questions = data.questions, key = `nex-merge-${data.comparison}`;
const by = id => document.getElementById(id);
const words = {left: "Left", right: "Right", both: "Both good", neither: "Neither"};
let state = {judge: "", said: {}}, at = 0, keeps = true;

try {
  const kept = JSON.parse(localStorage.getItem(key));
  if (kept && typeof kept.said === "object") state = {judge: String(kept.judge || ""), said: kept.said};
} catch { keeps = false; }

function keep() {
  try { localStorage.setItem(key, JSON.stringify(state)); } catch { keeps = false; }
}

const judged = () => questions.filter(one => one.index in state.said).length;
const next = () => {
  const found = questions.findIndex(one => !(one.index in state.said));
  return found < 0 ? questions.length : found;
};

function show(focus) {
  const one = questions[at], count = judged(), said = one && state.said[one.index];
  by("question").hidden = !one;
  by("end").hidden = Boolean(one);
  if (one) for (const part of ["prompt", "left", "right"]) by(part).textContent = one[part];
  for (const side of ["left", "right"]) by(side).parentElement.classList.toggle("chosen", said === side || said === "both");
  for (const button of document.querySelectorAll("[data-said]")) {
    button.disabled = !one;
    button.setAttribute("aria-pressed", String(said === button.dataset.said));
  }
  by("place").textContent = one
    ? `Prompt ${at + 1} of at most ${questions.length}${said ? `; you said: ${words[said]}` : ""}`
    : `All ${questions.length} prompts are judged.`;
  by("progress").value = count;
  by("back").disabled = at === 0;
  by("save").disabled = count === 0;
  by("kept").textContent = keeps
    ? `${count} judged, kept in this browser.`
    : `${count} judged. This browser keeps nothing: save before you close the page.`;
  if (focus) { scrollTo(0, 0); (one ? by("prompt-title") : by("save")).focus({preventScroll: true}); }
}

function say(word) {
  const one = questions[at];
  if (!one) return;
  state.said[one.index] = word;
  keep();
  by("about").open = false;
  at = next();
  show(true);
}

function back() {
  if (at > 0) { at -= 1; show(true); }
}

function save() {
  const quoted = text => `"${text.replaceAll('"', '""')}"`;
  const judge = state.judge.trim();
  const rows = questions.filter(one => one.index in state.said)
    .map(one => [data.comparison, one.index, state.said[one.index], quoted(judge)].join(","));
  const text = ["comparison,index,better,judge", ...rows, ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = `${data.comparison}${judge ? `-${judge.replace(/[^\p{L}\p{N}]+/gu, "-")}` : ""}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const button of document.querySelectorAll("[data-said]")) button.addEventListener("click", () => say(button.dataset.said));
by("back").addEventListener("click", back);
by("save").addEventListener("click", save);
by("judge").value = state.judge;
by("judge").addEventListener("input", event => { state.judge = event.target.value; keep(); });
addEventListener("keydown", event => {
  if (event.repeat || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const word = ["left", "right", "both", "neither"][["1", "2", "3", "4"].indexOf(event.key)];
  if (word) say(word);
  else if (event.key.toLowerCase() === "u") back();
});
// Keeping can fail only once it is tried.
keep();
at = next();
by("about").open = judged() === 0;
show(false);
