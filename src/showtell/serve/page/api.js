// Sends photos to the service: a few requests at a time, repeated while the server is busy.

const AT_ONCE = 3; // requests at a time; more would wait in the server's queue
const BUSY = [429, 503]; // HTTP statuses after which a request is repeated
const TRIES = 30; // requests for one photo while the server is busy
const LONGEST = 30; // most seconds between two requests

// The image error codes (docs/images.md) in words for a person who has only the photo.
const MEANINGS = {
  empty: "The file is empty.",
  "too-large": "The file is too large for this server. A smaller copy will do: the model looks at 224 by 224 pixels.",
  "not-an-image": "This file is not a photo.",
  "unsupported-format": "This server does not read photos of this kind. Save it as JPEG or PNG.",
  "too-many-pixels": "The photo has too many pixels for this server. A smaller copy will do.",
  truncated: "The file is cut short: a part of it is missing. Get it again from where it came.",
  unreadable: "The photo is damaged and cannot be read.",
};

/**
 * Why a photo has no caption: `message` for people, `code` and `detail` for files. `again` where another try may help, `login`
 * where a token is missing or wrong.
 */
export class Failure extends Error {
  constructor(detail, { code = "failed", again = false, login = false } = {}) {
    super(MEANINGS[code] ?? detail);
    Object.assign(this, { code, detail, again, login });
  }
}

let attends = true;
let token = "";
export function useToken(value) {
  token = value;
}

/**
 * Gets the record of a photo. `report` receives the state: "Waiting", "Captioning", "The server is busy ...".
 * Throws Failure, or the signal's AbortError.
 */
export async function caption(file, signal, report) {
  report("Waiting for its turn");
  await turns.enter();
  try {
    for (let tries = 1; ; tries++) {
      signal.throwIfAborted();
      report("Captioning …");
      const maps = attends;
      const answer = await send(file, maps, signal);
      if (answer.ok) return (await answer.json()).results[0];
      const failure = await failureIn(answer);
      if (maps && failure.code === "invalid-option") attends = false; // this model has no attention: ask for captions alone
      else if (!BUSY.includes(answer.status) || tries === TRIES) throw failure;
      else {
        const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 2, LONGEST);
        report(`The server is busy. Trying again in ${seconds} s`);
        await pause(seconds + Math.random(), signal); // so that pages do not repeat at the same moment
      }
    }
  } finally {
    turns.leave();
  }
}

let preprocessing = null;

/** The part of a photo that the model sees, and attention maps cover: left, top, width and height as shares of the photo. */
export async function seen({ width, height }) {
  preprocessing ??= fetch("v1/model", { headers: headers() })
    .then((answer) => answer.json())
    .then((model) => model.preprocessing ?? {})
    .catch(() => ({}));
  const { resize, crop } = await preprocessing;
  if (resize !== "crop") return [0, 0, 1, 1];
  const side = crop * Math.min(width, height);
  const [x, y] = [side / width, side / height];
  return [(1 - x) / 2, (1 - y) / 2, x, y];
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

async function send(file, maps, signal) {
  const body = new FormData();
  body.append("image", file, file.name);
  try {
    return await fetch(`v1/captions?num_captions=3&attention=${maps}`, { method: "POST", body, headers: headers(), signal });
  } catch (error) {
    if (signal.aborted) throw error;
    // A folder or a deleted photo gives the same error as a server that has stopped.
    const readable = await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
    if (!readable) throw new Failure("The browser cannot read this file. Is it a folder, or was it moved?");
    throw new Failure("The server cannot be reached.", { again: true });
  }
}

async function failureIn(answer) {
  const body = await answer.json().catch(() => ({})); // a proxy's error page is not JSON
  const { code = `http-${answer.status}`, message } = body.error ?? {};
  return new Failure(message ?? `The server answered ${answer.status} ${answer.statusText}`.trim(), {
    code,
    again: answer.status >= 500 || [401, 408, 429].includes(answer.status),
    login: answer.status === 401,
  });
}

const turns = {
  free: AT_ONCE,
  waiting: [],
  async enter() {
    if (this.free > 0) this.free--;
    else await new Promise((resolve) => this.waiting.push(resolve));
  },
  leave() {
    const next = this.waiting.shift(); // it gets the turn at once, so that no other request takes it
    if (next) next();
    else this.free++;
  },
};

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
