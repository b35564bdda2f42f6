// Making and finding elements.
//
// In: a tag, attributes, children. Out: the element. Always: text becomes a text node, never markup, so nothing that people
// write can become part of the page; no style attribute, so a strict content policy holds.

type Attributes = Readonly<Record<string, string | boolean | undefined>>;

/** `true` sets an empty attribute; `false` and `undefined` set none. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** An element of index.html. */
export function found<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the symbols of index.html. For the eyes only: the words stand beside it. */
export function icon(name: "clock" | "stored" | "read" | "warning"): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

const TINTS = 8;

/** A round letter in a colour of its own. For the eyes only. */
export function avatar(name: string, size: "" | "small" = ""): HTMLElement {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 65_521;
  const letter = [...name][0] ?? "?";
  return element("span", { class: `avatar ${size} tint-${sum % TINTS}`, "aria-hidden": "true" }, letter);
}

/** Words that only a screen reader tells. */
export function spoken(words: string): HTMLElement {
  return element("span", { class: "spoken" }, words);
}
