// A table that can be sorted and filtered. Rows are objects by column key; more are drawn on demand.
// Everything from a run is added to the page as text, never as markup.

const PAGE_SIZE = 25;
const collator = new Intl.Collator("en", { numeric: true });

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Text with its control characters made visible: those of terminals, and those that reverse the direction of writing.
function visible(text) {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `⟨U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

// A name or a method's label, with line breaks allowed after punctuation.
function breakable(text) {
  return text.split(/(?<=[:,_=/])/).flatMap((part, index) => (index ? [element("wbr"), part] : [part]));
}

function number(value, digits = 0) {
  if (value === null) return "–";
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return Number(value).toLocaleString("en", format).replace("-", "−");
}

function probability(value) {
  return value !== null && value < 0.0001 ? "< 0.0001" : number(value, 4);
}

function mark([count, word]) {
  const bad = word === "missing" || word === "failed";
  return element("span", { className: bad ? "mark bad" : "mark" }, count === null ? word : `${number(count)} ${word}`);
}

// A score from 0 to 100 as a bar, with a line for its 95 % interval.
function scoreBar([score, low, high]) {
  const bar = element("i"), line = element("b");
  bar.style.width = `${score}%`;
  line.style.left = `${low}%`;
  line.style.width = `${high - low}%`;
  return element("span", { className: "scale", ariaHidden: "true" }, bar, line);
}

// Kinds of columns: their style, how a value is shown, what it is sorted by, and what can be filtered.
const KINDS = {
  text: {
    style: "text",
    show: (value) => (value === null ? ["–"] : breakable(visible(value))),
    sortKey: (value) => value,
    choices: (value) => (value === null ? [] : [value]),
  },
  number: {
    style: "figure",
    show: (value, column) => [number(value, column.digits)],
    sortKey: (value) => (value === null ? null : Number(value)),
    choices: (value) => (value === null ? [] : [String(value)]),
  },
  probability: { style: "figure", show: (value) => [probability(value)], sortKey: (value) => value },
  share: {
    style: "share",
    show: (value) => (value && value[0] !== null ? [scoreBar(value)] : []),
    sortKey: (value) => value && value[0],
  },
  marks: {
    style: "marks",
    show: (value) => value.map(mark),
    sortKey: (value) => (value.length ? value.reduce((sum, [count]) => sum + (count ?? 1), 0) : null),
    choices: (value) => value.map(([, word]) => word),
  },
  link: {
    style: "run",
    show: ([text, href]) => [href ? element("a", { href }, visible(text)) : visible(text)],
    sortKey: ([text]) => text,
    choices: ([text]) => [text],
  },
};

function compare(column, sign) {
  const { sortKey } = KINDS[column.kind];
  return (first, second) => {
    const [x, y] = [sortKey(first[column.key], first), sortKey(second[column.key], second)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (x === y) return 0;
    return sign * (typeof x === "number" ? x - y : collator.compare(x, y));
  };
}

class Table {
  constructor(section, columns, rows) {
    Object.assign(this, { columns, rows, order: rows, pages: 1, texts: new Map(), selects: new Map() });
    [this.form, this.status, this.more] = [".filters", "[role=status]", ".more"].map((path) => section.querySelector(path));
    [this.head, this.body] = ["thead", "tbody"].map((path) => section.querySelector(path));
    this.more.addEventListener("click", () => this.draw(this.pages + 1));
    this.form.addEventListener("input", () => this.draw());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.drawHead();
    this.drawFilters();
    this.draw();
  }

  drawHead() {
    const cells = this.columns.map((column) => {
      const button = element("button", { type: "button" }, column.title);
      const cell = element("th", { scope: "col", ariaSort: "none", className: KINDS[column.kind].style }, button);
      button.addEventListener("click", () => this.sort(column, cell));
      return cell;
    });
    this.head.replaceChildren(element("tr", {}, ...cells));
  }

  drawFilters() {
    this.search = element("input", { type: "search", placeholder: "Any words", autocomplete: "off" });
    this.form.append(element("label", { className: "wide" }, "Search", this.search));
    for (const column of this.columns.filter((column) => column.choose)) {
      const choices = new Set(this.rows.flatMap((row) => KINDS[column.kind].choices(row[column.key])));
      if (choices.size < 2 && column.kind !== "marks" || !choices.size) continue;
      const options = [...choices].sort(collator.compare).map((value) => element("option", { value }, visible(value)));
      const select = element("select", {}, element("option", { value: "" }, "All"), ...options);
      this.selects.set(column, select);
      this.form.append(element("label", {}, column.title, select));
    }
    this.clear = element("button", { type: "button", className: "quiet" }, "Clear");
    this.clear.addEventListener("click", () => this.filter({}));
    this.form.append(this.clear);
  }

  // Shows only rows with these values, by column key.
  filter(values) {
    this.search.value = "";
    for (const [column, select] of this.selects) select.value = values[column.key] ?? "";
    this.draw();
  }

  // Sorts ascending, then descending, then in the order of the run; equal rows stay in that order.
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

  draw(pages = 1) {
    this.pages = pages;
    this.matches = this.matching();
    const shown = this.matches.slice(0, pages * PAGE_SIZE);
    this.body.replaceChildren(...shown.map((row) => this.drawRow(row)));
    if (!shown.length) this.body.append(this.emptyRow());
    const all = this.rows.length === this.matches.length ? "" : ` (of ${number(this.rows.length)})`;
    this.status.textContent = `${number(shown.length)} of ${number(this.matches.length)} rows shown${all}`;
    this.more.hidden = shown.length === this.matches.length;
  }

  drawRow(row) {
    const cells = this.columns.map((column, index) => {
      const cell = element(index ? "td" : "th", { className: KINDS[column.kind].style });
      if (!index) cell.scope = "row";
      cell.append(...KINDS[column.kind].show(row[column.key], column, row));
      return cell;
    });
    return element("tr", {}, ...cells);
  }

  emptyRow() {
    const cell = element("td", { colSpan: this.columns.length }, this.rows.length ? "No row matches." : "There are no rows.");
    return element("tr", { className: "none" }, cell);
  }
}

// Rows of a table in the data block, as objects.
function objects({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((column, index) => [column.key, row[index]])));
}

const data = JSON.parse(document.getElementById("data").textContent);
