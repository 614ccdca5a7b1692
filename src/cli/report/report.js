'use strict';
// The report's page: draws everything from the JSON in #data. No library, no network.

window.addEventListener('error', e => { document.documentElement.dataset.error = e.message; });

const data = JSON.parse(document.getElementById('data').textContent);
const rows = data.rows, llama = rows[0], exact = rows[1], pics = data.pictures;
const methods = rows.slice(2);
const $ = id => document.getElementById(id);

// ---------------------------------------------------------------- text

const known = x => x !== null && x !== undefined;
const fixed = (x, n) => known(x) ? x.toFixed(n) : '–';
const signed = (x, n) => known(x) ? (x < 0 ? '−' : '+') + Math.abs(x).toFixed(n) : '–';
const percent = (x, n = 0) => known(x) ? (100 * x).toFixed(n) + ' %' : '–';
const count = n => n.toLocaleString('en').replace(/,/g, ' ');
const baseName = s => s.split(':')[0];
const params = s => s.includes(':') ? s.slice(s.indexOf(':') + 1).replace(/,/g, ', ') : '';
// The short name where it says which row is meant, else the whole specification.
const label = r => rows.filter(o => baseName(o.name) === baseName(r.name)).length > 1 ? r.name : baseName(r.name);
const fileName = path => path.split('/').pop();

function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
const svgText = (x, y, text, attributes = {}) => svg('text', {x, y, ...attributes}, text);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Every row has a colour AND a shape.
const colour = i => `var(--m${i % 8})`;
function marker(i, x, y, r = 7) {
  const polygon = points => svg('polygon', {points: points.map(([a, b]) => `${x + a * r},${y + b * r}`).join(' ')});
  const shapes = [
    () => svg('circle', {cx: x, cy: y, r: r * .8}),
    () => svg('rect', {x: x - r * .8, y: y - r * .8, width: r * 1.6, height: r * 1.6}),
    () => polygon([[0, -1.1], [1, .8], [-1, .8]]),
    () => polygon([[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]]),
    () => polygon([[0, 1.1], [1, -.8], [-1, -.8]]),
    () => polygon([[-.3, -1], [.3, -1], [.3, -.3], [1, -.3], [1, .3], [.3, .3], [.3, 1], [-.3, 1], [-.3, .3],
                   [-1, .3], [-1, -.3], [-.3, -.3]]),
  ];
  const m = shapes[i % shapes.length]();
  m.setAttribute('fill', colour(i));
  return m;
}

// ---------------------------------------------------------------- top, table

function drawTop() {
  $('title').textContent = `How ${data.model_description.replace(/ \(.*/, '')} reads ${count(data.tokens)} tokens`;
  $('subtitle').textContent = `${fileName(data.text)} · ${data.machine} · ${data.threads} threads · ${data.date}`;
}

function card(id, what, big, more) {
  $('headline').append(element('div', {class: 'card', id},
    element('div', {class: 'what'}, what), element('div', {class: 'big'}, big), element('div', {class: 'more'}, more)));
}

function drawHeadline() {
  card('card-exact', 'Exact attention on Regard', fixed(exact.attention_speedup, 2) + '×',
       `as fast as llama.cpp's own; the whole prefill ${fixed(exact.prefill_speedup, 2)}×. The likeliest next ` +
       `token is the same at ${percent(llama.top1, 1)} of the scored positions.`);
  // Fastest among those that hardly lose; if all lose, the one that loses least.
  const faithful = methods.filter(r => r.loss_rise <= 0.01);
  const best = faithful.length
      ? faithful.reduce((a, b) => b.attention_s < a.attention_s ? b : a)
      : methods.length ? methods.reduce((a, b) => b.loss_rise < a.loss_rise ? b : a) : null;
  if (best) {
    card('card-best', faithful.length ? 'Fastest method that keeps the loss within 0.01' : 'Most faithful method',
         fixed(best.attention_speedup, 2) + '×',
         `attention with ${label(best)}, at ${percent(best.density)} of the pairs; loss ${signed(best.loss_rise, 4)}, ` +
         `the whole prefill ${fixed(best.prefill_speedup, 2)}×.`);
  }
  card('card-limit', 'If attention cost nothing', fixed(data.best_possible_speedup, 2) + '×',
       `would be the whole prefill's best: attention is ${percent(data.attention_share)} of llama.cpp's time here.`);
}

