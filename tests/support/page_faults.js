// Return the faults of a report's page: texts or charts that are cut off, overlap, lack contrast or lack a tooltip.
() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > window.innerWidth) faults.push(`the page is ${root.scrollWidth} pixels wide`);

  // Exactly one image of each chart is visible, and has a size.
  for (const section of document.querySelectorAll("#timeline, #answers")) {
    const shown = [...section.querySelectorAll(".chart")].filter(chart => chart.getClientRects().length);
    if (shown.length !== 1) faults.push(`${section.id} has ${shown.length} charts`);
    for (const chart of shown) {
      const {width, height} = chart.querySelector("svg").getBoundingClientRect();
      if (width < 200 || height < 50) faults.push(`${section.id} is ${width} × ${height}`);
      const marks = chart.querySelectorAll("path[aria-label], line[aria-label]");
      if (!marks.length) faults.push(`${section.id} has no marks`);
      const untitled = [...marks].filter(mark => !mark.querySelector("title"));
      if (untitled.length) faults.push(`${section.id} has marks without a tooltip`);
    }
  }

  const parse = colour => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (let ancestor = element; ancestor; ancestor = ancestor.parentElement) {
      const {rgb, a} = parse(getComputedStyle(ancestor).backgroundColor);
      if (a) return rgb;
    }
    return [255, 255, 255];
  };

  // The part of the page in which an element's text is visible: texts are cut to some lines, or scroll.
  const visible = new Map();
  const clip = element => {
    if (!element) return {left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity};
    if (!visible.has(element)) {
      const outer = clip(element.parentElement), box = element.getBoundingClientRect();
      const hides = !element.closest(".scroll, svg") && getComputedStyle(element).overflowY !== "visible";
      visible.set(element, hides ? {
        left: Math.max(outer.left, box.left), right: Math.min(outer.right, box.right),
        top: Math.max(outer.top, box.top), bottom: Math.min(outer.bottom, box.bottom),
      } : outer);
    }
    return visible.get(element);
  };

  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || element.closest("title")) continue;
    // Chromium lays out the hidden contents of a closed element too.
    if (element.closest("details:not([open])") && !element.closest("summary")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = clip(element);
    const rects = [...range.getClientRects()].filter(rect =>
      rect.width && rect.height && rect.bottom - 4 <= box.bottom && rect.top + 4 >= box.top);
    if (!rects.length) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color).rgb;
    const [dark, light] = [luminance(ink), luminance(background(element))].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faults.push(`'${node.textContent.trim()}' has a contrast of ${contrast.toFixed(2)}`);
    const scrolls = element.closest(".scroll");
    for (const rect of rects) {
      if (!scrolls && (rect.left < 0 || rect.right > window.innerWidth + 0.5))
        faults.push(`'${node.textContent.trim()}' extends beyond the page`);
      texts.push({rect, text: node.textContent.trim(), element});
    }
  }
  for (const [place, one] of texts.entries()) {
    for (const other of texts.slice(place + 1)) {
      if (one.element === other.element) continue;
      const width = Math.min(one.rect.right, other.rect.right) - Math.max(one.rect.left, other.rect.left);
      const height = Math.min(one.rect.bottom, other.rect.bottom) - Math.max(one.rect.top, other.rect.top);
      // The boxes of a paragraph's lines overlap by some pixels.
      if (width > 1 && height > 4) faults.push(`'${one.text}' overlaps '${other.text}'`);
    }
  }
  return faults;
}
