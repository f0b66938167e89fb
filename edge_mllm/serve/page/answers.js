// Answers on the page: a turn for each question, and in it a card for each setting that was asked with.
import { bar, origin, seconds, table, totalSeconds } from "./costs.js";

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text ?? "";
  return made;
}

/** A question with its cards, put above the earlier ones. */
export class Turn {
  constructor(list, question) {
    this.element = element("article", "turn");
    this.element.append(element("h3", "asked", question));
    this.row = element("div", "cards");
    this.element.append(this.row);
    this.cards = [];
    list.querySelectorAll("details[open]").forEach((figures) => figures.removeAttribute("open"));
    list.prepend(this.element);
  }

  card(words, show) {
    const card = new Card(words, show);
    this.cards.push(card);
    this.row.append(card.element);
    return card;
  }

  /** Bars of one turn have one scale, so that settings can be compared by eye. */
  draw() {
    const done = this.cards.filter((card) => card.costs);
    const longest = Math.max(...done.map((card) => totalSeconds(card.costs)));
    done.forEach((card) => card.draw(longest));
  }
}

/** One answer. `show` draws it on the picture. */
export class Card {
  constructor(words, show) {
    this.element = element("section", "card");
    this.words = element("p", "setting", words);
    this.text = element("p", "text");
    this.note = element("p", "note", "waiting …");
    this.figures = element("div", "figures");
    this.button = element("button", "show", "Show on the picture");
    this.button.type = "button";
    this.button.hidden = true;
    this.button.addEventListener("click", () => show(this));
    this.element.append(this.words, this.text, this.note, this.figures, this.button);
    this.answer = "";
    this.image = null;
    this.costs = null;
  }

  add(piece) {
    this.note.textContent = "answering …";
    this.write(this.answer + piece);
  }

  write(text) {
    this.answer = text;
    this.text.textContent = text.trim();
  }

  finish(costs, usage, plan, reason) {
    Object.assign(this, { costs, usage, plan });
    this.image = costs.images[0] ?? null;
    this.button.hidden = this.image === null;
    const speed = costs.timings.decode_tps > 0 ? `, ${costs.timings.decode_tps.toFixed(1)} tokens/s` : "";
    const cut = reason === "length" ? "; cut at the limit of tokens" : "";
    this.note.textContent = `${seconds(totalSeconds(costs))} in all${speed}${cut}`;
  }

  fail(message) {
    this.element.classList.add("failed");
    this.note.textContent = message;
  }

  /** The picture is gone that it could be shown on. */
  retire() {
    this.button.remove();
  }

  draw(longest) {
    this.figures.replaceChildren(...bar(this.costs, longest));
    if (this.plan) {
      this.figures.append(table(this.plan, this.costs, this.usage));
    }
  }

  /** In one sentence, for who does not see the bar. */
  get spoken() {
    const kept = origin(this.costs);
    return `Answer: ${this.answer.trim() || "nothing"}. ${this.note.textContent}${kept ? `, ${kept}` : ""}.`;
  }
}
