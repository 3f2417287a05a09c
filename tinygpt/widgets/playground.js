// The playground without Python: the logits of each place of a text, and the filters.
// The filters are those of tinygpt.decoding, with its float32 arithmetic, one after the other.

const ROUNDING = 3e-6, round = Math.fround;

function softmax(logits) {
  const largest = Math.max(...logits);
  const odds = logits.map((x) => Math.exp(x - largest));
  const total = odds.reduce((a, b) => a + b, 0);
  return odds.map((x) => x / total);
}

const keep = (logits, kept) => logits.map((x, i) => (kept(x, i) ? x : -Infinity));

// Places from the most probable to the least; of equal ones the first.
const order = (x) => [...x.keys()].sort((a, b) => (x[b] > x[a]) - (x[b] < x[a]) || a - b);

const FILTERS = {
  repetition: (x, penalty, before) => x.map((v, i) => !before.has(i) ? v
    : round(v < 0 ? v * round(penalty) : v / round(penalty))),
  bans: (x, allowed) => keep(x, (_, i) => allowed[i]),
  temperature: (x, t) => t === 0 ? keep(x, (_, i) => i === order(x)[0])
    : x.map((v) => round(v / round(t))),
  "top-k": (x, k) => {
    const kept = new Set(order(x).slice(0, k));
    return keep(x, (_, i) => kept.has(i));
  },
  "top-p": (x, mass) => {
    const p = softmax(x), kept = new Set();
    let before = 0;
    for (const i of order(x)) {
      if (before < mass - ROUNDING * mass * (1 - mass)) kept.add(i);
      before += p[i];
    }
    return keep(x, (_, i) => kept.has(i));
  },
  "min-p": (x, share) => {
    const least = Math.max(...x) + Math.log(share) - ROUNDING;
    return keep(x, (v) => v >= least);
  },
};
const OFF = { repetition: 1, bans: null, temperature: 1, "top-k": 0, "top-p": 1, "min-p": 0 };

// The distribution after each step that is on: [{name, value, logits, p}], the model's own first.
function distributions(data, place, options) {
  const V = data.pieces.length, end = data.first + place;
  let logits = Array.from(data.logits.subarray(place * V, (place + 1) * V));
  const before = new Set(data.tokens.slice(Math.max(0, end - options.window), end));
  const found = [{ name: "model", value: null, logits, p: softmax(logits) }];
  for (const name of Object.keys(FILTERS)) {
    const value = name === "bans" ? data.allowed : options[name];
    if (value === OFF[name]) continue;
    logits = FILTERS[name](logits, value, before);
    found.push({ name, value: name === "bans" ? null : value, logits, p: softmax(logits) });
  }
  return found;
}

const entropy = (p) => -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);

function column(stage, before, rows, scale) {
  const cells = rows.map((i) => {
    const cut = stage.logits[i] === -Infinity, gone = cut && before.logits[i] !== -Infinity;
    const bar = (x) => `<i style="--x:${(x / scale).toFixed(4)}"></i>`;
    const inside = gone ? `${bar(before.p[i])}<span>×</span>`
      : cut ? "" : `${bar(stage.p[i])}<span>${(100 * stage.p[i]).toFixed(1)}</span>`;
    return `<div class="row${gone ? " cut" : ""}">${inside}</div>`;
  });
  const h = entropy(stage.p), value = stage.value === null ? "&nbsp;" : stage.value;
  const head = `<b>${stage.name}</b><b>${value}</b><small>${h.toFixed(2)} nats</small>`
    + `<small>${Math.exp(h).toFixed(1)} choices</small>`;
  const first = stage === before ? " first" : "";
  return `<div class="column${first}"><div class="head">${head}</div>${cells.join("")}</div>`;
}

function drawn(data, found, place) {
  const written = data.tokens[data.first + place], rows = order(found[0].p).slice(0, 20);
  if (written !== undefined && !rows.includes(written)) rows[rows.length - 1] = written;
  const scale = Math.max(...found.flatMap((stage) => stage.p)), last = found[found.length - 1];
  const names = rows.map((i) =>
    `<div class="row${i === written ? " written" : ""}">${escaped(data.labels[i])}</div>`);
  const columns = found.map((stage, n) => column(stage, found[Math.max(0, n - 1)], rows, scale));
  const fate = (i) => {
    const cut = found.find((stage) => stage.logits[i] === -Infinity);
    return cut ? `cut by ${cut.name}` : "kept";
  };
  const table = rows.map((i) => `<tr><th class="c" scope="row">${escaped(data.labels[i])}</th>`
    + `<td>${(100 * found[0].p[i]).toFixed(2)}</td><td>${(100 * last.p[i]).toFixed(2)}</td>`
    + `<td class="t">${fate(i)}</td></tr>`);
  return `<div class="tg"><p><b>What may come at place ${place + 1}</b> of the text`
    + ` (blue: what was written), after each step, in per cent</p><div class="chart" role="img"`
    + ` aria-label="The distribution after each step; the table below has the same in numbers">`
    + `<div class="column symbols" style="--width:${data.width}px"><div class="head"></div>`
    + `${names.join("")}</div>${columns.join("")}</div><details><summary>The same in numbers`
    + `</summary><table><thead><tr><th class="c">${data.unit}</th><th>model %</th><th>after %</th>`
    + `<th class="t">what became of it</th></tr></thead><tbody>${table.join("")}</tbody></table>`
    + `</details></div>`;
}

function text(data, place) {
  const here = data.first + place;
  const marked = data.tokens.map((token, i) => {
    const piece = escaped(data.pieces[token]), mark = escaped(data.labels[token]);
    if (i !== here) return i < data.first ? `<span>${piece}</span>` : piece;
    return `<mark class="here">${mark}</mark>${data.pieces[token].endsWith("\n") ? "\n" : ""}`;
  });
  return `<div class="tg"><p><b>The text.</b> It was written with ${escaped(data.settings)}</p>`
    + `<pre>${marked.join("")}</pre></div>`;
}

unpack().then((data) => {
  const bytes = Uint8Array.from(atob(data.logits), (c) => c.charCodeAt(0));
  data.logits = new Float32Array(bytes.buffer);
  window.data = data;
  const boxes = [view(), view()], controls = {};
  const show = () => {
    const options = Object.fromEntries(
      Object.entries(controls).map(([name, control]) => [name, Number(control.value)]));
    const found = distributions(data, options.place - 1, options);
    boxes[0].innerHTML = drawn(data, found, options.place - 1);
    boxes[1].innerHTML = text(data, options.place - 1);
  };
  for (const [name, label, low, high, step, value] of data.sliders) {
    const digits = step < 1 ? 2 : 0;
    controls[name] = slider(label, low, high, step, value, (x) => x.toFixed(digits), show);
  }
  show();
});
