// The page: takes photos by drop, paste, choice or camera, makes a card for each, and downloads the captions.

import { useToken } from "./api.js";
import { Card } from "./card.js";
import { csv, jsonl, save } from "./formats.js";

const at = (id) => document.getElementById(id);
let cards = [];

function add(files) {
  for (const file of files) {
    const card = new Card(file);
    card.addEventListener("change", () => changed(card));
    card.addEventListener("login", () => askForToken());
    card.addEventListener("remove", () => removed(card));
    cards.push(card);
    at("cards").append(card.element);
    card.start();
  }
}

function changed(card) {
  if (card.state !== "waiting") at("status").textContent = card.summary; // read out by screen readers
  if (card.state === "done") at("model").textContent = `Model: ${card.record.model}`;
  count();
}

function removed(card) {
  const place = cards.indexOf(card);
  cards = cards.filter((other) => other !== card);
  count();
  const next = cards[place] ?? cards[place - 1];
  (next?.element.querySelector(".remove") ?? at("choose")).focus(); // the focus must not be lost with the button
}

function count() {
  const finished = cards.filter(({ state }) => state !== "waiting").length;
  at("results").hidden = cards.length === 0;
  at("drop").classList.toggle("brief", cards.length > 0);
  at("progress").hidden = finished === cards.length;
  at("progress").max = cards.length || 1;
  at("progress").value = finished;
  at("count").textContent = `${finished} of ${cards.length} done`;
}

function askForToken() {
  if (!at("login").hidden) return;
  at("login").hidden = false;
  at("token").focus();
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(at("token").value);
  at("login").hidden = true;
  for (const card of cards) if (card.needsToken) card.start();
});

for (const [button, input] of [["choose", "files"], ["camera", "shot"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // so that the same photo can be chosen again
  });
}

addEventListener("paste", (event) => add(event.clipboardData.files));

addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return; // text can still be dragged into text fields
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over"); // left the window, not just an element in it
});
addEventListener("drop", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  at("drop").classList.remove("over");
  add(event.dataTransfer.files);
});

const records = () => cards.map((card) => card.record);
at("csv").addEventListener("click", () => save("captions.csv", "text/csv", csv(records())));
at("jsonl").addEventListener("click", () => save("captions.jsonl", "application/jsonl", jsonl(records())));
at("clear").addEventListener("click", () => {
  for (const card of cards) card.remove();
});
