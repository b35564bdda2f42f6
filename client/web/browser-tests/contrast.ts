// Contrast of text to its ground, as WCAG 2 reckons it.
//
// In: a page. Out: the texts below 4.5, each with its ratio. Always: the colours are those the browser shows; an element with
// opacity is left out (only what is not final yet is faded).
import type { Page } from "playwright-core";

export function contrastsTooLow(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const least = 4.5;
    type Colour = readonly [number, number, number, number];
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true })!;
    const parse = (css: string): Colour => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = css;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      return [red!, green!, blue!, alpha!];
    };
    const luminance = ([red, green, blue]: Colour) => {
      const linear = (part: number) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
      return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    };
    const ground = (element: Element | null): Colour => {
      if (element === null) return [255, 255, 255, 255];
      const colour = parse(getComputedStyle(element).backgroundColor);
      return colour[3] === 255 ? colour : ground(element.parentElement);
    };
    const isFaded = (element: Element | null): boolean =>
      element !== null && (getComputedStyle(element).opacity !== "1" || isFaded(element.parentElement));

    const low: string[] = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text !== null; text = texts.nextNode()) {
      const element = text.parentElement!;
      if (text.textContent!.trim() === "" || !element.checkVisibility() || element.closest(".spoken") || isFaded(element)) continue;
      const [one, other] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))];
      const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (ratio < least) low.push(`${ratio.toFixed(2)} ${text.textContent!.trim().slice(0, 40)}`);
    }
    return low;
  });
}
