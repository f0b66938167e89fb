// What is drawn over the picture: how it was cut, and what an answer points at.
import { inPixels } from "./marks.js";

const SPACE = "http://www.w3.org/2000/svg";
const MOST_GRID_LINES = 128;
const SMALLEST_LETTERS = 11; // pixels of the screen
const LETTER = 0.58; // width of a letter as part of its height

function shape(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  if (text !== undefined) {
    made.textContent = text;
  }
  return made;
}

/** Draws into an SVG element that lies over a picture and is letterboxed as it is. */
export class Overlay {
  constructor(svg) {
    this.svg = svg;
    this.tiles = shape("g", { class: "tiles" });
    this.marks = shape("g", { class: "marks" });
    svg.append(this.tiles, this.marks);
    this.size = { width: 1, height: 1 };
  }

  clear() {
    this.tiles.replaceChildren();
    this.marks.replaceChildren();
  }

  /** A picture of this size lies below; what was drawn over another one goes. */
  fit(width, height) {
    this.clear();
    this.resize(width, height);
  }

  resize(width, height) {
    this.size = { width, height };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  /** Draw the tiles, each with the tokens it becomes where tiles have tokens of their own. */
  cut(image) {
    const { tiling } = image;
    this.tiles.replaceChildren();
    this.first = tiling?.overview_first ? 1 : 0;
    if (!tiling) {
      return;
    }
    for (const [left, top, right, bottom] of tiling.boxes) {
      const cell = shape("g", { class: "tile" });
      cell.append(shape("rect", { x: left, y: top, width: right - left, height: bottom - top }));
      if (tiling.tokens_per_tile) {
        cell.append(...this.#label(tiling.tokens_per_tile, { left, top, right, bottom }));
      }
      this.tiles.append(cell);
    }
    if (tiling.token_grid && tiling.token_grid[0] + tiling.token_grid[1] <= MOST_GRID_LINES) {
      this.tiles.append(this.#tokenGrid(...tiling.token_grid));
    }
  }

  /** The tokens of a tile in its corner, as many words as there is room for in letters that can be read. */
  #label(tokens, { left, top, right, bottom }) {
    const { width, height } = this.svg.getBoundingClientRect();
    const pixel = Math.max(this.size.width / width, this.size.height / height);
    const size = Math.max(SMALLEST_LETTERS * pixel, Math.min(right - left, bottom - top) / 12);
    const wide = (text) => size * (text.length * LETTER + 1);
    const text = [`${tokens} tokens`, `${tokens}`].find((each) => wide(each) <= right - left);
    if (text === undefined || size * 1.6 > bottom - top) {
      return [];
    }
    const ground = { x: left, y: top, width: wide(text), height: size * 1.6 };
    return [
      shape("rect", { class: "ground", ...ground }),
      shape("text", { x: left + size / 2, y: top + size * 1.15, "font-size": size }, text),
    ];
  }

  #tokenGrid(rows, columns) {
    const { width, height } = this.size;
    const across = Array.from({ length: rows - 1 }, (_, row) => `M0 ${((row + 1) * height) / rows}H${width}`);
    const down = Array.from({ length: columns - 1 }, (_, column) => `M${((column + 1) * width) / columns} 0V${height}`);
    return shape("path", { class: "token-grid", d: [...across, ...down].join("") });
  }

  /** So many of all tiles are encoded. */
  encoded(done) {
    this.tiles.querySelectorAll(".tile").forEach((tile, index) => {
      tile.classList.toggle("done", index + this.first < done);
    });
  }

  /** Draw boxes and points; `scale` is that of marks that carry none. */
  mark(marks, scale) {
    const { width, height } = this.size;
    const unit = Math.max(width, height) / 100;
    const drawn = marks.map((mark) => inPixels(mark, this.size, scale));
    this.marks.replaceChildren(...drawn.flatMap((mark) => this.#drawn(mark, unit)));
  }

  #drawn({ kind, at, label }, unit) {
    const [x, y] = at;
    const what =
      kind === "box"
        ? shape("rect", { x, y, width: at[2] - x, height: at[3] - y })
        : shape("circle", { cx: x, cy: y, r: unit * 1.2 });
    if (!label) {
      return [what];
    }
    const above = y > unit * 4;
    const place = { x: x + (kind === "point" ? unit * 2 : 0), y: above ? y - unit : y + unit * 4, "font-size": unit * 3.2 };
    return [what, shape("text", place, label)];
  }
}
