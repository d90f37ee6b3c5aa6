// Writes rows of numbers, given as JSON on standard input, as SheetJS writes a sheet of an .xlsb: write.js BOOK.xlsb
const XLSX = require("xlsx");

const rows = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const book = XLSX.utils.book_new();
XLSX.utils.book_append_sheet(book, XLSX.utils.aoa_to_sheet(rows), "rows");
XLSX.writeFile(book, process.argv[2]);
