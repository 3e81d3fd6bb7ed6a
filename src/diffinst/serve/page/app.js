// The page: what a person does, what is asked of the server for it, what is shown then.

import * as api from "./api.js";
import {filesOf} from "./files.js";
import {Tiles} from "./tiles.js";
import {Training} from "./train.js";
import {View, colour, prepared} from "./view.js";

const $ = id => document.getElementById(id);
const view = new View($("canvas"));
const state = {
  models: [], images: [], at: null, // at: the image that is chosen, shown or not
  image: null, // its work as the server has it, once it is shown
  objects: [], steps: [], shown: null, unit: "Step", // shown: position in steps, null: the result
  tool: "select", running: null, asking: null, adding: null, refining: null, excluding: false, corner: null,
};

// --- saying things ---------------------------------------------------------------------------

function toast(text, bad = false, action = null) {
  const box = document.createElement("div"), line = document.createElement("span"), button = document.createElement("button");
  box.className = bad ? "toast bad" : "toast";
  line.textContent = text;
  button.textContent = action ? action[0] : "Dismiss";
  button.onclick = () => { box.remove(); if (action) action[1](); };
  box.append(line, button);
  $("toasts").replaceChildren(...[...$("toasts").children].slice(-2), box);
  if (!action) setTimeout(() => box.remove(), bad ? 12000 : 5000);
}

function failed(error, again = null) {
  if (error.name === "AbortError") return;
  if (error.status === 401) { $("token").open || $("token").showModal(); return; }
  if (error.status === 404 && state.at) { gone(error).catch(failed); return; }
  if (error.status === 422 && error.message.startsWith("model ")) loadModels().then(defaults, () => undefined);
  if (error.status === 409) refresh().catch(() => undefined);
  if (!(error instanceof api.Failure)) console.error(error);
  toast(error.message, true, again && (error.status === 0 || error.status >= 500) ? ["Try again", again] : null);
}

/** Run a request; where the server is busy, wait as long as it says, three times, or until the signal. */
async function patiently(request, signal) {
  for (let tries = 0; ; tries++) {
    try { return await request(); } catch (error) {
      if (error.status !== 429 || tries === 3) throw error;
      const wait = Math.max(1, error.wait);
      signal.throwIfAborted();
      busy(`The server is busy; trying again in ${wait} s`, true);
      await new Promise((done, stopped) => {
        setTimeout(done, wait * 1000);
        signal.addEventListener("abort", () => stopped(signal.reason), {once: true});
      });
      busy("Trying again", Boolean(state.running));
    }
  }
}

function busy(text, stoppable = false) {
  $("busy").hidden = !text;
  $("busy-text").textContent = text || "";
  $("stop").hidden = !stoppable;
}

function hint() {
  let text = "";
  if (state.image && !state.running) {
    if (state.refining !== null) text = state.excluding ? "Click on what it is not" : "Refining: click adds, Shift-click excludes, Esc ends";
    else if (state.tool === "box") text = state.corner ? "Enter sets the opposite corner" : "Draw a box around an object";
    else if (state.tool === "point") text = "Click on an object";
  }
  $("exclude").hidden = state.refining === null; // where there is no Shift key
  state.excluding = state.excluding && state.refining !== null;
  $("exclude").setAttribute("aria-pressed", String(state.excluding));
  $("hint").textContent = text;
  $("hint").hidden = !text;
}

// --- images ----------------------------------------------------------------------------------

async function addFiles(files) {
  const images = [...files];
  if (!images.length) return;
  const {signal} = state.adding = new AbortController();
  let first = null;
  for (const [i, file] of images.entries()) {
    if (signal.aborted) break;
    busy(images.length > 1 ? `Opening ${i + 1} of ${images.length}` : "Opening the image", images.length > 1);
    try {
      const most = state.limits ? state.limits.upload_bytes : Infinity;
      if (file.size > most) throw new api.Failure(413, `${file.name}: ${Math.round(file.size / 1e6)} MB; allowed are ${most / 1e6} MB`);
      const about = await patiently(() => api.upload(file, file.name || "pasted.png"), signal);
      about.notes.forEach(note => toast(note));
      first = first || about;
    } catch (error) {
      failed(error);
      if (!error.status || error.status === 409) break; // nor will the next one come in
    }
  }
  busy("");
  if (!first) return;
  try {
    await listImages();
    await openImage(first.id);
    if (!signal.aborted) run();
  } catch (error) { failed(error); }
}

