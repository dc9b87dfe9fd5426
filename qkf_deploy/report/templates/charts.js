"use strict";
(() => {
  const colour = (i) => `var(--${["bar", "bar2", "bar3", "bar4", "bar5", "muted"][i % 6]})`;
  const format = { pJ: (v) => d3.format(".4~s")(v * 1e-12).replace(/([a-zµ]?)$/, " $1J"), share: d3.format(".4~p"), "": d3.format(",.4~r") };
  const short = { pJ: (v) => v ? d3.format("~s")(v * 1e-12).replace(/([a-zµ]?)$/, " $1J") : "0", share: d3.format("~p"), "": d3.format("~s") };
  const words = (name) => name.replaceAll("_", " ").replace(/ pj$/, "");
  const ink = document.createElement("canvas").getContext("2d");
  ink.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
  const widest = (texts) => 14 + Math.max(...texts.map((t) => ink.measureText(String(t)).width));

  const bars = (c, width) => {
    const labels = Array.from(new Set(c.rows.map((r) => r[c.y])));
    const ends = d3.rollups(c.rows, (rows) => d3.sum(rows, (r) => r[c.x]), (r) => r[c.y]);
    const note = (v) => format[c.unit](v);
    return {
      marginLeft: Math.min(widest(labels), width * .6), marginRight: c.unit === "share" ? 24 : 74, height: 62 + 19 * labels.length,
      x: { label: words(c.x), tickFormat: short[c.unit], ticks: Math.max(2, width / 150), grid: true }, y: { domain: labels, label: null, tickSize: 0 },
      marks: [
        Plot.barX(c.rows, { x: c.x, y: c.y, fill: c.group || colour(0), insetRight: c.group ? 1 : 0, title: (r) => [r[c.y], ...(c.group ? [r[c.group]] : []), note(r[c.x])].join(": ") }),
        ...(c.unit === "share" ? [] : [Plot.text(ends, { x: (e) => e[1], y: (e) => e[0], text: (e) => note(e[1]), textAnchor: "start", dx: 5 })]),
        Plot.ruleX([0]),
      ],
    };
  };
  const lines = (c, width) => ({
    marginRight: widest(c.groups.map((g) => g[0])) + 8, marginLeft: 48, height: Math.min(360, .6 * width + 80),
    x: { label: words(c.x), ticks: d3.range(d3.max(c.rows, (r) => r[c.x]) + 1), tickFormat: "d" }, y: { label: words(c.y), grid: true, zero: true },
    marks: [
      Plot.lineY(c.rows, { x: c.x, y: c.y, z: c.group, stroke: c.group }), Plot.dot(c.rows, { x: c.x, y: c.y, fill: c.group, title: (r) => `${r[c.group]}, ${words(c.x)} ${r[c.x]}: ${d3.format(".4f")(r[c.y])}` }),
      Plot.text(c.rows, Plot.selectLast({ x: c.x, y: c.y, z: c.group, text: c.group, textAnchor: "start", dx: 7, className: "apart" })),
    ],
  });
  const points = (c, width) => ({
    marginLeft: 58, marginRight: 60, marginBottom: 42, height: Math.min(400, .6 * width + 80),
    x: { label: words(c.x), tickFormat: short[c.unit], ticks: Math.max(2, width / 130), nice: true, inset: 12, grid: true }, y: { label: words(c.y), tickFormat: short.share, nice: true, grid: true },
    marks: [
      Plot.line(c.rows, { x: c.x, y: c.y, stroke: c.group, z: c.group }),
      Plot.ruleX(c.rows, { x: c.x, y1: `${c.y}_low`, y2: `${c.y}_high`, stroke: c.group, strokeWidth: 1.5 }),
      Plot.dot(c.rows, { x: c.x, y: c.y, fill: c.group, r: 4, title: (r) => `${r.run}, ${r[c.group]}, ${r.bits} bits: ${format.share(r[c.y])} at ${format.pJ(r[c.x])}` }),
      Plot.text(c.rows, { x: c.x, y: c.y, text: "label", textAnchor: "start", dx: 8, dy: -6, className: "apart" }),
    ],
  });
  const cells = (c, width) => {
    const names = Array.from(new Set(c.rows.map((r) => r[c.y])));
    const left = Math.min(widest(names) + 14, width * .3), size = Math.min(44, (width - left - 20) / names.length);
    return {
      marginLeft: left, marginBottom: 44, marginRight: 8, width: left + 8 + size * names.length, height: 64 + Math.max(18, size * .7) * names.length,
      x: { domain: names.map(String), label: c.x, tickRotate: size < 7 * d3.max(names, (n) => String(n).length) ? -60 : 0 }, y: { domain: names.map(String), label: c.y },
      marks: [
        Plot.cell(c.rows, { x: (r) => String(r[c.x]), y: (r) => String(r[c.y]), fill: "var(--bar)", fillOpacity: (r) => r.share * .5, inset: .5, title: (r) => `label ${r[c.y]}, answer ${r[c.x]}: ${r.samples}` }),
        ...(size < 16 ? [] : [Plot.text(c.rows.filter((r) => r.samples), { x: (r) => String(r[c.x]), y: (r) => String(r[c.y]), text: "samples" })]),
      ],
    };
  };
  const kinds = { bars, lines, points, cells };

  /** Labels that lie on another one move down. */
  const apart = (svg) => {
    const taken = [];
    for (const text of svg.querySelectorAll(".apart text")) {
      for (let dy = 0; ; dy += 13) {
        text.style.translate = `0 ${dy}px`;
        const b = text.getBoundingClientRect();
        if (dy > 260 || taken.every((o) => b.bottom <= o.top + 2 || o.bottom <= b.top + 2 || b.right <= o.left || o.right <= b.left)) { taken.push(b); break; }
      }
    }
  };
  const draw = (figure, c) => {
    const place = figure.querySelector(".plot"), width = place.clientWidth;
    if (!width) return;
    const color = c.group ? { domain: c.groups.map((g) => g[0]), range: c.groups.map((g) => colour(g[1])), legend: c.kind !== "lines" } : {};
    const named = { ariaLabel: c.title, ariaDescription: c.caption, style: { background: "none", fontSize: width < 500 ? "10.5px" : "11.5px" }, figure: true };
    const opacity = c.kind === "cells" ? { opacity: { type: "identity" } } : {};
    const drawn = Plot.plot({ width, color, ...opacity, ...named, ...kinds[c.kind](c, width) });
    place.replaceChildren(drawn);
    const svg = Array.from(drawn.querySelectorAll(":scope > svg")).pop();
    svg.setAttribute("role", "img");
    svg.classList.add("chart-svg");
    apart(svg);
  };
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const asSvg = (figure) => {
    const seen = figure.querySelector(".chart-svg"), copy = seen.cloneNode(true), style = getComputedStyle(document.documentElement);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("font-family", "sans-serif");
    copy.setAttribute("color", style.getPropertyValue("--fg"));
    return copy.outerHTML.replace(/var\((--\w+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  };
  const asCsv = (c) => {
    const cell = (v) => /[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : String(v);
    const columns = Object.keys(c.rows[0] || {});
    return [columns, ...c.rows.map((r) => columns.map((k) => r[k]))].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  };
  for (const c of JSON.parse(document.getElementById("chart-data").textContent)) {
    const figure = document.getElementById(`chart-${c.id}`);
    for (const [kind, type, text] of [["SVG", "image/svg+xml", () => asSvg(figure)], ["CSV", "text/csv", () => asCsv(c)]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = kind;
      button.setAttribute("aria-label", `Download “${c.title}” as ${kind}`);
      button.addEventListener("click", () => save(`${c.id}.${kind.toLowerCase()}`, type, text()));
      figure.querySelector(".tools").append(button);
    }
    let last = 0;
    new ResizeObserver(() => {
      const width = figure.querySelector(".plot").clientWidth;
      if (width && width !== last) { last = width; draw(figure, c); }
    }).observe(figure);
  }
})();
