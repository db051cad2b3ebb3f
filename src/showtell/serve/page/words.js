// The words of a caption as buttons: hovered, focused or tapped, each shows its attention map.

import { ending } from "./formats.js";
import { describe, draw } from "./heatmap.js";

/**
 * Fills `line` with the words of a caption. `pieces` has the text of each word with the space before it, `maps` has an attention
 * map for each. There is one tab stop: arrow keys move between words, Enter or a tap keeps a map, Escape removes it.
 */
export function showWords(line, canvas, caption, pieces, maps) {
  const words = pieces.map((piece, index) => button(index === 0 ? capital(piece) : piece.trimStart(), maps[index]));
  line.replaceChildren(...words.flatMap((word, index) => (pieces[index].startsWith(" ") ? [" ", word] : [word])), ending(caption));
  words[0].tabIndex = 0;

  const looked = { pointed: null, focused: null, kept: null };
  const show = (change) => {
    Object.assign(looked, change);
    const shown = looked.pointed ?? looked.focused ?? looked.kept;
    for (const word of words) {
      word.classList.toggle("shown", word === shown);
      word.setAttribute("aria-pressed", String(word === looked.kept));
    }
    draw(canvas, maps[words.indexOf(shown)]);
  };
  for (const word of words) {
    word.addEventListener("pointerenter", () => show({ pointed: word }));
    word.addEventListener("pointerleave", () => show({ pointed: null }));
    word.addEventListener("blur", () => show({ focused: null }));
    word.addEventListener("focus", () => {
      for (const other of words) other.tabIndex = other === word ? 0 : -1;
      show({ focused: word });
    });
    word.addEventListener("click", () => show({ kept: looked.kept === word ? null : word }));
    word.addEventListener("keydown", (event) => {
      if (event.key === "Escape") show({ kept: null, focused: null });
      const next = { ArrowRight: +1, ArrowLeft: -1, Home: -Infinity, End: +Infinity }[event.key];
      if (!next) return;
      event.preventDefault();
      words[Math.min(Math.max(words.indexOf(word) + next, 0), words.length - 1)].focus();
    });
  }
  show({});
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function button(text, map) {
  const word = document.createElement("button");
  Object.assign(word, { type: "button", className: "word", textContent: text, tabIndex: -1 });
  word.setAttribute("aria-description", describe(map));
  return word;
}