async function drop(transfer) {
  try {
    const {files, folders, unread} = await filesOf(transfer);
    if (unread.length) toast(`Could not be read: ${unread.slice(0, 3).join(", ")}${unread.length > 3 ? ` and ${unread.length - 3} more` : ""}.`, true);
    else if (folders && !files.length) toast("There is no image in this folder.", true);
    await addFiles(files);
  } catch (error) { failed(error); }
}

async function addSample(name) {
  try {
    const {blob} = await api.file(`/static/samples/${name}.png`);
    await addFiles([new File([blob], `${name}.png`, {type: "image/png"})]);
  } catch (error) { failed(error); }
}

async function listImages() {
  state.images = (await api.get("/images")).images;
  const one = state.images.length > 0;
  $("images").hidden = $("tools").hidden = $("timeline").hidden = !one;
  $("empty").hidden = one;
  $("run").disabled = !one;
}

/** Show an image; until it is there it can be removed and left, no more. */
async function openImage(id) {
  stop();
  const mine = state.at = {id, ...state.images.find(one => one.id === id)}; // another one may be opened meanwhile
  state.image = null;
  state.steps = []; state.shown = null; state.refining = state.corner = null;
  naming(); timeline();
  try {
    const work = await api.get(`/images/${id}`);
    if (state.at !== mine) return;
    if (work.tiles) busy("Opening a large image");
    const picture = await shown(work);
    if (state.at !== mine) return;
    state.image = work;
    localStorage.setItem("image", id);
    view.show(picture);
    settle();
    if (state.models.some(one => one.name === work.model)) $("model").value = work.model; // else it was removed
    take(work);
    timeline();
    $("timing").textContent = $("last-run").textContent = "";
  } catch (error) {
    if (state.at === mine) nothing();
    throw error;
  } finally { if (state.at === mine && !state.asking) busy(""); }
}

/** The picture of an image. Where it cannot be shown, the server is asked why. */
async function shown(work) {
  const picture = work.tiles ? new Tiles(work, () => view.draw()) : new Image();
  if (!work.tiles) picture.src = `/images/${work.id}/pixels`;
  try { await picture.decode(); } catch {
    await api.file(picture.src);
    throw new api.Failure(0, `${work.name} cannot be shown.`, 0);
  }
  return picture;
}

/** Nothing is on the canvas. */
function nothing() {
  state.steps = []; state.shown = null; state.objects = [];
  view.show(null);
  show(); timeline(); hint();
}

async function openNear(at) {
  const next = state.images[Math.max(0, Math.min(at, state.images.length - 1))];
  if (next) await openImage(next.id);
  else { state.at = state.image = null; nothing(); localStorage.removeItem("image"); }
}

/** Something was not there: the image perhaps, removed in another tab. */
async function gone(error) {
  const {id} = state.at, at = state.images.findIndex(one => one.id === id);
  await listImages();
  if (!state.at || state.at.id !== id) return;
  if (state.images.some(one => one.id === id)) { toast(error.message, true); naming(); return; }
  toast(`${state.at.name} is not there any more: it was removed, in another tab perhaps.`, true);
  await openNear(at);
}

function naming() {
  const {id, name} = state.at, at = state.images.findIndex(one => one.id === id);
  $("image-name").textContent = $("image-name").title = name;
  if (at >= 0 && state.image) state.images[at].accepted = Boolean(state.image.accepted);
  const done = state.images.filter(one => one.accepted).length, accepted = at >= 0 && state.images[at].accepted;
  $("image-place").textContent = `${at + 1} of ${state.images.length}${done && state.images.length > 1 ? `, ${done} accepted` : ""}`;
  $("previous").disabled = at <= 0;
  $("next").disabled = at < 0 || at >= state.images.length - 1;
  $("accept").setAttribute("aria-pressed", String(accepted));
  $("accept").lastElementChild.textContent = accepted ? "Accepted" : "Accept";
}

