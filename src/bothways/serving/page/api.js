// Requests to the server that this page is from, and how they look in curl and in Python.

let token = null;

/** A request that was refused: its message is the server's. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The answer to a request; a body makes it a POST. Asks for the token if the server wants one. */
export async function ask(path, body = null, signal = null) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, signal };
  if (body !== null) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  if (response.status === 401 && (await askForToken())) return ask(path, body, signal);
  let found = null;
  try {
    found = await response.json();
  } catch {
    throw new Refused(response.status, `The server answered ${response.status} without JSON.`, null);
  }
  if (!response.ok) throw new Refused(response.status, found.error, response.headers.get("Retry-After"));
  return found;
}

/** Whether the user gave a token. */
function askForToken() {
  const dialog = document.getElementById("token");
  const value = document.getElementById("token-value");
  value.value = "";
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        token = dialog.returnValue === "ok" ? value.value : token;
        value.value = "";
        resolve(dialog.returnValue === "ok");
      },
      { once: true },
    );
    dialog.showModal();
  });
}

/** The same request for a shell. */
export function asCurl(path, body) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const lines = [`curl ${location.origin}${path}`, `-H 'Content-Type: application/json'`];
  if (token) lines.push(`-H "Authorization: Bearer $TOKEN"`);
  lines.push(`-d '${quoted}'`);
  return lines.join(" \\\n  ");
}

/** The same request for Python. */
export function asPython(path, body) {
  const lines = ["import requests", ""];
  lines.push("response = requests.post(", `    "${location.origin}${path}",`, `    json=${literal(body)},`);
  if (token) lines.push('    headers={"Authorization": f"Bearer {token}"},');
  lines.push("    timeout=30,", ")", "response.raise_for_status()", 'print(response.json()["results"])');
  if (path === "/v1/tokenize") lines[lines.length - 1] = 'print(response.json()["tokens"])';
  return lines.join("\n");
}

function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, one]) => `${JSON.stringify(key)}: ${literal(one)}`)
    .join(", ")}}`;
}
