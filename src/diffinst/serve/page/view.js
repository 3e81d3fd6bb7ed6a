// The image and what lies on it, drawn on a canvas that can be moved and zoomed.

import {decode, outline} from "./masks.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const NEW = 700; // ms that a new object glows

const byMask = new WeakMap(); // objects of a list by their run lengths

function sameMask(object, before) {
  if (!byMask.has(before)) byMask.set(before, new Map(before.map(one => [one.rle.counts, one])));
  const same = byMask.get(before).get(object.rle.counts);
  return same && same.rle.size[0] === object.rle.size[0] ? same : null;
}

/** An object with its outline and its colour, which depends on where it lies alone. */
export function prepared(object, before) {
  const same = before && sameMask(object, before);
  if (same) return {...object, path: same.path, mask: same.mask, hue: same.hue, born: same.born};
  const mask = decode(object.rle), [x0, y0, x1, y1] = object.box;
  const cx = (x0 + x1) / 2, cy = (y0 + y1) / 2;
  const near = before && before.find(one => Math.hypot(one.cx - cx, one.cy - cy) < 0.06 * (x1 - x0 + y1 - y0));
  return {...object, mask, path: outline(mask), cx, cy, born: near ? near.born : performance.now(),
    hue: near ? near.hue : Math.floor(cx * 7.13 + cy * 13.7) * 47 % 360};
}

