// One set of settings of the form, and what it adds to a request.

const WITHOUT_RATIO = ["", "blank", "duplicates"];

export class Settings {
  constructor(template, changed) {
    this.element = template.content.cloneNode(true).firstElementChild;
    this.element.addEventListener("input", () => {
      this.#control("ratio").parentElement.hidden = WITHOUT_RATIO.includes(this.#control("method").value);
      changed();
    });
  }

  #control(name) {
    return this.element.querySelector(`[name=${name}]`);
  }

  name(text) {
    this.element.querySelector("legend").textContent = text;
  }

  /** Fields of a request; those that are left alone are not sent. */
  get fields() {
    const found = { detail: this.#control("detail").value };
    if (this.reduction) {
      found.image_reduction = this.reduction;
    }
    for (const name of ["max_image_tokens", "max_ttft"]) {
      const value = this.#control(name).valueAsNumber;
      if (Number.isFinite(value)) {
        found[name] = value;
      }
    }
    return found;
  }

  get reduction() {
    const method = this.#control("method").value;
    return WITHOUT_RATIO.includes(method) ? method : `${method}:${this.#control("ratio").value}`;
  }

  /** The same in words. */
  get words() {
    const { detail, image_reduction: reduction, max_image_tokens: tokens, max_ttft: seconds } = this.fields;
    const parts = [`detail ${detail}`, reduction ? `reduced by ${reduction}` : "not reduced"];
    if (tokens) {
      parts.push(`at most ${tokens} image tokens`);
    }
    if (seconds) {
      parts.push(`first token within ${seconds} s`);
    }
    return parts.join(", ");
  }
}
