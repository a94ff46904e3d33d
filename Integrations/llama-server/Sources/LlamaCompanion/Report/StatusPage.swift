/// The page `/kvstore`: everything in one file, fed by `/kvstore/status`, `/kvstore/requests` and `/kvstore/sessions`.
///
/// What a request says goes into it as text only.
let statusPage = #"""
  <!doctype html>
  <html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>kvstore-llama</title>
  <style>
    :root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #2a8a4a; --bad: #b4442e }
    body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem }
    h1 { font-size: 1.25rem; margin: 0 0 .2rem } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem }
    .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .6rem; margin-top: 1rem }
    .tiles div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
    .tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums }
    .bar { height: .5rem; background: var(--soft); border-radius: .25rem; overflow: hidden; min-width: 6rem }
    .bar i { display: block; height: 100%; background: var(--good) }
    table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
    th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
    th { font-weight: 600 } .why { max-width: 38rem } .dim { opacity: .7 } .bad { color: var(--bad) }
    .wide { overflow-x: auto }
  </style>
  <h1>kvstore-llama</h1>
  <div id="standing" class="dim" role="status">asking …</div>
  <form id="login" hidden><label>API key of the companion <input id="key" type="password" autocomplete="off"></label> <button>Show</button></form>
  <div class="tiles" id="tiles"></div>
  <h2>Slots</h2><div class="wide"><table id="slots"></table></div>
  <h2>Last requests</h2><div class="wide"><table id="requests"></table></div>
  <h2>Conversations</h2><div class="wide"><table id="sessions"></table></div>
  <script>
    const element = (name, text, kind) => {
      const made = document.createElement(name);
      if (text !== undefined) made.textContent = text;
      if (kind) made.className = kind;
      return made;
    };
    const count = value => Number(value || 0).toLocaleString("en");
    const share = (part, whole) => whole ? Math.min(100, 100 * part / whole) : 0;
    const bar = percent => {
      const outer = element("div", undefined, "bar"), inner = element("i");
      inner.style.width = percent + "%";
      outer.title = percent.toFixed(1) + " %";
      outer.append(inner);
      return outer;
    };
    const table = (id, heads, rows) => {
      const head = element("tr");
      for (const text of heads) head.append(element("th", text));
      const lines = rows.map(cells => {
        const line = element("tr");
        for (const cell of cells) {
          const box = element("td");
          cell instanceof Node ? box.append(cell) : box.textContent = cell ?? "";
          line.append(box);
        }
        return line;
      });
      document.getElementById(id).replaceChildren(head, ...lines);
    };
    // The companion's API key, where it has one: asked for, kept for this tab.
    const ask = async path => {
      const key = sessionStorage.getItem("key");
      const answer = await fetch(path, key ? {headers: {authorization: "Bearer " + key}} : {});
      document.getElementById("login").hidden = answer.status !== 401;
      if (answer.status === 401) throw new Error("the API key is needed");
      return answer.json();
    };
    document.getElementById("login").addEventListener("submit", event => {
      event.preventDefault();
      sessionStorage.setItem("key", document.getElementById("key").value);
      show();
    });
    let timer;
    async function show() {
      try {
        const [status, requests, sessions] =
          await Promise.all([ask("/kvstore/status"), ask("/kvstore/requests"), ask("/kvstore/sessions")]);
        const standing = document.getElementById("standing");
        standing.textContent = status.standing === "attached"
          ? `beside ${status.model} (${status.build})` : `${status.standing}: ${status.why}`;
        standing.className = status.standing === "attached" ? "dim" : "bad";
        const reused = status.tokens_memory + status.tokens_restored;
        const tiles = [
          [share(reused, status.tokens).toFixed(1) + " %", "of all prompt tokens were not computed"],
          [status.seconds_saved.toFixed(1) + " s", "of computing saved by the store"],
          [count(status.tokens_restored), "tokens restored"], [count(status.helped), "requests looked up"],
          [status.store ? (status.store.bytes_used / 1073741824).toFixed(2) + " GiB" : "none", "in the store"],
        ];
        document.getElementById("tiles").replaceChildren(...tiles.map(([value, text]) => {
          const tile = element("div");
          tile.append(element("b", value), element("span", text, "dim"));
          return tile;
        }));
        table("slots", ["slot", "tokens", "of them restored", ""],
          status.slots.map(slot => [slot.id, count(slot.tokens), count(slot.restored), slot.busy ? "in use" : "idle"]));
        table("requests", ["time", "path", "tokens", "reused", "", "from", "computed", "why the rest was computed"],
          requests.slice(0, 40).map(request => {
            const used = Math.max(request.memory, request.restored);
            return [
              new Date(request.time).toLocaleTimeString(), request.path, count(request.tokens), count(used),
              bar(share(used, request.tokens)), request.passed ? "passed on" : request.tier,
              count(request.computed), element("div", request.passed || request.problem || request.why || "", "why"),
            ];
          }));
        table("sessions", ["conversation", "requests", "tokens now", "reused"],
          sessions.slice(0, 20).map(session => [
            session.id.slice(0, 8), count(session.requests), count(session.last_tokens),
            bar(share(session.reused, session.tokens)),
          ]));
      } catch (problem) {
        document.getElementById("standing").textContent = problem instanceof TypeError ? "the companion does not answer" : problem.message;
        document.getElementById("standing").className = "bad";
      }
      clearTimeout(timer);
      timer = setTimeout(show, 2000);
    }
    show();
  </script>
  </html>
  """#
