// What a model answered, drawn: bars, marked texts, tokens.

import { characters, el, field, percent } from "/page/dom.js";

const COLORS = 8;

/** Rows of {name, value, text, onclick}: a bar as long as its value is large, at most 1. */
export function bars(rows, { label }) {
  const best = Math.max(...rows.map((row) => row.value));
  return el(
    "ol",
    { class: "bars", "aria-label": label },
    rows.map((row) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${100 * Math.max(0, Math.min(1, row.value))}%`;
      const name = row.onclick
        ? el("button", { type: "button", class: "name", onclick: row.onclick, title: row.title }, row.name)
        : el("span", { class: "name" }, row.name);
      return el("li", { class: row.value === best ? "best" : null }, bar, name, el("span", { class: "value" }, row.text));
    }),
  );
}

/** A text with marks [{start, end, ...}] that do not overlap; `draw` makes the element of one. */
export function marked(text, marks, draw) {
  const letters = characters(text);
  const slice = (start, end) => letters.slice(start, end).join("");
  const parts = [];
  let place = 0;
  for (const mark of [...marks].sort((one, other) => one.start - other.start)) {
    if (mark.start < place) continue;
    parts.push(slice(place, mark.start), draw(mark, slice(mark.start, mark.end)));
    place = mark.end;
  }
  parts.push(slice(place));
  return parts;
}

/** The place of each label among the colors, in the order in which they come. */
export function palette(labels) {
  const places = new Map();
  for (const label of labels) if (!places.has(label)) places.set(label, places.size % COLORS);
  return (label) => `e${places.get(label)}`;
}

export function classes(result) {
  const found = [].concat(result.output);
  return bars(
    found.map(({ label, score }) => ({ name: label, value: score, text: percent(score) })),
    { label: "Classes" },
  );
}

export function entities(result, text) {
  const found = result.output;
  if (!found.length) return el("p", { class: "empty" }, "No entity was found.");
  const color = palette(found.map((one) => one.entity_group));
  const draw = (one, covered) =>
    el(
      "mark",
      { class: `entity ${color(one.entity_group)}`, tabindex: "0" },
      covered,
      el("span", { class: "tag" }, one.entity_group),
      el("span", { class: "tip", role: "note" }, `${one.entity_group}, ${percent(one.score)}`),
    );
  const rows = found.map((one) =>
    el(
      "tr",
      {},
      el("td", {}, one.word),
      el("td", {}, one.entity_group),
      el("td", { class: "number" }, percent(one.score)),
      el("td", { class: "number" }, `${one.start} to ${one.end}`),
    ),
  );
  return [
    el("p", { class: "text" }, marked(text, found, draw)),
    table("Entities as a table", ["Text", "Label", "Score", "Characters"], rows),
  ];
}

export function answers(result, context) {
  const found = [].concat(result.output);
  const passage = el("p", { class: "text dense", tabindex: "0", role: "group", "aria-label": "Passage" });
  const show = (one) =>
    passage.replaceChildren(...marked(context, one.answer ? [one] : [], (_, covered) => el("mark", {}, covered)));
  show(found[0]);
  const rows = found.map((one) => ({
    name: one.answer || "no answer in the passage",
    value: one.score,
    text: percent(one.score),
    title: "Show it in the passage",
    onclick: () => {
      show(one);
      passage.querySelector("mark")?.scrollIntoView({ block: "nearest" });
    },
  }));
  return [bars(rows, { label: "Answers" }), el("h3", {}, "In the passage"), passage];
}

export function labels(result) {
  const { labels: names, scores } = result.output;
  const rows = names.map((name, place) => ({ name, value: scores[place], text: percent(scores[place]) }));
  return bars(rows, { label: "Labels" });
}

export function guesses(result, choose) {
  const masks = Array.isArray(result.output[0]) ? result.output : [result.output];
  return masks.map((found, number) => [
    masks.length > 1 ? el("h3", {}, `Mask ${number + 1}`) : null,
    bars(
      found.map((guess) => ({
        name: guess.token_str,
        value: guess.score,
        text: percent(guess.score),
        title: "Put it in the text",
        onclick: () => choose(number, guess),
      })),
      { label: masks.length > 1 ? `Tokens for mask ${number + 1}` : "Tokens for the mask" },
    ),
  ]);
}

export function cosines(result, sentences) {
  const rows = sentences.map((name, place) => ({ name, value: result.output[place] ?? 0 }));
  for (const row of rows) row.text = row.value.toFixed(3);
  rows.sort((one, other) => other.value - one.value);
  return bars(rows, { label: "Cosines" });
}

export function tokens(found, texts) {
  const shown = el("p", { class: "text dense", tabindex: "0", role: "group", "aria-label": "Text" });
  const attention = found.attentions && attentionOf(found.attentions);
  const about = el(
    "p",
    { class: "hint", role: "status" },
    `Choose a token to see its place in the text${attention ? " and what it attends to" : ""}.`,
  );
  let chosen = null;
  const show = (token) => {
    const parts = texts.flatMap((text, number) => {
      const marks = token && token.text === number ? [token] : [];
      return [number ? "\n" : "", ...marked(text, marks, (_, covered) => el("mark", {}, covered))];
    });
    shown.replaceChildren(...parts);
  };
  const kind = (token) => (token.text === null ? "e7" : token.text ? "e2" : "e0");
  const shares = found.tokens.map(() => el("span", { class: "share" }));
  const cells = found.tokens.map(() => el("td", { class: "number" }));
  const most = el("p", { class: "hint", role: "status" });
  const buttons = found.tokens.map((token, place) =>
    el(
      "button",
      {
        type: "button",
        class: kind(token),
        "aria-pressed": "false",
        onclick: () => choose(place),
      },
      el("span", {}, token.token),
      el("small", {}, `${token.id} · ${token.type_id}`),
      attention && shares[place],
    ),
  );
  const choose = (place) => {
    chosen = place;
    const token = found.tokens[place];
    buttons.forEach((one, other) => one.setAttribute("aria-pressed", String(other === place)));
    show(token);
    about.textContent =
      token.text === null
        ? `${token.token}: a special token, id ${token.id}, type id ${token.type_id}`
        : `${token.token}: id ${token.id}, type id ${token.type_id}, characters ${token.start} to ${token.end}`;
    if (attention) shade();
  };
  // Each token as dark as the chosen one attends to it; the darkest is the one with the largest share.
  const shade = () => {
    if (chosen === null) return;
    const row = attention.row(chosen);
    const largest = Math.max(...row, 1e-3);
    row.forEach((share, place) => {
      buttons[place].classList.add("shaded");
      buttons[place].style.setProperty("--share", `${(100 * share) / largest}%`);
      shares[place].textContent = `attention ${percent(share)}`;
      cells[place].textContent = percent(share);
    });
    const best = [...row.keys()].sort((one, other) => row[other] - row[one]).slice(0, 3);
    const list = best.map((place) => `${found.tokens[place].token} ${percent(row[place])}`).join(", ");
    most.textContent = `${found.tokens[chosen].token} attends most to ${list}. Tokens are shaded by their shares; point at one for its number, or open the table.`;
  };
  attention?.root.addEventListener("change", shade);
  show(null);
  const rows = found.tokens.map((token, place) =>
    el(
      "tr",
      {},
      el("td", { class: "number" }, String(place)),
      el("td", {}, el("code", {}, token.token)),
      attention && cells[place],
      el("td", { class: "number" }, String(token.id)),
      el("td", { class: "number" }, String(token.type_id)),
      el("td", { class: "number" }, token.text === null ? "" : `${token.start} to ${token.end}`),
    ),
  );
  return [
    el("p", { class: "hint" }, "Each token with its id and its type id."),
    attention?.root ?? null,
    el("ul", { class: "tokens" }, buttons.map((button) => el("li", {}, button))),
    attention ? most : null,
    about,
    shown,
    table("Tokens as a table", ["Place", "Token", ...(attention ? ["Attention"] : []), "Id", "Type id", "Characters"], rows),
  ];
}

/** Fields for layer and head (the last layer and the mean of heads at first), and the shares that a token gives. */
function attentionOf(layers) {
  const numbered = (count) => Array.from({ length: count }, (_, place) => el("option", { value: place }, String(place + 1)));
  const layer = el("select", {}, numbered(layers.length));
  const head = el("select", {}, el("option", { value: "mean" }, "Mean of heads"), numbered(layers[0].length));
  layer.value = layers.length - 1;
  const row = (place) => {
    const rows = layers[layer.value].map((one) => one[place]);
    if (head.value !== "mean") return rows[head.value];
    return rows[0].map((_, other) => rows.reduce((sum, one) => sum + one[other], 0) / rows.length);
  };
  return { root: el("div", { class: "row short" }, field("Layer", layer), field("Head", head)), row };
}

function table(title, heads, rows) {
  return el(
    "details",
    {},
    el("summary", {}, title),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": title },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
        el("tbody", {}, rows),
      ),
    ),
  );
}