async function go(by) {
  if (!state.at) return false;
  const at = state.images.findIndex(one => one.id === state.at.id), to = state.images[at + by];
  if (to) await openImage(to.id).catch(failed);
  return Boolean(to);
}

async function accept() {
  if (state.running) return toast("Wait for the end of the run, or stop it (Esc); then accept.", true);
  if (pending()) return toast("Wait for the answer to your box or click; then accept.", true);
  if (!await edit("accept", {threshold: Number($("threshold").value)})) return;
  if (await go(1)) { if (!state.objects.length) run(); } else toast("Accepted. This was the last image.");
}

async function refresh() {
  const {image} = state;
  if (!image) return;
  const work = await api.get(`/images/${image.id}`);
  if (state.image === image) take(work);
}

async function removeImage() {
  if (!state.at || !confirm(`Remove ${state.at.name} and the work on it?`)) return;
  stop();
  try {
    const {id} = state.at, at = state.images.findIndex(one => one.id === id);
    await api.remove(`/images/${id}`);
    await listImages();
    await openNear(at);
  } catch (error) { failed(error); }
}

// --- running ---------------------------------------------------------------------------------

function options() {
  const asked = new URLSearchParams({image: state.image.id, model: $("model").value, seed: $("seed").value});
  asked.set("threshold", Math.min(Number($("threshold").value), model().threshold));
  const large = Boolean(state.image.tiles); // neither is for tiles
  if (!large && Number($("noises").value) > 1) asked.set("noises", $("noises").value);
  if (!large && Number($("seconds").value) > 0) asked.set("seconds", $("seconds").value);
  else { asked.set("steps", $("steps-slider").value); asked.set("proposals", $("proposals").value); }
  return asked;
}

/** Whether what a person pointed at on this image is not answered yet. */
const pending = () => Boolean(state.asking && state.image && state.asking.image === state.image.id);

async function run() {
  if (!state.image || state.running) return;
  if (pending()) { toast("Wait for the answer to your box or click; then run.", true); return; }
  const leave = new AbortController(), asked = options();
  const runs = Number(asked.get("noises") || 1), large = Boolean(state.image.tiles);
  const parts = large ? "tiles" : runs > 1 ? `${runs} runs` : ""; // some of them at a time, in place of steps
  const names = model().classes; // the menu may say another model by the time that a step comes
  const of = parts ? 1 : asked.has("steps") ? Number(asked.get("steps")) : 0;
  state.running = leave;
  state.steps = []; state.shown = null; state.refining = null;
  state.unit = large ? "Tiles, part" : parts ? "Runs, part" : "Step";
  running(true);
  busy("Looking at the image", true);
  timeline(of);
  try {
    await patiently(() => api.events(`/stream?${asked}`, leave.signal, (kind, data) => {
      if (state.running !== leave) return;
      if (kind === "encoded") busy(parts ? `Looking at ${parts}` : of ? `Step 1 of ${of}` : "Step 1", true);
      if (kind === "step") {
        const before = state.steps.length ? state.steps[state.steps.length - 1].objects : null;
        state.steps.push({seconds: data.seconds, objects: data.objects.map(one => prepared({...one, names}, before))});
        state.shown = state.steps.length - 1;
        busy(parts ? `Looking at ${parts}` : of ? `Step ${Math.min(of, data.step + 1)} of ${of}` : `Step ${data.step + 1}`, true);
        timing(data.seconds, `${state.unit.toLowerCase()} ${data.step}`);
        timeline(of);
        show();
      }
      if (kind === "done") {
        state.shown = null;
        take(data, state.steps.length ? state.steps[state.steps.length - 1].objects : null);
        timing(data.seconds, parts || `${data.steps} ${data.steps === 1 ? "step" : "steps"}`);
        $("last-run").textContent = `${parts ? `${parts[0].toUpperCase()}${parts.slice(1)} with ` : ""}${data.steps} ${data.steps === 1 ? "step" : "steps"} of ${data.proposals} proposals in ${data.seconds.toFixed(2)} s${data.note ? `. ${data.note}` : ""}`;
        if (data.note) toast(data.note);
        if (!visible().length) toast("Nothing found above this score. Lower it, or draw a box around an object.");
      }
    }), leave.signal);
  } catch (error) {
    if (state.running === leave) { state.shown = null; state.steps = []; show(); }
    failed(error, run);
  } finally {
    if (state.running === leave) { state.running = null; running(false); busy(""); timeline(); }
  }
}

