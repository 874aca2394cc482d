"use strict";
// The page asks for stats every half a second, and changes only what has changed: focus, selection and the place where a
// reader is stay. All text is set as text, as peers choose some of it.
(() => {
  const every = 500, rows = 100, patience = 5000;
  const $ = id => document.getElementById(id);
  const make = (name, props = {}) => Object.assign(document.createElement(name), props);
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const number = n => Math.abs(n) < 10 && n % 1 ? n.toFixed(1) : Math.round(n).toLocaleString("en");
  const bytes = n => {
    let i = 0;
    for (; n >= 1024 && i < 4; i++) n /= 1024;
    return (i ? n.toFixed(1) : n) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][i];
  };
  let at = 0; // of the stats that are shown, by the clock of the process
  const age = since => {
    if (!since) return "";
    const s = Math.max(0, Math.round((at - Date.parse(since)) / 1000));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min " + s % 60 + " s";
    return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  };

  // keyed makes the children of parent be those of items, in order, and keeps nodes whose key is still there.
  function keyed(parent, items, key, create, update) {
    const old = new Map([...parent.children].map(c => [c.dataset.key, c]));
    let next = parent.firstElementChild;
    const seen = new Set();
    for (const item of items) {
      let k = key(item);
      while (seen.has(k)) k += "'";
      seen.add(k);
      let node = old.get(k);
      if (!node) {
        node = create(item);
        node.dataset.key = k;
      }
      old.delete(k);
      if (node === next) next = next.nextElementSibling;
      else parent.insertBefore(node, next);
      update(node, item);
    }
    for (const node of old.values()) node.remove();
  }

  // table shows items. A column is [heading, value, "n" for numbers]; the first one names the row.
  function table(id, caption, columns, items, key) {
    const box = $(id);
    if (!items.length) {
      if (!box.querySelector("p")) box.replaceChildren(make("p", { className: "quiet", textContent: "None." }));
      return;
    }
    let body = box.querySelector("tbody");
    if (!body) {
      const t = make("table"), head = t.createTHead().insertRow();
      t.createCaption();
      for (const [heading, , kind] of columns) head.append(make("th", { scope: "col", textContent: heading, className: kind || "" }));
      body = t.createTBody();
      const scroll = make("div", { className: "scroll", tabIndex: 0 });
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", caption);
      scroll.append(t);
      box.replaceChildren(scroll);
    }
    setText(box.querySelector("caption"), caption + leftOff(id));
    keyed(body, items, key, () => {
      const row = make("tr");
      columns.forEach(([heading, , kind], i) => {
        const cell = make(i ? "td" : "th", { className: kind || "" });
        if (!i) cell.scope = "row";
        cell.dataset.label = heading;
        row.append(cell);
      });
      return row;
    }, (row, item) => columns.forEach(([, value, kind], i) => {
      let v = value(item), cls = kind || "";
      if (Array.isArray(v)) [v, cls] = [v[0], (cls + " " + v[1]).trim()];
      const cell = row.children[i];
      setText(cell, String(v));
      if (cell.className !== cls) cell.className = cls;
    }));
  }

  let left = {};
  const lists = { addresses: ["addresses"], topics: ["topics", "listeners"], connections: ["peers"], subscriptions: ["subscriptions"], outbox: ["outboxes", "destinations"] };
  const leftOff = id => {
    const n = (lists[id] || []).reduce((sum, name) => sum + (left[name] || 0), 0);
    return n ? `: ${number(n)} more are in stats` : "";
  };

  const states = { ready: "good", open: "good", idle: "quiet", failed: "bad", gone: "bad", silent: "bad" };
  const state = s => [s, states[s] || "warn"];

  function chart(id, label, series, names) {
    const svg = $(id), points = 300;
    const top = Math.max(1, ...series.flat());
    let html = svg.querySelectorAll("polyline");
    if (!html.length) {
      for (let i = 1; i < 4; i++) {
        const line = document.createElementNS(svg.namespaceURI, "line");
        for (const [k, v] of Object.entries({ x1: 0, x2: 600, y1: 30 * i, y2: 30 * i })) line.setAttribute(k, v);
        svg.append(line);
      }
      for (const cls of ["a", "b"]) {
        const line = document.createElementNS(svg.namespaceURI, "polyline");
        line.setAttribute("class", cls);
        svg.append(line);
      }
      html = svg.querySelectorAll("polyline");
    }
    series.forEach((values, i) => {
      const from = points - values.length;
      html[i].setAttribute("points", values.map((v, j) => `${((from + j) * 600 / (points - 1)).toFixed(1)},${(116 - 112 * v / top).toFixed(1)}`).join(" "));
      setText($("v-" + names[i]), number(values.at(-1) || 0));
    });
    svg.setAttribute("aria-label", `${label}: now ${names.map((n, i) => number(series[i].at(-1) || 0) + " " + n).join(", ")}; at most ${number(top)}`);
  }

  const group = g => g.group || "(none)";

  function show(s) {
    at = Date.parse(s.at);
    left = s.left_off || {};
    document.title = (s.ready && !s.stuck.length ? "" : "! ") + s.title;
    setText($("title"), s.title);
    const count = s.stuck.length + (left.stuck || 0);
    const words = s.ready ? "Ready" : "Not ready: " + s.not_ready.slice(0, 3).join("; ");
    // Read out when it changes: so without ages and counts that always do.
    setText($("state"), count ? `${words}. ${count === 1 ? "1 thing is" : count + " things are"} stuck.` : words + ".");
    $("state").className = !s.ready || s.stuck.some(x => x.critical) ? "bad" : count ? "warn" : "good";
    $("no-stuck").hidden = count > 0;
    $("stuck").hidden = count === 0;
    keyed($("stuck"), s.stuck, x => x.what + " " + x.name + x.why.slice(0, 10), () => {
      const li = make("li");
      li.append(make("b"), make("span"));
      return li;
    }, (li, x) => {
      li.className = x.critical ? "critical" : "";
      setText(li.firstChild, (x.critical ? "Critical: " : "Warning: ") + x.what + " " + x.name);
      setText(li.lastChild, ": " + x.why + (x.since ? ", for " + age(x.since) : ""));
    });
    chart("c-out", "Messages per second", [s.rates.sent, s.rates.settled], ["sent", "settled"]);
    chart("c-in", "Messages per second", [s.rates.received, s.rates.handled], ["received", "handled"]);

    table("addresses", "Addresses that this process publishes to", [
      ["Address", a => a.address], ["Of", a => a.source], ["State", a => state(a.state)], ["For", a => age(a.since), "n"],
      ["Pending", a => number(a.pending), "n"], ["Oldest", a => age(a.oldest_unsettled), "n"], ["Sent", a => number(a.sent), "n"],
      ["Settled", a => number(a.settled), "n"], ["Refused", a => number(a.refused), "n"], ["Connects", a => number(a.connects), "n"],
      ["Last error", a => a.last_error || ""],
    ], s.addresses, a => a.source + " " + a.address);

    const topics = s.listeners.flatMap(l => l.topics.flatMap(t => (t.groups.length ? t.groups : [{ group: "", none: true }]).map(g => ({ l, t, g }))));
    table("topics", "Topics that this process listens for, a row for each group", [
      ["Topic", r => r.t.topic || "(empty)"], ["Group", r => r.g.none ? "no group yet" : group(r.g)], ["At", r => r.l.bound], ["State", r => state(r.l.state)],
      ["Lag", r => [number(r.g.lag || 0), r.g.lag >= r.t.window ? "bad" : ""], "n"], ["In flight", r => number(r.g.in_flight || 0), "n"],
      ["Oldest", r => age(r.g.oldest_unsettled), "n"], ["Members", r => number(r.g.members || 0), "n"], ["Received", r => number(r.t.received), "n"],
      ["Settled", r => number(r.g.settled || 0), "n"], ["Stuck keys", r => (r.g.stuck_keys || []).map(k => `${k.key} (${k.waiting})`).join(", ")],
    ], topics, r => [r.l.source, r.l.bound, r.t.topic, r.g.group].join(" "));

    table("connections", "Connections that publishers have made to this process", [
      ["From", r => r.p.address], ["To", r => r.l.bound], ["Principal", r => r.p.principal || ""], ["Software", r => r.p.agent || ""],
      ["For", r => age(r.p.since), "n"], ["Topics", r => number(r.p.streams), "n"],
    ], s.listeners.flatMap(l => l.peers.map(p => ({ l, p }))), r => r.l.bound + " " + r.p.address);

    table("subscriptions", "Subscriptions of this process", [
      ["Topic", r => r.topic], ["Of", r => r.source], ["Group", group], ["Offered", r => number(r.offered), "n"], ["Slow", r => number(r.slow), "n"],
      ["Oldest", r => age(r.oldest_in_flight), "n"], ["Redelivered", r => number(r.redelivered), "n"], ["Dead letters", r => number(r.dead_lettered), "n"],
    ], s.subscriptions, r => [r.source, r.topic, r.group].join(" "));

    table("outbox", "Outboxes, a row for each destination", [
      ["Destination", r => r.d.name], ["Of", r => r.o.source], ["Directory", r => r.o.name], ["State", r => r.o.err ? [r.o.err, "bad"] : r.o.delivering ? ["delivering", "good"] : ["not delivered", "warn"]],
      ["Pending", r => number(r.d.pending), "n"], ["Bytes", r => bytes(r.d.bytes), "n"], ["Of quota", r => r.o.quota_bytes ? Math.round(100 * r.d.bytes / r.o.quota_bytes) + " %" : "", "n"],
      ["Oldest", r => age(r.d.oldest_unsettled), "n"],
    ], s.outboxes.flatMap(o => (o.destinations && o.destinations.length ? o.destinations : [{ name: "(none)", pending: 0, bytes: 0 }]).map(d => ({ o, d }))), r => r.o.name + " " + r.d.name);

    table("memory", "Memory of what is on its way", [
      ["Manager", r => r.source], ["Limit of each", r => bytes(r.limit), "n"], ["Sending", r => bytes(r.sending), "n"], ["Receiving", r => bytes(r.receiving), "n"],
    ], s.memory, r => r.source);
    setText($("at"), "as of " + new Date(at).toLocaleTimeString("en", { hour12: false }));
  }

  let paused = false, heard = Date.now();
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Paused" : "Pause";
  });

  async function look() {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch("stats?limit=" + rows, { signal: AbortSignal.timeout(patience) });
        if (!answer.ok) throw new Error("the answer is " + answer.status);
        const s = await answer.json();
        if (s.version !== 1) throw new Error("its form is version " + s.version + ": load the page again");
        heard = Date.now();
        $("offline").hidden = true;
        if (!paused) show(s); // it can have been pressed since the question
      } catch (e) {
        const text = `No statistics from this process since ${new Date(heard).toLocaleTimeString("en", { hour12: false })}: ${e.message}`;
        setText($("offline"), text);
        $("offline").hidden = false;
      }
    }
    setTimeout(look, every);
  }
  look();
})();
