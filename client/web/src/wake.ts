// When the browser has reason to believe that the network is back.
//
// In: `online` events, and the page being shown again. Out: calls of `wake`. Always: where there is no browser, none.

export function onWake(wake: () => void): () => void {
  if (typeof globalThis.addEventListener !== "function" || typeof document === "undefined") return () => {};
  const shown = () => {
    if (document.visibilityState === "visible") wake();
  };
  globalThis.addEventListener("online", wake);
  document.addEventListener("visibilitychange", shown);
  return () => {
    globalThis.removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", shown);
  };
}
