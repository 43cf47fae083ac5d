/** The service, asked over HTTP; the key, if it wants one, stays in this tab's session. */

const KEY = "flatcoat-key";

/** What went wrong: `status` is the answer's, or 0 where none came. */
export class Refusal extends Error {
  constructor(status, message, after = null) {
    super(message);
    this.status = status;
    this.after = after;
  }
}

/** Keep the key for this tab. */
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

/** The JSON of `GET path`, or of `POST path` where there is a body. Throws Refusal, or AbortError where given up. */
export async function ask(path, body = null, signal = undefined) {
  const headers = body === null ? {} : { "Content-Type": "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const request = { method: body === null ? "GET" : "POST", headers, signal };
  if (body !== null) request.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service does not answer.");
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => null);
  const message = told?.error?.message ?? `The service answered ${answer.status}.`;
  throw new Refusal(answer.status, message, answer.headers.get("Retry-After"));
}
