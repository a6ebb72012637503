// The report: its tables, and the links between them.

const samples = unpack(data.samples);
const dialog = new SampleDialog(document.getElementById("sample"), samples);

KINDS.sample = {
  ...KINDS.text,
  show: (value, column, row) => {
    const button = element("button", { type: "button", className: "link" }, visible(value));
    button.addEventListener("click", () => dialog.open(row, tables.samples.matches));
    return [button];
  },
};

KINDS.preview = { ...KINDS.text, style: "preview", show: (value) => [visible((value ?? "").slice(0, 300))] };

KINDS.difference = {
  ...KINDS.number,
  show: (value, column, row) => {
    const text = number(value, column.digits);
    return [row.p_value_holm !== null && row.p_value_holm < 0.05 ? element("b", {}, text) : text];
  },
};

// A number of samples, as a link to them.
KINDS.count = {
  ...KINDS.number,
  show: (value, column, row) => {
    const cell = `${row.method}, ${row.task}, ${row.length}`;
    const button = element("button", { type: "button", className: "link", ariaLabel: `${value} samples of ${cell}` }, number(value));
    button.addEventListener("click", () => {
      tables.samples.filter(Object.fromEntries(CELL.map((key) => [key, row[key]])));
      document.getElementById("samples").scrollIntoView();
      tables.samples.search.focus({ preventScroll: true });
    });
    return [button];
  },
};

function table(name, { columns }, rows) {
  const section = document.getElementById(name);
  return section && new Table(section, columns, rows);
}

const tables = { samples: table("samples", data.samples, samples) };
for (const name of ["scores", "differences", "details"]) tables[name] = table(name, data[name], objects(data[name]));
