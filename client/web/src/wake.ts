// When the browser has reason to believe that the network is back.
//
// In: `online` events, and the page being shown again. Out: calls of `wake`. Always: where there is no browser, none.

export function onWake(wake: () => void): () => void {
  if (typeof globalThis.addEventListener !== "function") return () => {};
  // A worker has no page to be shown.
  const page = typeof document === "undefined" ? undefined : document;
  const shown = () => {
    if (page?.visibilityState === "visible") wake();
  };
  globalThis.addEventListener("online", wake);
  page?.addEventListener("visibilitychange", shown);
  return () => {
    globalThis.removeEventListener("online", wake);
    page?.removeEventListener("visibilitychange", shown);
  };
}
