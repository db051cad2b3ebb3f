// The page's output formats: HTML for one photo, CSV and JSON lines for all.

const CSV_COLUMNS = ["path", "status", "caption", "score", "confidence", "error_code", "error_message"];

/** An image element with the caption as its alt text. */
export function html(name, caption) {
  return `<img src="${escape(encodeURIComponent(name))}" alt="${escape(caption)}">`;
}

/** A record's caption with a capital letter and a full stop, as alt text; with an ellipsis where it was cut. */
export function sentence(caption) {
  const { text } = caption;
  return text && `${text[0].toUpperCase()}${text.slice(1)}${ending(caption)}`;
}

/** The end of the sentence. */
export function ending({ text, cut }) {
  if (cut) return " …";
  return text.endsWith(".") ? "" : ".";
}

/** Records as CSV (RFC 4180), with a byte order mark that tells Excel the encoding. */
export function csv(records) {
  const rows = records.map((record) => [
    record.path,
    record.status,
    record.caption,
    record.score,
    record.confidence,
    record.error?.code,
    record.error?.message,
  ]);
  return `\ufeff${[CSV_COLUMNS, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("")}`;
}

/** Records as JSON lines, as `showtell caption --format jsonl` writes them. */
export function jsonl(records) {
  return records.map((record) => `${JSON.stringify(record)}\n`).join("");
}

/** Makes the browser save `text` as a file. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it late
}

function cell(value = "") {
  // Spreadsheets take text that begins like this for a formula, which a file name must not become.
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function escape(text) {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
