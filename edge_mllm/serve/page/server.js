// What the page asks of the server it came from.

const ROOT = new URL("../", import.meta.url);
const KEY = "edge-mllm-api-key";

/** A request that the server refused or that failed; `status` is 0 where no response came or a stream broke. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Keep a key until the tab is closed. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function call(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) {
    headers.Authorization = `Bearer ${key}`;
  }
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new ServerError("The server cannot be reached. Does it still run?", 0);
  }
  if (!response.ok) {
    const text = await response.text();
    const wait = response.headers.get("Retry-After");
    throw new ServerError(messageOf(text) + (wait ? ` (try again in ${wait} s)` : ""), response.status);
  }
  return response;
}

function brokenOff(error) {
  throw error?.name === "AbortError" ? error : new ServerError("The answer broke off.", 0);
}

function messageOf(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.slice(0, 300) || "The server gave no reason.";
  }
}

/** Name of the model. */
export async function modelName() {
  return (await (await call("v1/models")).json()).data[0].id;
}

/** What a chat completion with this body would take. */
export async function plan(body, signal) {
  return (await call("plan", body, signal)).json();
}

/** The objects of a streamed chat completion, as they come. */
export async function* completion(body, signal) {
  const streamed = { ...body, stream: true, stream_options: { include_usage: true, include_progress: true } };
  const response = await call("v1/chat/completions", streamed, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let whole = false;
  for (;;) {
    const { done, value } = await reader.read().catch(brokenOff);
    if (done && whole) {
      return;
    }
    if (done) {
      brokenOff();
    }
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") {
        whole = true;
      } else if (line.startsWith("data: ")) {
        signal.throwIfAborted(); // of what came in one piece, what is read after that is dropped
        const found = JSON.parse(line.slice(6));
        if (found.error) {
          throw new ServerError(found.error.message, 0);
        }
        yield found;
      }
    }
  }
}