function drawTable() {
  const head = ['', 'Prefill', 'Attention', 'Density', 'Loss', 'Rise', 'KL', 'Top-1', 'Peak memory'];
  $('table').append(element('thead', {}, element('tr', {}, ...head.map(h => element('th', {scope: 'col'}, h)))));
  const body = element('tbody');
  rows.forEach((r, i) => {
    const name = element('td', {}, svg('svg', {viewBox: '0 0 20 20', 'aria-hidden': 'true'}, marker(i, 10, 10, 8)),
                         baseName(r.name) + (data.beyond_train_ctx ? ' *' : ''));
    if (params(r.name)) name.append(element('span', {class: 'params'}, params(r.name)));
    const timed = (s, speed) => element('td', {}, fixed(s, 2) + ' s', element('small', {}, fixed(speed, 2) + '×'));
    body.append(element('tr', {'data-row': r.name}, name, timed(r.prefill_s, r.prefill_speedup),
      timed(r.attention_s, r.attention_speedup),
      ...[percent(r.density, 1), fixed(r.loss, 4), signed(r.loss_rise, 4), fixed(r.kl, 5), percent(r.top1, 1),
          fixed(r.peak_mib, 0) + ' MiB'].map(t => element('td', {}, t))));
  });
  $('table').append(body);
  const note = text => $('notes').append(element('li', {}, text));
  if (data.beyond_train_ctx) {
    note(`* ${count(data.ctx)} tokens of context are more than the ${count(data.train_ctx)} the model was trained for.`);
  }
  note(`Rise, KL(exact ‖ row) and top-1 are against exact, at ${count(data.scored)} evenly spaced positions. ` +
       '× is speed against llama.cpp\'s own.');
  for (const r of rows) {
    for (const [reason, calls] of Object.entries(r.exact_calls)) {
      note(`${label(r)} ran exactly in ${count(calls)} of ${count(r.calls)} calls: ${reason}.`);
    }
  }
}

// ---------------------------------------------------------------- plots

// About `n` round numbers that span [low, high].
function ticks(low, high, n) {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= rough * .999);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(v);
  return {values: out, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0))};
}

function drawTradeoff() {
  const W = 560, H = 380, left = 66, right = 24, top = 14, bottom = 46;
  const points = rows.map((r, i) => ({r, i})).filter(p => known(p.r.loss_rise));
  const xMax = Math.max(...points.map(p => p.r.attention_s)) * 1.18;
  const rises = points.map(p => p.r.loss_rise);
  const span = Math.max(0.004, Math.max(...rises) - Math.min(0, ...rises));
  const yMin = Math.min(0, ...rises) - span * .12, yMax = Math.max(0, ...rises) + span * .14;
  const x = v => left + v / xMax * (W - left - right);
  const y = v => top + (yMax - v) / (yMax - yMin) * (H - top - bottom);
  const s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img',
                        'aria-label': 'Loss rise against attention seconds; the numbers are in the table'});
  const xt = ticks(0, xMax, 6), yt = ticks(yMin, yMax, 6);
  for (const v of xt.values) {
    s.append(svg('line', {x1: x(v), x2: x(v), y1: top, y2: H - bottom, class: 'grid'}),
             svgText(x(v), H - bottom + 18, v.toFixed(xt.digits), {'text-anchor': 'middle', class: 'soft'}));
  }
  for (const v of yt.values) {
    s.append(svg('line', {x1: left, x2: W - right, y1: y(v), y2: y(v), class: 'grid'}),
             svgText(left - 8, y(v) + 4, Math.abs(v) < 1e-12 ? '0' : signed(v, yt.digits), {'text-anchor': 'end', class: 'soft'}));
  }
  s.append(svg('line', {x1: left, x2: W - right, y1: y(0), y2: y(0), class: 'guide'}));
  s.append(svgText((left + W - right) / 2, H - 8, 'attention, seconds', {'text-anchor': 'middle', class: 'soft'}));
  const axis = svgText(16, (top + H - bottom) / 2, 'loss rise', {'text-anchor': 'middle', class: 'soft'});
  axis.setAttribute('transform', `rotate(-90 16 ${(top + H - bottom) / 2})`);
  s.append(axis);
  placeLabels(points.map(p => ({...p, x: x(p.r.attention_s), y: y(p.r.loss_rise), text: label(p.r)})),
              {left, right: W - right, top, bottom: H - bottom}).forEach(p => {
    const group = svg('g', {class: 'point', 'data-row': p.r.name}, svg('title', {},
      `${p.r.name}: ${fixed(p.r.attention_s, 2)} s, ${signed(p.r.loss_rise, 4)}`));
    if (p.far) group.append(svg('line', {x1: p.x, y1: p.y, x2: p.tx + (p.anchor === 'end' ? 3 : -3), y2: p.ty - 4, class: 'grid'}));
    group.append(marker(p.i, p.x, p.y), svgText(p.tx, p.ty, p.text, {'text-anchor': p.anchor}));
    s.append(group);
  });
  $('tradeoff-plot').replaceChildren(s);
}

