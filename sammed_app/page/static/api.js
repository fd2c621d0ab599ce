// Talking to the server: JSON there and back, failures as sentences.

// What changes something carries this header; a form of another site cannot send it.
export const CHANGE = { "X-Sammed": "1" };

async function answered(response) {
  const kind = response.headers.get("content-type") ?? "";
  const body = kind.includes("application/json") ? await response.json() : await response.blob();
  if (!response.ok) {
    const said = body?.error ?? body?.detail;
    throw new Error(typeof said === "string" ? said : `the server refused this (${response.status})`);
  }
  return body;
}

export async function api(path, query = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const text = new URLSearchParams(kept.map(([k, v]) => [k, String(v)])).toString();
  return answered(await fetch(`/api/${path}${text ? `?${text}` : ""}`));
}

export async function send(path, body, method = "POST") {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  return answered(await fetch(`/api/${path}`, { method, headers: { ...CHANGE, ...json }, body: sent }));
}

// A file or form as it is (for uploads).
export async function upload(path, body) {
  return answered(await fetch(`/api/${path}`, { method: "POST", headers: CHANGE, body }));
}
