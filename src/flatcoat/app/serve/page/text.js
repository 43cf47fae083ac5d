/** Elements, numbers and words: how anything is written on the page. No markup is ever made from a string. */

/** An element with attributes (`on…` are listeners; false, null and undefined are left out) and children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text for screen readers alone. */
export const spoken = (text) => el("span", { class: "hidden" }, text);

/** A score: four digits that mean something, and a true minus sign. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: false }).replace("-", "−");
}

/** Seconds as milliseconds, with a digit behind the point below ten. */
export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** `1 document`, `2,000 documents`. */
export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A part as percent. */
export const percent = (part) => `${(100 * part).toFixed(part < 0.0995 && part > 0 ? 1 : 0)}%`;

const WORD = /[\p{L}\p{N}\p{M}]+/gu;
const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Khmer}]/u;
const COMMON = new Set(
  "a an and are as at be by do does for from how i in is it of on or that the to was what when where who why with".split(" "),
);

function wordsOf(query) {
  if (!UNSPACED.test(query) || !Intl.Segmenter) return query.match(WORD) ?? [];
  const parts = [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(query)];
  return parts.filter((part) => part.isWordLike).map((part) => part.segment);
}

/** What matches a query's words in a text, plural or not; null where there is nothing to match. */
export function matcher(query) {
  const all = [...new Set(wordsOf(query).map((word) => word.toLowerCase()))];
  const telling = all.filter((word) => !COMMON.has(word));
  const sources = (telling.length ? telling : all).map((word) => {
    if (UNSPACED.test(word)) return word;
    const stem = /[^s]s$/.test(word) && word.length > 3 ? word.slice(0, -1) : word;
    return `(?<![\\p{L}\\p{N}\\p{M}])${stem}(?:s|es)?(?![\\p{L}\\p{N}\\p{M}])`;
  });
  return sources.length ? new RegExp(sources.join("|"), "giu") : null;
}

/** A text as nodes, the words that match marked. */
export function marked(text, words) {
  if (!words) return [text];
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(words)) {
    nodes.push(text.slice(end, match.index), el("mark", {}, match[0]));
    end = match.index + match[0].length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

/** The stretch of a text, about `length` characters, that holds the most of what matches; marked. */
export function snippet(text, words, length = 240) {
  const whole = text.slice(0, 20000).replace(/\s+/g, " ").trim();
  if (whole.length <= length * 1.25) return marked(whole, words);
  const places = words ? [...whole.matchAll(words)].map((match) => match.index) : [];
  let [start, most] = [0, 0];
  for (const place of places) {
    const begin = Math.max(0, place - 40);
    const held = places.filter((other) => other >= begin && other < begin + length).length;
    if (held > most) [start, most] = [begin, held];
  }
  if (start > 0) start = whole.indexOf(" ", start) + 1 || start;
  let end = Math.min(whole.length, start + length);
  if (end < whole.length) end = Math.max(whole.lastIndexOf(" ", end), start + length / 2);
  return [start > 0 ? "… " : null, ...marked(whole.slice(start, end), words), end < whole.length ? " …" : null];
}