function running(is) {
  $("run").disabled = is;
  $("stage").setAttribute("aria-busy", String(is));
  hint();
}

function stop() {
  if (state.asking) state.asking.leave.abort();
  if (!state.running) return;
  state.running.abort();
  state.running = null;
  running(false); busy("");
  state.steps = []; state.shown = null;
  show(); timeline();
}

function stopAll() {
  if (state.adding) state.adding.abort();
  stop();
}

function timing(seconds, what) {
  const time = document.createElement("b");
  time.textContent = `${seconds.toFixed(2)} s`;
  $("timing").replaceChildren(time, what);
}

function timeline(of = 0) {
  const count = Math.max(of, state.steps.length), most = Math.max(1, ...state.steps.map(step => step.objects.length));
  const bars = [];
  for (let i = 0; i < count; i++) {
    const bar = document.createElement("button"), step = state.steps[i];
    if (step) {
      const found = step.objects.length;
      bar.style.height = `${16 + 24 * found / most}px`;
      bar.textContent = found;
      bar.title = `${state.unit} ${i + 1}: ${found} objects after ${step.seconds.toFixed(2)} s`;
      bar.setAttribute("aria-label", bar.title);
      bar.onclick = () => scrubTo(i);
      if (i === (state.shown ?? state.steps.length - 1)) bar.setAttribute("aria-current", "step");
    } else { bar.className = "waiting"; bar.disabled = true; bar.setAttribute("aria-label", `${state.unit} ${i + 1}: to come`); }
    bars.push(bar);
  }
  $("steps").replaceChildren(...bars);
  const scrub = $("scrub"), steps = state.steps.length;
  scrub.max = Math.max(1, steps);
  scrub.disabled = $("play").disabled = steps < 2 || Boolean(state.running);
  scrub.value = (state.shown ?? steps - 1) + 1;
  if (!count) {
    const none = document.createElement("span");
    none.className = "muted small";
    none.textContent = "Steps appear here when you find objects";
    $("steps").replaceChildren(none);
  }
}

function scrubTo(i) {
  if (!state.steps.length || state.running) return;
  const at = Math.max(0, Math.min(state.steps.length - 1, i));
  state.shown = at === state.steps.length - 1 ? null : at;
  timing(state.steps[at].seconds, `${state.unit.toLowerCase()} ${at + 1}`);
  show(); timeline();
}

async function play() {
  for (let i = 0; i < state.steps.length && !state.running; i++) {
    scrubTo(i);
    await new Promise(done => setTimeout(done, 650));
  }
}

// --- objects ---------------------------------------------------------------------------------

const model = () => state.models.find(one => one.name === $("model").value) || state.models[0];
const visible = () => {
  const least = Number($("threshold").value);
  const all = state.shown === null ? state.objects : state.steps[state.shown].objects;
  return all.filter(one => one.kept || one.score >= least);
};

/** The server's word on the present image. */
function take(work, before = null) {
  const known = before || state.objects;
  Object.assign(state.image, {revision: work.revision, accepted: work.accepted, model: work.model});
  state.objects = work.objects.map(one => prepared({...one, names: work.classes}, known));
  $("undo").disabled = !work.can_undo;
  $("redo").disabled = !work.can_redo;
  const chosen = view.selected && state.objects.find(one => one.id === view.selected.id);
  select(chosen || null, false);
  naming();
}

