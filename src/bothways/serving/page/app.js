// The page: a tab for each task, a form and what came of it.

import { ask, asCurl, asPython } from "/page/api.js";
import { el, field, themeButton } from "/page/dom.js";
import * as inputs from "/page/inputs.js";
import * as results from "/page/results.js";

// A row for each tab: its route, its form, how an answer is drawn, and examples (a name and what `set` takes).
const TABS = [
  {
    id: "classify",
    title: "Classify",
    about: "Which class does a text have?",
    start: "sentiment",
    form: inputs.classify,
    draw: (result) => results.classes(result),
    examples: [
      ["A good review", "A charming and often affecting journey, with a cast that could not be better."],
      ["A bad one", "It is slow: very, very slow. I looked at my watch after ten minutes."],
      ["Both", "The pictures are wonderful, but the story makes no sense at all."],
      ["Irony", "Oh great, another sequel that nobody asked for."],
    ],
  },
  {
    id: "tag",
    title: "Entities",
    about: "People, organizations and places in a text.",
    start: "ner",
    form: () => inputs.text("Text"),
    draw: (result, form) => results.entities(result, form.value()),
    examples: [
      ["Business", "Apple CEO Tim Cook announced a new product at their Cupertino headquarters on Tuesday."],
      ["Sports", "Germany beat Argentina 1-0 in Rio de Janeiro when Mario Götze of Bayern Munich scored in extra time."],
      ["Science", "Marie Curie moved from Warsaw to Paris, where she worked at the Sorbonne with Pierre Curie."],
    ],
  },
  {
    id: "answer",
    title: "Question answering",
    about: "The part of a passage that answers a question.",
    start: "question-answering",
    form: inputs.answer,
    draw: (result, form) => results.answers(result, form.value()),
    examples: [
      [
        "Who built it?",
        [
          "Who designed the tower?",
          "The Eiffel Tower in Paris was designed by engineers of Gustave Eiffel's company, Maurice Koechlin and Émile " +
            "Nouguier, and was built between 1887 and 1889 for the World's Fair. It was the tallest structure in the " +
            "world until 1930.",
        ],
      ],
      [
        "When?",
        [
          "When was the tower finished?",
          "The Eiffel Tower in Paris was designed by engineers of Gustave Eiffel's company, Maurice Koechlin and Émile " +
            "Nouguier, and was built between 1887 and 1889 for the World's Fair.",
        ],
      ],
      [
        "No answer there",
        [
          "How much did the tower cost?",
          "The Eiffel Tower in Paris was built between 1887 and 1889. It is 330 meters tall.",
        ],
      ],
    ],
  },
  {
    id: "zero-shot",
    title: "Zero-shot",
    about: "Which of your labels fits, without training?",
    start: "zero-shot",
    form: inputs.zeroShot,
    draw: (result) => results.labels(result),
    examples: [
      [
        "News",
        ["The government announced new economic policies today.", ["politics", "sports", "technology", "entertainment"]],
      ],
      ["A complaint", ["My parcel came with a broken box, and two cups are missing.", ["delivery", "payment", "return", "praise"]]],
      ["A recipe", ["Fold in the egg whites and bake for twenty minutes.", ["cooking", "travel", "gardening"]]],
    ],
  },
  {
    id: "fill",
    title: "Fill-mask",
    about: "Which word would the model put there?",
    start: "fill-mask",
    form: inputs.fill,
    draw: (result, form) => results.guesses(result, form.choose),
    examples: [
      ["The cat", "The cat [MASK] on the mat."],
      ["A capital", "Paris is the capital of [MASK]."],
      ["Two masks", "The [MASK] was cold, so he put on a [MASK]."],
      ["None yet", "She opened the window because the room was too warm."],
    ],
  },
  {
    id: "similarity",
    title: "Similarity",
    about: "How close are the meanings of sentences?",
    start: "minilm-l6",
    form: inputs.similarity,
    draw: (result, form) => results.cosines(result, form.value()),
    examples: [
      ["A cat", ["A cat sits on the sofa.", ["A kitten is lying on the couch.", "The dog barks.", "Shares fell on Monday."]]],
      [
        "A question",
        [
          "How do I change my password?",
          ["Reset your login", "Where can I set a new passcode?", "Opening hours", "Delete my account"],
        ],
      ],
    ],
  },
  {
    id: "inside",
    title: "Inside",
    about: "What the model reads: tokens, ids, type ids and their places; and which tokens attend to which.",
    path: "/v1/tokenize",
    form: inputs.inside,
    draw: (found, form) => results.tokens(found, form.value()),
    examples: [
      ["Rare words", ["Antidisestablishmentarianism is unbelievably long.", ""]],
      ["A pair", ["Who wrote it?", "It was written by Ann Lee."]],
      ["Accents", ["The naïve café costs 3.50 € 😀", ""]],
    ],
  },
];

