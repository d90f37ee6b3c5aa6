// docs/tour.md as stops: what to read, what to type and to set, and which cells then show what.

const PROMPT = /^Prompt: `(.+)`$/;
const SET = /^Set `([\w.]+)` to `(.+)`\.$/;
const CLAIM = /^\| `([\w.]+)`(.*?) \| (.+) \|$/;

/** Bold, code, emphasis and links of a paragraph, as [kind, text]. */
function spans(text) {
  const found = [];
  let at = 0;
  for (const part of text.matchAll(/\*\*\[(.+?)\]\(.+?\)\*\*|\*\*(.+?)\*\*|\[(.+?)\]\(.+?\)|`(.+?)`|\*(.+?)\*/g)) {
    if (part.index > at) found.push(["text", text.slice(at, part.index)]);
    const [whole, linked, bold, link, code, emphasis] = part;
    found.push(linked ?? bold ? ["bold", linked ?? bold] : code ? ["code", code] : ["em", link ?? emphasis]);
    at = part.index + whole.length;
  }
  if (at < text.length) found.push(["text", text.slice(at)]);
  return found;
}

/** The numbers in ", position 6, head 2, at position 3", by their words. */
const numbers = (where) =>
  Object.fromEntries([...where.matchAll(/, ([a-z ]+) (\d+)/g)].map(([, word, number]) => [word, Number(number)]));

export function parse(markdown) {
  const stops = [];
  let title = "";
  let prose = [];
  let prompt = "";
  let settings = {};
  let stop = null;

  const close = () => {
    if (stop) stop.after.push(...prose);
    prose = [];
    stop = null;
  };
  const open = () => {
    stop = { title, before: prose, prompt, settings: { ...settings }, claims: [], after: [] };
    stops.push(stop);
    prose = [];
  };
  for (const block of markdown.split(/\n\n+/)) {
    const line = block.trim();
    const heading = line.match(/^## (.+)$/);
    if (heading) {
      close();
      title = heading[1];
    } else if (!title) {
      continue; // what stands above the first step is about the file
    } else if (PROMPT.test(line)) {
      prompt = line.match(PROMPT)[1];
      settings = {};
      if (!stop || stop.claims.length || stop.prompt) open();
    } else if (SET.test(line)) {
      const [, name, to] = line.match(SET);
      settings[name] = to;
      if (!stop || stop.claims.length) open();
      else stop.settings = { ...settings };
    } else if (line.startsWith("| cell")) {
      if (!stop || stop.claims.length) open();
      else stop.before.push(...prose.splice(0));
      for (const row of line.split("\n").slice(2)) {
        const [, name, where, shown] = row.match(CLAIM);
        stop.claims.push({ name, words: where.replace(/^, /, ""), where: numbers(where), shown });
      }
    } else {
      prose.push(spans(line.replaceAll("\n", " ")));
    }
  }
  close();
  return stops;
}
