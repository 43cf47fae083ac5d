/** The keyboard: which key does what, and where letters are left to be typed. */

const at = (id) => document.getElementById(id);

/** A field that letters are typed into. */
const typed = (node) => node?.matches?.("input:not([type=checkbox]), select, textarea") ?? false;

function inBox(page, event) {
  if (event.key === "Escape") {
    event.target.blur();
    event.preventDefault();
  } else if (event.key === "ArrowDown" && event.target.id === "box") {
    event.preventDefault();
    page.move(0, 0);
  }
}

function moving(page, event) {
  const inTabs = at("tabs").contains(event.target);
  const acts = {
    ArrowDown: () => page.move(0, 1),
    ArrowUp: () => page.hit() && page.move(0, -1),
    ArrowLeft: () => page.across(-1),
    ArrowRight: () => page.across(1),
  };
  const act = acts[event.key];
  const here = page.hit() || inTabs || event.target === document.body || event.target.id === "results";
  if (!act || !here) return false;
  const before = document.activeElement;
  act();
  if (document.activeElement !== before || inTabs) event.preventDefault();
  return true;
}

function letter(page, event) {
  const acts = {
    "/": () => (at("box").focus(), at("box").select()),
    j: () => page.move(0, 1),
    k: () => page.move(0, -1),
    e: () => page.explainFocused(),
    m: () => page.missed(null),
    "?": () => page.help(),
  };
  const digit = /^[1-9]$/.test(event.key) ? page.served?.retrievers[Number(event.key) - 1] : null;
  const act = digit ? () => page.toggle(digit.name) : acts[event.key];
  if (!act || !page.view) return;
  event.preventDefault();
  act();
}

/** Hear the keyboard for `page`; single letters and digits only while `letters()` says so. */
export function listen(page, letters) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at("drawer").open) return;
    if (typed(event.target)) inBox(page, event);
    else if (!moving(page, event) && letters()) letter(page, event);
  });
}
