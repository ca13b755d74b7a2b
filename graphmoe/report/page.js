"use strict";
// Tabs, theme, and figures drawn when they are first seen. A test waits for graphmoeReport.ready,
// opens tabs with graphmoeReport.show(name), and looks for [data-drawn].
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  // On a touch screen a finger on a figure scrolls the page; without a pointer that hovers nothing
  // would ever hide a figure's buttons.
  const mouse = window.matchMedia("(hover: hover) and (pointer: fine)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Colours of lines, bars and points that would be faint on the paper of one theme, and what
  // stands for them there: 3:1 against the paper in either.
  const shades = {
    light: {
      "#009E73": "#008560", "#CC79A7": "#B8558D", "#E69F00": "#A87300", "#56B4E9": "#2380B5",
      "#8A8A8A": "#757575",
    },
    dark: { "#0072B2": "#3394D4", "#D55E00": "#EE7B22" },
  };
  const shaded = (content) => {
    if (typeof content === "string") return shades[theme()][content] || content;
    if (Array.isArray(content)) return content.map(shaded);
    if (content === null || typeof content !== "object") return content;
    return Object.fromEntries(Object.entries(content).map(([key, value]) => [key, shaded(value)]));
  };
  const coloured = (trace) => {
    const parts = ["line", "marker", "error_x"].filter((part) => part in trace);
    return { ...trace, ...Object.fromEntries(parts.map((part) => [part, shaded(trace[part])])) };
  };

  // What of a figure depends on the theme, as plotly's own keys.
  const themed = (layout) => {
    const [ink, soft, grid, paper, accent] =
      ["--ink", "--soft", "--grid", "--paper", "--accent"].map(colour);
    const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: ink };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12 },
      hoverlabel: { bgcolor: paper, bordercolor: ink, font: { color: ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: accent },
      legend: { ...layout.legend, font: { color: ink } },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      shapes: (layout.shapes || []).map((shape) =>
        shape.type === "line" ? { ...shape, line: { ...shape.line, color: ink } } : shape),
      dragmode: mouse.matches ? "zoom" : false,
    };
  };
  const config = () => ({
    responsive: true, displaylogo: false, displayModeBar: mouse.matches ? "hover" : false,
    // Named one by one: of those that plotly adds by itself, one sends the figure to a server.
    modeBarButtons: [["toImage"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    showSendToCloud: false, plotlyServerURL: "",
  });

  // Who does not see a figure is told its name, and no loose words of its axes; its buttons stay.
  const name = (place) => {
    const [picture, ...over] = place.querySelectorAll("svg.main-svg");
    if (place.hasAttribute("aria-label")) {
      place.dataset.name = place.getAttribute("aria-label");
      for (const said of ["role", "aria-label"]) place.removeAttribute(said);
    }
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", place.dataset.name);
    const measuring = document.getElementById("js-plotly-tester");  // plotly's own, out of sight
    for (const part of [...picture.children, ...over, measuring]) {
      part?.setAttribute("aria-hidden", "true");
    }
  };

  // What is written in a cell of a heat map, black or white, is 4.5:1 on any colour if the darker
  // half of colours is told by their light; plotly tells it by another measure, and takes a grey.
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const between = (scale, share) => {
    const at = Math.max(1, scale.findIndex(([end]) => end >= share));
    const [[low, from], [high, to]] = [scale[at - 1], scale[at]]
      .map(([end, said]) => [end, said.match(/\d+/g).map(Number)]);
    return from.map((v, i) => v + (to[i] - v) * (share - low) / (high - low));
  };
  const ink = (place) => {
    for (const { type, colorscale, zmin, zmax } of place._fullData) {
      if (type !== "heatmap") continue;
      for (const text of place.querySelectorAll(".heatmap-label text")) {
        const { z } = text.__data__;
        if (!Number.isFinite(z)) continue;
        const paper = light(between(colorscale, (z - zmin) / (zmax - zmin)));
        text.style.fill = (paper + 0.05) ** 2 > 1.05 * 0.05 ? "#000" : "#fff";
      }
    }
  };

  const draw = async (place) => {
    const { data, layout } = figures[place.dataset.plot];
    await Plotly.react(place, data.map(coloured), themed(layout), config());
    if (!place.dataset.drawn) place.on("plotly_afterplot", () => ink(place));
    ink(place);
    name(place);
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
    if (focus) chosen.focus({ preventScroll: true });
    const list = chosen.parentElement;
    list.scrollLeft = chosen.offsetLeft - (list.clientWidth - chosen.clientWidth) / 2;
    // Another part begins at its beginning, under the tabs that stay in sight.
    const top = list.parentElement.offsetTop;
    if (window.scrollY > top) window.scrollTo(0, top);
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

  dark.addEventListener("change", redraw);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    redraw();
  });
  window.addEventListener("beforeprint", () => {
    for (const place of document.querySelectorAll(".plot:not([data-drawn])")) draw(place);
  });

  const ready = show(location.hash.slice(1));
  window.graphmoeReport = { ready, show, figures };
  ready.then(() => { root.dataset.ready = "true"; });
})();
