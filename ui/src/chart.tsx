// A chart of the last minutes.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock } from "./format.ts";
import "uplot/dist/uPlot.min.css";

export interface Series {
  label: string;
  color: string; // name of a custom property
  values: (number | null)[];
}

export function Chart(p: { title: string; figure: string; times: number[]; series: Series[]; unit: (n: number) => string; powers?: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const unit = useRef(p.unit);
  useEffect(() => {
    const el = box.current!;
    const css = (name: string) => getComputedStyle(el).getPropertyValue(name);
    const make = () => {
      plot.current?.destroy();
      const axis = { stroke: css("--soft-now"), grid: { stroke: css("--line-now"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
      plot.current = new uPlot({
        width: el.clientWidth, height: 150, legend: { show: false }, cursor: { show: false },
        padding: [8, 8, 0, 0],
        scales: { x: { range: (_u, min, max) => [Math.min(min, max - 60), max] }, y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [
          { ...axis, size: 28, space: 80, values: (_u, at) => at.map((t) => clock(1000 * t).slice(0, 8)) },
          { ...axis, size: 60, space: 30, incrs: p.powers ? Array.from({ length: 50 }, (_, i) => 2 ** i) : undefined, values: (_u, at) => at.map((v) => unit.current(v).replace(".0 ", " ")) },
        ],
        series: [{}, ...p.series.map((s, i) => ({ label: s.label, stroke: css(s.color), width: 1.5, fill: i === 0 ? css(s.color) + "22" : undefined, points: { show: false } }))],
      }, [p.times, ...p.series.map((s) => s.values)] as uPlot.AlignedData, el);
    };
    make();
    const size = new ResizeObserver(() => plot.current?.setSize({ width: el.clientWidth, height: 150 }));
    size.observe(el);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    return () => {
      size.disconnect();
      scheme.removeEventListener("change", make);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData([p.times, ...p.series.map((s) => s.values)] as uPlot.AlignedData), [p.times]);
  return (
    <article class="chart">
      <h2>{p.title}</h2>
      <p class="figure">{p.figure}</p>
      {p.series.length > 1 && <p class="note">{p.series.map((s, i) => <span class={`key key-${i}`}>{s.label}</span>)}</p>}
      <div ref={box} role="img" aria-label={`${p.title}, the last minutes; now ${p.figure}`} />
    </article>
  );
}