/** All of one tab. */
function panel(tab, models) {
  const form = tab.form();
  const path = tab.path || `/v1/${tab.id}`;
  const able = tab.path ? models : models.filter((model) => model.routes.includes(path));
  if (!able.length) {
    return el(
      "div",
      { class: "card" },
      el("h2", {}, tab.title),
      el("p", { class: "notice" }, "No model of this server does this. Start it with one: ", el("code", {}, `bothways serve ${tab.start}`)),
    );
  }
  const choice = el("select", {}, able.map((model) => el("option", { value: model.id }, model.id)));
  const chosen = () => able.find((model) => model.id === choice.value);
  const facts = el("p", { class: "hint" });
  const output = el("div", { "aria-live": "polite" }, el("p", { class: "empty" }, "Choose an example, or press Run."));
  const code = snippet();
  const button = el("button", { type: "submit", class: "main" }, "Run");
  let running = null;

  const request = () => ({ model: choice.value, ...form.body() });
  const changed = () => {
    const model = chosen();
    facts.textContent = `${model.engine}; ${Math.round(model.parameters / 1e6)} M parameters; windows of ${model.max_length} tokens`;
    form.model?.(model);
    code.show(path, request());
  };
  const run = async () => {
    running?.abort();
    const own = (running = new AbortController());
    button.setAttribute("aria-busy", "true");
    const body = request();
    code.show(path, body);
    const begin = performance.now();
    try {
      const found = await ask(path, body, own.signal);
      const result = tab.path ? found : found.results[0];
      output.replaceChildren(
        ...[tab.draw(result, form)].flat(Infinity).filter((one) => one !== null),
        ...read(found, result, performance.now() - begin),
      );
    } catch (error) {
      if (error.name === "AbortError") return;
      const again = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
      output.replaceChildren(el("p", { class: "notice wrong", role: "alert" }, `${error.message}${again}`));
    } finally {
      if (running === own) button.removeAttribute("aria-busy");
    }
  };
  const examples = tab.examples.map(([name, example]) =>
    el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            form.set(example);
            run();
          },
        },
        name,
      ),
    ),
  );
  const whole = el(
    "form",
    {
      class: "card",
      "aria-label": tab.title,
      onsubmit: (event) => {
        event.preventDefault();
        run();
      },
      oninput: () => code.show(path, request()),
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
      },
    },
    el("h2", {}, tab.title),
    el("p", { class: "soft" }, tab.about),
    el("p", { class: "label", id: `examples-${tab.id}` }, "Examples"),
    el("ul", { class: "examples", "aria-labelledby": `examples-${tab.id}` }, examples),
    form.root,
    able.length > 1 ? field("Model", choice) : null,
    el("div", { class: "actions" }, button, el("span", { class: "soft keys" }, "or ", el("kbd", {}, "Ctrl"), " ", el("kbd", {}, "Enter"))),
    facts,
  );
  choice.addEventListener("change", changed);
  form.set(tab.examples[0][1]);
  changed();
  const side = el("section", { class: "card", "aria-label": "Result" }, el("h2", {}, "Result"), output, code.root);
  return [whole, side];
}

