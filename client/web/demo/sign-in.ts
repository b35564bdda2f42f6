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
  /** Of a token that names its device. */
  readonly device: string | undefined;
  /** Of the server's demo users, whose tokens can be fetched again. */
  readonly isDemoUser: boolean;
}

const PASTED_KEY = "im-demo/pasted";
const USER_KEY = "im-demo/user";

/** Who this tab is already: by its address, or from before a reload. */
export function knownIdentity(demo: Demo): Identity | undefined {
  const user = readRoute(location.hash).user ?? sessionStorage.getItem(USER_KEY);
  const pasted = sessionStorage.getItem(PASTED_KEY);
  if (pasted !== null) {
    const identity = JSON.parse(pasted) as Identity;
    if (identity.user === user) return identity;
  }
  const known = demo.users.find((one) => one.user === user);
  return known === undefined ? undefined : { ...known, device: undefined, isDemoUser: true };
}

export function forgetIdentity(): void {
  sessionStorage.removeItem(USER_KEY);
  sessionStorage.removeItem(PASTED_KEY);
}

/** Shows the view until somebody was picked. */
export function askIdentity(demo: Demo): Promise<Identity> {
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

function sayWhatToDo(demo: Demo): void {
  const [first, second] = demo.users;
  const hint = found("sign-in-hint", HTMLElement);
  if (first !== undefined && second !== undefined) {
    hint.textContent = `Be ${first.user} in this tab, then open a second tab as ${second.user}, and write to each other.`;
    return;
  }
  hint.textContent =
    "There are no demo users here: they are only on a server that no other machine can reach, for a page that was opened " +
    "there by 127.0.0.1 or localhost and the server's own port.";
  found("token-box", HTMLDetailsElement).open = true;
}

function offerDemoUsers(demo: Demo): void {
  const links = demo.users.map(({ user }) => {
    const button = element("button", {}, avatar(user), user);
    button.addEventListener("click", () => {
      location.hash = writeRoute(user);
    });
    return element("li", {}, button);
  });
  found("demo-users", HTMLUListElement).replaceChildren(...links);
}

function offerToken(demo: Demo): void {
  found("token-goes-to", HTMLElement).textContent = demo.websocket;
  // Without locks the device, and its storage, end with the tab.
  found("token-kept", HTMLElement).hidden = isSecureContext;
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
    device: claimsOf(token).device,
    isDemoUser: false,
  };
}