// Labels beside their points, tried right, left, then further up and down until nothing overlaps.
function placeLabels(points, box) {
  const taken = points.map(p => ({x0: p.x - 9, x1: p.x + 9, y0: p.y - 9, y1: p.y + 9}));
  for (const p of points) {
    const width = p.text.length * 7.2;
    const spots = [];
    for (const dy of [0, -20, 20, -40, 40, -60, 60, -80, 80]) {
      for (const side of [1, -1]) spots.push({dy, side});
    }
    let chosen = null;
    for (const {dy, side} of spots) {
      const tx = p.x + side * 13, ty = p.y + 5 + dy;
      const r = {x0: side > 0 ? tx : tx - width, x1: side > 0 ? tx + width : tx, y0: ty - 13, y1: ty + 4};
      const inside = r.x0 >= box.left && r.x1 <= box.right + 20 && r.y0 >= box.top - 6 && r.y1 <= box.bottom;
      const free = taken.every(t => t.x1 < r.x0 || t.x0 > r.x1 || t.y1 < r.y0 || t.y0 > r.y1);
      if (inside && free) { chosen = {tx, ty, side, dy, r}; break; }
    }
    chosen = chosen || {tx: p.x + 13, ty: p.y + 5, side: 1, dy: 0, r: {x0: 0, x1: 0, y0: 0, y1: 0}};
    taken.push(chosen.r);
    Object.assign(p, {tx: chosen.tx, ty: chosen.ty, anchor: chosen.side > 0 ? 'start' : 'end', far: chosen.dy !== 0});
  }
  return points;
}

function drawTime() {
  const W = 560, row = 50, top = 26, H = top + rows.length * row + 44, right = 20;
  const xMax = Math.max(...rows.map(r => r.prefill_s)) * 1.1;
  const x = v => v / xMax * (W - right);
  const s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Attention and other seconds by row'});
  s.append(svg('rect', {x: 0, y: 2, width: 14, height: 12, fill: 'var(--ink)'}), svgText(20, 13, 'attention'),
           svg('rect', {x: 104, y: 2, width: 14, height: 12, fill: 'var(--rest)'}), svgText(124, 13, 'all else'));
  rows.forEach((r, i) => {
    const y = top + i * row, a = x(r.attention_s), all = x(r.prefill_s);
    s.append(svgText(0, y + 16, label(r)),
             svgText(W - right, y + 16, `${fixed(r.prefill_s, 2)} s`, {'text-anchor': 'end'}),
             svg('rect', {x: 0, y: y + 22, width: a, height: 18, fill: colour(i)}),
             svg('rect', {x: a, y: y + 22, width: Math.max(0, all - a), height: 18, fill: 'var(--rest)'}));
    const inside = a > 62;
    s.append(svgText(inside ? a - 6 : a + 6, y + 35, `${fixed(r.attention_s, 2)} s`,
                     {'text-anchor': inside ? 'end' : 'start', style: inside ? 'fill: var(--card)' : ''}));
  });
  const limit = x(llama.prefill_s - llama.attention_s), bottom = top + rows.length * row;
  s.append(svg('line', {x1: limit, x2: limit, y1: top + 22, y2: bottom + 10, class: 'guide'}));
  s.append(svgText(Math.min(limit, W - 190), bottom + 28, 'if attention cost nothing', {'text-anchor': limit > 170 ? 'middle' : 'start', class: 'soft'}));
  $('time-plot').replaceChildren(s);
}

// ---------------------------------------------------------------- maps

