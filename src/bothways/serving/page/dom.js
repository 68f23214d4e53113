// Elements without HTML: what a user or a model wrote is only ever text.

/** An element with attributes, listeners (onclick: ...) and children (elements or texts; null is left out). */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

let numbers = 0;

/** A label and its field. */
export function field(text, control, hint = null) {
  control.id = control.id || `field-${++numbers}`;
  const about = hint ? el("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (about) control.setAttribute("aria-describedby", about.id);
  return el("div", {}, el("label", { for: control.id }, text), control, about);
}

/** The characters of a text as Python counts them, in which the server gives places. */
export const characters = (text) => Array.from(text);

/** A share as a percentage. */
export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 2 : 1)} %`;

/** The button that switches between light and dark; without it the system decides. */
export function themeButton(button) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => (button.textContent = isDark() ? "Light mode" : "Dark mode");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}
