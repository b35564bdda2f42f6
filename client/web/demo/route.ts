// The part of the address behind '#': who this tab is, and which chat is open.
//
// In: `#alice`, `#alice/bob`, `#alice/group/g…`, or nothing. Out: a `Route`, and the other way round. Always: what is not of
// that form is as if it were absent; an id holds no '/'.

export type Target = { readonly user: string } | { readonly conversation: string };

export interface Route {
  readonly user: string | undefined;
  readonly target: Target | undefined;
}

const ID = /^[A-Za-z0-9_-]{1,64}$/;

export function isId(text: string): boolean {
  return ID.test(text);
}

export function readRoute(hash: string): Route {
  const [user = "", second = "", third = "", ...more] = hash.replace(/^#/, "").split("/");
  if (!isId(user) || more.length > 0) return { user: undefined, target: undefined };
  if (second === "group" && isId(third)) return { user, target: { conversation: third } };
  if (isId(second) && third === "") return { user, target: { user: second } };
  return { user, target: undefined };
}

export function writeRoute(user: string, target?: Target): string {
  if (target === undefined) return `#${user}`;
  return "user" in target ? `#${user}/${target.user}` : `#${user}/group/${target.conversation}`;
}
