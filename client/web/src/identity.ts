// Who signs in, on which device.
//
// In: the options, a token, what the storage holds. Out: user and device. Always: a token is only read here, never
// trusted: the server says who its subject is.
import { fromBase64url } from "./base64url.js";
import { isId } from "./ids.js";
import type { StoredState } from "./storage.js";

export interface Identity {
  readonly user: string;
  readonly device: string;
}

export interface Known {
  readonly user: string | undefined;
  readonly device: string | undefined;
  readonly token: string | undefined;
  readonly stored: StoredState | undefined;
}

/** `undefined`: the user is not known without a token. A device that nothing names gets `newDevice`. */
export function identityOf(known: Known, newDevice: string): Identity | undefined {
  const claims = known.token === undefined ? {} : claimsOf(known.token);
  const stored = known.stored?.device;
  const user = known.user ?? claims.sub ?? stored?.user;
  if (user === undefined) return undefined;
  const storedDevice = stored?.user === user ? stored.device : undefined;
  return { user, device: known.device ?? claims.device ?? storedDevice ?? newDevice };
}

/** The device a token is bound to. */
export function deviceOf(token: string): string | undefined {
  return claimsOf(token).device;
}

function claimsOf(token: string): { sub?: string; device?: string } {
  try {
    const payload = new TextDecoder().decode(fromBase64url(token.split(".")[1] ?? ""));
    const claims: { sub?: unknown; device?: unknown } = JSON.parse(payload);
    const id = (claim: unknown) => (typeof claim === "string" && isId(claim) ? claim : undefined);
    const [sub, device] = [id(claims.sub), id(claims.device)];
    return { ...(sub && { sub }), ...(device && { device }) };
  } catch {
    // Not a JWT this client can read: the server will say what it thinks of it.
    return {};
  }
}