const dark = () => matchMedia('(prefers-color-scheme: dark)').matches;
const ramps = {  // lightness runs one way in each, so they also read in grey
  light: {mass: ['#faf8f4', '#d5e3ea', '#86b6cf', '#3b79a8', '#123a66', '#061a33'],
          missed: ['#faf8f4', '#f6dccf', '#eca58c', '#d4593f', '#98210f', '#4a0a04']},
  dark: {mass: ['#161b21', '#1d3347', '#28608a', '#4b9cc0', '#a5d9d8', '#fbfbe6'],
         missed: ['#161b21', '#452420', '#8a3428', '#d85c3f', '#ffab7d', '#fff3d6']},
};
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
function ramp(name, t) {
  const stops = ramps[dark() ? 'dark' : 'light'][name];
  const p = Math.max(0, Math.min(1, t)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(p));
  const a = rgb(stops[i]), b = rgb(stops[i + 1]);
  return a.map((v, c) => v + (b[c] - v) * (p - i));
}

// Bytes of the lower triangle; see CellMap.
const decoded = new Map();
function bytes(head) {
  if (!decoded.has(head)) decoded.set(head, Uint8Array.from(atob(head.map), c => c.charCodeAt(0)));
  return decoded.get(head);
}
const at = (r, c) => r * (r + 1) / 2 + c;
const logFloor = -Math.log10(pics.mass_floor);
const massOf = b => b === 0 ? 0 : 10 ** (((b - 1) / 254 - 1) * logFloor);  // share of a query's attention
const massLevel = share => share <= pics.mass_floor ? 0 : 1 + Math.log10(share) / logFloor;

// Paints one pixel a cell; `shade(r, c)` gives [r, g, b] for c <= r.
function paint(canvas, shade) {
  const n = pics.grid;
  canvas.width = canvas.height = n;
  const context = canvas.getContext('2d'), image = context.createImageData(n, n);
  for (let r = 0; r < n; ++r) {
    for (let c = 0; c <= r; ++c) {
      const p = 4 * (r * n + c), v = shade(r, c);
      for (let k = 0; k < 3; ++k) image.data[p + k] = v[k];
      image.data[p + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);  // above the diagonal stays transparent
}

const state = {method: 0, layer: 0, head: 0};
const planOf = (m, l, h) => pics.methods[m] ? pics.methods[m].maps[l][h] : null;
const exactOf = (l, h) => pics.exact[l][h];

function paintPlan(canvas, plan) {
  const keep = rgb(css('--keep')), empty = rgb(css('--empty')), b = bytes(plan);
  paint(canvas, (r, c) => {
    const share = b[at(r, c)] / 255, t = share === 0 ? 0 : .3 + .7 * share;
    return empty.map((v, k) => v + (keep[k] - v) * t);
  });
}

function paintMaps() {
  const plan = planOf(state.method, state.layer, state.head);
  const mass = bytes(exactOf(state.layer, state.head)), kept = plan && bytes(plan);
  const missing = i => massOf(mass[i]) * (1 - kept[i] / 255);
  const mark = kept && $('overlay').checked;
  paint($('map-exact'), (r, c) => {
    const i = at(r, c), level = massLevel(massOf(mass[i])), blue = ramp('mass', level);
    if (!mark || kept[i] === 255) return blue;
    const red = ramp('missed', level), t = 1 - kept[i] / 255;
    return blue.map((v, k) => v + (red[k] - v) * t);
  });
  if (!kept) return;
  paintPlan($('map-plan'), plan);
  paint($('map-missed'), (r, c) => ramp('missed', massLevel(missing(at(r, c)))));
  let worst = null;
  for (let r = 0; r < pics.grid; ++r) {
    for (let c = 0; c <= r; ++c) {
      const m = missing(at(r, c));
      if (!worst || m > worst.m) worst = {m, r, c};
    }
  }
  $('worst').textContent = worst.m > 1e-4
      ? `Largest: queries ${tokens(worst.r)} lose ${percent(worst.m, 1)} of their attention, to keys ${tokens(worst.c)}.`
      : 'Nothing above 0.01 % of a query\'s attention.';
}

const tokens = i => `${count(i * pics.cell)}–${count(Math.min((i + 1) * pics.cell, data.tokens) - 1)}`;

function drawVerdict() {
  const plan = planOf(state.method, state.layer, state.head), layer = pics.layers[state.layer];
  if (!plan) { $('verdict').textContent = `Layer ${layer}, head ${state.head}.`; return; }
  const row = rows.find(r => r.name === pics.methods[state.method].name);
  const density = (row.density_by_head[layer] || [])[state.head];
  $('verdict').textContent = `In layer ${layer}, head ${state.head}, ${label(row)} reads ${percent(density, 1)} of the pairs` +
      (known(plan.mass) ? ` and keeps ${percent(plan.mass, 1)} of the attention.` : '.');
}

function drawHeads() {
  $('heads').replaceChildren(...pics.exact[state.layer].map((_, h) => {
    const canvas = element('canvas'), plan = planOf(state.method, state.layer, h);
    const button = element('button', {type: 'button', 'aria-pressed': String(h === state.head), 'data-head': h},
      canvas, `head ${h}`);
    if (plan) {
      paintPlan(canvas, plan);
      button.append(element('span', {}, known(plan.mass) ? `keeps ${percent(plan.mass, 1)}` : ''));
    } else {
      const b = bytes(exactOf(state.layer, h));
      paint(canvas, (r, c) => ramp('mass', massLevel(massOf(b[at(r, c)]))));
    }
    button.addEventListener('click', () => choose({head: h}));
    return button;
  }));
}

function drawScale() {
  const W = 620, H = 66, left = 4, right = 4, s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img',
    'aria-label': 'Colour scale: share of a query\'s attention, logarithmic'});
  const x = t => left + t * (W - left - right);
  ['mass', 'missed'].forEach((name, line) => {
    if (line && !pics.methods.length) return;
    for (let i = 0; i < 120; ++i) {
      s.append(svg('rect', {x: x(i / 120), y: 2 + line * 12, width: (W - 8) / 120 + .6, height: 11,
                            fill: `rgb(${ramp(name, i / 119).map(Math.round)})`}));
    }
  });
  for (let e = -logFloor; e <= 0.01; ++e) {
    const t = 1 + e / logFloor;
    const text = e >= -2.01 ? `${Math.round(100 * 10 ** e)} %` : `${(100 * 10 ** e).toPrecision(1)} %`;
    s.append(svgText(x(t), 42, text, {'text-anchor': t < .01 ? 'start' : t > .99 ? 'end' : 'middle', class: 'soft'}));
  }
  s.append(svgText(left, 62, 'share of a query\'s attention that goes to the cell, mean over its queries', {class: 'soft', 'font-size': 11}));
  $('scale').replaceChildren(s);
}

