/* Runs within the page of `inspect report`, at its end: clicks and types as a reader does, and writes what it finds into the document. */
addEventListener("load", () => {
  const wrong = [];
  const check = (name, good) => { if (!good) wrong.push(name); };
  const canvas = document.getElementById("tree");
  const click = (x, y) => { const b = canvas.getBoundingClientRect(); canvas.dispatchEvent(new MouseEvent("click", { clientX: b.left + x, clientY: b.top + y, bubbles: true })); };
  try {
    check("ready", document.documentElement.dataset.ready === "yes");
    const shown = data.namespaces.reduce((sum, n) => sum + n.runs.reduce((s, r) => s + r[4], 0), 0);
    check("all blocks are in the page", shown === Number(data.block_count));
    check("starts at the root", canvas.dataset.root === "0");
    /* Something was painted. */
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let painted = 0;
    for (let i = 3; i < pixels.length; i += 4) if (pixels[i]) painted++;
    check("painted", painted > 5000);
    /* A click zooms into the box that lies there, one on the top goes back. */
    const widest = hit.filter(h => h[3] !== 0).sort((a, b) => b[2] - a[2])[0];
    click(widest[0] + widest[2] / 2, widest[1] + 5);
    check("zoomed in", canvas.dataset.root === String(data.namespaces[0].runs[widest[3] - 1][0]));
    check("described", document.getElementById("where").textContent.includes("tokens after"));
    click(20, 5);
    check("zoomed out", canvas.dataset.root === "0");
    /* Search by key, by token ids, for nothing; Enter zooms in. */
    const box = document.getElementById("search"), type = text => { box.value = text; box.dispatchEvent(new Event("input")); };
    const ns = data.namespaces[0], last = ns.runs.length - 1;
    type(ns.keys[last].slice(0, 12));
    check("found by key", box.dataset.found === "1");
    box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    check("went there", canvas.dataset.root === String(ns.runs[last][0]));
    type(ns.first_tokens[last].slice(0, 4).join(" "));
    check("found by tokens", Number(box.dataset.found) >= 1);
    type("no such key");
    check("nothing found", box.dataset.found === "0");
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    for (const [id, value] of [["width", "saved"], ["width", "tokens"], ["colour", "use"], ["colour", "tier"], ["colour", "age"]]) { const s = document.getElementById(id); s.value = value; s.dispatchEvent(new Event("change")); }
    const before = getComputedStyle(document.body).backgroundColor;
    document.getElementById("theme").click();
    check("the theme changes", getComputedStyle(document.body).backgroundColor !== before);
    document.getElementById("theme").click();
    check("and back", getComputedStyle(document.body).backgroundColor === before);
    check("without agents nothing is said of them", document.getElementById("agents").hidden);
    check("sessions", document.querySelectorAll("#sessions tbody tr").length === 4);
    check("numbers are whole", ![...document.querySelectorAll("#sessions td, #hits text, #activity text")].some(e => /\d\.\d{3}/.test(e.textContent)));
    check("the poor ones are marked", document.querySelectorAll("#sessions .poor").length === 2);
    check("names are text", !document.querySelector("#namespaces b") && document.getElementById("namespaces").textContent.includes("<b>with</b>"));
    check("what matters comes first", document.querySelector("main > div").id === "glance");
    check("the hit rate is that of all look-ups", document.getElementById("rate").textContent === (data.tokens_found * 100 / data.tokens_asked).toFixed(1) + " %" && document.getElementById("rateOf").textContent.includes(" in 32 look-ups"));
    check("tokens and time saved", document.getElementById("saved").textContent === count(data.tokens_found) && document.getElementById("time").textContent === (data.tokens_found / 1000).toPrecision(3) + " s");
    { const s = document.getElementById("speed"); s.value = 100; s.dispatchEvent(new Event("input")); check("time at another speed", /^\d+(\.\d+)? (s|min)$/.test(document.getElementById("time").textContent) && !document.getElementById("time").textContent.startsWith((data.tokens_found / 1000).toPrecision(3))); }
    check("the shared front", tree.front.size >= 1 && [...tree.front.keys()].every(i => tree.hits[i] * 2 >= tree.hits[0]) && document.getElementById("legend").textContent.includes("shared front: " + count(tree.frontTokens) + " tokens"));
    check("disk against capacity", document.getElementById("diskOf").textContent.includes(" of ") && data.disk_bytes_max > data.disk_bytes);
    check("what to do", document.querySelectorAll("#next .poor").length >= 1 && document.getElementById("next").textContent.includes("2 of 4 sessions"));
    { const to = [...document.querySelectorAll("#hits rect title")].length && Math.max(...data.history[0].intervals.map(i => i[0])); check("no line into the future", to <= made && ![...document.querySelectorAll("#hits text")].some(e => /^\d\d:\d\d:\d\d$/.test(e.textContent) && e.textContent > new Date((made + 1) * 1000).toISOString().slice(11, 19))); }
    check("nothing is wider than the page", document.documentElement.scrollWidth <= document.documentElement.clientWidth);
    check("charts", document.querySelectorAll("svg").length === 2);
    check("all spans count the same look-ups", data.history.length === 3 && data.history.every(h => h.intervals.reduce((sum, i) => sum + i[1], 0) === 32));
    check("the hit rate is what the store counted", /\d+ look-ups, \d+\.\d % of/.test(document.querySelector("#hits title").textContent));
    check("and as a table", document.querySelectorAll("#hitTable tbody tr").length === data.history[document.getElementById("span").value].intervals.length && / %/.test(document.getElementById("hitTable").textContent));
    for (const option of document.getElementById("span").options) { const s = document.getElementById("span"); s.value = option.value; s.dispatchEvent(new Event("change")); check("spans", document.querySelector("#hits path")); }
    zoom(0); type("");
  } catch (error) { wrong.push("exception: " + error); }
  document.body.dataset.errors = pageErrors.length ? pageErrors.join("; ") : "none";
  document.body.dataset.wrong = wrong.length ? wrong.join("; ") : "none";
});
