/// The page of `inspect report`: `/*DATA*/` is replaced by a `ReportData` as JSON.
///
/// Everything is in it, and its content security policy lets it load nothing.
let reportPage = #"""
  <!doctype html>
  <html lang="en">
  <head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
  <title>kvstore report</title>
  <style>
  :root { color-scheme: light; --back: #f7f7f5; --card: #ffffff; --text: #1d2023; --dim: #62686e; --line: #dcdfe2; --bar: #2f6f8f; --warn: #b3471d; --good: #2c7a4b; --mark: #d81b60; --front: #5b2a86; }
  @media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { color-scheme: dark; --back: #14171a; --card: #1d2125; --text: #e6e8ea; --dim: #9aa3ab; --line: #343a40; --bar: #5aa9c9; --warn: #f08a5d; --good: #6cc38f; --mark: #ff5c9d; --front: #d9b3ff; } }
  :root[data-theme=dark] { color-scheme: dark; --back: #14171a; --card: #1d2125; --text: #e6e8ea; --dim: #9aa3ab; --line: #343a40; --bar: #5aa9c9; --warn: #f08a5d; --good: #6cc38f; --mark: #ff5c9d; --front: #d9b3ff; }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--back); color: var(--text); font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
  main { max-width: 1800px; margin: 0 auto; padding: 20px; }
  @media (max-width: 600px) { main { padding: 10px; } #tree { height: 300px; } h1 { font-size: 16px; } }
  header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 6px 16px; margin-bottom: 14px; }
  h1 { font-size: 20px; margin: 0; overflow-wrap: anywhere; }
  h2 { font-size: 15px; margin: 0 0 10px; }
  .dim { color: var(--dim); }
  .grow { flex: 1; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin-bottom: 14px; }
  .row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 14px; }
  .row section { margin: 0; min-width: 0; }
  #glance { grid-template-columns: repeat(auto-fit, minmax(min(230px, 100%), 1fr)); }
  select { max-width: 100%; } .tools label { max-width: 100%; }
  .row { margin-bottom: 14px; }
  button, select, input { font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 4px 10px; }
  button { cursor: pointer; }
  :focus-visible { outline: 2px solid var(--bar); outline-offset: 1px; }
  .tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-bottom: 10px; }
  #search { flex: 1; min-width: 220px; }
  #speed { width: 86px; padding: 1px 6px; }
  #tree { display: block; width: 100%; height: 420px; cursor: pointer; }
  #where { min-height: 42px; margin: 8px 0 0; overflow-wrap: anywhere; }
  .legend { display: flex; gap: 14px; flex-wrap: wrap; margin-top: 6px; }
  .legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 5px; vertical-align: -1px; }
  .meter { margin-bottom: 8px; }
  .meter > div { height: 10px; background: var(--line); border-radius: 5px; overflow: hidden; }
  .meter > div > div { height: 100%; background: var(--bar); }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
  td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
  .scroll { overflow-x: auto; }
  .big small { font-size: 16px; font-weight: 400; }
  .big { font-size: 30px; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums; }
  #next { margin: 0; padding-left: 18px; } #next li { margin-bottom: 4px; }
  .poor { color: var(--warn); font-weight: 600; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0; }
  dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
  svg { display: block; width: 100%; height: 204px; }
  svg text { fill: var(--dim); font-size: 12px; }
  .head { display: flex; gap: 10px; align-items: baseline; justify-content: space-between; }
  details { margin-top: 6px; } summary { cursor: pointer; color: var(--dim); }
  #hitTable { max-height: 260px; overflow: auto; }
  </style>
  </head>
  <body>
  <main>
  <header><h1 id="title"></h1><span class="dim" id="made"></span><span class="grow"></span><button id="theme" type="button">light / dark</button></header>
  <div class="row" id="glance">
  <section><h2>Hit rate</h2><div class="big" id="rate"></div><div class="dim" id="rateOf"></div></section>
  <section><h2>Saved</h2><div class="big"><span id="saved"></span> <small>tokens</small></div><div class="dim" id="savedOf"></div><div class="dim"><span id="time"></span> at <input id="speed" type="number" min="1" step="any" aria-label="tokens a second that the engine computes"> tokens/s of prefill</div></section>
  <section><h2>Disk</h2><div class="big" id="disk"></div><div class="meter"><div><div id="diskBar"></div></div></div><div class="dim" id="diskOf"></div></section>
  <section><h2>What to do next</h2><ul id="next"></ul></section>
  </div>
  <section>
  <h2>Prefix tree</h2>
  <div class="tools">
  <label>Namespace <select id="namespace"></select></label>
  <label>Width <select id="width"><option value="bytes">bytes</option><option value="tokens">tokens</option><option value="saved">tokens saved</option></select></label>
  <label>Colour <select id="colour"><option value="age">age</option><option value="use">last use</option><option value="tier">tier</option></select></label>
  <input id="search" type="search" placeholder="find: key, run number, or the token ids a run begins with" aria-label="find a run">
  <button id="out" type="button">zoom out</button>
  </div>
  <canvas id="tree" tabindex="0" role="img" aria-label="prefix tree: each box is a run of blocks, its width the size of all that hangs below it"></canvas>
  <div class="legend dim" id="legend"></div>
  <p id="where" class="dim" aria-live="polite"></p>
  </section>
  <div class="row">
  <section><h2>Store</h2><dl id="facts"></dl></section>
  <section><h2>Tiers</h2><div id="tiers"></div></section>
  </div>
  <div class="row">
  <section><div class="head"><h2>Hit rate over time</h2><label>each <select id="span"></select></label></div><div id="hits"></div><details><summary>as a table</summary><div class="scroll" id="hitTable"></div></details></section>
  <section><h2>Blocks stored and removed</h2><div id="activity"></div></section>
  </div>
  <section id="remote" hidden><h2>Remote tier</h2><div class="scroll" id="remotes"></div></section>
  <section><h2>Sessions</h2><div class="scroll" id="sessions"></div></section>
  <section id="agents" hidden><h2>Agents</h2><div class="scroll" id="layers"></div><p class="dim" id="layersOf"></p><div class="scroll" id="runs"></div><div id="log"></div></section>
  <section><h2>Namespaces</h2><div class="scroll" id="namespaces"></div></section>
  </main>
  <script id="data" type="application/json">/*DATA*/</script>
  <script>
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const seconds = text => Date.parse(text) / 1000, made = seconds(data.made_at), created = seconds(data.created_at);
  const $ = id => document.getElementById(id);
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bytes = n => { let u = ["B", "KiB", "MiB", "GiB", "TiB"], i = 0; while (n >= 1024 && i < 4) { n /= 1024; i++; } return (i ? n.toPrecision(3) : n) + " " + u[i]; };
  const count = n => n.toLocaleString("en");
  const age = s => { s = Math.max(0, made - s); return s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days"; };
  const many = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
  const percent = x => (x * 100).toFixed(1) + " %";
  function add(parent, name, text, attributes) { const e = document.createElement(name); if (text !== undefined) e.textContent = text; for (const k in attributes || {}) e.setAttribute(k, attributes[k]); parent.appendChild(e); return e; }

  /* ---- the tree: nodes in flat arrays, parents before children */
  let tree = null, root = 0, hit = [], found = [], foundAt = 0;
  function build(ns) {
    const n = ns.runs.length, t = { ns, parent: new Int32Array(n + 1), level: new Int32Array(n + 1), bytes: new Float64Array(n + 1), hits: new Float64Array(n + 1), saved: new Float64Array(n + 1), tokens: new Float64Array(n + 1), children: Array.from({ length: n + 1 }, () => []), newest: 0, oldest: Infinity, lastUse: 0 };
    const index = new Map([[0, 0]]);
    ns.runs.forEach((r, i) => index.set(r[0], i + 1));
    for (let i = 1; i <= n; i++) {
      const r = ns.runs[i - 1], p = index.get(r[1]) || 0;
      t.parent[i] = p; t.level[i] = t.level[p] + 1; t.children[p].push(i);
      t.bytes[i] = r[5]; t.hits[i] = r[9]; t.tokens[i] = r[4] * ns.tokens_per_block;
      t.newest = Math.max(t.newest, r[6]); if (r[6]) t.oldest = Math.min(t.oldest, r[6]); t.lastUse = Math.max(t.lastUse, r[7]);
    }
    for (let i = n; i >= 1; i--) { t.hits[t.parent[i]] += t.hits[i]; t.bytes[t.parent[i]] += t.bytes[i]; t.tokens[t.parent[i]] += t.tokens[i]; }
    /* A look-up that ended below a run has saved the run's tokens too. */
    for (let i = n; i >= 1; i--) { t.saved[i] += t.hits[i] * ns.runs[i - 1][4] * ns.tokens_per_block; t.saved[t.parent[i]] += t.saved[i]; }
    /* The shared front: the runs, from the first token on, that at least half of all hits went through (half of the blocks
       where nothing was hit), and behind which prompts part. */
    t.front = new Map(); t.frontTokens = 0; t.frontShare = 0;
    const weight = t.hits[0] ? t.hits : t.bytes;
    for (let i = 0; ;) {
      const next = t.children[i].find(child => weight[child] * 2 >= weight[0] && (t.children[child].length > 1 || t.children[child].some(below => weight[below] * 2 >= weight[0]) || t.hits[child] > 1));
      if (next === undefined) break;
      /* It ends where less than half goes on: behind the block at which the others have branched off. */
      let rest = weight[next], blocks = ns.runs[next - 1][4];
      for (const child of t.children[next].slice().sort((a, b) => ns.runs[a - 1][2] - ns.runs[b - 1][2])) { rest -= weight[child]; if (rest * 2 < weight[0]) { blocks = Math.min(blocks, ns.runs[child - 1][2] + 1); break; } }
      t.front.set(next, blocks * ns.tokens_per_block); t.frontTokens += blocks * ns.tokens_per_block; t.frontShare = weight[next] / weight[0]; i = next;
    }
    return t;
  }
  function colour(i) {
    if (!i) return style("--line");
    const r = tree.ns.runs[i - 1], dark = getComputedStyle(document.documentElement).colorScheme.includes("dark"), l = dark ? 42 : 66;
    const mode = $("colour").value;
    if (mode === "tier") return `hsl(${r[8] === 0 ? 200 : r[8] === r[4] ? 30 : 115} 55% ${l}%)`;
    let x = mode === "age" ? (tree.newest > tree.oldest ? (r[6] - tree.oldest) / (tree.newest - tree.oldest) : 1) : (tree.lastUse ? r[7] / tree.lastUse : 0);
    return `hsl(${215 - 175 * x} 55% ${l}%)`;
  }
  function legend() {
    const box = $("legend"); box.textContent = "";
    const l = getComputedStyle(document.documentElement).colorScheme.includes("dark") ? 42 : 66;
    const names = $("colour").value === "tier" ? [[200, "disk"], [115, "both"], [30, "archive"]] : $("colour").value === "age" ? [[215, "oldest"], [40, "newest"]] : [[215, "used long ago"], [40, "used last"]];
    if ($("colour").value !== "tier") { const s = add(box, "span"), stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map(x => `hsl(${215 - 175 * x} 55% ${l}%)`); s.append(names[0][1] + " "); add(s, "i", "", { style: `width:90px;margin:0 5px;background:linear-gradient(90deg,${stops.join(",")})` }); s.append(names[1][1]); }
    else for (const [h, name] of names) { const s = add(box, "span"); add(s, "i", "", { style: `background:hsl(${h} 55% ${l}%)` }); s.append(name); }
    if (tree && tree.front.size) { const s = add(box, "span"); add(s, "i", "", { style: "background:var(--front);height:4px;vertical-align:3px" }); s.append(`shared front: ${count(tree.frontTokens)} tokens, ${percent(tree.frontShare)} of ${tree.hits[0] ? "hits" : "bytes"} go through it`); }
    add(box, "span", "a box is a run of blocks without a fork; click to zoom in, on the top to zoom out");
  }
  let rowH = 22;
  /* Rows that hang below a box. */
  function depthBelow(i) { let most = 0; const stack = [[i, 0]]; while (stack.length) { const [at, d] = stack.pop(); if (d > most) most = d; for (const child of tree.children[at]) stack.push([child, d + 1]); } return most; }
  /* A small tree needs no large picture. */
  function fit() { const most = matchMedia("(max-width: 600px)").matches ? 300 : 420; $("tree").style.height = (tree ? Math.max(110, Math.min(most, 36 * (depthBelow(0) + 1) + 4)) : 60) + "px"; }
  function draw() {
    const canvas = $("tree"), ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    const c = canvas.getContext("2d"); c.scale(ratio, ratio); c.clearRect(0, 0, w, h);
    hit = [];
    if (!tree) return;
    const size = tree[$("width").value];
    const marks = new Set(found), text = style("--text"), card = style("--card"), mark = style("--mark");
    c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle";
    /* The way up, then what hangs below. */
    const path = []; for (let i = root; ; i = tree.parent[i]) { path.unshift(i); if (!i) break; }
    rowH = Math.min(36, Math.max(22, Math.floor(h / (path.length + depthBelow(root)))));
    const box = (i, x, y, bw) => {
      c.fillStyle = colour(i); c.fillRect(x, y, Math.max(0.6, bw - (bw > 3 ? 1 : 0)), rowH - 1);
      if (tree.front.has(i) && bw > 2) { c.fillStyle = style("--front"); c.fillRect(x, y + rowH - 4, Math.max(0.6, bw - 1), 3); }
      if (marks.has(i)) { c.lineWidth = 2; c.strokeStyle = mark; c.strokeRect(x + 1, y + 1, Math.max(2, bw - 3), rowH - 3); }
      hit.push([x, y, bw, i]);
      if (bw > 46) {
        c.save(); c.beginPath(); c.rect(x, y, bw - 4, rowH); c.clip(); c.fillStyle = text;
        const r = i ? tree.ns.runs[i - 1] : null;
        /* The longest of these that fits. */
        const texts = r ? [...(tree.front.has(i) ? [`shared front: ${count(tree.front.get(i))} tokens · run ${r[0]} · ${count(r[4] * tree.ns.tokens_per_block)} tokens`, `shared front · run ${r[0]}`] : []), `run ${r[0]} · ${count(r[4] * tree.ns.tokens_per_block)} tokens`, `run ${r[0]}`] : [`namespace ${tree.ns.id}: ${bytes(tree.bytes[0])}`];
        const shown = texts.find(t => c.measureText(t).width <= bw - 10);
        if (shown) c.fillText(shown, x + 5, y + rowH / 2);
        c.restore();
      }
    };
    path.forEach((i, row) => box(i, 0, row * rowH, w));
    const stack = [[root, 0, w, path.length]];
    while (stack.length) {
      const [i, x, bw, row] = stack.pop(); let at = x;
      const y = row * rowH; if (y > h - rowH) continue;
      /* A run's own part stays empty below it. */
      const scale = size[i] ? bw / size[i] : 0;
      let hidden = 0, hiddenX = -1;
      for (const child of tree.children[i]) {
        const cw = size[child] * scale;
        if (cw >= 0.6 || marks.has(child)) { box(child, at, y, cw); if (tree.children[child].length) stack.push([child, at, cw, row + 1]); }
        else { if (at - hiddenX >= 1) { c.fillStyle = style("--dim"); c.fillRect(at, y, 0.6, rowH - 1); hiddenX = at; } hidden++; }
        at += cw;
      }
    }
  }
  function describe(i) {
    const ns = tree.ns;
    if (!i) return `namespace ${ns.id} ${ns.model ? "(" + ns.model + ")" : ""}: ${many(ns.block_count, "block")} in ${many(ns.runs.length, "run")}, ${bytes(ns.payload_bytes)}` + (ns.is_whole ? "" : " (not all runs are shown)");
    const r = ns.runs[i - 1];
    return `run ${r[0]}: ${many(r[4], "block")}, ${count(r[4] * ns.tokens_per_block)} tokens after ${count(r[3] * ns.tokens_per_block)}; ${bytes(r[5])}, with all below it ${bytes(tree.bytes[i])}; stored ${age(r[6])} ago; ${count(tree.hits[i])} hits` + (r[8] ? `; ${count(r[8])} blocks archived` : "") + `; first key ${ns.keys[i - 1]}; begins with ${ns.first_tokens[i - 1].join(" ")}`;
  }
  function at(event) { const b = $("tree").getBoundingClientRect(), x = event.clientX - b.left, y = event.clientY - b.top; for (let k = hit.length - 1; k >= 0; k--) { const [hx, hy, hw, i] = hit[k]; if (x >= hx && x < hx + Math.max(hw, 1) && y >= hy && y < hy + rowH) return i; } return -1; }
  function zoom(i) { root = i; $("where").textContent = describe(i); $("tree").dataset.root = i ? tree.ns.runs[i - 1][0] : 0; draw(); }
  $("tree").addEventListener("mousemove", e => { const i = at(e); $("where").textContent = describe(i < 0 ? root : i); });
  $("tree").addEventListener("click", e => { const i = at(e); if (i >= 0) zoom(i === root && i ? tree.parent[i] : i); });
  $("tree").addEventListener("keydown", e => { if (e.key === "Escape" || e.key === "ArrowUp") { zoom(tree.parent[root]); e.preventDefault(); } if (e.key === "ArrowDown" && tree.children[root].length) { zoom(tree.children[root][0]); e.preventDefault(); } if ((e.key === "ArrowLeft" || e.key === "ArrowRight") && root) { const s = tree.children[tree.parent[root]], k = s.indexOf(root) + (e.key === "ArrowLeft" ? -1 : 1); if (s[k]) zoom(s[k]); e.preventDefault(); } });
  $("out").addEventListener("click", () => zoom(tree ? tree.parent[root] : 0));
  function search() {
    const q = $("search").value.trim().toLowerCase(); found = []; foundAt = 0;
    if (q && tree) {
      const words = q.split(/[\s,\[\]]+/).filter(Boolean), numbers = words.every(x => /^\d+$/.test(x)) ? words.map(Number) : null;
      tree.ns.runs.forEach((r, i) => {
        const first = tree.ns.first_tokens[i];
        if (tree.ns.keys[i].startsWith(q) || (numbers && numbers.length === 1 && r[0] === numbers[0]) || (numbers && numbers.length > 1 && numbers.slice(0, first.length).every((x, k) => first[k] === x))) found.push(i + 1);
      });
    }
    $("search").dataset.found = found.length;
    if (q) $("where").textContent = found.length ? `${count(found.length)} found (Enter zooms in): ` + describe(found[0]) : "nothing found";
    draw();
  }
  $("search").addEventListener("input", search);
  $("search").addEventListener("keydown", e => { if (e.key === "Enter" && found.length) { zoom(found[foundAt++ % found.length]); } });
  $("width").addEventListener("change", draw);
  $("colour").addEventListener("change", () => { legend(); draw(); });
  $("namespace").addEventListener("change", () => { const ns = data.namespaces[$("namespace").value]; tree = ns ? build(ns) : null; found = []; legend(); fit(); if (tree) zoom(0); else draw(); });
  $("theme").addEventListener("click", () => { const e = document.documentElement, dark = getComputedStyle(e).colorScheme.includes("dark"); e.dataset.theme = dark ? "light" : "dark"; legend(); draw(); charts(); });
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { legend(); draw(); charts(); });

  /* ---- what matters first */
  {
    const full = data.disk_bytes_max ? data.disk_bytes / data.disk_bytes_max : 0, catalog = data.catalog_bytes_max ? data.catalog_bytes / data.catalog_bytes_max : 0;
    $("rate").textContent = data.tokens_asked ? percent(data.tokens_found / data.tokens_asked) : "–";
    $("rateOf").textContent = data.tokens_asked ? `of ${count(data.tokens_asked)} tokens in ${many(data.look_up_count, "look-up")}` : "nothing was looked up yet";
    $("saved").textContent = count(data.tokens_found);
    $("savedOf").textContent = data.look_up_count ? `not computed again, ${count(Math.round(data.tokens_found / data.look_up_count))} a look-up` : "nothing was looked up yet";
    $("speed").value = data.prefill_tokens_per_second;
    const duration = s => s < 120 ? s.toPrecision(3) + " s" : s < 7200 ? (s / 60).toPrecision(3) + " min" : s < 172800 ? (s / 3600).toPrecision(3) + " h" : count(Math.round(s / 86400)) + " days";
    const showTime = () => { const speed = Number($("speed").value); $("time").textContent = speed > 0 ? duration(data.tokens_found / speed) : "–"; };
    showTime(); $("speed").addEventListener("input", showTime);
    $("disk").textContent = percent(full);
    $("diskBar").style.width = Math.min(100, full * 100) + "%";
    $("diskOf").textContent = `${bytes(data.disk_bytes)} of ${bytes(data.disk_bytes_max)}; ${many(data.evicted_count, "block")} ${data.evicted_count === 1 ? "was" : "were"} evicted`;
    const say = (text, poor) => add($("next"), "li", text, poor ? { class: "poor" } : {});
    const poor = data.sessions.filter(s => s.is_poor), broken = poor.find(s => s.broken_step != null);
    if (poor.length) say(`${count(poor.length)} of ${count(data.sessions.length)} sessions find little of their prefix` + (broken ? `, for example from token ${count(broken.broken_token)} on (${broken.broken_cause})` : "") + ": kvstore inspect why-miss says what to change.", true);
    if (full > 0.9 && data.evicted_count) say("The disk is full and blocks are evicted: kvstore plan says how large it should be.", true);
    if (catalog > 0.8) say(`The catalog is ${percent(catalog)} full: stop the store and run kvstore grow-catalog.`, true);
    if (data.look_up_count >= 10 && data.tokens_found / data.tokens_asked < 0.3 && !poor.length) say("Little is found: kvstore lint finds in recorded requests what breaks their prefix.", true);
    if (!data.look_up_count) say("Send requests: nothing was looked up yet.");
    if (!$("next").children.length) say("Nothing stands out.");
  }

  /* ---- everything else */
  $("title").textContent = data.title; document.title = "kvstore: " + data.title;
  $("made").textContent = "as of " + new Date(made * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";
  for (const [name, value] of [["state", data.state], ["blocks", count(data.block_count)], ["payload", bytes(data.payload_bytes)], ["on disk", bytes(data.disk_bytes)], ["created", age(created) + " ago"], ["UUID", data.store_uuid]]) { add($("facts"), "dt", name); add($("facts"), "dd", value); }
  for (const tier of data.tiers) { const m = add($("tiers"), "div", undefined, { class: "meter" }); add(m, "span", `${tier.name}: ${bytes(tier.used_bytes)} of ${bytes(tier.bytes)}`); add(add(m, "div"), "div", "", { style: `width:${tier.bytes ? Math.min(100, 100 * tier.used_bytes / tier.bytes) : 0}%` }); }
  function table(parent, headings, rows) { const t = add(parent, "table"), h = add(add(t, "thead"), "tr"); headings.forEach(x => add(h, "th", x.replace("#", ""), x.startsWith("#") ? { class: "n" } : {})); const b = add(t, "tbody"); for (const row of rows) { const r = add(b, "tr"); row.forEach((x, k) => add(r, "td", Array.isArray(x) ? x[0] : x, { class: (headings[k].startsWith("#") ? "n" : "") + (Array.isArray(x) ? " " + x[1] : "") })); } }
  if (data.remotes.length) {
    const causes = list => list.map(c => `${c.cause} ${count(c.count)}`).join(", ") || "–";
    $("remote").hidden = false;
    table($("remotes"), ["process", "server", "state", "#look-ups", "#found", "#fetched", "#sent", "#queued", "#may be sent", "#bandwidth", "#round", "misses", "not sent"], data.remotes.map(({ process, standing, remote: r }) => [process, r.server, [standing, r.state === "up" && !r.pause_cause || r.state === "idle" ? "" : "poor"], count(r.look_up_count), count(r.look_up_found_count), bytes(r.fetched_bytes), bytes(r.sent_bytes), count(r.send_queued_count), r.write_bytes_per_day == null ? "–" : `${bytes(r.write_bytes_left)} of ${bytes(r.write_bytes_per_day)} a day`, r.bytes_per_second == null ? "–" : bytes(r.bytes_per_second) + "/s", r.round_seconds == null ? "–" : (r.round_seconds * 1000).toPrecision(3) + " ms", causes(r.misses), causes(r.drops)]));
  }
  if (data.sessions.length) table($("sessions"), ["session", "#steps", "#tokens", "#hit rate", "#steps 3–10", "#last step", "prefix"], data.sessions.slice().reverse().map(s => [(s.name || "–") + " · " + s.id, count(s.step_count), count(s.token_count), percent(s.hit_rate), s.settled_hit_rate == null ? "–" : [percent(s.settled_hit_rate) + (s.is_poor ? " low" : ""), s.is_poor ? "poor" : ""], age(seconds(s.last_step_at)) + " ago", s.broken_step == null ? "holds" : `broke in step ${s.broken_step} at token ${count(s.broken_token)}: ${s.broken_cause}`]));
  else add($("sessions"), "p", "No sessions are recorded: an engine records them with kvstore_session_begin.", { class: "dim" });
  /* Agents: hits by layer and what they saved, of all runs and of each; the log of one on demand. */
  if (data.agents.runs.length) {
    $("agents").hidden = false;
    const span = s => s < 0.995 ? (s * 1000).toPrecision(3) + " ms" : s < 120 ? s.toPrecision(3) + " s" : s < 7200 ? (s / 60).toPrecision(3) + " min" : (s / 3600).toPrecision(3) + " h", part = (n, all) => all ? percent(n / all) : "–";
    const sum = (layers, name) => layers.reduce((n, l) => n + l[name], 0), all = new Map();
    for (const r of data.agents.runs) for (const l of r.layers) { const t = all.get(l.layer) || all.set(l.layer, { ...l, call_count: 0, answered_count: 0, failed_count: 0, saved_seconds: 0, saved_token_count: 0, saved_money: 0 }).get(l.layer); for (const k in t) if (k !== "layer") t[k] += l[k]; }
    table($("layers"), ["layer", "#calls", "#answered", "#of calls", "#failed", "#time saved", "#tokens saved", "#money saved"], [...all.values()].map(l => [l.layer, count(l.call_count), count(l.answered_count), part(l.answered_count, l.call_count), count(l.failed_count), span(l.saved_seconds), count(l.saved_token_count), l.saved_money ? l.saved_money.toPrecision(3) : "–"]));
    $("layersOf").textContent = `Answered: from the store, or from the run's own record. Saved: what those calls took when they were made; money by the program's price list.` + (data.agents.older_run_count ? ` ${many(data.agents.older_run_count, "older run")} are not on this page.` : "");
    table($("runs"), ["run", "session", "#namespace", "#made", "#steps", "#opened", "#calls", "#answered", "#failed", "#time saved", "fork of", ""], data.agents.runs.map(r => [r.run, r.session || "–", String(r.namespace), age(seconds(r.created_at)) + " ago", count(r.step_count), count(r.opening_count) + "×", count(sum(r.layers, "call_count")), part(sum(r.layers, "answered_count"), sum(r.layers, "call_count")), count(sum(r.layers, "failed_count")), span(sum(r.layers, "saved_seconds")), r.fork_of ? `${r.fork_of.run} at ${r.fork_of.step}` : "–", ""]));
    $("runs").querySelectorAll("tbody tr").forEach((row, k) => { const button = add(row.lastChild, "button", "log", { type: "button" }), r = data.agents.runs[k]; button.addEventListener("click", () => {
      $("log").textContent = ""; add($("log"), "h2", `Log of ${r.run}`, { style: "margin-top:14px" });
      if (r.older_event_count) add($("log"), "p", `${many(r.older_event_count, "event")} before these: kvstore inspect run --log`, { class: "dim" });
      table(add($("log"), "div", undefined, { class: "scroll" }), ["time (UTC)", "call", "layer", "outcome", "version", "#age", "from", "key", "why"], r.events.map(e => [e.at ? e.at.slice(0, 19).replace("T", " ") : "–", e.call || e.name, e.layer, [e.outcome, e.outcome === "failed" ? "poor" : ""], e.version || "–", e.age_seconds == null ? "–" : span(e.age_seconds), e.source || "–", (e.key || "–").slice(0, 16), e.reason || ""]));
      $("log").scrollIntoView({ block: "nearest" });
    }); });
  }
  table($("namespaces"), ["#id", "model", "dtype", "#tokens a block", "#blocks", "#payload", "#stored", "salt"], data.namespaces.map(n => [String(n.id), n.model || "–", n.dtype || "–", String(n.tokens_per_block), count(n.block_count), bytes(n.payload_bytes), bytes(n.stored_bytes), n.salt_mark || "–"]));
  /* Charts are drawn in pixels, so that text keeps its shape; again when the width changes. */
  const chartHeight = 204, chartLeft = 44, chartBottom = 158, chartTop = 12;
  function svg(parent, width, parts) { parent.textContent = ""; const s = document.createElementNS("http://www.w3.org/2000/svg", "svg"); s.setAttribute("viewBox", `0 0 ${width} ${chartHeight}`); for (const [name, attributes, text] of parts) { const e = document.createElementNS("http://www.w3.org/2000/svg", name); for (const k in attributes) e.setAttribute(k, attributes[k]); if (text) { if (name === "text") e.textContent = text; else { const t = document.createElementNS("http://www.w3.org/2000/svg", "title"); t.textContent = text; e.appendChild(t); } } s.appendChild(e); } parent.appendChild(s); }
  const short = n => n < 1e4 ? count(Math.round(n)) : n < 1e6 ? (n / 1e3).toPrecision(3) + " k" : n < 1e9 ? (n / 1e6).toPrecision(3) + " M" : (n / 1e9).toPrecision(3) + " G";
  const moment = s => new Date(s * 1000).toISOString().replace("T", " ");
  const timeText = (s, span) => span > 2 * 86400 ? moment(s).slice(0, 10) : span > 600 ? moment(s).slice(5, 16) : moment(s).slice(11, 19);
  const spanText = s => s % 86400 === 0 ? s / 86400 + " d" : s % 3600 === 0 ? s / 3600 + " h" : s % 60 === 0 ? s / 60 + " min" : s + " s";
  function axes(width, from, to, labels) {
    const right = width - 8, parts = [];
    for (const [share, text] of labels) { const y = chartBottom - (chartBottom - chartTop) * share; parts.push(["line", { x1: chartLeft, x2: right, y1: y, y2: y, stroke: style("--line") }], ["text", { x: chartLeft - 6, y: y + 4, "text-anchor": "end" }, text]); }
    const n = Math.max(1, Math.min(4, Math.floor((right - chartLeft) / 130), Math.floor(to - from)));
    for (let k = 0; k <= n; k++) parts.push(["text", { x: chartLeft + (right - chartLeft) * k / n, y: chartBottom + 18, "text-anchor": k === 0 ? "start" : k === n ? "end" : "middle" }, timeText(from + (to - from) * k / n, to - from)]);
    return parts;
  }
  const widthOf = parent => Math.max(280, parent.clientWidth);
  const empty = (parent, text) => { parent.textContent = ""; add(parent, "p", text, { class: "dim" }); };
  /* [begin, end, tokens found, tokens asked, text] → a step line, with a gap where nothing was asked. */
  function hitChart(parent, slices, note) {
    const width = widthOf(parent), right = width - 8, from = slices[0][0], to = slices[slices.length - 1][1];
    const x = t => chartLeft + (right - chartLeft) * (t - from) / Math.max(1, to - from), y = v => chartBottom - (chartBottom - chartTop) * v;
    const parts = axes(width, from, to, [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]]);
    let line = "", last = null;
    for (const [begin, end, found, asked, text] of slices) {
      if (!asked) { last = null; continue; }
      const v = y(found / asked), x1 = x(begin), x2 = Math.max(x1 + 2, x(end));
      parts.push(["rect", { x: x1, y: v, width: x2 - x1, height: Math.max(0, chartBottom - v), fill: style("--good"), "fill-opacity": 0.22 }, text]);
      line += (last === begin ? "L" : "M") + x1.toFixed(1) + " " + v.toFixed(1) + "L" + x2.toFixed(1) + " " + v.toFixed(1); last = end;
    }
    parts.push(["path", { d: line, fill: "none", stroke: style("--good"), "stroke-width": 2, "stroke-linejoin": "round" }], ["text", { x: chartLeft, y: chartHeight - 2 }, note]);
    svg(parent, width, parts);
  }
  function hitsOverTime() {
    const h = data.history[$("span").value];
    $("hitTable").textContent = "";
    if (h && h.intervals.some(i => i[1] > 0)) {
      hitChart($("hits"), h.intervals.map(i => [i[0], Math.max(i[0] + 1, Math.min(i[0] + h.span_seconds, made)), i[3], i[2], `${moment(i[0]).slice(0, 16)}, ${spanText(h.span_seconds)}: ${count(i[1])} look-ups, ${percent(i[2] ? i[3] / i[2] : 0)} of ${count(i[2])} tokens found`]), `tokens found of those asked for, each ${spanText(h.span_seconds)} (UTC)`);
      const share = (n, i) => { const all = i[4] + i[5] + i[6]; return all ? percent(n / all) : "–"; };
      table($("hitTable"), ["from (UTC)", "#look-ups", "#tokens asked", "#found", "#in RAM", "#on disk", "#archive", "#stored", "#evicted", "#expired"], h.intervals.slice(-48).reverse().map(i => [moment(i[0]).slice(0, 16), count(i[1]), count(i[2]), i[2] ? percent(i[3] / i[2]) : "–", share(i[4], i), share(i[5], i), share(i[6], i), count(i[7]), count(i[8]), count(i[9])]));
      return;
    }
    const steps = data.sessions.flatMap(s => s.steps).sort((a, b) => seconds(a.at) - seconds(b.at));
    if (!steps.length) return empty($("hits"), "Nothing was looked up yet.");
    const from = seconds(steps[0].at), span = Math.max(1, seconds(steps[steps.length - 1].at) - from), n = Math.min(60, steps.length), sum = Array.from({ length: n }, (_, k) => [from + span * k / n, from + span * (k + 1) / n, 0, 0, ""]);
    for (const s of steps) { const k = Math.min(n - 1, Math.floor((seconds(s.at) - from) / span * n)); sum[k][2] += s.matched_token_count; sum[k][3] += s.token_count; }
    for (const s of sum) s[4] = percent(s[3] ? s[2] / s[3] : 0);
    hitChart($("hits"), sum, "tokens found of those asked for, steps of sessions only (UTC)");
  }
  function charts() {
    hitsOverTime();
    const a = data.activity, parent = $("activity");
    if (!a.length) return empty(parent, "No events are kept.");
    const width = widthOf(parent), right = width - 8, from = seconds(a[0].from_at), to = seconds(a[a.length - 1].from_at) + data.activity_seconds;
    const up = Math.max(0, ...a.map(x => x.stored_count)), down = Math.max(0, ...a.map(x => x.removed_count)), all = Math.max(1, up + down), height = chartBottom - chartTop, zero = down / all;
    const y0 = chartBottom - height * zero, w = (right - chartLeft) / a.length;
    const labels = [[zero, "0"]]; if (up) labels.push([1, short(up)]); if (down) labels.push([0, "−" + short(down)]);
    svg(parent, width, [...axes(width, from, to, labels.filter((l, k) => k === 0 || Math.abs(l[0] - zero) > 0.1)), ...a.flatMap((x, k) => { const at = { x: chartLeft + k * w, width: Math.max(1, w - 1) }, text = `${moment(seconds(x.from_at)).slice(0, 19)}: ${count(x.stored_count)} stored, ${count(x.removed_count)} removed`; return [["rect", { ...at, y: y0 - height * x.stored_count / all, height: height * x.stored_count / all, fill: style("--bar") }, text], ["rect", { ...at, y: y0, height: height * x.removed_count / all, fill: style("--warn") }, text]]; }), ["text", { x: chartLeft, y: chartHeight - 2 }, `blocks in each ${spanText(data.activity_seconds)}: up stored, down removed (UTC)`]]);
  }
  data.history.forEach((h, i) => { if (h.intervals.length) add($("span"), "option", spanText(h.span_seconds), { value: i }); });
  /* The finest that goes back to the beginning. */
  { const kept = [288, 336, 730], first = data.history.findIndex((h, i) => h.intervals.length && h.span_seconds * kept[i] >= made - created); if ($("span").options.length) $("span").value = first >= 0 ? first : data.history.length - 1; else $("span").parentElement.hidden = true; }
  $("span").addEventListener("change", hitsOverTime);
  window.addEventListener("resize", charts);
  data.namespaces.forEach((n, i) => add($("namespace"), "option", `${n.id} ${n.model}` + (n.salt_mark ? ` · salt ${n.salt_mark}` : ""), { value: i }));
  legend(); charts();
  if (data.namespaces.length) { const biggest = data.namespaces.reduce((b, n, i) => n.payload_bytes > data.namespaces[b].payload_bytes ? i : b, 0); $("namespace").value = biggest; $("namespace").dispatchEvent(new Event("change")); }
  document.documentElement.dataset.ready = "yes";
  </script>
  </body>
  </html>
  """#