/** How long an answer took and how much of the text was read. */
function read(found, result, milliseconds) {
  const items = [];
  const item = (value, text) => items.push(el("li", {}, el("strong", {}, value), ` ${text}`));
  if (found.seconds !== undefined) item(`${(1000 * found.seconds).toFixed(1)} ms`, "server time");
  item(`${milliseconds.toFixed(0)} ms`, "round trip");
  const tokens = Array.isArray(found.tokens) ? found.tokens.length : found.tokens;
  item(tokens.toLocaleString("en"), tokens === 1 ? "token" : "tokens");
  item(String(result.windows), result.windows === 1 ? "window" : "windows");
  const notes = [...(found.notes || [])];
  if (result.truncated) notes.push(`${result.truncated} tokens of the text were not read.`);
  return [el("ul", { class: "meta" }, items), ...notes.map((note) => el("p", { class: "notice" }, note))];
}

/** The request in curl and Python, with a button that copies it. */
function snippet() {
  const kinds = { curl: asCurl, Python: asPython };
  let kind = "curl";
  let last = null;
  const text = el("code");
  const block = el("pre", { tabindex: "0", role: "group", "aria-label": "The same request as code" }, text);
  const said = el("span", { class: "soft", role: "status" });
  const show = () => {
    text.textContent = last ? kinds[kind](...last) : "";
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === kind));
  };
  const buttons = Object.keys(kinds).map((name) =>
    el(
      "button",
      {
        type: "button",
        onclick: () => {
          kind = name;
          show();
        },
      },
      name,
    ),
  );
  const copy = el(
    "button",
    {
      type: "button",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text.textContent);
          said.textContent = "Copied.";
        } catch {
          getSelection().selectAllChildren(text);
          said.textContent = "Selected: press Ctrl C.";
        }
        setTimeout(() => (said.textContent = ""), 3000);
      },
    },
    "Copy",
  );
  return {
    root: el("div", { class: "code" }, el("div", { class: "bar-line" }, el("p", { class: "label" }, "As code"), said, buttons, copy), block),
    show: (path, body) => {
      last = [path, body];
      show();
    },
  };
}

/** Tabs by click, arrow keys, Home and End; the address keeps the one that is open. */
function tabs(models) {
  const bar = document.getElementById("tabs");
  const panels = document.getElementById("panels");
  const made = TABS.map((tab) => {
    const button = el(
      "button",
      { type: "button", role: "tab", id: `tab-${tab.id}`, "aria-controls": `panel-${tab.id}`, onclick: () => open(tab.id) },
      tab.title,
    );
    const content = el(
      "div",
      { role: "tabpanel", id: `panel-${tab.id}`, "aria-labelledby": button.id, hidden: true },
      panel(tab, models),
    );
    return { id: tab.id, button, content };
  });
  const open = (id, { focus = false, push = true } = {}) => {
    for (const tab of made) {
      const isOpen = tab.id === id;
      tab.button.setAttribute("aria-selected", String(isOpen));
      tab.button.tabIndex = isOpen ? 0 : -1;
      tab.content.hidden = !isOpen;
      if (isOpen && focus) tab.button.focus();
      if (isOpen) bar.scrollLeft = tab.button.offsetLeft - (bar.clientWidth - tab.button.offsetWidth) / 2;
    }
    if (push) history.replaceState(null, "", `#${id}`);
  };
  bar.addEventListener("keydown", (event) => {
    const place = made.findIndex((tab) => tab.button.tabIndex === 0);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: made.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    open(made[(next + made.length) % made.length].id, { focus: true });
  });
  bar.replaceChildren(...made.map((tab) => tab.button));
  panels.replaceChildren(...made.map((tab) => tab.content));
  const named = () => TABS.find((tab) => `#${tab.id}` === location.hash)?.id;
  const first = TABS.find((tab) => models.some((model) => model.routes.includes(`/v1/${tab.id}`)))?.id ?? "inside";
  open(named() ?? first, { push: false });
  window.addEventListener("hashchange", () => named() && open(named(), { push: false }));
}

themeButton(document.getElementById("theme"));
try {
  tabs((await ask("/v1/models")).data);
} catch (error) {
  document.getElementById("main").replaceChildren(el("p", { class: "notice wrong", role: "alert" }, error.message));
}