function show() {
  const shown = visible();
  view.objects = [...shown].sort((a, b) => b.area - a.area);
  if (view.selected && !shown.includes(view.selected)) view.selected = null;
  if (view.hovered && !shown.includes(view.hovered)) over(null);
  $("count").textContent = state.image ? `${shown.length}` : "";
  $("none").hidden = shown.length > 0;
  $("none").textContent = state.image ? "Nothing yet. Find objects, or draw a box around one." : "Open an image: its objects are listed here.";
  const past = state.shown !== null;
  $("objects").replaceChildren(...shown.slice(0, 500).map(one => {
    const item = document.createElement("li"), button = document.createElement("button");
    const mark = document.createElement("i"), name = document.createElement("span"), score = document.createElement("span"), area = document.createElement("span");
    mark.style.background = colour(one);
    name.textContent = className(one);
    if (one.kept) { const pin = document.createElement("span"); pin.className = "pin"; pin.textContent = " kept"; name.append(pin); }
    score.textContent = one.score.toFixed(2);
    area.textContent = `${one.area} px`; area.className = "area";
    button.append(mark, name, score, area);
    button.setAttribute("aria-pressed", String(one === view.selected));
    button.disabled = past;
    button.onclick = () => select(one);
    button.onpointerenter = () => { view.hovered = one; view.draw(); };
    button.onpointerleave = () => { view.hovered = null; view.draw(); };
    item.append(button);
    return item;
  }));
  const one = past ? null : view.selected;
  $("selected").hidden = !one;
  if (one) {
    const cls = $("class");
    $("selected-title").textContent = className(one);
    $("selected-facts").textContent = facts(one).slice(0, 3).join(", ");
    cls.replaceChildren(...one.names.map((name, i) => new Option(name, i, false, i === one.label)));
    cls.disabled = one.names.length < 2;
    $("keep").disabled = one.kept;
    $("keep").textContent = one.kept ? "Kept" : "Keep";
  }
  view.draw();
}

const stable = value => `stability ${(100 * value).toFixed(0)} %`;
const facts = one => [`score ${one.score.toFixed(2)}`, `${one.area} px`, ...(one.stability === null ? [] : [stable(one.stability)]), ...(one.kept ? ["kept"] : [])];
const className = one => one.names[one.label] || `class ${one.label}`;

function select(one, scroll = true) {
  view.selected = one;
  if (!one || one.id !== state.refining) state.refining = null;
  show(); hint();
  const chosen = $("objects").querySelector('[aria-pressed="true"]');
  if (chosen && scroll) chosen.scrollIntoView({block: "nearest"});
}

function along(by) {
  const shown = visible(), at = shown.indexOf(view.selected);
  if (shown.length) select(shown[(at + by + shown.length + (at < 0 && by < 0 ? 1 : 0)) % shown.length]);
}

/** Whether the server took the correction of what is shown. */
async function edit(action, more = {}) {
  const {image} = state;
  if (!image || state.running) return false;
  try {
    const work = await api.post(`/images/${image.id}/edit`, {action, revision: image.revision, ...more});
    if (state.image !== image) return false; // another one is shown by now
    take(work);
    if (action === "undo" || action === "redo") { state.steps = []; state.shown = null; timeline(); show(); }
    return true;
  } catch (error) { failed(error); return false; }
}

const onSelected = (action, more = {}) => view.selected && state.shown === null && edit(action, {objects: [view.selected.id], ...more});

/** Ask for the object that a person points at; with `refined` correct that one. */
async function point(asked, refined = null) {
  if (!state.image || state.asking || state.running) return;
  const asking = state.asking = {image: state.image.id, leave: new AbortController()}; // leave: Esc ends refining, and a wait for a busy server
  const wait = setTimeout(() => busy("Looking there"), 150);
  const body = {image: state.image.id, model: $("model").value, boxes: asked.box ? [asked.box] : [],
    points: asked.points.length ? [asked.points] : [], exclude: asked.exclude,
    together: Boolean(asked.box && asked.points.length), replace: refined ? refined.id : null};
  try {
    const done = await patiently(() => api.post("/prompt", body), asking.leave.signal), [id] = done.answers;
    if (!state.image || state.image.id !== body.image) return; // another one is shown by now
    if (id !== null) state.steps = []; // what they show is no longer how it came about
    state.shown = null;
    take(done);
    if (id === null) toast("Nothing was found there. Try a box around it.");
    else if (!asking.leave.signal.aborted) { state.refining = id; select(state.objects.find(one => one.id === id)); }
    timing(done.seconds, "for this object");
    timeline();
  } catch (error) { failed(error); } finally {
    clearTimeout(wait);
    state.asking = null;
    if (!state.running) busy("");
    hint();
  }
}

