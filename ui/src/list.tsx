// A list of any length: only the rows on the screen are elements.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const narrow = matchMedia("(max-width: 46rem)"); // there a row has two lines: style.css
const tallest = 15_000_000; // pixels; browsers cannot make elements much taller

export interface Column {
  name: string;
  class: string;
}

export interface ListProps {
  label: string;
  columns: Column[];
  length: number;
  cells: (row: number) => ComponentChildren[];
  mood?: (row: number) => string;
  open: (row: number) => void;
  current?: number; // row shown beside the list
  follow?: boolean; // stay at the end while it grows
  onFollow?: (at: boolean) => void; // the end came into sight or left it
  onEnd?: () => void; // the last row came into sight
}

export function List(p: ListProps) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [active, setActive] = useState(-1);
  const [rowHeight, setRowHeight] = useState(narrow.matches ? 52 : 28);

  const view = height - 28; // below the head
  const visible = Math.max(1, Math.floor(view / rowHeight));
  const full = p.length * rowHeight;
  const shown = Math.min(full, tallest);
  // Above the limit the scroll bar is a scale, not a ruler.
  const first = full === shown ? Math.floor(top / rowHeight)
    : Math.round((top / Math.max(1, shown - view)) * (p.length - visible));
  const from = Math.max(0, Math.min(first, p.length - 1) - 4);
  const end = Math.min(p.length, first + visible + 6);
  const offset = full === shown ? from * rowHeight : top - (first - from) * rowHeight;

  useLayoutEffect(() => {
    const el = box.current!;
    const measure = new ResizeObserver(() => setHeight(el.clientHeight));
    measure.observe(el);
    return () => measure.disconnect();
  }, []);
  useEffect(() => {
    const change = () => setRowHeight(narrow.matches ? 52 : 28);
    narrow.addEventListener("change", change);
    return () => narrow.removeEventListener("change", change);
  }, []);
  useLayoutEffect(() => {
    if (p.current !== undefined && p.current >= 0 && !p.follow) go(p.current); // an address may say which
  }, [p.current]);
  useLayoutEffect(() => {
    if (p.follow) box.current!.scrollTop = shown;
  }, [p.length, p.follow, height]);
  useEffect(() => {
    if (p.onEnd && p.length > 0 && first + visible >= p.length - 1) p.onEnd();
  }, [first, visible, p.length]);

  const scroll = () => {
    const el = box.current;
    if (!el) return; // the event came after the end
    // Only the reader scrolls up; what is added below does not.
    if (el.scrollTop + el.clientHeight >= el.scrollHeight - rowHeight) p.onFollow?.(true);
    else if (el.scrollTop < top) p.onFollow?.(false);
    setTop(el.scrollTop);
  };

  const go = (row: number) => {
    row = Math.max(0, Math.min(p.length - 1, row));
    setActive(row);
    const el = box.current!;
    if (full !== shown) {
      if (row < first || row >= first + visible - 1) el.scrollTop = (row / Math.max(1, p.length - visible)) * (shown - view);
    } else if (row * rowHeight < el.scrollTop) el.scrollTop = row * rowHeight;
    else if ((row + 1) * rowHeight > el.scrollTop + view) el.scrollTop = (row + 1) * rowHeight - view;
  };

  const key = (e: KeyboardEvent) => {
    const at = active < 0 ? (p.current ?? first - 1) : active;
    const moves: Record<string, number> = {
      ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, PageDown: at + visible, PageUp: at - visible, Home: 0, End: p.length - 1,
    };
    if (e.ctrlKey || e.metaKey || e.altKey || p.length === 0) return;
    if (e.key === "Enter" && active >= 0) p.open(active);
    else if (e.key in moves) go(moves[e.key]!);
    else return;
    e.preventDefault();
    e.stopPropagation();
  };

  const rows = [];
  for (let row = from; row < end; row++) {
    const chosen = row === active;
    rows.push(
      <div key={row} id={`row-${row}`} role="row" aria-rowindex={row + 2} aria-selected={row === p.current}
        class={`row ${p.mood?.(row) ?? ""} ${chosen ? "active" : ""} ${row === p.current ? "current" : ""}`}
        onClick={() => { setActive(row); p.open(row); }}>
        {p.cells(row).map((c, i) => <span role="gridcell" class={p.columns[i]!.class}>{c}</span>)}
      </div>,
    );
  }
  return (
    <div class="list" ref={box} role="grid" aria-label={p.label} aria-rowcount={p.length + 1} tabIndex={0} onKeyDown={key} onScroll={scroll}
      aria-activedescendant={active >= from && active < end ? `row-${active}` : undefined}>
      <div class="heads" role="rowgroup">
        <div role="row" class="row head" aria-rowindex={1}>
          {p.columns.map((c) => <span role="columnheader" class={c.class}>{c.name}</span>)}
        </div>
      </div>
      <div class="rows" role="rowgroup" style={{ height: `${shown}px` }}>
        <div role="presentation" style={{ transform: `translateY(${offset}px)` }}>{rows}</div>
      </div>
    </div>
  );
}
