// What a token says of itself.
//
// In: a signed token (JWT). Out: its subject and its device, where it names them. Always: only to fill in forms; the server
// alone judges a token.

export interface Claims {
  readonly user: string | undefined;
  readonly device: string | undefined;
}

export function claimsOf(token: string): Claims {
  try {
    const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    const { sub, device } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown; device?: unknown };
    return { user: typeof sub === "string" ? sub : undefined, device: typeof device === "string" ? device : undefined };
  } catch {
    return { user: undefined, device: undefined };
  }
}