function click(at, exclude) {
  if (state.running || state.asking) return;
  const refined = state.refining !== null && view.selected ? view.selected : null;
  exclude = exclude || Boolean(refined && state.excluding);
  if (state.tool === "select" && !refined) { select(view.at(at)); return; }
  if (state.tool === "select" && !exclude && view.at(at) && view.at(at) !== refined) { select(view.at(at)); return; }
  if (refined) {
    const {box, points, exclude: not} = refined.prompts || {box: null, points: [], exclude: []};
    point({box, points: exclude ? points : [...points, at], exclude: exclude ? [...not, at] : not}, refined);
  } else if (exclude) toast("Shift-click says what an object is not: first click on the object, or draw a box.");
  else point({box: null, points: [at], exclude: []});
}

function boxed(a, b) {
  const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  state.refining = null;
  point({box, points: [], exclude: []});
}

function setTool(tool) {
  state.tool = tool;
  state.corner = view.drawing = null;
  document.querySelectorAll("[data-tool]").forEach(one => one.setAttribute("aria-pressed", String(one.dataset.tool === tool)));
  $("canvas").classList.toggle("box", tool === "box");
  $("canvas").classList.toggle("point", tool === "point");
  hint(); view.draw();
}

// --- pointer ---------------------------------------------------------------------------------

const pointers = new Map();
let drag = null;
const place = event => [event.offsetX, event.offsetY];

$("canvas").onpointerdown = event => {
  if (!state.image) return;
  $("canvas").setPointerCapture(event.pointerId);
  view.cross = null;
  pointers.set(event.pointerId, place(event));
  if (pointers.size === 2) { drag = {pinch: true}; view.drawing = null; view.draw(); return; }
  const draws = state.tool === "box" && event.button === 0 && view.holds(place(event));
  drag = {from: place(event), at: view.toImage(place(event)), draws, moved: false, button: event.button};
};
$("canvas").onpointermove = event => {
  if (!state.image) return;
  const now = place(event), before = pointers.get(event.pointerId);
  if (!before) { hover(now); return; }
  if (drag && drag.pinch && pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const length = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    view.zoom(length(now, other) / Math.max(1, length(before, other)), other);
  } else if (drag && !drag.pinch) {
    drag.moved = drag.moved || Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > 4;
    if (drag.moved && drag.draws) { const to = view.toImage(now); view.drawing = [...drag.at, ...to]; view.draw(); }
    else if (drag.moved) { $("canvas").classList.add("moving"); view.move(now[0] - before[0], now[1] - before[1]); over(null); }
  }
  pointers.set(event.pointerId, now);
};
$("canvas").onpointerup = $("canvas").onpointercancel = event => {
  const ended = drag;
  pointers.delete(event.pointerId);
  $("canvas").classList.remove("moving");
  if (!pointers.size) drag = null;
  if (!ended || ended.pinch || event.type === "pointercancel") { view.drawing = null; view.draw(); return; }
  if (ended.moved && ended.draws) {
    view.drawing = null;
    const to = view.toImage(place(event));
    if (Math.abs(to[0] - ended.at[0]) >= 1 && Math.abs(to[1] - ended.at[1]) >= 1) boxed(ended.at, to);
    view.draw();
  } else if (!ended.moved && ended.button === 0) {
    if (view.holds(place(event))) click(ended.at, event.shiftKey); else select(null);
  }
};
$("canvas").onpointerleave = () => over(null);
$("canvas").addEventListener("wheel", event => {
  if (!state.image) return;
  event.preventDefault();
  view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), place(event));
}, {passive: false});

function hover(at) {
  const one = view.holds(at) ? view.at(view.toImage(at)) : null;
  over(one);
  if (!one) return;
  const tip = $("tip"), name = document.createElement("b");
  name.textContent = className(one);
  tip.replaceChildren(name, facts(one).join(" · "));
  const right = at[0] + 240 > view.width;
  tip.style.transform = `translate(${at[0] + (right ? -14 : 14)}px, ${at[1] + 16}px) translateX(${right ? "-100%" : "0"})`;
}
function over(one) {
  $("tip").hidden = !one;
  $("canvas").classList.toggle("over", Boolean(one) && state.tool === "select");
  if (view.hovered !== one) { view.hovered = one; view.draw(); }
}

