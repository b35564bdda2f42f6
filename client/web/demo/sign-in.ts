// The first view: who are you?
//
// In: the demo users, or none; a token pasted. Out: `Identity`, once. Always: one line says what to do; a pasted token stays
// in this tab (session storage), so that a reload needs no second paste.
import type { Demo } from "./demo-users.js";
import { avatar, element, found } from "./element.js";
import { readRoute, writeRoute } from "./route.js";
import { claimsOf } from "./token-claims.js";

export interface Identity {
  readonly user: string;
  readonly token: string;
  readonly websocket: string;
  /** Of a token that names its device. */
  readonly device: string | undefined;
  /** Of the server's demo users, whose tokens can be fetched again. */
  readonly isDemoUser: boolean;
}

const PASTED_KEY = "im-demo/pasted";
const USER_KEY = "im-demo/user";
const WEBSOCKET_PORT = 6101;

/** Who this tab is already: by its address, or from before a reload. */
export function knownIdentity(demo: Demo | undefined): Identity | undefined {
  const user = readRoute(location.hash).user ?? sessionStorage.getItem(USER_KEY);
  const pasted = sessionStorage.getItem(PASTED_KEY);
  if (pasted !== null) {
    const identity = JSON.parse(pasted) as Identity;
    if (identity.user === user) return identity;
  }
  const known = demo?.users.find((one) => one.user === user);
  if (demo === undefined || known === undefined) return undefined;
  return { ...known, websocket: demo.websocket, device: undefined, isDemoUser: true };
}

export function forgetIdentity(): void {
  sessionStorage.removeItem(USER_KEY);
  sessionStorage.removeItem(PASTED_KEY);
}

/** Shows the view until somebody was picked. */
export function askIdentity(demo: Demo | undefined): Promise<Identity> {
  const view = found("sign-in", HTMLElement);
  view.hidden = false;
  sayWhatToDo(demo);
  return new Promise((resolve) => {
    offerDemoUsers(demo);
    const form = found("token-form", HTMLFormElement);
    offerToken(demo);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      resolve(pastedIdentity());
    });
    addEventListener("hashchange", () => {
      const identity = knownIdentity(demo);
      if (identity !== undefined) resolve(identity);
    });
  });
}

/** Keeps who this tab is and shows it in the address. */
export function keepIdentity(identity: Identity): void {
  found("sign-in", HTMLElement).hidden = true;
  sessionStorage.setItem(USER_KEY, identity.user);
  if (!identity.isDemoUser) sessionStorage.setItem(PASTED_KEY, JSON.stringify(identity));
  if (readRoute(location.hash).user !== identity.user) history.replaceState(null, "", writeRoute(identity.user));
}

export function tellProblem(problem: string): void {
  found("sign-in", HTMLElement).hidden = false;
  found("sign-in-problem", HTMLElement).textContent = problem;
}

function sayWhatToDo(demo: Demo | undefined): void {
  const [first, second] = demo?.users ?? [];
  const hint = found("sign-in-hint", HTMLElement);
  if (first !== undefined && second !== undefined) {
    hint.textContent = `Be ${first.user} in this tab, then open a second tab as ${second.user}, and write to each other.`;
    return;
  }
  hint.textContent =
    "This server gives out no demo users, because it can be reached from other machines, or because this page was opened " +
    "by another name than 127.0.0.1 or localhost. Sign in with a token:";
  found("token-box", HTMLDetailsElement).open = true;
}

function offerDemoUsers(demo: Demo | undefined): void {
  const links = (demo?.users ?? []).map(({ user }) => {
    const button = element("button", {}, avatar(user), user);
    button.addEventListener("click", () => {
      location.hash = writeRoute(user);
    });
    return element("li", {}, button);
  });
  found("demo-users", HTMLUListElement).replaceChildren(...links);
}

function offerToken(demo: Demo | undefined): void {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const websocket = demo?.websocket ?? `${scheme}://${location.hostname}:${WEBSOCKET_PORT}/ws`;
  found("token-websocket", HTMLInputElement).value = websocket;
  found("token", HTMLTextAreaElement).addEventListener("input", () => {
    const user = claimsOf(found("token", HTMLTextAreaElement).value.trim()).user;
    if (user !== undefined) found("token-user", HTMLInputElement).value = user;
  });
  const named = readRoute(location.hash).user;
  if (named === undefined) return;
  // The address names somebody who is no demo user.
  found("token-user", HTMLInputElement).value = named;
  found("token-box", HTMLDetailsElement).open = true;
}

function pastedIdentity(): Identity {
  const token = found("token", HTMLTextAreaElement).value.trim();
  return {
    user: found("token-user", HTMLInputElement).value,
    token,
    websocket: found("token-websocket", HTMLInputElement).value,
    device: claimsOf(token).device,
    isDemoUser: false,
  };
}
