// When the browser has reason to believe that the network has come or gone.
//
// In: `online` and `offline` events, and the page being shown again. Out: calls of `wake`. Always: where there is no browser,
// none. A browser that goes offline leaves its sockets open: only a question without an answer shows that they are dead.

export function onWake(wake: () => void): () => void {
  if (typeof globalThis.addEventListener !== "function") return () => {};
  // A worker has no page to be shown.
  const page = typeof document === "undefined" ? undefined : document;
  const shown = () => {
    if (page?.visibilityState === "visible") wake();
  };
  globalThis.addEventListener("online", wake);
  globalThis.addEventListener("offline", wake);
  page?.addEventListener("visibilitychange", shown);
  return () => {
    globalThis.removeEventListener("online", wake);
    globalThis.removeEventListener("offline", wake);
    page?.removeEventListener("visibilitychange", shown);
  };
}
