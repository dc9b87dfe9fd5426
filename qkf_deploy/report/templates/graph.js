"use strict";
(() => {
  const data = JSON.parse(document.getElementById("graph-data").textContent);
  const box = document.getElementById("graph-view"), tools = document.getElementById("graph-tools");
  const open = new Set();
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const sized = (title, lines) => ({ label: [title, ...lines].join("\n"), w: 18 + 6.2 * Math.max(...[title, ...lines].map((t) => t.length)), h: 12 + 14 * (1 + lines.length) });
  const shown = (node) => node.block && !open.has(node.block) ? `block:${node.block}` : node.name;
  const elements = () => {
    const found = new Map(), edges = new Map();
    for (const node of data.nodes) {
      const id = shown(node);
      if (id !== node.name) found.set(id, { data: { id, style: "block", block: node.block, ...sized(`${node.block} ⊞`, data.blocks[node.block]) } });
      else {
        if (node.block) found.set(`open:${node.block}`, { data: { id: `open:${node.block}`, style: "open", block: node.block, label: `${node.block} ⊟`, w: 10, h: 10 } });
        found.set(id, { data: { id, parent: node.block ? `open:${node.block}` : undefined, style: node.style, node: node.name, ...sized(node.block ? node.name.slice(node.block.length + 1) : node.name, node.lines) } });
      }
    }
    for (const [a, b] of data.edges) {
      const source = shown(data.nodes[a]), target = shown(data.nodes[b]);
      if (source !== target) edges.set(`${source}>${target}`, { data: { source, target } });
    }
    return [...found.values(), ...edges.values()];
  };
  const look = () => [
    { selector: "node", style: { shape: "round-rectangle", width: "data(w)", height: "data(h)", label: "data(label)", "text-wrap": "wrap", "text-valign": "center", "font-size": 11, "font-family": "sans-serif", color: style("--fg"), "background-color": style("--soft"), "border-width": 1.5, "border-color": style("--muted") } },
    ...[["synapse", "--bar"], ["neuron", "--bar2"], ["add", "--bar3"], ["gate", "--bar4"], ["block", "--muted"]].map(([kind, name]) => ({ selector: `node[style="${kind}"]`, style: { "border-color": style(name) } })),
    { selector: 'node[style="neuron"]', style: { "border-width": 3 } }, { selector: 'node[style="gate"]', style: { "border-style": "dashed" } }, { selector: 'node[style="block"]', style: { "border-style": "double", "border-width": 4 } },
    { selector: 'node[style="open"]', style: { "background-opacity": .35, "text-valign": "top", "border-color": style("--muted") } },
    { selector: "edge", style: { width: 1.2, "curve-style": "bezier", "target-arrow-shape": "triangle", "arrow-scale": .8, "line-color": style("--muted"), "target-arrow-color": style("--muted") } },
    { selector: ".on", style: { "background-color": style("--accent"), color: style("--bg") } },
  ];
  cytoscape.use(cytoscapeDagre);
  const cy = cytoscape({ container: box, style: look(), wheelSensitivity: undefined, minZoom: .05, maxZoom: 3 });
  const fit = () => {
    cy.fit(undefined, 12);
    if (cy.zoom() < .85) { cy.zoom(.85); cy.center(cy.nodes()[0]); cy.panBy({ x: 0, y: 60 - cy.nodes()[0].renderedPosition("y") }); }
    if (cy.zoom() > 1.2) { cy.zoom(1.2); cy.center(); }
  };
  const redraw = (then) => {
    cy.batch(() => { cy.elements().remove(); cy.add(elements()); });
    cy.layout({ name: "dagre", nodeSep: 16, rankSep: 30, edgeSep: 8, animate: false, fit: false }).run();
    (then || fit)();
  };
  const mark = (name) => { cy.elements().removeClass("on"); return cy.getElementById(name).addClass("on"); };
  const toggle = (block) => {
    open.has(block) ? open.delete(block) : open.add(block);
    redraw(() => { cy.zoom(Math.max(cy.zoom(), .7)); cy.center(cy.getElementById(open.has(block) ? `open:${block}` : `block:${block}`)); });
  };
  const find = (name) => {
    const node = data.nodes.find((n) => n.name === name);
    if (!node) return;
    if (node.block && !open.has(node.block)) { open.add(node.block); redraw(() => {}); }
    cy.zoom(1);
    cy.center(mark(name));
  };
  cy.on("tap", "node", ({ target }) => {
    if (target.data("block")) toggle(target.data("block"));
    else { mark(target.id()); qkfShow(target.data("node")); }
  });
  const button = (text, title, act) => {
    const made = document.createElement("button");
    made.type = "button"; made.textContent = text; made.title = title; made.setAttribute("aria-label", title);
    made.addEventListener("click", act);
    tools.append(made);
  };
  const zoom = (by) => cy.zoom({ level: cy.zoom() * by, renderedPosition: { x: box.clientWidth / 2, y: box.clientHeight / 2 } });
  button("+", "Zoom in", () => zoom(1.3));
  button("−", "Zoom out", () => zoom(1 / 1.3));
  button("Fit", "Fit the whole graph", () => cy.fit(undefined, 12));
  button("Open all", "Open all blocks", () => { Object.keys(data.blocks).forEach((b) => open.add(b)); redraw(); });
  button("Close all", "Close all blocks", () => { open.clear(); redraw(); });
  const search = document.createElement("input"), said = document.createElement("span");
  search.type = "search"; search.placeholder = "Search nodes"; search.setAttribute("aria-label", "Search nodes"); search.setAttribute("list", "graph-names");
  said.setAttribute("role", "status"); said.className = "muted";
  const names = document.createElement("datalist");
  names.id = "graph-names";
  names.append(...data.nodes.map((n) => new Option(n.name, n.name)));
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase(), hits = wanted ? data.nodes.filter((n) => n.name.toLowerCase().includes(wanted)) : [];
    said.textContent = wanted ? `${hits.length} found` : "";
    if (hits.length) { find(hits[0].name); qkfShow(hits[0].name); }
  });
  tools.append(search, names, said);
  box.addEventListener("keydown", (event) => {
    const pan = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (pan) cy.panBy({ x: pan[0], y: pan[1] });
    else if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else return;
    event.preventDefault();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => cy.style(look()));
  addEventListener("beforeprint", () => { cy.style(look()); });
  redraw();
  globalThis.qkfGraph = { cy, find, open };
})();
