// What is awaited, but not for ever.
//
// In: a promise, how long, a signal. Out: its value, or an exception at the end of that time or at the signal. Always: a
// promise that is given up goes on; what becomes of it is no unhandled rejection.

/** A storage may take this long to answer. */
export const STORAGE_TIMEOUT_MS = 10_000;

export function within<Value>(ms: number, value: Promise<Value>, signal?: AbortSignal): Promise<Value> {
  const late = () => Promise.reject<Value>(new Error("took too long"));
  return first(value, ms, late, signal);
}

export function passed(ms: number, signal: AbortSignal): Promise<void> {
  return first(new Promise<void>(() => {}), ms, () => Promise.resolve(), signal);
}

/** What comes first: the value, what `late` makes of the end of `ms`, or the exception that `signal` holds. */
function first<Value>(
  value: Promise<Value>,
  ms: number,
  late: () => Promise<Value>,
  signal: AbortSignal | undefined,
): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => end(late()), ms);
    const aborted = () => end(Promise.reject(signal?.reason));
    const end = (outcome: Promise<Value>) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
      outcome.then(resolve, reject);
    };
    signal?.addEventListener("abort", aborted);
    if (signal?.aborted) aborted();
    value.then(
      () => end(value),
      () => end(value),
    );
  });
}
