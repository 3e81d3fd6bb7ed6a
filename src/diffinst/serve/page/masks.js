// Run lengths as COCO stores them, to outlines that a canvas can fill and stroke.

/** Run lengths, down the columns, beginning with what is not there. */
export function runs(counts) {
  const found = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const code = counts.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << (5 * shift);
      more = (code & 0x20) !== 0;
      shift++;
      if (!more && (code & 0x10)) value |= -1 << (5 * shift);
    }
    if (found.length > 2) value += found[found.length - 2];
    found.push(value);
  }
  return found;
}

/** The mask inside the smallest window that holds it: {x, y, width, height, there}. */
export function decode(rle) {
  const height = rle.size[0], spans = [];
  let at = 0, x0 = Infinity, x1 = -1, y0 = Infinity, y1 = -1;
  runs(rle.counts).forEach((length, i) => {
    for (let from = at, left = length; i % 2 && left > 0;) { // a run may go on in the next column
      const x = Math.floor(from / height), y = from % height, part = Math.min(left, height - y);
      spans.push([x, y, part]);
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      y0 = Math.min(y0, y); y1 = Math.max(y1, y + part - 1);
      from += part; left -= part;
    }
    at += length;
  });
  if (x1 < 0) return {x: 0, y: 0, width: 0, height: 0, there: new Uint8Array(0)};
  const mask = {x: x0, y: y0, width: x1 - x0 + 1, height: y1 - y0 + 1};
  mask.there = new Uint8Array(mask.width * mask.height);
  for (const [x, y, part] of spans)
    for (let row = y - y0; row < y - y0 + part; row++) mask.there[row * mask.width + x - x0] = 1;
  return mask;
}

/** A Path2D along the mask's edge, in pixels of the image; fill it "evenodd". */
export function outline(mask) {
  const {width, height, there} = mask, across = width + 1, after = new Map();
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && there[y * width + x] === 1;
  const edge = (x, y, u, v) => {
    const from = y * across + x, list = after.get(from);
    if (list) list.push(v * across + u); else after.set(from, [v * across + u]);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!at(x, y)) continue;
      if (!at(x, y - 1)) edge(x, y, x + 1, y);
      if (!at(x + 1, y)) edge(x + 1, y, x + 1, y + 1);
      if (!at(x, y + 1)) edge(x + 1, y + 1, x, y + 1);
      if (!at(x - 1, y)) edge(x, y + 1, x, y);
    }
  }
  const path = new Path2D();
  while (after.size) {
    const first = after.keys().next().value;
    let before = null, here = first;
    do {
      const ways = after.get(here);
      let pick = 0;
      if (ways.length > 1 && before !== null) { // to the right: stay at the same pixel
        const dx = here % across - before % across, dy = Math.floor(here / across) - Math.floor(before / across);
        pick = Math.max(0, ways.indexOf(here + dx * across - dy));
      }
      const [to] = ways.splice(pick, 1);
      if (!ways.length) after.delete(here);
      // Through the middles of the edges: corners of pixels are cut, which looks calmer.
      const x = mask.x + (here % across + to % across) / 2;
      const y = mask.y + (Math.floor(here / across) + Math.floor(to / across)) / 2;
      if (before === null) path.moveTo(x, y); else path.lineTo(x, y);
      before = here;
      here = to;
    } while (here !== first);
    path.closePath();
  }
  return path;
}
