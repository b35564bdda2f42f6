// A list in the page that follows a list in memory.
//
// In: the wanted items, each with a key and a version. Out: the parent's children are exactly those, in that order. Always:
// an item whose key and version stayed keeps its element (selection, focus and what a screen reader has told stay with it);
// focus stays on its key also when the element was moved or made anew.

export interface Item {
  readonly key: string;
  /** Everything the element shows, as a string: when it differs, the element is updated or made anew. */
  readonly version: string;
  make(): HTMLElement;
  /** Brings an element of an older version up to date; without it, it is made anew. */
  update?(shown: HTMLElement): void;
}

interface Shown {
  version: string;
  node: HTMLElement;
}

const shownIn = new WeakMap<HTMLElement, Map<string, Shown>>();

export function showItems(parent: HTMLElement, items: readonly Item[]): void {
  const before = shownIn.get(parent) ?? new Map<string, Shown>();
  const after = new Map<string, Shown>();
  const focused = focusedKey(parent, before);

  for (const item of items) after.set(item.key, shownAs(item, before.get(item.key)));
  const wanted = new Set([...after.values()].map((shown) => shown.node));
  for (const child of [...parent.children]) if (!wanted.has(child as HTMLElement)) child.remove();
  let next = parent.firstElementChild;
  for (const { node } of after.values()) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }

  shownIn.set(parent, after);
  if (focused !== undefined) restoreFocus(after.get(focused)?.node);
}

function shownAs(item: Item, shown: Shown | undefined): Shown {
  if (shown === undefined || (shown.version !== item.version && item.update === undefined)) {
    return { version: item.version, node: item.make() };
  }
  if (shown.version !== item.version) item.update?.(shown.node);
  return { version: item.version, node: shown.node };
}

function focusedKey(parent: HTMLElement, shown: ReadonlyMap<string, Shown>): string | undefined {
  const active = document.activeElement;
  if (active === null || active === parent || !parent.contains(active)) return undefined;
  for (const [key, { node }] of shown) if (node.contains(active)) return key;
  return undefined;
}

function restoreFocus(node: HTMLElement | undefined): void {
  if (node === undefined || node.contains(document.activeElement)) return;
  const target = node.matches("button, a, input") ? node : node.querySelector<HTMLElement>("button, a, input");
  target?.focus({ preventScroll: true });
}