export const colour = (object, alpha = 1) => `hsl(${object.hue} 78% 62% / ${alpha})`;

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.image = null;
    this.objects = [];
    this.selected = this.hovered = this.cross = this.drawing = null;
    this.scale = 1; this.x = 0; this.y = 0;
    this.fitted = true;
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const {width, height} = this.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    this.width = width; this.height = height; this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    if (this.fitted) this.fit(); else this.draw();
  }

  show(image) { this.image = image; this.objects = []; this.selected = this.hovered = this.cross = this.drawing = null; this.fit(); }

  fit() {
    this.fitted = true;
    if (this.image) {
      const narrow = this.width < 640, left = narrow ? 10 : 68, top = narrow ? 66 : 16;
      const width = this.width - left - (narrow ? 10 : 16), height = this.height - top - 16;
      this.scale = Math.max(0.01, Math.min(width / this.image.width, height / this.image.height));
      this.x = left + (width - this.image.width * this.scale) / 2;
      this.y = top + (height - this.image.height * this.scale) / 2;
    }
    this.draw();
  }

  zoom(factor, at = [this.width / 2, this.height / 2]) {
    const scale = Math.min(64, Math.max(0.02, this.scale * factor)), by = scale / this.scale;
    this.x = at[0] - (at[0] - this.x) * by; this.y = at[1] - (at[1] - this.y) * by;
    this.scale = scale; this.fitted = false; this.draw();
  }

  move(dx, dy) { this.x += dx; this.y += dy; this.fitted = false; this.draw(); }

  /** Pixels of the image under a place of the canvas, kept inside the image. */
  toImage([x, y]) {
    const inside = (value, most) => Math.min(most - 0.01, Math.max(0, value));
    return [inside((x - this.x) / this.scale, this.image.width), inside((y - this.y) / this.scale, this.image.height)];
  }
  holds([x, y]) {
    const u = (x - this.x) / this.scale, v = (y - this.y) / this.scale;
    return u >= 0 && v >= 0 && u < this.image.width && v < this.image.height;
  }
  toCanvas([x, y]) { return [this.x + x * this.scale, this.y + y * this.scale]; }

  /** The smallest object at a place of the image. */
  at([x, y]) {
    const hits = this.objects.filter(({mask}) => {
      const u = Math.floor(x) - mask.x, v = Math.floor(y) - mask.y;
      return u >= 0 && v >= 0 && u < mask.width && v < mask.height && mask.there[v * mask.width + u];
    });
    return hits.sort((a, b) => a.area - b.area)[0] || null;
  }

  draw() { if (!this.waiting) { this.waiting = true; requestAnimationFrame(now => { this.waiting = false; this.paint(now); }); } }

  paint(now) {
    const c = this.context;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, this.width, this.height);
    if (!this.image) return;
    c.save();
    c.translate(this.x, this.y); c.scale(this.scale, this.scale);
    c.imageSmoothingEnabled = this.scale < 3;
    c.shadowColor = "rgb(0 0 0 / 25%)"; c.shadowBlur = 18;
    if (this.image.draw) {
      c.fillRect(0, 0, this.image.width, this.image.height); c.shadowBlur = 0; c.shadowColor = "transparent";
      const left = -this.x / this.scale, top = -this.y / this.scale;
      this.image.draw(c, [left, top, left + this.width / this.scale, top + this.height / this.scale], this.scale * this.ratio);
    } else c.drawImage(this.image, 0, 0);
    c.shadowBlur = 0; c.shadowColor = "transparent";
    const thin = 1 / this.scale;
    let growing = false;
    for (const one of this.objects) {
      const chosen = one === this.selected, over = one === this.hovered;
      const glow = still.matches ? 0 : Math.max(0, 1 - (now - one.born) / NEW);
      growing = growing || glow > 0;
      c.fillStyle = colour(one, chosen ? 0.5 : over ? 0.46 : 0.26 + 0.4 * glow);
      c.fill(one.path, "evenodd");
      c.lineJoin = "round";
      c.lineWidth = (chosen ? 4.5 : 2.6 + 2 * glow) * thin; c.strokeStyle = "rgb(8 14 20 / 40%)"; c.stroke(one.path);
      c.lineWidth = (chosen ? 2.6 : 1.4 + 1.6 * glow) * thin;
      c.strokeStyle = chosen ? "#fff" : colour(one); c.stroke(one.path);
    }
    this.prompts(c, thin);
    if (this.drawing) {
      const [x0, y0, x1, y1] = this.drawing;
      c.setLineDash([6 * thin, 4 * thin]); c.lineWidth = 3.4 * thin; c.strokeStyle = "rgb(8 14 20 / 70%)"; c.strokeRect(x0, y0, x1 - x0, y1 - y0);
      c.lineWidth = 1.8 * thin; c.strokeStyle = "#fff"; c.strokeRect(x0, y0, x1 - x0, y1 - y0);
      c.setLineDash([]);
    }
    c.restore();
    if (this.cross) {
      const [x, y] = this.toCanvas(this.cross);
      for (const [width, style] of [[4, "rgb(8 14 20 / 70%)"], [1.6, "#fff"]]) {
        c.lineWidth = width; c.strokeStyle = style; c.beginPath();
        c.moveTo(x - 14, y); c.lineTo(x - 4, y); c.moveTo(x + 4, y); c.lineTo(x + 14, y);
        c.moveTo(x, y - 14); c.lineTo(x, y - 4); c.moveTo(x, y + 4); c.lineTo(x, y + 14); c.stroke();
      }
    }
    if (growing) this.draw();
  }

  /** What was drawn for the selected object: its box, clicks and what it is not. */
  prompts(c, thin) {
    const asked = this.selected && this.selected.prompts;
    if (!asked) return;
    if (asked.box) {
      const [x0, y0, x1, y1] = asked.box;
      c.lineWidth = 1.4 * thin; c.strokeStyle = "#fff"; c.setLineDash([4 * thin, 4 * thin]);
      c.strokeRect(x0, y0, x1 - x0, y1 - y0); c.setLineDash([]);
    }
    const dot = ([x, y], fill) => {
      c.beginPath(); c.arc(x, y, 5.5 * thin, 0, 7); c.fillStyle = fill; c.fill();
      c.lineWidth = 2 * thin; c.strokeStyle = "#fff"; c.stroke();
    };
    asked.points.forEach(point => dot(point, "#0d9488"));
    asked.exclude.filter(one => one.length === 2).forEach(point => dot(point, "#dc2626"));
  }
}