function readout(event) {
  const canvas = event.currentTarget, box = canvas.getBoundingClientRect();
  const c = Math.floor((event.clientX - box.left) / box.width * pics.grid);
  const r = Math.floor((event.clientY - box.top) / box.height * pics.grid);
  if (c < 0 || c > r || r >= pics.grid) { $('readout').textContent = ''; return; }
  const plan = planOf(state.method, state.layer, state.head), share = massOf(bytes(exactOf(state.layer, state.head))[at(r, c)]);
  $('readout').textContent = `Queries ${tokens(r)}, keys ${tokens(c)}: ${percent(share, 3)} of the attention` +
      (plan ? `; the plan reads ${percent(bytes(plan)[at(r, c)] / 255)} of the pairs.` : '.');
}

function choose(change) {
  Object.assign(state, change);
  $('pick-method').value = state.method;
  $('pick-layer').value = state.layer;
  $('pick-head').value = state.head;
  history.replaceState(null, '', `#method=${state.method}&layer=${state.layer}&head=${state.head}`);
  paintMaps();
  drawVerdict();
  drawHeads();
}

function drawPictures() {
  if (!pics.layers.length) {
    $('pictures').replaceChildren(element('h2', {}, 'What a method keeps, and what it misses'),
      element('p', {class: 'lead'}, 'No layer of this model attends to the whole document, so there is nothing to picture.'));
    return;
  }
  $('pictures-lead').textContent = `Each dot is a cell of ${pics.cell} queries (down) by ${pics.cell} keys (across). ` +
      'Exact attention is from the exact run; the plan is the method\'s own, from its run.';
  const option = (value, text) => element('option', {value}, text);
  $('pick-method').append(...pics.methods.map((m, i) => option(i, m.name)));
  $('pick-layer').append(...pics.layers.map((l, i) => option(i, l)));
  $('pick-head').append(...pics.exact[0].map((_, h) => option(h, h)));
  if (!pics.methods.length) {
    $('maps').classList.add('alone');
    $('pick-method').parentElement.hidden = true;
  }
  for (const key of ['method', 'layer', 'head']) {
    $(`pick-${key}`).addEventListener('change', e => choose({[key]: Number(e.target.value)}));
  }
  $('overlay').addEventListener('change', paintMaps);
  for (const id of ['map-exact', 'map-plan', 'map-missed']) {
    $(id).addEventListener('pointermove', readout);
    $(id).addEventListener('pointerdown', readout);
  }
  // The address may name a picture: #method=1&layer=2&head=3 (indices).
  const wanted = new URLSearchParams(location.hash.slice(1));
  const limit = {method: pics.methods.length, layer: pics.layers.length, head: pics.exact[0].length};
  const start = {method: Math.max(0, pics.methods.length - 1), layer: pics.layers.length >> 1, head: 0};
  for (const key of Object.keys(limit)) {
    const v = Number(wanted.get(key));
    if (wanted.has(key) && Number.isInteger(v) && v >= 0 && v < limit[key]) start[key] = v;
  }
  drawScale();
  choose(start);
}

