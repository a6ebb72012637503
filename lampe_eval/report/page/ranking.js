// Rankings: tables with methods as rows and lengths as columns, each with a chart of one column.
// Filters hide tables and rows; ranks stay those among all methods.

const RANKING_FILTERS = { model: "Model", bench: "Benchmark", protocol: "Protocol", method: "Method" };
const LOG_SCALE_FROM = 20; // ratio of the ends of a perplexity's scale
const TICKS = 5;

function rounded(value, large, small = 2) {
  return number(value, Math.abs(value) >= 10 ? large : small);
}

function numberText({ value, low, high }) {
  const interval = low === null ? [] : [element("span", { className: "faint" }, ` [${rounded(low, 0)}, ${rounded(high, 0)}]`)];
  return [rounded(value, 1), ...interval];
}

function rankText({ rank, tied }) {
  return rank === null ? "–" : `${rank}${tied ? " =" : ""}`;
}

class Ranking {
  constructor(ranking, index) {
    Object.assign(this, ranking);
    // The last length; numbers over lengths follow it, and have no interval.
    const ranked = this.columns.map((_, at) => this.rows.some((row) => row.numbers[at] && row.numbers[at].rank !== null));
    this.column = Math.max(ranked.lastIndexOf(true), 0);
    const title = element("h3", { id: `ranking-${index}` }, visible(this.title));
    this.table = element("table", {});
    const box = element("div", { className: "box whole", tabIndex: 0, role: "region" }, this.table);
    box.setAttribute("aria-labelledby", title.id);
    this.chart = element("figure", { className: "intervals" });
    this.node = element("article", {}, title, this.drawNote(), box, this.chart);
    this.filter("");
  }

  filter(method) {
    this.shown = this.rows.filter((row) => !method || row.method === method);
    this.draw();
  }

  // By rank, then by value, the best first; methods without a number come last.
  compare(first, second) {
    const [x, y] = [first.numbers[this.column], second.numbers[this.column]];
    if (!x || !y) return !x - !y;
    const sign = this.lowerIsBetter ? 1 : -1;
    return (x.rank ?? Infinity) - (y.rank ?? Infinity) || sign * (Number(x.value) - Number(y.value));
  }

  draw() {
    const rows = [...this.shown].sort((first, second) => this.compare(first, second));
    this.table.replaceChildren(
      element("thead", {}, this.drawHead()),
      element("tbody", {}, ...rows.map((row) => this.drawRow(row))),
    );
    this.chart.replaceChildren(...this.drawChart(rows.filter((row) => row.numbers[this.column])));
  }

  drawNote() {
    const run = this.run ? [" · run ", ...KINDS.link.show(this.run)] : [];
    return element("p", { className: "note" }, visible(this.conditions), ...run);
  }

  drawHead() {
    const heads = this.columns.map((title, index) => {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        this.column = index;
        this.draw();
        this.table.querySelectorAll("thead button")[index].focus();
      });
      const ariaSort = index === this.column ? "ascending" : "none";
      return element("th", { scope: "col", className: "figure", ariaSort }, button);
    });
    return element("tr", {}, element("th", { scope: "col" }, "Method"), ...heads);
  }

  drawRow({ method, run, numbers }) {
    const name = element("th", { scope: "row" }, ...breakable(visible(method)));
    if (run) name.append(element("br"), element("span", { className: "faint small" }, ...KINDS.link.show(run)));
    const cells = numbers.map((entry) => {
      if (!entry) return element("td", { className: "figure" }, "–");
      const rank = element("span", { className: "rank", title: "rank" }, rankText(entry));
      const text = element("span", { className: entry.rank === 1 ? "place-1" : "" }, ...numberText(entry));
      return element("td", { className: "figure" }, text, rank);
    });
    return element("tr", {}, name, ...cells);
  }

  drawChart(rows) {
    const entries = rows.map((row) => row.numbers[this.column]);
    const ends = entries.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]).map(Number).filter(Number.isFinite);
    if (!ends.length) return [];
    const scale = new Scale(this.isPercent, ends);
    const lines = rows.map((row, index) => {
      const { value, low, high } = entries[index];
      const label = row.run ? `${row.method} · ${row.run[0]}` : row.method;
      const line = element("b"), point = element("i");
      line.style.left = `${scale.at(low ?? value)}%`;
      line.style.width = `${scale.at(high ?? value) - scale.at(low ?? value)}%`;
      point.style.left = `${scale.at(value)}%`;
      return [element("span", { className: "name" }, ...breakable(visible(label))), element("span", { className: "track" }, line, point)];
    });
    const ticks = scale.ticks().map(([at, value]) => {
      const tick = element("span", {}, this.isPercent ? number(value) : rounded(value, 0));
      tick.style.left = `${at}%`;
      return tick;
    });
    const body = element("div", { className: "lines", ariaHidden: "true" }, ...lines.flat(), element("span"), element("span", { className: "ticks" }, ...ticks));
    return [body, element("figcaption", {}, `${visible(this.title)} at ${visible(this.columns[this.column])}: ${this.unit}, with 95 % intervals`)];
  }
}

// From 0 to 100 for percent, else from the lowest to the highest end, by their logarithms where these are far apart.
class Scale {
  constructor(isPercent, ends) {
    [this.low, this.high] = isPercent ? [0, 100] : [Math.min(...ends), Math.max(...ends)];
    this.isLog = this.low > 0 && this.high / this.low > LOG_SCALE_FROM;
  }

  at(value) {
    const place = (x) => (this.isLog ? Math.log(Math.max(x, this.low)) : x);
    const share = (place(Number(value)) - place(this.low)) / (place(this.high) - place(this.low) || 1);
    return 100 * Math.min(Math.max(share, 0), 1);
  }

  ticks() {
    const shares = Array.from({ length: TICKS }, (_, index) => index / (TICKS - 1));
    const value = (share) => (this.isLog ? this.low * (this.high / this.low) ** share : this.low + share * (this.high - this.low));
    return shares.map((share) => [100 * share, value(share)]);
  }
}

class Rankings {
  constructor(section, rankings) {
    this.rankings = rankings.map((ranking, index) => new Ranking(ranking, index));
    [this.form, this.list, this.status] = [".filters", ".rankings", "[role=status]"].map((path) => section.querySelector(path));
    this.list.append(...this.rankings.map(({ node }) => node));
    this.form.addEventListener("input", () => this.filter());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.selects = new Map();
    for (const [key, title] of Object.entries(RANKING_FILTERS)) this.addFilter(key, title);
    this.filter();
  }

  addFilter(key, title) {
    const values = (ranking) => (key === "method" ? ranking.rows.map((row) => row.method) : [ranking[key]]);
    const choices = new Set(this.rankings.flatMap(values));
    if (choices.size < 2) return;
    const options = [...choices].sort(collator.compare).map((value) => element("option", { value }, visible(value)));
    const select = element("select", {}, element("option", { value: "" }, "All"), ...options);
    this.selects.set(key, select);
    this.form.append(element("label", {}, title, select));
  }

  filter() {
    const chosen = Object.fromEntries([...this.selects].map(([key, select]) => [key, select.value]));
    for (const ranking of this.rankings) {
      ranking.filter(chosen.method);
      const matches = ["model", "bench", "protocol"].every((key) => !chosen[key] || ranking[key] === chosen[key]);
      ranking.node.hidden = !matches || !ranking.shown.length;
    }
    const shown = this.rankings.filter(({ node }) => !node.hidden).length;
    this.status.textContent = `${number(shown)} of ${number(this.rankings.length)} rankings shown`;
  }
}
