// Training on the accepted images: how many there are, how it goes, what came of it.

import * as api from "./api.js";

const $ = id => document.getElementById(id);
const LOOK = 2000; // ms between two looks at a training

function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
const images = count => `${count} ${count === 1 ? "image" : "images"}`;
const ap = value => value === null ? "none" : value.toFixed(3);

/** What is said of a training that was asked for, and how far it is (0 to 1; null: not at work). */
function said(one) {
  const at = `iteration ${one.iteration} of ${one.iterations}`;
  const numbers = `mask AP ${ap(one.new)}, ${one.origin} ${ap(one.old)}, on ${images(one.held_out)} held out`;
  switch (one.state) {
    case "running":
      if (one.phase === "scoring") return [`Comparing both models on what was held out: ${one.scored} of ${one.to_score}`, 0.9 + 0.1 * one.scored / Math.max(1, one.to_score)];
      if (one.phase !== "training" || one.seconds_left === null) return ["Starting", 0];
      return [`${at[0].toUpperCase()}${at.slice(1)}${one.loss === null ? "" : `, loss ${one.loss.toPrecision(3)}`}, ${duration(one.seconds_left)} left`, 0.9 * one.iteration / one.iterations];
    case "done":
      if (one.better) return [`${one.name} is better: ${numbers}.`, null];
      if (one.new !== null && one.new > (one.old ?? 0)) return [`${one.name} was better (${numbers}), and was removed.`, null];
      return [`Not better: ${numbers}. Nothing changes; more images or other iterations may help.`, null];
    case "stopped": return [`Stopped at ${at}.`, null];
    case "interrupted": return [`The server ended in mid-training, at ${at}.`, null];
    default: return [`The training failed: ${one.detail}`, null];
  }
}

export class Training {
  /** page: model() -> name, trained() -> whether it is the session's own, use(name), reload() of the models, toast, failed. */
  constructor(page) {
    this.page = page;
    this.last = null; // state that was seen last
    this.timer = 0;
    $("train").onclick = () => this.ask("", {model: page.model(), iterations: Number($("iterations").value)});
    $("train-resume").onclick = () => this.ask("/resume");
    $("train-stop").onclick = () => this.ask("/stop");
    $("train-use").onclick = () => { $("train-menu").open = false; page.use(this.told.name); this.look(); };
    $("train-remove").onclick = () => this.remove();
    $("train-menu").ontoggle = () => { if ($("train-menu").open) this.look(); };
  }

  async ask(what, body = {}) {
    for (const id of ["train", "train-resume", "train-stop"]) $(id).disabled = true;
    try { await api.post(`/training${what}`, body); } catch (error) { this.page.failed(error); }
    await this.look();
  }

  async remove() {
    const name = this.page.model();
    if (!confirm(`Remove the trained model ${name}? What was found with it stays.`)) return;
    try {
      await api.remove(`/models/${encodeURIComponent(name)}`);
      await this.page.reload();
      this.page.use(this.page.model());
    } catch (error) { this.page.failed(error); }
    await this.look();
  }

  /** Ask the server where it stands, again and again while one is at work. */
  async look() {
    clearTimeout(this.timer);
    try {
      const state = await api.get(`/training?model=${encodeURIComponent(this.page.model())}`);
      this.told = state.training;
      const now = this.told && this.told.state, ended = this.last === "running" && now !== "running";
      this.last = now;
      if (ended && now === "done") await this.page.reload();
      this.show(state);
      if (ended && now !== "stopped") this.page.toast(said(this.told)[0], now !== "done", this.told.better ? ["Use it", () => $("train-use").onclick()] : null);
      if (now === "running") this.timer = setTimeout(() => this.look(), LOOK);
    } catch (error) {
      if (this.last === "running") this.timer = setTimeout(() => this.look(), 3 * LOOK);
      else this.page.failed(error);
    }
  }

  show({images: count, least, busy, training: one}) {
    const running = Boolean(one) && one.state === "running", enough = count >= least;
    const [text, part] = one ? said(one) : ["", null];
    $("train-said").textContent = text;
    $("train-said").hidden = !one;
    $("train-progress").hidden = part === null;
    $("train-progress").value = part || 0;
    $("train-mark").hidden = !running;
    $("train-text").hidden = $("train-length").hidden = $("train").hidden = running;
    $("train-text").textContent = enough
      ? `${images(count)} accepted. A quarter is held out: on it ${this.page.model()} and the new model are compared, and the new one is offered if it is better.`
      : `${count} of at least ${least} images accepted. Correct the objects on each, then accept it (A).`;
    if (busy && !running) $("train-text").textContent += " Another training is at work on this server; one at a time.";
    $("train").disabled = !enough || busy;
    $("train-resume").hidden = running || !one || !one.can_resume;
    $("train-resume").disabled = busy;
    $("train-stop").hidden = !running;
    $("train-stop").disabled = false;
    $("train-use").hidden = !one || one.state !== "done" || !one.better || this.page.model() === one.name;
    $("train-remove").hidden = running || !this.page.trained();
    $("train").classList.toggle("primary", $("train-resume").hidden && $("train-use").hidden);
  }
}
