// A table that can be sorted and filtered. Rows are objects by column key; they are drawn a step at a time.
// Whatever comes from a run goes into the page as text, never as markup.

const STEP = 25;
const collator = new Intl.Collator("en", { numeric: true });

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Text with its control characters shown: those of terminals, and those that turn the direction of writing.
function visible(text) {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (sign) => `⟨U+${sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

// A name or a method's label, which may be broken behind its signs.
function breakable(text) {
  return text.split(/(?<=[:,_=/])/).flatMap((part, index) => (index ? [element("wbr"), part] : [part]));
}

function number(value, digits = 0) {
  if (value === null) return "–";
  const form = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return Number(value).toLocaleString("en", form).replace("-", "−");
}

function probability(value) {
  return value !== null && value < 0.0001 ? "< 0.0001" : number(value, 4);
}

function mark([count, word]) {
  const grave = word === "missing" || word === "failed";
  return element("span", { className: grave ? "mark grave" : "mark" }, count === null ? word : `${number(count)} ${word}`);
}

// A score from 0 to 100 as a bar, with a line of one standard error to either side.
function scale([score, error]) {
  const bar = element("i"), line = element("b");
  const [low, high] = [score - error, score + error].map((end) => Math.min(Math.max(end, 0), 100));
  bar.style.width = `${score}%`;
  line.style.left = `${low}%`;
  line.style.width = `${high - low}%`;
  return element("span", { className: "scale", ariaHidden: "true" }, bar, line);
}

// How a kind of column looks and is shown, by what it is sorted, and what can be chosen of it.
const KINDS = {
  text: {
    style: "text",
    show: (value) => (value === null ? ["–"] : breakable(visible(value))),
    rank: (value) => value,
    choices: (value) => (value === null ? [] : [value]),
  },
  number: {
    style: "figure",
    show: (value, column) => [number(value, column.digits)],
    rank: (value) => (value === null ? null : Number(value)),
    choices: (value) => (value === null ? [] : [String(value)]),
  },
  probability: { style: "figure", show: (value) => [probability(value)], rank: (value) => value },
  share: {
    style: "share",
    show: (value) => (value && value[0] !== null ? [scale(value)] : []),
    rank: (value) => value && value[0],
  },
  marks: {
    style: "marks",
    show: (value) => value.map(mark),
    rank: (value) => (value.length ? value.reduce((sum, [count]) => sum + (count ?? 1), 0) : null),
    choices: (value) => value.map(([, word]) => word),
  },
  link: {
    style: "run",
    show: ([text, href]) => [href ? element("a", { href }, visible(text)) : visible(text)],
    rank: ([text]) => text,
    choices: ([text]) => [text],
  },
};

function compare(column, sign) {
  const { rank } = KINDS[column.kind];
  return (one, other) => {
    const [x, y] = [rank(one[column.key], one), rank(other[column.key], other)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (x === y) return 0;
    return sign * (typeof x === "number" ? x - y : collator.compare(x, y));
  };
}

class Table {
  constructor(section, columns, rows) {
    Object.assign(this, { columns, rows, order: rows, steps: 1, texts: new Map(), selects: new Map() });
    [this.form, this.status, this.more] = [".filters", "[role=status]", ".more"].map((path) => section.querySelector(path));
    [this.head, this.body] = ["thead", "tbody"].map((path) => section.querySelector(path));
    this.more.addEventListener("click", () => this.draw(this.steps + 1));
    this.form.addEventListener("input", () => this.draw());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.makeHead();
    this.makeFilters();
    this.draw();
  }

  makeHead() {
    const cells = this.columns.map((column) => {
      const button = element("button", { type: "button" }, column.title);
      const cell = element("th", { scope: "col", ariaSort: "none", className: KINDS[column.kind].style }, button);
      button.addEventListener("click", () => this.sort(column, cell));
      return cell;
    });
    this.head.replaceChildren(element("tr", {}, ...cells));
  }

  makeFilters() {
    this.search = element("input", { type: "search", placeholder: "Any words", autocomplete: "off" });
    this.form.append(element("label", { className: "wide" }, "Search", this.search));
    for (const column of this.columns.filter((column) => column.choose)) {
      const found = new Set(this.rows.flatMap((row) => KINDS[column.kind].choices(row[column.key])));
      if (found.size < 2 && column.kind !== "marks" || !found.size) continue;
      const options = [...found].sort(collator.compare).map((value) => element("option", { value }, visible(value)));
      const select = element("select", {}, element("option", { value: "" }, "All"), ...options);
      this.selects.set(column, select);
      this.form.append(element("label", {}, column.title, select));
    }
    this.clear = element("button", { type: "button", className: "quiet" }, "Clear");
    this.clear.addEventListener("click", () => this.choose({}));
    this.form.append(this.clear);
  }

  // Shows the rows that have these values, by column key.
  choose(values) {
    this.search.value = "";
    for (const [column, select] of this.selects) select.value = values[column.key] ?? "";
    this.draw();
  }

  // Ascending, then descending, then the order of the run; rows that are alike keep the order that they had.
  sort(column, cell) {
    const next = { none: "ascending", ascending: "descending", descending: "none" }[cell.ariaSort];
    for (const other of this.head.querySelectorAll("th")) other.ariaSort = "none";
    cell.ariaSort = next;
    const sign = next === "ascending" ? 1 : -1;
    this.order = next === "none" ? this.rows : [...this.order].sort(compare(column, sign));
    this.draw();
  }

  matching() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...this.selects].filter(([, select]) => select.value);
    this.clear.hidden = !words.length && !chosen.length;
    return this.order.filter(
      (row) =>
        chosen.every(([column, select]) => KINDS[column.kind].choices(row[column.key]).includes(select.value)) &&
        words.every((word) => this.text(row).includes(word)),
    );
  }

  text(row) {
    if (!this.texts.has(row)) {
      this.texts.set(row, this.columns.map((column) => String(row[column.key] ?? "")).join("\n").toLowerCase());
    }
    return this.texts.get(row);
  }

  draw(steps = 1) {
    this.steps = steps;
    this.matches = this.matching();
    const shown = this.matches.slice(0, steps * STEP);
    this.body.replaceChildren(...shown.map((row) => this.line(row)));
    if (!shown.length) this.body.append(this.nothing());
    const all = this.rows.length === this.matches.length ? "" : ` (of ${number(this.rows.length)})`;
    this.status.textContent = `${number(shown.length)} of ${number(this.matches.length)} rows shown${all}`;
    this.more.hidden = shown.length === this.matches.length;
  }

  line(row) {
    const cells = this.columns.map((column, index) => {
      const cell = element(index ? "td" : "th", { className: KINDS[column.kind].style });
      if (!index) cell.scope = "row";
      cell.append(...KINDS[column.kind].show(row[column.key], column, row));
      return cell;
    });
    return element("tr", {}, ...cells);
  }

  nothing() {
    const cell = element("td", { colSpan: this.columns.length }, this.rows.length ? "No row matches." : "There are none.");
    return element("tr", { className: "none" }, cell);
  }
}

// The rows of a table of the data block as objects.
function objects({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((column, index) => [column.key, row[index]])));
}

const data = JSON.parse(document.getElementById("data").textContent);
