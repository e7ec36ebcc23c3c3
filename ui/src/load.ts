// Asks for something when a view opens, and again when it is told to.

import { useEffect, useRef, useState } from "preact/hooks";

/** The answer of ask, or why there is none; asked anew when one of on changes. The old answer stays while load asks again. */
export function useLoad<T>(ask: (signal: AbortSignal) => Promise<T>, on: unknown[]) {
  const [answer, set] = useState<{ value?: T; problem?: string }>({});
  const running = useRef<AbortController>(null);
  const load = () => {
    running.current?.abort();
    const { signal } = (running.current = new AbortController());
    const tell = (a: { value?: T; problem?: string }) => signal.aborted || set(a);
    ask(signal).then((value) => tell({ value }), (e) => tell({ problem: e.message }));
  };
  useEffect(() => {
    set({});
    load();
    return () => running.current?.abort();
  }, on);
  return { ...answer, load };
}
