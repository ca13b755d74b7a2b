"use strict";
// Tabs, theme, and figures drawn when they are first seen. A test waits for graphmoeReport.ready,
// opens tabs with graphmoeReport.show(name), and looks for [data-drawn].
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const touch = window.matchMedia("(pointer: coarse)");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // What of a figure depends on the theme, as plotly's own keys.
  const themed = (layout) => {
    const [ink, grid, paper] = ["--ink", "--grid", "--paper"].map(colour);
    const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: ink };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12 },
      hoverlabel: { bgcolor: paper, bordercolor: ink, font: { color: ink } },
      legend: { ...layout.legend, font: { color: ink } },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      shapes: (layout.shapes || []).map((shape) =>
        shape.type === "line" ? { ...shape, line: { ...shape.line, color: ink } } : shape),
      // On a touch screen a finger on a figure scrolls the page.
      dragmode: touch.matches ? false : "zoom",
    };
  };
  const config = () => ({
    responsive: true, displaylogo: false, displayModeBar: touch.matches ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d"],
  });

  const draw = async (place) => {
    const { data, layout } = figures[place.dataset.plot];
    await Plotly.react(place, data, themed(layout), config());
    place.dataset.drawn = "true";
  };
  const drawn = () => [...document.querySelectorAll(".plot[data-drawn]")];
  const redraw = () => Promise.all(drawn().map(draw));

  const show = (name, focus = false) => {
    const chosen = tabs.find((tab) => tab.dataset.tab === name) || tabs[0];
    for (const tab of tabs) {
      const mine = tab === chosen;
      tab.setAttribute("aria-selected", String(mine));
      tab.tabIndex = mine ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !mine;
    }
    if (focus) chosen.focus();
    const panel = document.getElementById(chosen.getAttribute("aria-controls"));
    const waiting = [...panel.querySelectorAll(".plot:not([data-drawn])")];
    return Promise.all(waiting.map(draw));
  };

  const keys = { ArrowRight: 1, ArrowLeft: -1 };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => {
      try { history.replaceState(null, "", `#${tab.dataset.tab}`); } catch { /* a sandbox */ }
      show(tab.dataset.tab);
    });
    tab.addEventListener("keydown", (event) => {
      let to = null;
      if (event.key in keys) to = (i + keys[event.key] + tabs.length) % tabs.length;
      else if (event.key === "Home") to = 0;
      else if (event.key === "End") to = tabs.length - 1;
      if (to === null) return;
      event.preventDefault();
      show(tabs[to].dataset.tab, true);
    });
  });

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    redraw();
  });
  window.addEventListener("beforeprint", () => {
    for (const place of document.querySelectorAll(".plot:not([data-drawn])")) draw(place);
  });

  const ready = show(location.hash.slice(1));
  window.graphmoeReport = { ready, show, figures };
  ready.then(() => { root.dataset.ready = "true"; });
})();
