// Boxes and points that an answer names, in the forms that models are commonly trained to write.
//
// A mark is {kind: "box" | "point", at: [x1, y1, x2, y2] or [x, y], label, scale}. Its scale is "auto" where the form does not
// say what the numbers are relative to, else the number that stands for the whole width and height.

const NUMBER = "-?\\d+(?:\\.\\d+)?";
const GAP = "\\s*,\\s*";
const LIST = new RegExp(`\\[\\s*(${NUMBER}(?:${GAP}${NUMBER}){3}|${NUMBER}${GAP}${NUMBER})\\s*\\]`, "g");
const FIELD = /"(bbox_2d|bbox|box_2d|box|point_2d|point)"\s*:\s*$/;
const PAIR = new RegExp(`\\(\\s*(${NUMBER})${GAP}(${NUMBER})\\s*\\)`, "g");
const TAGS = [
  { kind: "box", form: /<\|box_start\|>(.*?)<\|box_end\|>/gs },
  { kind: "box", form: /<box>(.*?)<\/box>/gs },
  { kind: "point", form: /<\|point_start\|>(.*?)<\|point_end\|>/gs },
  { kind: "point", form: /<point>(.*?)<\/point>/gs },
];
const NAMED_POINTS = /<points?\s([^>]*)>/g;
const LOCATIONS = /((?:<loc\d{4}>){4})\s*([^<;]*)/g;

/** Marks of a text, in order; of a text that is still being written, those that are complete. */
export function marksOf(text) {
  const found = [...inTags(text), ...inAttributes(text), ...inLocations(text), ...inLists(text)];
  return found.sort((a, b) => a.place - b.place).map(({ place, ...mark }) => mark);
}

function* inLists(text) {
  for (const match of text.matchAll(LIST)) {
    const numbers = match[1].split(",").map(Number);
    const field = FIELD.exec(text.slice(0, match.index))?.[1];
    const flipped = field === "box_2d" && numbers.length === 4; // top, left, bottom, right, of 1000
    const at = flipped ? [numbers[1], numbers[0], numbers[3], numbers[2]] : numbers;
    const label = field ? labelAround(text, match.index) : "";
    yield { place: match.index, kind: kindOf(at), at, label, scale: flipped ? 1000 : "auto" };
  }
}

/** The "label" in the JSON object that a place of the text lies in. */
function labelAround(text, place) {
  const end = text.indexOf("}", place);
  const object = text.slice(text.lastIndexOf("{", place), end < 0 ? undefined : end);
  return /"(?:label|text_content|name)"\s*:\s*"([^"]*)"/.exec(object)?.[1] ?? "";
}

function* inTags(text) {
  for (const { kind, form } of TAGS) {
    for (const tag of text.matchAll(form)) {
      const numbers = [...tag[1].matchAll(PAIR)].flatMap((pair) => [Number(pair[1]), Number(pair[2])]);
      const size = kind === "box" ? 4 : 2;
      for (let first = 0; first + size <= numbers.length; first += size) {
        yield { place: tag.index, kind, at: numbers.slice(first, first + size), label: "", scale: "auto" };
      }
    }
  }
}

/** <point x="12.5" y="60" alt="cup"> and <points x1="..." y1="..." x2="...">: percent. */
function* inAttributes(text) {
  for (const tag of text.matchAll(NAMED_POINTS)) {
    const values = new Map([...tag[1].matchAll(/(\w+)="([^"]*)"/g)].map((each) => [each[1], each[2]]));
    for (const [name, value] of values) {
      if (/^x\d*$/.test(name) && values.has(name.replace("x", "y"))) {
        const at = [Number(value), Number(values.get(name.replace("x", "y")))];
        if (at.every(Number.isFinite)) {
          yield { place: tag.index, kind: "point", at, label: values.get("alt") ?? "", scale: 100 };
        }
      }
    }
  }
}

/** <loc0102><loc0204><loc0306><loc0408> cup: top, left, bottom, right, of 1024. */
function* inLocations(text) {
  for (const match of text.matchAll(LOCATIONS)) {
    const [top, left, bottom, right] = [...match[1].matchAll(/\d{4}/g)].map(Number);
    yield { place: match.index, kind: "box", at: [left, top, right, bottom], label: match[2].trim(), scale: 1024 };
  }
}

function kindOf(at) {
  return at.length === 4 ? "box" : "point";
}

/**
 * What the numbers of marks without a scale of their own are relative to, as far as they tell: "fraction" where none is above
 * 1, "thousand" where they do not fit the picture but would fit 1000, else "pixels".
 */
export function likelyScale(marks, { width, height }) {
  const open = marks.filter((mark) => mark.scale === "auto");
  const across = Math.max(0, ...open.flatMap(({ at }) => at.filter((_, index) => index % 2 === 0)));
  const down = Math.max(0, ...open.flatMap(({ at }) => at.filter((_, index) => index % 2 === 1)));
  if (Math.max(across, down) <= 1) {
    return "fraction";
  }
  return (across > width || down > height) && Math.max(across, down) <= 1000 ? "thousand" : "pixels";
}

/** A mark with its coordinates in pixels of the picture. */
export function inPixels(mark, { width, height }, scale) {
  const whole = mark.scale === "auto" ? { fraction: 1, thousand: 1000 }[scale] : mark.scale;
  const at = whole ? mark.at.map((value, index) => (value / whole) * (index % 2 ? height : width)) : mark.at;
  if (mark.kind === "point") {
    return { ...mark, at };
  }
  const [x1, y1, x2, y2] = at;
  return { ...mark, at: [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)] };
}
