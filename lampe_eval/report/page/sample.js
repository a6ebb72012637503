// Samples: unpacking them, and the dialog that shows one.

const CELL = ["run", "model", "method", "bench", "task", "length"];
const ROW = ["cell", "id", "score", "loss", "marks", "prediction", "references", "prompt_start", "prompt_end", "fault", "fields"];

function unpack({ cells, rows, texts, fields }) {
  const text = (index) => (index === null ? null : texts[index]);
  const named = (keys, values) => Object.fromEntries(keys.map((key, index) => [key, values[index]]));
  const owners = cells.map((cell) => named(CELL, cell));
  return rows.map((row) => {
    const sample = named(ROW, row);
    Object.assign(sample, owners[sample.cell], { references: sample.references.map(text) });
    for (const key of ["prediction", "prompt_start", "prompt_end", "fault"]) sample[key] = text(sample[key]);
    sample.name = (index) => fields[index];
    return sample;
  });
}

function said(text, className = "said") {
  return element("pre", { className, dir: "auto" }, text === "" ? "(empty)" : visible(text));
}

function part(title, ...children) {
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

  // Opens a sample; its neighbours are those of the list.
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
    const place = this.list.indexOf(sample);
    this.previous.disabled = place <= 0;
    this.next.disabled = place < 0 || place === this.list.length - 1;
    this.dialog.querySelector("h2").textContent = `${visible(sample.method)} on ${visible(sample.id)}`;
    this.dialog.querySelector(".where").textContent =
      visible(`${sample.bench}/${sample.task} at ${number(sample.length)} tokens · ${sample.model} · ${sample.run}`);
    this.body.replaceChildren(...this.parts(sample));
    this.body.scrollTop = 0;
  }

  parts(sample) {
    return [
      this.result(sample),
      sample.fault === null ? null : part("Error", said(sample.fault, "said bad")),
      sample.prediction === null ? null : part("Prediction", said(sample.prediction)),
      sample.references.length ? part("Reference", ...sample.references.map((text) => said(text))) : null,
      part("Prompt", ...this.prompt(sample)),
      this.others(sample),
      part("Stored with it", this.fields(sample)),
    ].filter(Boolean);
  }

  result(sample) {
    const marks = sample.marks.map(mark);
    if (sample.score !== null) marks.unshift(element("strong", {}, number(sample.score, 1)), "of 100");
    if (sample.loss !== null) marks.unshift(element("strong", {}, number(sample.loss, 4)), "nats a token");
    return element("section", { className: "result" }, ...marks);
  }

  prompt({ prompt_start: head, prompt_end: tail }) {
    if (head === null && tail === null) return [element("p", { className: "note" }, "Its text was not stored.")];
    const gap = element("p", { className: "gap" }, "⋯ what lies between was not stored ⋯");
    return [head === null ? null : said(head), gap, tail === null ? null : said(tail)].filter(Boolean);
  }

  // The same sample under other methods.
  others(sample) {
    const same = ["run", "model", "bench", "task", "length", "id"];
    const others = this.samples.filter((one) => one !== sample && same.every((key) => one[key] === sample[key]));
    if (!others.length) return null;
    return part("Under other methods", element("ul", { className: "others" }, ...others.map((one) => this.other(one))));
  }

  other(sample) {
    const score = sample.score ?? sample.loss;
    const button = element(
      "button",
      { type: "button" },
      element("span", {}, visible(sample.method)),
      element("span", { className: "line" }, visible(sample.prediction ?? sample.fault ?? "")),
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
      const [name, value] = [sample.name(sample.fields[index]), sample.fields[index + 1]];
      list.append(element("dt", {}, visible(name.replaceAll("_", " "))), element("dd", {}, visible(String(value))));
    }
    return list;
  }
}
