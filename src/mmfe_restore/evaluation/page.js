"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const state = { label: "", sort: "order", mode: "restored", find: "", key: "", down: true, rows: 60 };

  // Every name reaches the page through textContent: nothing in a file name can be markup.
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value === null || value === undefined) continue;
      if (name === "text") node.textContent = value;
      else if (name === "style") node.style.cssText = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  // Of what was left out, a PSNR was infinite and anything else could not be measured.
  const number = (value, digits, absent = "–") => value === null ? absent : value.toFixed(digits);
  const decibels = (value) => number(value, 2, "∞");
  const hasLpips = "lpips" in data.average;
  const signed = (value) => value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  // Of the images that have both figures; what it leaves out is said wherever it stands.
  const gainOf = (row) => row.gain;
  const leftOut = (row) => row.omission ? `, ${row.omission} images left out` : "";
  const loss = (gain) => gain !== null && gain < -0.005 ? " loss" : "";

  function tiles() {
    const a = data.average, gain = gainOf(a), range = data.intervals.average.psnr;
    const sub = (text) => make("span", { text });
    const small = (text) => make("small", { text });
    const tile = (kind, value, ...rest) => make("div", { class: "tile " + kind }, value, ...rest);
    $("tiles").append(
      tile("main", make("b", { class: loss(gain).trim() }, signed(gain), small(" dB")), sub("gain over the degraded input" + leftOut(a))),
      tile("", make("b", {}, decibels(a.psnr), small(" dB")),
        sub(`restored PSNR, ${data.level} interval ${number(range[0], 2)} to ${number(range[1], 2)}`)),
      tile("", make("b", {}, decibels(a.input_psnr), small(" dB")), sub("input PSNR")),
      tile("", make("b", {}, number(a.ssim_gaussian, 4)), sub(`SSIM 11×11 Gaussian, input ${number(a.input_ssim_gaussian, 4)}`)),
      tile("", make("b", {}, number(a.ssim_uniform, 4)), sub(`SSIM 7×7 uniform, input ${number(a.input_ssim_uniform, 4)}`)),
      ...(hasLpips ? [tile("", make("b", {}, number(a.lpips, 4)), sub(`LPIPS, lower is better, input ${number(a.input_lpips, 4)}`))] : []),
      tile("", make("b", {}, String(data.images.length)), sub(`images in ${data.classes.length} classes; averages are means of class means`)),
    );
  }

  function classes() {
    const finite = data.classes.flatMap((c) => [c.psnr, c.input_psnr, ...c.interval]).filter((v) => v !== null);
    const step = [1, 2, 5, 10, 20].find((s) => (Math.max(...finite) - Math.min(...finite)) / s <= 7) || 20;
    const low = Math.floor(Math.min(...finite) / step) * step, high = Math.ceil(Math.max(...finite) / step + 1e-9) * step;
    const at = (value) => value === null ? 100 : 100 * (value - low) / (high - low || 1);
    const scale = make("div", { class: "scale" });
    for (let tick = low; tick <= high + 1e-9; tick += step) scale.append(make("span", { style: `left:${at(tick)}%`, text: tick }));
    $("classes").append(make("div", { class: "axis", "aria-hidden": "true" }, make("span", { text: "" }), scale,
      make("span", { class: "right mid", text: "dB" }), make("span", { class: "right", text: "gain" })));
    for (const entry of data.classes) {
      const gain = gainOf(entry), from = at(entry.input_psnr), to = at(entry.psnr);
      const [a, b] = entry.interval.map(at);
      const track = make("div", { class: "track" },
        make("i", { class: loss(gain).trim(), style: `left:${Math.min(from, to)}%;width:${Math.abs(to - from)}%` }),
        make("u", { style: `left:${a}%;width:${Math.max(b - a, 0)}%` }),
        make("em", { class: "in", style: `left:${from}%` }), make("em", { class: "out" + loss(gain), style: `left:${to}%` }));
      $("classes").append(make("button", {
        type: "button", class: "row", role: "listitem", "aria-pressed": "false", "data-label": entry.label,
        title: `${entry.label}: ${decibels(entry.input_psnr)} to ${decibels(entry.psnr)} dB, ${entry.count} images`,
        onclick: () => choose(state.label === entry.label ? "" : entry.label),
      }, make("span", { class: "name", text: entry.label.replaceAll("_", " + ") }), track,
      make("span", { class: "value", text: decibels(entry.psnr) }), make("span", { class: "gain" + loss(gain), text: signed(gain) },
        ...(entry.omission ? [make("small", { text: `${entry.omission} left out` })] : []))));
    }
  }

  const PAIRS = {
    restored: [["degraded", "input"], ["restored", "restored"]],
    clean: [["restored", "restored"], ["clean", "clean"]],
    error: [["error_before", "error of input"], ["error_after", "error of restored"]],
  };
  function card(picture) {
    const row = data.images[picture.image], gain = gainOf(row);
    const left = make("img", { class: "left", alt: "", draggable: "false" });
    const right = make("img", { class: "right", alt: "", draggable: "false" });
    const tags = [make("span", { class: "tag l" }), make("span", { class: "tag r" })];
    const slider = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50" });
    const frame = make("div", { class: "frame", style: `aspect-ratio:${picture.width}/${picture.height}` },
      right, left, make("div", { class: "line" }), ...tags, slider);
    const cut = () => frame.style.setProperty("--cut", slider.value + "%");
    slider.addEventListener("input", cut);
    cut();
    const node = make("figure", { class: "card", "data-label": row.label, "data-id": row.id }, frame,
      make("figcaption", {}, make("span", { class: "id", text: row.id }), make("span", { class: "gain" + loss(gain), text: signed(gain) + " dB" }),
        make("span", { class: "detail", text: `PSNR ${decibels(row.input_psnr)} → ${decibels(row.psnr)} dB · SSIM ${number(row.input_ssim_gaussian, 3)} → ${number(row.ssim_gaussian, 3)}` })));
    node.show = (mode) => {
      const [[a, nameA], [b, nameB]] = PAIRS[mode];
      left.src = `data:${picture.mime};base64,${picture[a]}`;
      right.src = `data:${picture.mime};base64,${picture[b]}`;
      tags[0].textContent = nameA;
      tags[1].textContent = nameB;
      slider.setAttribute("aria-label", `${row.id}: ${nameA} against ${nameB}`);
    };
    return node;
  }
  const cards = data.pictures.map(card);

  function compare(key, down) {
    const worth = (row) => {
      const value = row[key];
      return value === null && key.endsWith("psnr") ? Infinity : value;
    };
    return (a, b) => {
      const x = worth(a), y = worth(b);
      // What has no value stands last, whichever way the rest is sorted.
      if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1;
      const order = typeof x === "string" ? x.localeCompare(y) : x === y ? 0 : x - y;
      return down ? -order : order;
    };
  }

  function gallery() {
    const shown = data.pictures.map((p, i) => [data.images[p.image], cards[i]])
      .filter(([row]) => !state.label || row.label === state.label);
    if (state.sort !== "order") {
      const [key, way] = state.sort.split("-");
      const order = compare(key, way === "down");
      shown.sort((a, b) => order(a[0], b[0]));
    }
    for (const [, node] of shown) node.show(state.mode);
    $("gallery").replaceChildren(...shown.map(([, node]) => node));
    $("none").hidden = shown.length > 0;
    $("legend").hidden = state.mode !== "error";
  }

  const COLUMNS = [["id", "image"], ["input_psnr", "input dB"], ["psnr", "restored dB"], ["gain", "gain dB"],
    ["ssim_uniform", "SSIM 7×7"], ["ssim_gaussian", "SSIM 11×11"], ...(hasLpips ? [["lpips", "LPIPS"]] : [])];
  function table() {
    let rows = data.images.filter((row) => (!state.label || row.label === state.label)
      && row.id.toLowerCase().includes(state.find.toLowerCase()));
    if (state.key) rows = rows.slice().sort(compare(state.key, state.down));
    const head = make("tr", {}, ...COLUMNS.map(([key, name]) => make("th", {
      scope: "col", "aria-sort": state.key === key ? (state.down ? "descending" : "ascending") : "none",
    }, make("button", {
      type: "button", "data-key": key, text: name + (state.key === key ? (state.down ? " ↓" : " ↑") : ""),
      onclick: () => { state.down = state.key === key ? !state.down : key !== "id"; state.key = key; table(); },
    }))));
    const cells = (row) => COLUMNS.map(([key]) => make("td", {
      text: key === "id" ? row.id : key === "gain" ? signed(row.gain) : key.endsWith("psnr") ? decibels(row[key]) : number(row[key], 4),
      title: key === "id" ? row.id : null,
    }));
    const visible = rows.slice(0, state.rows);
    $("images").replaceChildren(make("thead", {}, head), make("tbody", {}, ...visible.map((row) => make("tr", {}, ...cells(row)))));
    $("more").hidden = rows.length <= visible.length;
    $("shown").textContent = `${visible.length} of ${rows.length} images`;
  }

  function beside() {
    const found = data.published;
    if (!found) return;
    $("beside-section").hidden = false;
    $("beside-source").textContent = found.source;
    const cell = (score) => score === null ? make("td", { text: "–" })
      : make("td", {}, score[0].toFixed(2), " ", make("small", { text: score[1].toFixed(3) }));
    $("beside").append(
      make("thead", {}, make("tr", {}, make("th", { text: "method" }),
        ...found.columns.map((c) => make("th", { text: c.replaceAll("_", "+") })), make("th", { text: "average" }))),
      make("tbody", {}, ...found.rows.map((row) => make("tr", { class: row.ours ? "ours" : false },
        make("td", { text: row.method, title: row.method }), ...row.cells.map(cell)))));
  }

  function facts() {
    for (const [name, value] of data.facts) $("facts").append(make("dt", { text: name }), make("dd", { text: value }));
    for (const note of data.notes) $("notes").append(make("li", { text: note }));
  }

  function choose(label) {
    state.label = label;
    state.rows = 60;
    $("label").value = label;
    for (const node of document.querySelectorAll(".row")) node.setAttribute("aria-pressed", String(node.dataset.label === label && label !== ""));
    gallery();
    table();
  }

  $("label").append(make("option", { value: "", text: "all" }),
    ...data.classes.map((c) => make("option", { value: c.label, text: c.label.replaceAll("_", " + ") })));
  $("label").addEventListener("change", (event) => choose(event.target.value));
  $("sort").addEventListener("change", (event) => { state.sort = event.target.value; gallery(); });
  $("find").addEventListener("input", (event) => { state.find = event.target.value; state.rows = 60; table(); });
  $("more").addEventListener("click", () => { state.rows += 240; table(); });
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => {
      state.mode = button.dataset.mode;
      for (const other of document.querySelectorAll("[data-mode]")) other.setAttribute("aria-pressed", String(other === button));
      gallery();
    });
  }
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  tiles();
  classes();
  beside();
  facts();
  choose("");
})();
