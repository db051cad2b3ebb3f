// The card of a photo: its picture, its state, its captions and the buttons for them.

import { caption, Failure, seen } from "./api.js";
import { html, sentence } from "./formats.js";
import { draw } from "./heatmap.js";
import { showWords } from "./words.js";

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const template = document.getElementById("card");
let cards = 0;

/**
 * The card of a photo. `state` is "waiting", "done" or "failed". Events: "change" of the state, "remove", and "login" when the
 * server asks for a token.
 */
export class Card extends EventTarget {
  #record = null;
  #failure = null;
  #sending = null; // the AbortController of the current request
  #text = ""; // the caption to copy: one of the record's as a sentence, or the user's text

  constructor(file) {
    super();
    this.file = file;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.#part(".name").textContent = file.name;
    this.#part(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.#part(".remove").addEventListener("click", () => this.remove());
    this.#part(".again").addEventListener("click", () => this.start());
    this.#part(".edit").addEventListener("input", (event) => (this.#text = event.target.value));
    this.#part(".change").addEventListener("click", () => this.#edit());
    this.#part(".copy-text").addEventListener("click", (event) => copy(event.target, this.#text));
    this.#part(".copy-html").addEventListener("click", (event) => copy(event.target, html(file.name, this.#text)));
    this.#showPhoto();
  }

  /** Sends the photo, unless a request is running. */
  async start() {
    if (this.#sending) return;
    this.#sending = new AbortController();
    this.#enter("waiting");
    try {
      this.#record = await caption(this.file, this.#sending.signal, (what) => this.#say(what));
      if (!this.#record.captions) throw new Failure("The caption is too doubtful to be shown.", { code: "doubtful" });
      this.#say("");
      this.#showCaptions();
      this.#enter("done");
    } catch (error) {
      if (error.name === "AbortError") return;
      // Other errors come from a broken answer, or from another server's.
      const unreadable = () => new Failure(`The answer is not readable: ${error.message}`, { again: true });
      this.#failure = error instanceof Failure ? error : unreadable();
      this.#say(this.#failure.message);
      this.#enter("failed");
      if (this.#failure.login) this.dispatchEvent(new Event("login"));
    } finally {
      this.#sending = null;
    }
  }

  /** Removes the card; a running request is aborted. */
  remove() {
    this.#sending?.abort();
    URL.revokeObjectURL(this.#part("img").src);
    this.dispatchEvent(new Event("remove"));
    this.element.remove();
  }

  /** Whether the server asks for a token. */
  get needsToken() {
    return this.state === "failed" && Boolean(this.#failure.login);
  }

  /** The photo's state in one sentence. */
  get summary() {
    return `${this.file.name}: ${this.state === "done" ? this.#text : this.#part(".state").textContent}`;
  }

  /** The service's record with the chosen or written caption, for a file. */
  get record() {
    const path = this.file.name;
    if (this.state === "done") {
      const chosen = this.#record.captions.find((caption) => sentence(caption) === this.#text); // none where it was rewritten
      return { ...this.#record, path, caption: this.#text, score: chosen?.score, confidence: chosen?.confidence };
    }
    const { code, detail } = this.state === "failed" ? this.#failure : { code: "unfinished", detail: "not captioned yet" };
    return { path, status: "error", error: { code, message: detail } };
  }

  #part(selector) {
    return this.element.querySelector(selector);
  }

  #enter(state) {
    this.state = this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", String(state === "waiting"));
    this.#part(".result").hidden = state !== "done";
    this.#part(".again").hidden = !(state === "failed" && this.#failure.again);
    this.dispatchEvent(new Event("change"));
  }

  #say(what) {
    this.#part(".state").textContent = what;
  }

  #showPhoto() {
    const image = this.#part("img");
    image.addEventListener("error", () => {
      image.hidden = true;
      this.#part(".unseen").hidden = false;
    });
    image.src = URL.createObjectURL(this.file);
  }

  #showCaptions() {
    const { captions, width, height } = this.#record;
    this.#part(".unseen").style.aspectRatio = `${width} / ${height}`;
    if (this.#record.attention) {
      seen(this.#record).then((part) => {
        const sides = ["left", "top", "width", "height"];
        sides.forEach((side, index) => (this.#part("canvas").style[side] = `${100 * part[index]}%`));
      });
    }
    const group = `caption-${++cards}`;
    const choices = captions.map((caption) => {
      const radio = make("input", { type: "radio", name: group });
      radio.addEventListener("change", () => this.#write(sentence(caption)));
      const choice = make("label", {});
      choice.append(radio, make("span", { textContent: sentence(caption) }));
      return choice;
    });
    this.#part(".choices").append(...choices);
    this.#write(sentence(captions[0]));
  }

  /** Shows `text` as the caption. Only the best caption has attention maps for its words. */
  #write(text) {
    this.#text = this.#part(".edit").value = text;
    const { captions, pieces, attention } = this.#record;
    const chosen = captions.find((caption) => sentence(caption) === text); // none where it was rewritten
    const [line, canvas] = [this.#part(".words"), this.#part("canvas")];
    if (attention?.length && chosen === captions[0]) {
      line.setAttribute("role", "toolbar");
      line.setAttribute("aria-label", "Words of the caption, each with its attention map");
      showWords(line, canvas, captions[0], pieces, attention);
    } else {
      line.removeAttribute("role");
      line.removeAttribute("aria-label");
      line.textContent = text;
      draw(canvas, null);
    }
    this.#part(".choices").querySelectorAll("input").forEach((radio, index) => {
      radio.checked = captions[index] === chosen;
    });
    // Of the chosen caption alone: the search also ranks by length, so the percentages of all would not be in its order.
    const trust = chosen ? howSure(chosen) : { text: "" };
    this.#part(".likelihood").textContent = trust.text;
    this.#part(".likelihood").dataset.sure = trust.level ?? "";
    const named = chosen === captions[0] && this.#record.source === "labels";
    this.#part(".named").hidden = !named;
    this.#part(".unusual").hidden = !(this.#record.in_domain < 0.5);
    this.#part(".cut").hidden = !chosen?.cut;
  }

  #edit() {
    const [field, line, button] = [this.#part(".edit"), this.#part(".words"), this.#part(".change")];
    const editing = field.hidden;
    field.hidden = !editing;
    line.hidden = editing;
    button.textContent = editing ? "Done" : "Edit";
    if (editing) field.focus();
    else this.#write(field.value.trim());
  }
}

/** How sure a caption is, in words with a number; `level` is for its colour. */
function howSure({ confidence, score }) {
  // The score is the words' mean log-probability. Chat servers give none, which is then 0.
  if (confidence === undefined && !score) return { text: "" };
  if (confidence === undefined) return { text: `Likelihood of the words: ${Math.round(100 * Math.exp(score))}%` };
  const [level, sign, word] =
    confidence < 0.25 ? ["low", "?", "doubtful"] : confidence < 0.6 ? ["middle", "~", "uncertain"] : ["high", "✓", "probably good"];
  return { level, text: `${sign} Confidence ${Math.round(100 * confidence)}%: ${word}` };
}

/** Copies `text`, and shows this on the button. */
async function copy(button, text) {
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = (await copied(text)) ? "Copied" : "Cannot copy here";
  setTimeout(() => (button.textContent = label), 1500);
}

async function copied(text) {
  // The clipboard's own interface is there on https and on the server's very machine, not on http from a phone beside it.
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = make("textarea", { value: text, className: "visually-hidden" });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused.focus();
  return done;
}
