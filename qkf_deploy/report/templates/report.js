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
const details = Array.from(document.querySelectorAll("details.nodeinfo"));
const show = () => {
  const wanted = decodeURIComponent(location.hash.slice(1));
  document.querySelectorAll(".node.on").forEach((n) => n.classList.remove("on"));
  for (const d of details) {
    if (d.id !== wanted) continue;
    d.open = true;
    const panel = d.closest("aside");
    panel.scrollTop = d.offsetTop - panel.offsetTop;
    const mark = document.getElementById("g-" + wanted);
    if (mark) mark.classList.add("on");
  }
};
document.querySelectorAll(".graph a").forEach((link) => link.addEventListener("click", (event) => {
  event.preventDefault();
  details.forEach((d) => { d.open = false; });
  history.replaceState(null, "", link.getAttribute("href"));
  show();
}));
addEventListener("hashchange", show);
show();
