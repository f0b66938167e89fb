// The page: what is where, and what happens when.
import { Card, Turn } from "./answers.js";
import { Camera, CameraError } from "./camera.js";
import { cutting, estimate } from "./costs.js";
import { likelyScale, marksOf } from "./marks.js";
import { Overlay } from "./overlay.js";
import { PictureFrame } from "./picture.js";
import { History } from "./questions.js";
import { completion, modelName, plan, ServerError, useKey } from "./server.js";
import { Settings } from "./settings.js";

const PLAN_AFTER_MS = 250;
const BUSY_MS = 1000;
const get = (id) => document.getElementById(id);

const overlay = new Overlay(get("overlay"));
const camera = new Camera(get("live"));
const history = new History();
const settings = [0, 1].map(() => new Settings(get("setting"), settingsChanged));
const frame = new PictureFrame(get("frame"), { image: get("preview"), empty: get("empty") }, pictureChanged);
let asking = null; // an AbortController while the server answers
let planning = null;
let planTimer = 0;
let plans = new Map(); // body as text -> plan, for the current picture
let shown = null; // the card that is drawn on the picture
let drawing = false;

function slots() {
  return get("compare").checked ? [0, 1] : [0];
}

function bodyOf(slot, url) {
  const question = get("question").value.trim();
  return { messages: history.messages(slot, question, url, get("follow").checked), ...settings[slot].fields };
}

// What it will take

function planSoon() {
  clearTimeout(planTimer);
  planTimer = setTimeout(planNow, PLAN_AFTER_MS);
}

async function planNow() {
  planning?.abort();
  if (camera.on || asking || (!frame.current && !get("question").value.trim())) {
    get("estimate").textContent = "";
    return;
  }
  planning = new AbortController();
  const { signal } = planning;
  try {
    const found = [];
    for (const slot of slots()) {
      found.push(await planned(bodyOf(slot, frame.current?.url), signal));
    }
    const names = found.length > 1 ? ["A: ", "B: "] : [""];
    get("estimate").textContent = `Estimate: ${found.map((each, slot) => names[slot] + estimate(each)).join("; ")}.`;
    get("estimate").classList.remove("wrong");
    if (found[0].images[0] && !shown) {
      showCut(found[0].images[0]);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      get("estimate").textContent = `This cannot be asked: ${error.message}`;
      get("estimate").classList.add("wrong");
      askForKey(error);
    }
  }
}

/** What the picture shows is no longer how it would be cut now. */
function settingsChanged() {
  const words = settings.map((each) => each.words);
  get("chosen").textContent = slots().length > 1 ? `A: ${words[0]}; B: ${words[1]}` : words[0];
  shown = null;
  drawMarks("");
  planSoon();
}

async function planned(body, signal) {
  const key = JSON.stringify({ ...body, messages: body.messages.map(({ content }) => lengths(content)) });
  if (!plans.has(key)) {
    plans.set(key, await plan(body, signal));
  }
  return plans.get(key);
}

/** Content with pictures left out, of which there is one as long as a plan is kept. */
function lengths(content) {
  return typeof content === "string" ? content : content.map((part) => part.text ?? "picture");
}

// On the picture

function pictureChanged(picture) {
  history.forget();
  plans = new Map();
  shown = null;
  document.querySelectorAll("button.show").forEach((button) => button.remove());
  get("remove").hidden = picture === null;
  get("cut").textContent = "";
  get("estimate").textContent = "";
  get("found").hidden = true;
  overlay.fit(picture?.width || 1, picture?.height || 1);
  if (picture && camera.on) {
    endCamera();
  }
  planSoon();
}

function showCut(image) {
  get("cut").textContent = cutting(image);
  if (camera.on || frame.current?.width) {
    overlay.resize(image.width, image.height);
    overlay.cut(image);
  }
}