// --- keys ------------------------------------------------------------------------------------

const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

$("canvas").onkeydown = event => {
  if (!state.image) return;
  if (MOVES[event.key]) {
    const [dx, dy] = MOVES[event.key], by = (event.shiftKey ? 1 : 12) / view.scale;
    const {width, height} = view.image, at = view.cross || [width / 2, height / 2];
    view.cross = [Math.min(width - 0.01, Math.max(0, at[0] + dx * by)), Math.min(height - 0.01, Math.max(0, at[1] + dy * by))];
    if (state.corner) view.drawing = [...state.corner, ...view.cross];
    view.hovered = view.at(view.cross);
    event.preventDefault(); event.stopPropagation(); view.draw();
  } else if (event.key === "Enter" && view.cross) {
    event.preventDefault();
    const at = view.cross;
    if (state.tool !== "box") click(at, event.shiftKey);
    else if (!state.corner) { state.corner = at; hint(); }
    else { const from = state.corner; state.corner = view.drawing = null; if (from[0] !== at[0] && from[1] !== at[1]) boxed(from, at); hint(); view.draw(); }
  }
};

document.addEventListener("keydown", event => {
  const typing = event.target.matches("input:not([type=range]), select, textarea") || document.querySelector("dialog[open]");
  if (typing) return;
  const control = event.ctrlKey || event.metaKey;
  if (control && event.key.toLowerCase() === "z") { event.preventDefault(); edit(event.shiftKey ? "redo" : "undo"); return; }
  if (control && event.key.toLowerCase() === "y") { event.preventDefault(); edit("redo"); return; }
  if (control || event.altKey) return;
  const keys = {
    v: () => setTool("select"), b: () => setTool("box"), p: () => setTool("point"), r: run, k: () => onSelected("keep"),
    a: accept, o: () => $("file").click(), "?": () => $("keys").showModal(), "[": () => along(-1), "]": () => along(1),
    ",": () => scrubTo((state.shown ?? state.steps.length - 1) - 1), ".": () => scrubTo((state.shown ?? state.steps.length - 1) + 1),
    "+": () => view.zoom(1.25), "=": () => view.zoom(1.25), "-": () => view.zoom(0.8), "0": () => view.fit(),
    Delete: () => onSelected("delete"), Backspace: () => onSelected("delete"), PageDown: () => go(1), PageUp: () => go(-1),
    Escape: () => { const was = state.running; stopAll(); if (!was && state.corner) { state.corner = view.drawing = null; hint(); view.draw(); } else if (!was) select(null); menus.forEach(menu => { menu.open = false; }); },
  };
  const free = ["?", "o", "v", "b", "p", "Escape", "PageDown", "PageUp"];
  const act = keys[event.key] || keys[event.key.toLowerCase()];
  if (act && (state.image || free.includes(event.key.toLowerCase()) || free.includes(event.key))) { event.preventDefault(); act(); }
});

// --- the rest of the page --------------------------------------------------------------------

