// Unpacking of samples, and the dialog that shows one.

const CELL = ["run", "model", "method", "bench", "task", "length"];
const ROW = ["cell", "id", "score", "loss", "marks", "prediction", "references", "prompt_start", "prompt_end", "error", "fields"];

function unpack({ cells, rows, texts, fields }) {
  const text = (index) => (index === null ? null : texts[index]);
  const named = (keys, values) => Object.fromEntries(keys.map((key, index) => [key, values[index]]));
  const cellFields = cells.map((cell) => named(CELL, cell));
  return rows.map((row) => {
    const sample = named(ROW, row);
    Object.assign(sample, cellFields[sample.cell], { references: sample.references.map(text) });
    for (const key of ["prediction", "prompt_start", "prompt_end", "error"]) sample[key] = text(sample[key]);
    sample.fieldName = (index) => fields[index];
    return sample;
  });
}

function textBlock(text, className = "stored-text") {
  return element("pre", { className, dir: "auto" }, text === "" ? "(empty)" : visible(text));
}

function section(title, ...children) {
  return element("section", {}, element("h3", {}, title), ...children);
}

class SampleDialog {
  constructor(dialog, samples) {
    this.dialog = dialog;
    this.samples = samples;
    this.body = dialog.querySelector(".body");
    [this.previous, this.next, this.close] = dialog.querySelectorAll(".steps button");
    this.previous.addEventListener("click", () => this.step(-1));
    this.next.addEventListener("click", () => this.step(1));
    this.close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => this.step({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0));
  }

  // Opens a sample; "Previous" and "Next" go through the list.
  open(sample, list) {
    this.list = list;
    this.show(sample);
    if (!this.dialog.open) this.dialog.showModal();
  }

  step(by) {
    const neighbour = this.list[this.list.indexOf(this.sample) + by];
    if (by && neighbour) this.show(neighbour);
  }

  show(sample) {
    this.sample = sample;
    const index = this.list.indexOf(sample);
    this.previous.disabled = index <= 0;
    this.next.disabled = index < 0 || index === this.list.length - 1;
    this.dialog.querySelector("h2").textContent = `${visible(sample.method)} on ${visible(sample.id)}`;
    this.dialog.querySelector(".cell").textContent =
      visible(`${sample.bench}/${sample.task} at ${number(sample.length)} tokens · ${sample.model} · ${sample.run}`);
    this.body.replaceChildren(...this.sections(sample));
    this.body.scrollTop = 0;
  }

  sections(sample) {
    return [
      this.result(sample),
      sample.error === null ? null : section("Error", textBlock(sample.error, "stored-text bad")),
      sample.prediction === null ? null : section("Prediction", textBlock(sample.prediction)),
      sample.references.length ? section("Reference", ...sample.references.map((text) => textBlock(text))) : null,
      section("Prompt", ...this.prompt(sample)),
      this.otherMethods(sample),
      section("Other stored fields", this.fields(sample)),
    ].filter(Boolean);
  }

  result(sample) {
    const marks = sample.marks.map(mark);
    if (sample.score !== null) marks.unshift(element("strong", {}, number(sample.score, 1)), "of 100");
    if (sample.loss !== null) marks.unshift(element("strong", {}, number(sample.loss, 4)), "nats per token");
    return element("section", { className: "result" }, ...marks);
  }

  prompt({ prompt_start: start, prompt_end: end }) {
    if (start === null && end === null) return [element("p", { className: "note" }, "The text of the prompt was not stored.")];
    const gap = element("p", { className: "gap" }, "⋯ the text between was not stored ⋯");
    return [start === null ? null : textBlock(start), gap, end === null ? null : textBlock(end)].filter(Boolean);
  }

  // The same sample with other methods.
  otherMethods(sample) {
    const same = ["run", "model", "bench", "task", "length", "id"];
    const others = this.samples.filter((other) => other !== sample && same.every((key) => other[key] === sample[key]));
    if (!others.length) return null;
    return section("Other methods", element("ul", { className: "others" }, ...others.map((other) => this.linkTo(other))));
  }

  linkTo(sample) {
    const score = sample.score ?? sample.loss;
    const button = element(
      "button",
      { type: "button" },
      element("span", {}, visible(sample.method)),
      element("span", { className: "line" }, visible(sample.prediction ?? sample.error ?? "")),
      element("span", { className: "figure" }, score === null ? "–" : number(score, sample.score === null ? 4 : 1)),
    );
    button.addEventListener("click", () => {
      this.show(sample);
      this.close.focus();
    });
    return element("li", {}, button);
  }

  fields(sample) {
    const list = element("dl", { className: "fields" });
    for (let index = 0; index < sample.fields.length; index += 2) {
      const [name, value] = [sample.fieldName(sample.fields[index]), sample.fields[index + 1]];
      list.append(element("dt", {}, visible(name.replaceAll("_", " "))), element("dd", {}, visible(String(value))));
    }
    return list;
  }
}
