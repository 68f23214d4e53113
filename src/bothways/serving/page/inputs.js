// The forms: each gives {root, body(), set(example)}; `body` is the request, without the model.

import { el, field } from "/page/dom.js";

const area = (rows) => el("textarea", { rows, spellcheck: "false", class: rows < 3 ? "short" : null });

/** One text. */
export function text(label) {
  const input = area(4);
  return {
    root: field(label, input),
    value: () => input.value,
    body: () => ({ inputs: input.value }),
    set: (example) => (input.value = example),
  };
}

/** A text, and for models of pairs a second one. */
export function classify() {
  const [first, second] = [area(4), area(2)];
  const pair = field("Second text", second, "For models of pairs; leave it empty for others.");
  return {
    root: el("div", {}, field("Text", first), pair),
    body: () => ({
      inputs: second.value && !pair.hidden ? { text: first.value, text_pair: second.value } : first.value,
      top_k: 20,
    }),
    set: (example) => ([first.value, second.value] = [example, ""]),
    model: (model) => (pair.hidden = !["pairs", "next_sentence"].includes(model.task)),
  };
}

/** A question and a passage. */
export function answer() {
  const [question, context] = [el("input", { type: "text" }), area(8)];
  return {
    root: el("div", {}, field("Question", question), field("Passage", context)),
    value: () => context.value,
    body: () => ({ inputs: { question: question.value, context: context.value }, top_k: 3 }),
    set: (example) => ([question.value, context.value] = example),
  };
}

/** A text and labels, which become chips. */
export function zeroShot() {
  const input = area(4);
  const several = el("input", { type: "checkbox", id: "several" });
  const chips = chipField("Labels", "Type a label and press Enter.");
  return {
    root: el(
      "div",
      {},
      field("Text", input),
      chips.root,
      el("label", { class: "check", for: "several" }, several, "Several labels may be true"),
    ),
    body: () => ({ inputs: input.value, candidate_labels: chips.values(), multi_label: several.checked }),
    set: (example) => {
      [input.value] = example;
      chips.set(example[1]);
    },
  };
}

/** Labels that are typed one by one, each with a button that removes it. */
export function chipField(label, hint) {
  const chips = new Map(); // of each label its element
  const input = el("input", { type: "text", "aria-label": `${label}: add one`, placeholder: "Add a label" });
  const box = el("div", { class: "chips" }, input);
  const said = el("p", { class: "hint", role: "status" }, hint);
  const typed = () => {
    const parts = input.value.split(",").map((one) => one.trim());
    return [...new Set(parts.filter((one) => one && !chips.has(one)))];
  };
  const remove = (value) => {
    chips.get(value).remove();
    chips.delete(value);
    said.textContent = `Removed ${value}.`;
    input.focus();
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const put = (value) => {
    const button = el("button", { type: "button", "aria-label": `Remove ${value}`, onclick: () => remove(value) }, "×");
    chips.set(value, el("span", { class: "chip" }, value, button));
    input.before(chips.get(value));
  };
  const add = () => {
    const fresh = typed();
    input.value = "";
    fresh.forEach(put);
    if (fresh.length) said.textContent = `Added ${fresh.join(", ")}.`;
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      add();
    } else if (event.key === "Backspace" && !input.value && chips.size) {
      remove([...chips.keys()].at(-1));
    }
  });
  return {
    root: el("fieldset", {}, el("legend", {}, label), box, said),
    values: () => [...chips.keys(), ...typed()], // what is typed counts without Enter, too
    set: (fresh) => {
      for (const chip of chips.values()) chip.remove();
      chips.clear();
      fresh.forEach(put);
    },
  };
}