// ---------------------------------------------------------------- density

function drawDensity() {
  const plots = methods.filter(r => r.density_by_head.length).map(r => {
    const layers = r.density_by_head.length, heads = Math.max(...r.density_by_head.map(l => l.length));
    const left = 34, top = 20, W = 340, w = (W - left) / heads, h = 15, numbers = w >= 20;
    const s = svg('svg', {viewBox: `0 0 ${W} ${top + layers * h + 4}`, role: 'img', 'aria-label': `Density of ${r.name}`});
    for (let k = 0; k < heads; k += Math.ceil(18 / w)) {
      s.append(svgText(left + (k + .5) * w, 13, k, {'text-anchor': 'middle', class: 'soft'}));
    }
    r.density_by_head.forEach((line, l) => {
      const pictured = pics.layers.indexOf(l);
      s.append(svgText(left - 6, top + l * h + 12, (pictured >= 0 ? '• ' : '') + l, {'text-anchor': 'end', class: 'soft'}));
      line.forEach((d, k) => {
        if (!known(d)) return;
        const shade = ramp('mass', .08 + .8 * d), light = shade[0] * .3 + shade[1] * .59 + shade[2] * .11 > 128;
        const cell = svg('g', {class: 'cell' + (pictured >= 0 ? ' pictured' : '')}, svg('title', {},
          `layer ${l}, head ${k}: ${percent(d, 1)}`));
        cell.append(svg('rect', {x: left + k * w + .5, y: top + l * h + .5, width: w - 1, height: h - 1,
                                 fill: `rgb(${shade.map(Math.round)})`}));
        if (numbers) {
          cell.append(svgText(left + (k + .5) * w, top + l * h + 11.5, Math.round(100 * d),
                              {style: `fill: ${light ? '#10151a' : '#f7f5f0'}`}));
        }
        if (pictured >= 0) {
          cell.addEventListener('click', () => {
            choose({method: pics.methods.findIndex(m => m.name === r.name), layer: pictured, head: k});
            $('pictures').scrollIntoView({behavior: 'smooth'});
          });
        }
        s.append(cell);
      });
    });
    return element('figure', {'data-row': r.name},
      element('figcaption', {}, element('b', {}, label(r)), ` ${percent(r.density, 1)} in all`), s);
  });
  $('density-plots').replaceChildren(...plots);
  if (!plots.length) $('density-plots').append(element('p', {}, 'No method was asked for: every causal pair is read.'));
}

function drawMeasured() {
  $('how').textContent = data.how_measured;
  const facts = {
    Model: `${data.model_description}, ${data.layers} layers, ${data.heads} query and ${data.kv_heads} KV heads`,
    File: data.model,
    Document: `${data.text}, ${count(data.tokens)} of its ${count(data.text_tokens)} tokens`,
    'Micro-batch': `${data.ubatch} queries`, Cache: data.kv, Threads: data.threads, Machine: data.machine,
    Regard: data.regard, Date: data.date,
  };
  for (const [k, v] of Object.entries(facts)) $('facts').append(element('dt', {}, k), element('dd', {}, String(v)));
}

drawTop();
drawHeadline();
drawTable();
drawTradeoff();
drawTime();
drawPictures();
drawDensity();
drawMeasured();
// Colours of canvases and shades are numbers, not CSS: draw again when the scheme changes.
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  if (pics.layers.length) { drawScale(); choose({}); }
  drawDensity();
});
document.documentElement.dataset.ready = 'yes';
