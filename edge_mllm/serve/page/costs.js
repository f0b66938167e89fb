// Where the time of an answer went, and what was expected before.

const SOURCES = {
  memory: "kept in memory",
  disk: "kept on disk",
  kv: "still in the decoder",
  prepared: "encoded ahead",
};
const NAMES = {
  wait: "waiting",
  picture: "picture",
  tiling: "tiling",
  tower: "tower",
  prefill: "prefill",
  decode: "decode",
  rest: "rest",
};

export function seconds(value) {
  if (value === null || value === undefined) {
    return "unknown";
  }
  if (value < 0.00005) {
    return "0 ms";
  }
  return value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(2)} s`;
}

export function bytes(value) {
  return value === null || value === undefined ? "unknown" : `${Math.round(value / 1e6)} MB`;
}

/** Seconds of the parts of an answer; together they are all of it but opening the model. */
export function stages(timings) {
  const { queue_s: wait, picture_s: picture, preprocess_s: prepared, vision_s: tower, prefill_s: prefill } = timings;
  const before = wait + prepared + tower + prefill;
  return {
    wait,
    picture,
    tiling: prepared - picture,
    tower,
    prefill,
    decode: timings.decode_s,
    rest: Math.max(0, timings.ttft_s - before),
  };
}

export function totalSeconds(costs) {
  return Object.values(stages(costs.timings)).reduce((sum, each) => sum + each, 0);
}

/** Where a picture's embeddings came from, in words; nothing where the tower made all of them now. */
export function origin(costs) {
  return costs.images.map((image) => SOURCES[image.source] ?? tilesSeen(image)).filter(Boolean)[0] ?? "";
}

function tilesSeen({ tiles, tiles_reused: seen }) {
  return seen ? `${seen} of ${tiles} tiles seen before` : "";
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A bar of the stages and a list that says the same; `longest` seconds take the whole width. */
export function bar(costs, longest) {
  const found = stages(costs.timings);
  const line = element("div", { class: "bar", "aria-hidden": "true" });
  const list = element("ul", { class: "legend" });
  for (const [stage, value] of Object.entries(found)) {
    const part = element("i", { class: stage });
    part.style.setProperty("width", `${longest > 0 ? (100 * value) / longest : 0}%`);
    line.append(part);
    const why = stage === "tower" ? origin(costs) : "";
    list.append(element("li", { class: stage }, `${NAMES[stage]} ${seconds(value)}${why ? ` (${why})` : ""}`));
  }
  return [line, list];
}

/** Estimate and truth side by side, which can be folded away. */
export function table(plan, costs, usage) {
  const { timings } = costs;
  const kept = usage.prompt_tokens_details.cached_tokens;
  const rows = [
    ["image tokens", plan.image_tokens, usage.prompt_tokens_details.image_tokens],
    ["prompt tokens", plan.prompt_tokens, `${usage.prompt_tokens}${kept ? `, ${kept} kept` : ""}`],
    ["picture and tiling", seconds(plan.rates ? plan.preprocess_s : null), seconds(timings.preprocess_s)],
    ["tower", seconds(plan.vision_s), `${seconds(timings.vision_s)}${origin(costs) ? `, ${origin(costs)}` : ""}`],
    ["prefill", seconds(plan.prefill_s), seconds(timings.prefill_s)],
    ["first token after", seconds(plan.ttft_s), seconds(timings.ttft_s)],
    ["peak memory", bytes(plan.peak_bytes), bytes(costs.peak_rss_bytes)],
  ];
  const head = element("tr", {}, element("td"), ...["estimate", "truth"].map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map(([name, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, `${cell}`))),
  );
  const figures = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("details", { open: "" }, element("summary", {}, "Before and after"), figures);
}

/** What is known before anything is encoded. */
export function estimate(plan) {
  const parts = [`${plan.image_tokens} image tokens of ${plan.prompt_tokens}`];
  parts.push(plan.ttft_s === null ? "no speed is known before the first answer" : `first token after ${seconds(plan.ttft_s)}`);
  parts.push(`peak memory ${bytes(plan.peak_bytes)}`);
  return (plan.fits ? "" : `does not fit the context of ${plan.context} tokens; `) + parts.join(", ");
}

/** How pictures are cut. */
export function cutting(image) {
  const size = `${image.width} x ${image.height} pixels`;
  const { tiling } = image;
  if (!tiling) {
    return `${size}: ${image.tokens} tokens`;
  }
  if (tiling.token_grid) {
    return `${size}: not tiled, ${image.tokens} tokens from ${tiling.token_grid[0]} rows of ${tiling.token_grid[1]}`;
  }
  const tiles = image.tiles === 1 ? "1 tile" : `${image.tiles} tiles`;
  const skipped = tiling.rows * tiling.columns - tiling.boxes.length;
  const overview = tiling.overview ? " and one of the whole" : "";
  const parts = image.tiles === 1 ? "" : ` (${tiling.rows} x ${tiling.columns}${overview}${skipped ? `, ${skipped} left out` : ""})`;
  return `${size}: ${tiles}${parts}, ${image.tokens} tokens`;
}
