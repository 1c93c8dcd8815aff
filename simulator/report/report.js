// Draws the figures in the colours of the page, again when these change, and at paper width before printing.
(() => {
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot")];
  const specs = new Map(plots.map((plot) => [plot, JSON.parse(document.getElementById(plot.dataset.spec).textContent)]));
  const narrow = () => root.clientWidth < 640;
  const options = { displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

  // `var(--name)` anywhere in a figure becomes the page's own colour or font.
  function resolve(value) {
    if (typeof value === "string") {
      return value.replace(/var\((--[\w-]+)\)/g, (_, name) => getComputedStyle(root).getPropertyValue(name).trim());
    }
    if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map(resolve);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolve(inner)]));
    }
    return value;
  }

  const overlap = (a, b) => Math.max(0, Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0)) *
    Math.max(0, Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0));

  // Where a label may stand around its point: near first, then farther out on a leader line.
  function* places(width, height) {
    for (const far of [10, 22, 38, 58, 80]) {
      for (let angle = 0; angle < 360; angle += 22.5) {
        const x = Math.cos(angle * Math.PI / 180), y = Math.sin(angle * Math.PI / 180);
        yield { ax: x * (far + width / 2), ay: y * (far + height / 2), far };
      }
    }
  }

  const around = (x, y, width, height, weight) =>
    ({ x0: x - width / 2, x1: x + width / 2, y0: y - height / 2, y1: y + height / 2, weight });

  // What labels keep clear of: points, their whiskers, and the steps of the frontier.
  function obstacles(points, frontier) {
    const steps = frontier.slice(1).flatMap((to, i) => {
      const from = frontier[i];
      return [around((from.px + to.px) / 2, from.py, Math.abs(to.px - from.px), 3, 1.5),
        around(to.px, (from.py + to.py) / 2, 3, Math.abs(to.py - from.py), 1.5)];
    });
    return [...steps, ...points.flatMap((p) => [around(p.px, p.py, 15, 15, 4),
      around(p.px, (p.top + p.bottom) / 2, 5, p.bottom - p.top, 1.5),
      around((p.left + p.right) / 2, p.py, p.right - p.left + 6, 9, 2.5)])];
  }

  // Names every point beside it, where least is covered.
  function label(plot) {
    const { labels } = plot.layout.meta || {};
    if (!labels) return;
    const { xaxis, yaxis, width: room } = plot._fullLayout, size = room < 720 ? 10.5 : 12.5;
    const points = labels.map((l) => ({ ...l, px: xaxis.d2p(l.x), py: yaxis.d2p(l.y),
      left: xaxis.d2p(l.x_low ?? l.x), right: xaxis.d2p(l.x_high ?? l.x),
      top: yaxis.d2p(l.y_high ?? l.y), bottom: yaxis.d2p(l.y_low ?? l.y) }));
    const line = plot.data[0], frontier = line.x.map((x, i) => ({ px: xaxis.d2p(x), py: yaxis.d2p(line.y[i]) }));
    const taken = obstacles(points, frontier);
    const outside = (b) => Math.max(0, -b.x0) + Math.max(0, b.x1 - xaxis._length) +
      Math.max(0, -b.y0) + Math.max(0, b.y1 - yaxis._length);
    const annotations = points.map((p) => {
      const width = p.text.length * size * 0.58, height = size * 1.25;
      let best = { cost: Infinity };
      for (const { ax, ay, far } of places(width, height)) {
        const box = around(p.px + ax, p.py + ay, width, height, 4);
        const cost = taken.reduce((sum, other) => sum + overlap(box, other) * other.weight, 60 * outside(box) + 4 * far);
        if (cost < best.cost) best = { ax, ay, box, cost, far };
      }
      taken.push(best.box);
      return { x: xaxis.type === "log" ? Math.log10(p.x) : p.x, y: p.y, text: p.text, ax: best.ax, ay: best.ay,
        showarrow: true, arrowhead: 0, arrowwidth: best.far > 10 ? 0.8 : 0.01, arrowcolor: resolve("var(--soft)"),
        standoff: 7, borderpad: 0, font: { size, color: resolve(p.color) } };
    });
    return Plotly.relayout(plot, { annotations });
  }

  function draw(plot, width) {
    const { data, layout } = resolve(specs.get(plot));
    if (narrow() && !width) Object.assign(layout.margin, { l: 48, r: 8 });
    return Plotly.react(plot, data, { ...layout, width, autosize: !width }, options).then(() => label(plot));
  }

  function print(before) {
    root.classList.toggle("printing", before);
    document.querySelectorAll("details:not(.data)").forEach((folded) => { folded.open = before; });
    plots.forEach((plot) => draw(plot, before ? 670 : undefined));
  }

  function resized() {
    const screen = !root.classList.contains("printing");
    if (screen) plots.forEach((plot) => draw(plot));
  }

  let waiting;
  Promise.all(plots.map((plot) => draw(plot))).then(() => { root.dataset.drawn = plots.length; });
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(resized, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => draw(plot)));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
