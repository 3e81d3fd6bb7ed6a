// A large image as tiles that are fetched as they come into view, over a coarse one of all of it.

const MOST = 120; // tiles that are kept
const AGAIN = 1500; // ms after which one that did not come is asked for again

export class Tiles {
  /** work: the server's word on an image, with `tiles`; redraw: called when a tile has come. */
  constructor(work, redraw) {
    this.id = work.id; this.width = work.width; this.height = work.height;
    this.side = work.tiles.side; this.levels = work.tiles.levels;
    this.redraw = redraw;
    this.src = this.address(this.levels - 1, 0, 0);
    this.kept = new Map(); // by address, those drawn last at the end
  }

  /** The smallest level is there; nothing is shown before. */
  async decode() {
    const image = this.fetch(this.levels - 1, 0, 0);
    await image.decode();
  }

  address(level, x, y) { return `/images/${this.id}/tile?level=${level}&x=${x}&y=${y}`; }

  fetch(level, x, y) {
    const address = this.address(level, x, y), image = new Image();
    image.onload = () => { image.there = true; this.redraw(); };
    image.onerror = () => setTimeout(() => { this.kept.delete(address); this.redraw(); }, AGAIN);
    image.src = address;
    this.kept.set(address, image);
    if (this.kept.size > MOST) this.kept.delete(this.kept.keys().next().value);
    return image;
  }

  tile(level, x, y) {
    const address = this.address(level, x, y), image = this.kept.get(address);
    if (!image) return this.fetch(level, x, y);
    this.kept.delete(address); this.kept.set(address, image);
    return image;
  }

  /** Draw what is in view: c counts in pixels of the image, one of which is `scale` pixels of the screen. */
  draw(c, [x0, y0, x1, y1], scale) {
    const wanted = Math.floor(Math.log2(1 / scale)), level = Math.min(this.levels - 1, Math.max(0, wanted));
    for (const at of new Set([this.levels - 1, level])) {
      const side = this.side * 2 ** at, last = value => Math.max(0, Math.ceil(value / side) - 1);
      const right = Math.min(last(x1), last(this.width)), bottom = Math.min(last(y1), last(this.height));
      for (let y = Math.max(0, Math.floor(y0 / side)); y <= bottom; y++) {
        for (let x = Math.max(0, Math.floor(x0 / side)); x <= right; x++) {
          const image = this.tile(at, x, y);
          if (image.there) c.drawImage(image, x * side, y * side, Math.min(side, this.width - x * side), Math.min(side, this.height - y * side));
        }
      }
    }
  }
}
