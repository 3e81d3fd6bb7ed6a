// What the page asks the server; every failure becomes an Error with a line to show.

export class Failure extends Error {
  constructor(status, detail, wait) { super(detail); this.status = status; this.wait = wait; }
}

const AWAY = "The server does not answer. Is it still running?";

async function answered(response) {
  if (response.ok) return response;
  let detail = `The server answered ${response.status}.`;
  try { detail = (await response.json()).detail || detail; } catch { /* no JSON: the status is all there is */ }
  throw new Failure(response.status, detail, Number(response.headers.get("Retry-After")) || 0);
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {credentials: "same-origin", ...options});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, AWAY, 0);
  }
  return answered(response);
}

export const get = async path => (await ask(path)).json();
export const file = async path => {
  const response = await ask(path), said = response.headers.get("Content-Disposition") || "";
  return {blob: await response.blob(), name: decodeURIComponent(said.split("''")[1] || "export")};
};
export const post = async (path, body) => (await ask(path, {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
})).json();
export const upload = async (blob, name) =>
  (await ask(`/images?name=${encodeURIComponent(name)}`, {method: "POST", body: blob})).json();
export const remove = path => ask(path, {method: "DELETE"});
export const bringToken = token => ask("/token", {method: "POST", body: token});

/** Server-sent events of one request: calls `on(kind, data)`; ends with the stream. */
export async function events(path, signal, on) {
  const response = await ask(path, {signal, headers: {Accept: "text/event-stream"}});
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", last = "";
  for (;;) {
    let part;
    try { part = await reader.read(); } catch (error) {
      if (signal.aborted) throw error;
      throw new Failure(0, AWAY, 0);
    }
    if (part.done) {
      if (last !== "done") throw new Failure(0, AWAY, 0);
      return;
    }
    text += part.value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const lines = Object.fromEntries(text.slice(0, end).split("\n").map(line => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (lines.event === "error") throw new Failure(500, JSON.parse(lines.data).detail, 0);
      last = lines.event;
      on(last, JSON.parse(lines.data));
    }
  }
}
