// Bytes as text that fits an id.
//
// In: bytes; or such a text. Out: base64url without padding; or the bytes. Always: only `A-Z a-z 0-9 _ -` come out.

export function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

/** Throws if `text` is not base64url. */
export function fromBase64url(text: string): Uint8Array {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}
