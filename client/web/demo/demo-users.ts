// What the server tells its page: where the WebSocket is, and the demo users.
//
// In: /demo.json. Out: the WebSocket address and a token per user; no users where the server hands out none. Always: the
// answer is checked before it is used; the address is one that the page's policy lets it connect to.

export interface DemoUser {
  readonly user: string;
  readonly token: string;
}

export interface Demo {
  readonly websocket: string;
  readonly users: readonly DemoUser[];
}

export async function fetchDemo(): Promise<Demo> {
  const response = await fetch("demo.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`demo.json: HTTP ${response.status}`);
  const answer: unknown = await response.json();
  if (!isDemo(answer)) throw new Error("demo.json is not of the expected form");
  return location.protocol === "https:" ? { ...answer, websocket: `wss://${location.host}/ws` } : answer;
}

function isDemo(value: unknown): value is Demo {
  if (typeof value !== "object" || value === null) return false;
  const { websocket, users } = value as { websocket?: unknown; users?: unknown };
  return typeof websocket === "string" && Array.isArray(users) && users.every(isDemoUser);
}

function isDemoUser(value: unknown): value is DemoUser {
  if (typeof value !== "object" || value === null) return false;
  const { user, token } = value as { user?: unknown; token?: unknown };
  return typeof user === "string" && typeof token === "string";
}
