"use strict";
// One page for two ways to reach the library: Android's bridge (window.EdgeNative) and HTTP on this machine.
const native = window.EdgeNative;
const get = (id) => document.getElementById(id);
const STAGES = ["preprocess", "vision", "prefill", "decode"];
let answering = null;
let result = null;
let bench = null;

function call(message) {
  const text = JSON.stringify(message);
  if (native) {
    native.call(text);
  } else {
    fetch("/call", { method: "POST", body: text }).catch((error) => show.error({ message: String(error) }));
  }
}

function settings() {
  const budget = parseInt(get("budget").value, 10);
  return { detail: get("detail").value, ...(budget > 0 ? { max_image_tokens: budget } : {}) };
}

const show = {
  model(event) {
    get("model").textContent = `${event.name}, context of ${event.context} tokens`;
    get("talk").replaceChildren();
    get("error").textContent = "";
    get("measured").textContent = "";
    get("copy-bench").hidden = true;
  },
  plan(event) {
    get("plan").textContent = `${event.width} x ${event.height} pixels: ${event.tiles} tiles, ${event.tokens} tokens` +
      (event.note ? ` (${event.note})` : "");
    const grid = get("grid");
    grid.style.gridTemplate = `repeat(${event.rows}, 1fr) / repeat(${event.cols}, 1fr)`;
    grid.replaceChildren(...Array.from({ length: event.rows * event.cols }, () => document.createElement("i")));
  },
  tiles(event) {
    [...get("grid").children].forEach((cell, number) => cell.classList.toggle("done", number < event.done));
  },
  text(event) {
    if (answering) {
      answering.textContent += event.text;
    }
  },
  answer(event) {
    result = event.answer;
    if (answering) {
      answering.textContent = result.text;
    }
    busy(false);
    costs(result);
  },
  measuring(event) {
    get("measured").textContent = `answer ${event.done} of ${event.all}`;
  },
  measured(event) {
    bench = event.result;
    const run = bench.runs[0];
    const found = (name) => run.summary[name].median;
    get("measured").textContent = `${run.case.image_width} x ${run.case.image_height} pixels, medians of ${bench.repeat}: ` +
      `first token after ${found("ttft").toFixed(2)} s, ${found("decode_tps").toFixed(1)} tokens/s`;
    get("copy-bench").hidden = false;
    busy(false);
  },
  error(event) {
    get("error").textContent = event.message;
    if (answering && !answering.textContent) {
      answering.remove();
    }
    busy(false);
  },
};

function costs(answer) {
  const times = answer.timings;
  const seconds = (stage) => `${stage} ${times[`${stage}_s`].toFixed(2)} s`;
  const bars = STAGES.map((stage) => {
    const bar = document.createElement("i");
    bar.style.flexGrow = times[`${stage}_s`];
    bar.style.background = `var(--${stage})`;
    return bar;
  });
  get("bars").replaceChildren(...bars);
  get("bars").setAttribute("aria-label", STAGES.map(seconds).join(", "));
  get("legend").replaceChildren(...STAGES.map((stage) => {
    const name = document.createElement("span");
    name.style.setProperty("--colour", `var(--${stage})`);
    name.textContent = seconds(stage);
    return name;
  }));
  const memory = answer.peak_rss_bytes ? `, peak memory ${Math.round(answer.peak_rss_bytes / 1e6)} MB` : "";
  get("speed").textContent = `First token after ${times.ttft_s.toFixed(2)} s, ${times.decode_tps.toFixed(1)} tokens/s${memory}; ` +
    `loaded in ${times.load_s.toFixed(2)} s`;
  get("costs").hidden = false;
}

function busy(now) {
  get("ask").disabled = now;
  get("measure").disabled = now;
  get("stop").hidden = !now;
  answering = now ? answering : null;
}

function line(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  get("talk").append(item);
  return item;
}

function chosen(input) {
  const file = input.files[0];
  if (!file) {
    return;
  }
  get("talk").replaceChildren();
  get("error").textContent = "";
  get("preview").src = URL.createObjectURL(file);
  get("preview").hidden = false;
  get("empty").hidden = true;
  const reader = new FileReader();
  reader.onload = () => {
    call({ do: "picture", data: reader.result.slice(reader.result.indexOf(",") + 1) });
    call({ do: "plan", ...settings() });
  };
  reader.readAsDataURL(file);
  input.value = "";
}

get("pick").addEventListener("change", (event) => chosen(event.target));
get("camera").addEventListener("change", (event) => chosen(event.target));
for (const id of ["detail", "budget"]) {
  get(id).addEventListener("change", () => call({ do: "plan", ...settings() }));
}
get("stop").addEventListener("click", () => call({ do: "stop" }));
get("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = get("prompt").value;
  line("asked", prompt);
  answering = line("answered", "");
  answering.setAttribute("aria-live", "polite");
  get("error").textContent = "";
  get("prompt").value = "";
  busy(true);
  answering = get("talk").lastElementChild;
  call({ do: "ask", prompt, ...settings() });
});
function copy(value) {
  const text = JSON.stringify(value, null, 2);
  if (native) {
    native.copy(text);
  } else {
    navigator.clipboard.writeText(text);
  }
}

get("copy").addEventListener("click", () => copy(result));
get("copy-bench").addEventListener("click", () => copy(bench));
get("measure").addEventListener("click", () => {
  get("error").textContent = "";
  busy(true);
  call({ do: "measure" });
});

window.edge = (event) => (show[event.event] || (() => undefined))(event);

if (native) {
  get("bundle").hidden = false;
  get("bundle").addEventListener("click", () => native.bundle());
  get("folder").hidden = false;
  get("folder").addEventListener("click", () => native.folder());
  native.ready();
} else {
  (async () => {
    for (let from = 0; ;) {
      const events = await (await fetch(`/events?from=${from}`)).json();
      events.forEach(window.edge);
      from += events.length;
    }
  })();
}