async function exportAs(format) {
  $("export-menu").open = false;
  if (!state.image) { toast("There is no image yet."); return; }
  try {
    const {blob, name} = await api.file(`/images/${state.image.id}/export?format=${format}&threshold=${$("threshold").value}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    toast(`${name} is saved: ${visible().length} objects`);
  } catch (error) { failed(error); }
}

const sliders = {
  "steps-slider": value => value, proposals: value => value, seed: value => value, noises: value => value,
  seconds: value => Number(value) ? `${value} s` : "off", threshold: value => Number(value).toFixed(2),
};
function said(id) {
  $(`${id.replace("-slider", "")}-out`).textContent = sliders[id]($(id).value);
  $(id).setAttribute("aria-valuetext", sliders[id]($(id).value));
  settle();
}
/** Which settings count: a time budget is for one run, neither is for the tiles of a large image. */
function settle() {
  const large = Boolean(state.image && state.image.tiles);
  const timed = !large && Number($("seconds").value) > 0, many = Number($("noises").value) > 1;
  const off = {seconds: many || large, noises: timed || large, "steps-slider": timed, proposals: timed};
  for (const [id, is] of Object.entries(off)) { $(id).disabled = is; $(id).parentElement.classList.toggle("off", is); }
}
for (const id of Object.keys(sliders)) $(id).addEventListener("input", () => { said(id); if (id === "threshold") show(); });

document.querySelectorAll("[data-tool]").forEach(one => { one.onclick = () => setTool(one.dataset.tool); });
document.querySelectorAll("[data-export]").forEach(one => { one.onclick = () => exportAs(one.dataset.export); });
const menus = [...document.querySelectorAll(".menu")];
document.addEventListener("click", event => menus.forEach(menu => { if (!menu.contains(event.target)) menu.open = false; }));
const on = {
  open: () => $("file").click(), pick: () => $("file").click(), run, stop: stopAll, play, undo: () => edit("undo"), redo: () => edit("redo"),
  "zoom-in": () => view.zoom(1.25), "zoom-out": () => view.zoom(0.8), fit: () => view.fit(), previous: () => go(-1), next: () => go(1),
  exclude: () => { state.excluding = !state.excluding; hint(); }, accept, remove: removeImage, keep: () => onSelected("keep"), delete: () => onSelected("delete"), help: () => $("keys").showModal(),
};
for (const [id, act] of Object.entries(on)) $(id).addEventListener("click", () => act());
$("scrub").oninput = event => scrubTo(Number(event.target.value) - 1);
$("class").onchange = event => onSelected("label", {label: Number(event.target.value)});
$("model").onchange = () => { defaults(); show(); };
$("file").onchange = event => { addFiles(event.target.files); event.target.value = ""; };
document.addEventListener("paste", event => addFiles([...event.clipboardData.files]));
let inside = 0;
document.addEventListener("dragenter", event => { event.preventDefault(); inside++; $("droppable").hidden = false; });
document.addEventListener("dragleave", () => { inside--; $("droppable").hidden = inside > 0; });
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => { event.preventDefault(); inside = 0; $("droppable").hidden = true; drop(event.dataTransfer); });

$("token-form").onsubmit = async event => {
  event.preventDefault();
  try { await api.bringToken($("token-input").value); $("token").close(); begin(); } catch { $("token-wrong").hidden = false; }
};

function defaults() {
  const own = model();
  $("steps-slider").value = Math.max(4, own.steps);
  $("proposals").value = own.proposals;
  $("threshold").value = own.threshold;
  Object.keys(sliders).forEach(said);
}

/** The models that this session may use; the one that is chosen stays. */
async function loadModels() {
  const served = await api.get("/models"), chosen = $("model").value;
  state.models = served.models;
  state.limits = served.limits;
  $("model").replaceChildren(...served.models.map(one => new Option(one.name, one.name)));
  if (served.models.some(one => one.name === chosen)) $("model").value = chosen;
  return served;
}

const training = new Training({
  model: () => model().name, trained: () => model().trained, reload: loadModels, toast, failed,
  use: name => { $("model").value = name; defaults(); show(); toast(`${name} is chosen: R finds objects with it.`); },
});

async function begin() {
  try {
    const brought = new URLSearchParams(location.hash.slice(1)).get("token");
    if (brought) { history.replaceState(null, "", "/"); await api.bringToken(brought); }
    const served = await loadModels();
    $("train-menu").hidden = !served.limits.iterations;
    $("proposals").max = Math.min(1000, served.limits.proposals);
    defaults();
    $("samples").replaceChildren(...served.samples.map(name => {
      const button = document.createElement("button"), image = document.createElement("img");
      image.src = `/static/samples/${name}.png`; image.alt = "";
      button.append(image, name[0].toUpperCase() + name.slice(1));
      button.onclick = () => addSample(name);
      return button;
    }));
    await listImages();
    show();
    const last = state.images.find(one => one.id === localStorage.getItem("image")) || state.images[0];
    if (last) await openImage(last.id).catch(error => {
      failed(error);
      const other = state.images.find(one => one !== last);
      return other && openImage(other.id);
    });
    if (served.limits.iterations) training.look();
  } catch (error) { failed(error, begin); }
}

begin();