/** A text whose words are buttons: a click masks one, another click brings it back. */
export function fill() {
  const input = area(3);
  const words = el("p", { class: "words", role: "group", "aria-label": "Words to mask" });
  let mask = "[MASK]";
  let hidden = new Map(); // the words that masks hide, by their place
  const pieces = () => input.value.split(/(\s+)/).flatMap((one) => {
    if (one.includes(mask)) return one.split(mask).flatMap((part, place) => (place ? [mask, part] : [part]));
    const found = /^([^\p{L}\p{N}]*)(.*?)([^\p{L}\p{N}]*)$/u.exec(one);
    return found ? found.slice(1) : [one];
  }).filter((one) => one);
  const draw = () => {
    const all = pieces();
    words.replaceChildren(
      ...all.map((word, place) => {
        const isMask = word === mask;
        if (!isMask && !/[\p{L}\p{N}]/u.test(word)) return word;
        const before = hidden.get(place);
        return el(
          "button",
          {
            type: "button",
            "aria-pressed": String(isMask),
            "aria-label": isMask ? `${before || "word"}, masked` : null,
            onclick: () => {
              const now = pieces();
              if (isMask) now[place] = before || "";
              else {
                hidden.set(place, word);
                now[place] = mask;
              }
              input.value = now.join("");
              draw();
              words.querySelectorAll("button")[index(place)]?.focus();
            },
          },
          word,
        );
      }),
    );
    const index = (place) => all.slice(0, place).filter((one) => one === mask || /[\p{L}\p{N}]/u.test(one)).length;
  };
  input.addEventListener("input", () => {
    hidden = new Map();
    draw();
  });
  return {
    root: el(
      "div",
      {},
      field("Text", input),
      el("p", { class: "label" }, "Click a word to mask it"),
      words,
    ),
    body: () => ({ inputs: input.value, top_k: 8 }),
    set: (example) => {
      input.value = example.replaceAll("[MASK]", mask);
      hidden = new Map();
      draw();
    },
    model: (model) => {
      input.value = input.value.replaceAll(mask, model.mask_token);
      mask = model.mask_token;
      draw();
    },
    // Puts a guess in the place of a mask.
    choose: (number, guess) => {
      let seen = -1;
      input.value = input.value
        .split(mask)
        .reduce((before, after) => (++seen === number ? `${before}${guess.token_str.trim()}${after}` : `${before}${mask}${after}`));
      hidden = new Map();
      draw();
    },
  };
}

/** A sentence and others, one in a line. */
export function similarity() {
  const [source, others] = [el("input", { type: "text" }), area(6)];
  const lines = () => others.value.split("\n").map((one) => one.trim()).filter((one) => one);
  return {
    root: el("div", {}, field("Sentence", source), field("Compare with", others, "One sentence in a line.")),
    value: lines,
    body: () => ({ inputs: { source_sentence: source.value, sentences: lines() } }),
    set: (example) => ([source.value, others.value] = [example[0], example[1].join("\n")]),
  };
}

/** A text and perhaps a second one, to be tokenized; with attention if the model has it. */
export function inside() {
  const [first, second] = [area(4), area(2)];
  const both = () => (second.value ? [first.value, second.value] : [first.value]);
  const attention = el("input", { type: "checkbox" });
  const most = el("span");
  const check = el("label", { class: "check" }, attention, most);
  const without = el(
    "p",
    { class: "hint" },
    "No attention for this model: ",
    el("code", {}, "bothways export DIR --attentions"),
    " adds it.",
  );
  attention.checked = true;
  return {
    root: el("div", {}, field("Text", first), field("Second text", second, "As in a pair; may be empty."), check, without),
    value: both,
    body: () => ({
      text: first.value,
      ...(second.value ? { text_pair: second.value } : {}),
      ...(!check.hidden && attention.checked ? { attentions: true } : {}),
    }),
    set: (example) => ([first.value, second.value] = example),
    model: ({ attentions }) => {
      check.hidden = !attentions;
      without.hidden = Boolean(attentions);
      if (attentions) most.textContent = `Attention, for up to ${attentions.max_tokens} tokens`;
    },
  };
}
