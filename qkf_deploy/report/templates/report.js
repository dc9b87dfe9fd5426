"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = Array.from(body.rows);
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by this column";
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort") || "none"];
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      const value = (row) => {
        const raw = row.cells[column].dataset.v;
        return raw === undefined ? row.cells[column].textContent : raw === "" ? -Infinity : Number(raw);
      };
      const sign = next === "ascending" ? 1 : -1;
      const rows = next === "none" ? original : original.slice().sort((a, b) => {
        const x = value(a), y = value(b);
        return sign * (typeof x === "string" ? x.localeCompare(y) : x === y ? 0 : x < y ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
/** Opens what is known of a node beside the graph. */
const qkfShow = (name) => {
  for (const d of document.querySelectorAll("details.nodeinfo")) {
    d.open = d.dataset.node === name;
    if (!d.open) continue;
    const panel = d.closest("aside");
    panel.scrollTop = d.offsetTop - panel.offsetTop;
  }
};