function drawMarks(text) {
  const marks = marksOf(text);
  const chosen = get("scale").value;
  const scale = chosen === "auto" ? likelyScale(marks, overlay.size) : chosen;
  overlay.mark(chosen === "hidden" ? [] : marks, scale);
  get("found").hidden = marks.length === 0;
  if (marks.length) {
    const words = { pixels: "pixels", thousand: "0 to 1000", fraction: "0 to 1" }[scale];
    const open = marks.some((mark) => mark.scale === "auto") && words;
    get("found-words").textContent = `${marks.length} ${marks.length === 1 ? "mark" : "marks"} in the answer${open ? `, read as ${words}` : ""}`;
  }
}

/** Soon, once for all pieces that come before the next frame of the screen. */
function drawMarksSoon() {
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      drawMarks(shown?.answer ?? "");
    });
  }
}

function show(card) {
  shown = card;
  showCut(card.image);
  drawMarks(card.answer);
}

// Asking

async function ask(card, slot, url, signal, expected) {
  const body = bodyOf(slot, url);
  const picture = frame.current;
  const inSight = () => frame.current === picture; // else nothing of it is drawn on the other picture
  shown = card;
  let reason = "stop";
  let costs = null;
  let usage = null;
  for await (const found of completion(body, signal)) {
    const { tilings, progress } = found.x_edge_mllm ?? {};
    const [choice] = found.choices;
    if (tilings?.[0] && inSight()) {
      overlay.cut({ tiling: tilings[0] });
    } else if (progress) {
      if (inSight()) {
        overlay.encoded(progress.tile);
      }
      get("progress").textContent = `tile ${progress.tile} of ${progress.tiles}`;
    } else if (choice?.finish_reason) {
      reason = choice.finish_reason;
      costs = found.x_edge_mllm;
    } else if (choice?.delta.content) {
      get("progress").textContent = "";
      card.add(choice.delta.content);
      if (inSight()) {
        drawMarksSoon();
      }
    }
    usage = found.usage ?? usage;
  }
  card.finish(costs, usage, expected, reason);
  if (!inSight()) {
    card.retire();
    return;
  }
  history.keep(slot, body.messages, card.answer);
  if (card.image) {
    show(card);
  }
}

async function askAll() {
  const question = get("question").value.trim();
  const url = frame.current?.url;
  const turn = new Turn(get("answers"), question);
  const asked = slots();
  let failure = null;
  for (const slot of asked) {
    const name = asked.length > 1 ? `${"AB"[slot]}: ` : "";
    const card = turn.card(name + settings[slot].words, show);
    try {
      const expected = await planned(bodyOf(slot, url), asking.signal);
      await ask(card, slot, url, asking.signal, expected);
      turn.draw();
      say(card.spoken);
    } catch (error) {
      card.fail(error.name === "AbortError" ? "Stopped." : error.message);
      if (error.name === "AbortError") {
        throw error;
      }
      failure = error; // the other setting may do
    }
  }
  if (failure) {
    throw failure;
  }
}

/** The same question about what the camera sees, as often as there is an answer; frames in between are skipped. */
async function watch() {
  const turn = new Turn(get("answers"), get("question").value.trim());
  const card = turn.card(settings[0].words, show);
  const started = performance.now();
  const before = camera.seen;
  for (let count = 1; camera.on; count += 1) {
    overlay.resize(camera.size.width, camera.size.height);
    const last = card.answer;
    const fresh = new Card("", show);
    history.forget();
    try {
      await ask(fresh, 0, await camera.frame(), asking.signal, null);
    } catch (error) {
      if (error.status === 429 || error.status === 503) {
        await new Promise((resolve) => setTimeout(resolve, BUSY_MS)); // others ask too
        count -= 1;
        continue;
      }
      if (error.name !== "AbortError") {
        card.fail(error.message);
      }
      throw error;
    }
    card.write(fresh.answer);
    card.finish(fresh.costs, fresh.usage, null, "stop");
    card.retire();
    turn.draw();
    const rate = count / ((performance.now() - started) / 1000);
    card.note.textContent = `${count} ${count === 1 ? "frame" : "frames"} asked, ${Math.max(0, camera.seen - before - count)} skipped, ${rate.toFixed(1)} a second`;
    if (card.answer !== last) {
      say(`Answer: ${card.answer.trim()}`);
    }
  }
}

