// The routes of the server, out of /openapi.json.

import { ask } from "/page/api.js";
import { el, themeButton } from "/page/dom.js";

const name = (schema) => schema?.$ref?.split("/").pop();

/** A sentence whose parts between backticks are code. */
const prose = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

/** A type in a few words. */
function kind(schema, all) {
  if (!schema || !Object.keys(schema).length) return "any";
  if (schema.$ref) return kind(all[name(schema)], all) === "object" ? name(schema) : kind(all[name(schema)], all);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => kind(one, all)))].join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items, all)}`;
  return schema.type || "any";
}

/** The fields of an object. */
function fields(schema, all, title) {
  const found = schema?.$ref ? all[name(schema)] : schema;
  if (!found?.properties) return el("p", {}, el("code", {}, kind(schema, all)));
  const rows = Object.entries(found.properties).map(([key, value]) => {
    const limits = ["minimum", "maximum", "minItems", "maxLength"]
      .map((limit) => [limit, value[limit] ?? value.anyOf?.find((one) => one[limit] !== undefined)?.[limit]])
      .filter(([, limit]) => limit !== undefined)
      .map(([limit, number]) => `${limit} ${number}`);
    const about = value.description ?? value.anyOf?.find((one) => one.description)?.description;
    return el(
      "tr",
      {},
      el("td", {}, el("code", {}, key), found.required?.includes(key) ? " *" : ""),
      el("td", {}, el("code", {}, kind(value, all))),
      el("td", {}, [about?.replace(/\.$/, ""), ...limits].filter((one) => one).join("; ")),
    );
  });
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": title },
    el(
      "table",
      {},
      el("caption", {}, prose(found.description || "")),
      el("thead", {}, el("tr", {}, ["Field", "Type", "About"].map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows),
    ),
  );
}

function operation(method, path, one, all) {
  const title = `${method.toUpperCase()} ${path}`;
  const body = one.requestBody?.content?.["application/json"]?.schema;
  const example = body && all[name(body)]?.examples?.[0];
  const answer = one.responses["200"]?.content?.["application/json"]?.schema;
  const others = Object.entries(one.responses).filter(([status]) => status !== "200");
  return el(
    "details",
    { class: "card" },
    el(
      "summary",
      {},
      el("span", { class: "method" }, method.toUpperCase()),
      el("code", {}, path),
      el("span", { class: "soft" }, prose((one.description || one.summary || "").split("\n")[0])),
    ),
    one.description?.includes("\n") ? el("p", {}, prose(one.description)) : null,
    body ? [el("h3", {}, "Request"), fields(body, all, `Request of ${title}`)] : null,
    example
      ? el("pre", { tabindex: "0", role: "group", "aria-label": `Example of ${title}` }, el("code", {}, JSON.stringify(example, null, 2)))
      : null,
    answer ? [el("h3", {}, "Answer"), fields(answer, all, `Answer of ${title}`)] : null,
    others.length
      ? [
          el("h3", {}, "Other answers"),
          el("ul", {}, others.map(([status, other]) => el("li", {}, el("code", {}, status), ` ${other.description}`))),
        ]
      : null,
  );
}

themeButton(document.getElementById("theme"));
const main = document.getElementById("main");
try {
  const api = await ask("/openapi.json");
  const all = api.components.schemas;
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const tag = one.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(method, path, one, all)]);
    }
  }
  main.replaceChildren(
    el("p", { class: "soft" }, `${api.info.description} Version ${api.info.version}. A star marks a field that must be given.`),
    ...[...groups].map(([tag, made]) => el("section", { "aria-label": tag }, el("h2", {}, tag), made)),
  );
} catch (error) {
  main.replaceChildren(el("p", { class: "notice wrong", role: "alert" }, error.message));
}
