// The sheets as tabs.

import { el, the } from "./dom";

export class Tabs {
  private readonly tabs: HTMLButtonElement[];

  constructor(sheets: string[], private readonly show: (sheet: number) => void) {
    this.tabs = sheets.map((name, i) => {
      const tab = el("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-controls": "scroller" }, name);
      tab.addEventListener("click", () => show(i));
      tab.addEventListener("keydown", (event) => this.key(event, i));
      return tab;
    });
    the("tabs").replaceChildren(...this.tabs);
  }

  /** Mark the tab of the sheet that is shown. */
  mark(sheet: number): void {
    this.tabs.forEach((tab, i) => {
      const isHere = i === sheet;
      tab.setAttribute("aria-selected", String(isHere));
      tab.tabIndex = isHere ? 0 : -1;
      if (isHere) tab.parentElement!.scrollLeft = tab.offsetLeft - tab.parentElement!.clientWidth / 2;
    });
  }

  private key(event: KeyboardEvent, i: number): void {
    const last = this.tabs.length - 1;
    const next = { ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.tabs[next]!.focus();
    this.show(next);
  }
}
