// Prints a workbook as SheetJS reads it, as JSON: by sheet, [row, column, value, formula] of every cell that has a value.
const XLSX = require("xlsx");

const book = XLSX.readFile(process.argv[2], { dense: true });
const sheets = {};
for (const name of book.SheetNames) {
  const cells = [];
  book.Sheets[name].forEach((row, i) =>
    row.forEach((cell, j) => {
      if (cell && (cell.v !== undefined || cell.f)) cells.push([i, j, cell.v ?? "", cell.f ?? ""]);
    }),
  );
  sheets[name] = cells;
}
process.stdout.write(JSON.stringify(sheets));
