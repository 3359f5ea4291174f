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
  // What has no value was infinite, or could not be measured: the metric says which.
  const number = (value, digits, absent = "–") => value === null ? absent : value.toFixed(digits);
  const decibels = (value) => number(value, 2, "∞");
  const METRIC = Object.fromEntries(data.metrics.map((metric) => [metric.name, metric]));
  const metricOf = (key) => METRIC[key.replace(/^input_/, "")];
  const figure = (row, key) => number(row[key], metricOf(key).digits, metricOf(key).absent);
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
      ...data.metrics.filter((metric) => metric.name !== "psnr").map((metric) => tile("",
        make("b", {}, figure(a, metric.name)), sub(`${metric.label}, input ${figure(a, "input_" + metric.name)}`))),
      tile("", make("b", {}, String(data.images.length)), sub(`images of ${data.classes.length} kinds; an average is the mean of the kinds' means`)),
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
        title: `${entry.words}: ${decibels(entry.input_psnr)} to ${decibels(entry.psnr)} dB, ${entry.count} images`,
        onclick: () => choose(state.label === entry.label ? "" : entry.label),
      }, make("span", { class: "name", text: entry.words }), track,
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
    const row = picture.image === null ? null : data.images[picture.image], gain = row && gainOf(row);
    const left = make("img", { class: "left", alt: "", draggable: "false" });
    const right = make("img", { class: "right", alt: "", draggable: "false" });
    const tags = [make("span", { class: "tag l" }), make("span", { class: "tag r" })];
    const slider = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50" });
    const frame = make("div", { class: "frame", style: `aspect-ratio:${picture.width}/${picture.height}` },
      right, left, make("div", { class: "line" }), ...tags, slider);
    const cut = () => frame.style.setProperty("--cut", slider.value + "%");
    slider.addEventListener("input", cut);
    cut();
    const detail = row && data.metrics.map((metric) => `${metric.label} ${figure(row, "input_" + metric.name)} → ${figure(row, metric.name)}`).join(" · ");
    const node = make("figure", { class: row ? "card" : "card own", "data-label": row && row.label, "data-id": picture.id }, frame,
      make("figcaption", {}, make("span", { class: "id", text: picture.id }),
        ...(row ? [make("span", { class: "gain" + loss(gain), text: signed(gain) + " dB" }), make("span", { class: "detail", text: detail })] : [])));
    node.show = (mode) => {
      const [[a, nameA], [b, nameB]] = PAIRS[mode];
      left.src = `data:${picture.mime};base64,${picture[a]}`;
      right.src = `data:${picture.mime};base64,${picture[b]}`;
      tags[0].textContent = nameA;
      tags[1].textContent = nameB;
      slider.setAttribute("aria-label", `${picture.id}: ${nameA} against ${nameB}`);
    };
    return node;
  }
  const cards = data.pictures.map(card);

  // One photograph's way from input to output, which explains the rest of the page.
  function journey() {
    const picture = data.typical === null ? null : data.pictures[data.typical];
    if (!picture) return;
    const row = data.images[picture.image], words = data.classes.find((c) => c.label === row.label).words;
    const guide = data.guide && picture.seen ? data.guide : null;
    const step = (title, part, text) => make("figure", {}, make("figcaption", {}, make("b", { text: title }), make("span", { text })),
      make("div", { class: "shot", style: `aspect-ratio:${picture.width}/${picture.height}` },
        make("img", { alt: title, src: `data:${picture.mime};base64,${picture[part]}` })));
    const steps = [
      step("What went in", "degraded", `${words}: ${decibels(row.input_psnr)} dB`),
      ...(guide ? [step("What the guide saw", "seen", `${guide.name}: ${guide.how}`)] : []),
      step("What came out", "restored", `${decibels(row.psnr)} dB, ${signed(row.gain)} dB gained`),
      step("The clean original", "clean", "what both are compared with"),
    ];
    $("journey-section").hidden = false;
    $("journey").style.setProperty("--steps", steps.length);
    $("journey").append(...steps);
    $("journey-note").textContent = `${row.id}, the picture of the median gain among those below: neither the best nor the worst.`;
  }

  function photograph() {
    if (!data.photograph) return;
    $("photograph-section").hidden = false;
    const node = card(data.photograph);
    node.show("restored");
    $("photograph").append(node);
  }

  function others() {
    if (!data.others.length) return;
    $("others-section").hidden = false;
    const cells = (row) => [row.name, decibels(row.psnr), signed(row.difference) + (row.omission ? ` (${row.omission} left out)` : ""),
      row.interval.map(signed).join(" to "), row.differs];
    $("others").append(
      make("thead", {}, make("tr", {}, ...["training", "PSNR dB", "difference dB", `${data.level} interval`, "differs in"].map((text) => make("th", { text })))),
      make("tbody", {}, make("tr", { class: "ours" }, ...["this one", decibels(data.average.psnr), "", "", ""].map((text) => make("td", { text }))),
        ...data.others.map((row) => make("tr", {}, ...cells(row).map((text) => make("td", { text, title: text }))))));
  }

  function compare(key, down) {
    const worth = (row) => {
      const value = row[key];
      return value === null && METRIC[key] && METRIC[key].absent === "∞" ? Infinity : value;
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
    const all = data.images.filter((row) => !state.label || row.label === state.label).length;
    $("choice").textContent = `${shown.length} of ${all} images, chosen by name before anything was restored${data.same_scenes ? ": the same scenes of every kind" : ""}. `
      + "Drag, tap or use the arrow keys.";
    $("legend").hidden = state.mode !== "error";
  }

  const COLUMNS = [["id", "image"], ["input_psnr", "input dB"], ["psnr", "restored dB"], ["gain", "gain dB"],
    ...data.metrics.filter((metric) => metric.name !== "psnr").map((metric) => [metric.name, metric.label])];
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
      text: key === "id" ? row.id : key === "gain" ? signed(row.gain) : figure(row, key),
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
    // The average stands first: last, it would be off the screen at most widths.
    const first = (list) => [list[list.length - 1], ...list.slice(0, -1)];
    $("beside").append(
      make("thead", {}, make("tr", {}, make("th", { text: "method" }),
        ...first([...found.columns.map((c) => c.replaceAll("_", "+")), "average"]).map((text) => make("th", { text })))),
      make("tbody", {}, ...found.rows.map((row) => make("tr", { class: row.ours ? "ours" : false },
        make("td", { text: row.method, title: row.method }), ...first(row.cells).map(cell)))));
  }

  function facts() {
    for (const [name, text] of data.terms) $("terms").append(make("dt", { text: name }), make("dd", { text }));
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
    ...data.classes.map((c) => make("option", { value: c.label, text: c.words })));
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
  journey();
  tiles();
  classes();
  photograph();
  others();
  beside();
  facts();
  choose("");
})();
