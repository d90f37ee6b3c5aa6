// The upper half of the page: prompt, tokens, next token, the ten most likely, writing. Each number is a cell's.

import type { Book, Inputs } from "./book";
import { type Block, cellOf } from "./cells";
import { el, the } from "./dom";

const READ = [
  "prompt", "status", "settings_status", "n_tokens", "tokens", "token_ids", "next_token", "top.token", "top.probability",
  "completion", "generation_status", "n_written", "max_new_tokens", "temperature", "seed", "steering.on", "steering.vector",
];

export interface Hooks {
  calculate: (inputs: Inputs) => Promise<void>;
  jump: (block: Block) => void;
}

type Shown = Record<string, string[][]>;

export class Answer {
  private shown: Shown = {};
  private readonly prompt = the<HTMLInputElement>("prompt");

  constructor(private readonly book: Book, private readonly hooks: Hooks) {
    for (const id of ["prompt", "go", "temperature"]) the<HTMLInputElement>(id).disabled = false;
    the("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      void hooks.calculate({ prompt: this.prompt.value, max_new_tokens: "0" });
    });
    the("examples").replaceChildren(...book.facts.prompts.map((text) => this.example(text)));
    the("go-on").addEventListener("click", () => void this.goOn());
    the("redraw").addEventListener("click", () => void this.change({ seed: String(Number(this.text("seed")) + 1) }));
    const temperature = the<HTMLInputElement>("temperature");
    temperature.addEventListener("input", () => this.showTemperature(temperature.value));
    temperature.addEventListener("change", () => void this.change({ temperature: temperature.value }));
    the("steering").hidden = !book.has("steering.on");
    the("steering-on").addEventListener("change", (event) => {
      void hooks.calculate({ "steering.on": (event.target as HTMLInputElement).checked ? "1" : "0" });
    });
    the("steering-vector").addEventListener("change", (event) => {
      void hooks.calculate({ "steering.vector": (event.target as HTMLSelectElement).value, "steering.on": "1" });
    });
  }

  /** Offer the vectors that the workbook brings along. */
  async start(): Promise<void> {
    const names = (await this.book.read("steering.names"))["steering.names"]?.flat() ?? [];
    the("steering-vector").replaceChildren(...names.filter(Boolean).map((name) => el("option", { value: name }, name)));
  }

  /** Show what the cells show now. */
  async update(): Promise<void> {
    this.shown = await this.book.read(...READ);
    if (document.activeElement !== this.prompt || this.prompt.value.trim() === "") this.prompt.value = this.text("prompt");
    const wrong = this.wrong();
    the("wrong").textContent = wrong;
    the("wrong").hidden = !wrong;
    the("answer").hidden = Boolean(wrong);
    this.showTokens();
    if (!wrong) this.showNext();
    this.showWriting();
    this.showControls();
    for (const button of the("examples").children) {
      button.setAttribute("aria-pressed", String(button.textContent === this.text("prompt")));
    }
  }

  private text(name: string, row = 0): string {
    return this.shown[name]?.[row]?.[0] ?? "";
  }

  /** Why there is no answer; nothing where there is one. */
  private wrong(): string {
    for (const name of ["status", "settings_status"]) {
      const said = this.text(name);
      if (said.startsWith("#")) return `The cell ${name} shows the error ${said}.`;
      if (said && said !== "ok") return said;
    }
    const next = this.text("next_token");
    const failed = ["#N/IMPL!", "#VALUE!", "#REF!", "#NAME?", "#CIRC!", "#ERROR!", "#N/A", "#NUM!", "#DIV/0!"];
    return failed.includes(next) && this.text("top.token") === next ? `The cell next_token shows the error ${next}.` : "";
  }

  private example(text: string): HTMLElement {
    const button = el("button", { type: "button", class: "example" }, text);
    button.addEventListener("click", () => {
      this.prompt.value = text;
      void this.hooks.calculate({ prompt: text, max_new_tokens: "0" });
    });
    return button;
  }

  /** Something that shows the cell that it was read from. */
  private from(name: string, row: number, text: string, kind: string): HTMLElement {
    const title = `${name}, row ${row + 1}: show this cell in the spreadsheet`;
    const button = el("button", { type: "button", class: `from ${kind}`, title }, text);
    button.addEventListener("click", () => this.hooks.jump(cellOf(this.book.named(name), row)));
    return button;
  }

  private showTokens(): void {
    const count = Number(this.text("n_tokens")) || 0;
    const chips = Array.from({ length: count }, (_, i) => {
      const chip = this.from("tokens", i, visible(this.text("tokens", i)), `token t${i % 5}`);
      chip.append(el("small", {}, this.text("token_ids", i)));
      return el("li", {}, chip);
    });
    the("tokens").replaceChildren(...chips);
    the("token-count").textContent = count === 1 ? "1 token" : `${count} tokens`;
  }

  private showNext(): void {
    const next = the("next");
    const sure = el("p", {}, "with a probability of ", this.from("top.probability", 0, this.text("top.probability"), ""));
    next.replaceChildren(this.from("next_token", 0, visible(this.text("next_token")), "big"), sure);
    const rows = this.shown["top.token"] ?? [];
    const bars = rows.map((_, i) => {
      const share = this.text("top.probability", i);
      const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
      (bar.firstChild as HTMLElement).style.width = `${Math.max(Number.parseFloat(share) || 0, 0.4)}%`;
      return el("li", {},
        this.from("top.token", i, visible(this.text("top.token", i)), "word"), bar,
        this.from("top.probability", i, share || "0.0%", "share"));
    });
    the("top").replaceChildren(...bars);
  }

  private showWriting(): void {
    const completion = this.text("completion");
    const asked = Number(this.text("max_new_tokens")) > 0;
    const written = the("written");
    written.hidden = !asked;
    if (!asked) return;
    const status = this.text("generation_status");
    const ended = status === "ok" && Number(this.text("n_written")) < Number(this.text("max_new_tokens"));
    written.replaceChildren(
      el("span", {}, this.text("prompt")),
      this.from("completion", 0, completion || "…", "said"),
      ...(status !== "ok" ? [el("em", {}, ` ${status}`)] : ended ? [el("em", {}, " Here the model ends the text.")] : []),
    );
  }

  private showControls(): void {
    const temperature = this.text("temperature") || "0";
    the<HTMLInputElement>("temperature").value = temperature;
    this.showTemperature(temperature);
    the("redraw").hidden = !(Number(temperature) > 0 && Number(this.text("max_new_tokens")) > 0);
    the<HTMLInputElement>("steering-on").checked = this.text("steering.on") === "1";
    the<HTMLSelectElement>("steering-vector").value = this.text("steering.vector");
    const isOff = Boolean(this.wrong());
    the<HTMLButtonElement>("go-on").disabled = isOff;
  }

  private showTemperature(value: string): void {
    the("temperature-value").textContent = Number(value) > 0 ? Number(value).toFixed(1) : "0: always the most likely";
  }

  /** Write; what was written before belongs to the prompt. IronCalc cannot sort candidates, so it draws from all. */
  private async goOn(): Promise<void> {
    const before = Number(this.text("max_new_tokens")) > 0 ? this.text("completion") : "";
    await this.change({ prompt: this.text("prompt") + before, max_new_tokens: String(this.book.facts.room.new) });
  }

  private async change(inputs: Inputs): Promise<void> {
    await this.hooks.calculate({ top_k: "0", top_p: "1", ...inputs });
  }
}

/** A space at the start is part of a token: it is shown. */
export const visible = (text: string): string => text.replaceAll(" ", "␣").replaceAll("\n", "⏎");