/** Say what went wrong. In sight it stands in the answer's place, where there is one. */
function complain(error, inAnswer) {
  get("error").classList.toggle("unseen", inAnswer);
  get("error").textContent = error.message;
  askForKey(error);
}

async function submit() {
  if (asking) {
    return;
  }
  clearTimeout(planTimer);
  planning?.abort();
  get("error").textContent = "";
  get("answers-title").hidden = false;
  busy(new AbortController());
  say("Asking.");
  try {
    await (camera.on ? watch() : askAll());
  } catch (error) {
    if (error.name !== "AbortError") {
      complain(error, true);
    }
  } finally {
    busy(null);
    plans = new Map(); // speeds are known better now
    planSoon();
  }
}

function busy(controller) {
  asking = controller;
  get("ask").setAttribute("aria-disabled", String(controller !== null));
  get("stop").hidden = controller === null;
  get("progress").textContent = "";
}

function say(text) {
  get("status").textContent = text;
}

function stop() {
  asking?.abort();
  get("question").focus();
}

// The camera

async function toggleCamera() {
  get("error").textContent = "";
  if (camera.on) {
    endCamera();
    return;
  }
  frame.remove();
  try {
    await camera.start();
  } catch (error) {
    if (!(error instanceof CameraError)) {
      throw error;
    }
    complain(error, false);
    return;
  }
  get("empty").hidden = true;
  cameraIs("on");
  overlay.fit(camera.size.width, camera.size.height);
  planSoon();
}

function endCamera() {
  asking?.abort();
  camera.stop();
  cameraIs("off");
  get("empty").hidden = frame.current !== null;
  overlay.clear();
}

function cameraIs(state) {
  get("camera").setAttribute("aria-pressed", String(state === "on"));
  get("camera").textContent = state === "on" ? "Stop the camera" : "Live camera";
  get("ask").textContent = state === "on" ? "Ask frame by frame" : "Ask";
  get("compare").disabled = state === "on";
  get("follow").disabled = state === "on";
}

// The model and the key

async function greet() {
  try {
    get("model").textContent = `Model: ${await modelName()}`;
    get("key-form").hidden = true;
  } catch (error) {
    get("model").textContent = error.message;
    askForKey(error);
  }
}

function askForKey(error) {
  if (error instanceof ServerError && error.status === 401) {
    get("key-form").hidden = false;
    get("key").focus();
  }
}

function compare() {
  const both = get("compare").checked;
  settings[0].name(both ? "Settings A" : "Settings");
  settings[1].name("Settings B");
  settings[1].element.hidden = !both;
  settingsChanged();
}

get("sets").append(...settings.map((each) => each.element));
get("settings").open = matchMedia("(min-width: 60rem)").matches;
compare();
get("compare").addEventListener("change", compare);
get("follow").addEventListener("change", planSoon);
get("question").addEventListener("input", planSoon);
get("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    get("form").requestSubmit();
  }
});
get("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
get("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && asking) {
    stop();
  }
});
for (const id of ["choose", "photograph"]) {
  get(id).addEventListener("change", ({ target }) => {
    if (target.files[0]) {
      frame.take(target.files[0]);
      target.value = "";
    }
  });
}
get("remove").addEventListener("click", () => {
  frame.remove();
  get("choose").focus();
});
get("camera").addEventListener("click", toggleCamera);
get("show-tiles").addEventListener("change", ({ target }) => get("frame").classList.toggle("bare", !target.checked));
get("scale").addEventListener("change", () => drawMarks(shown?.answer ?? ""));
get("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(get("key").value);
  greet().then(planSoon);
});
greet();
