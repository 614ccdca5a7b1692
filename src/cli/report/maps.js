// Attention maps, plans, and what a plan misses.

// Bytes of the lower triangle; see CellMap.
const decoded = new Map();
function bytes(head) {
  if (!decoded.has(head)) decoded.set(head, Uint8Array.from(atob(head.map), c => c.charCodeAt(0)));
  return decoded.get(head);
}
const at = (r, c) => r * (r + 1) / 2 + c;
const logFloor = -Math.log10(pics.mass_floor);
const massOf = b =>
    b === 0 ? 0 : 10 ** (((b - 1) / 254 - 1) * logFloor);  // share of a query's attention
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

const state = {
  method: 0,
  layer: 0,
  head: 0
};
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
  $('worst').textContent = worst.m > 1e-4 ?
      `Largest: queries ${tokens(worst.r)} lose ${
          percent(worst.m, 1)} of their attention, to keys ${tokens(worst.c)}.` :
      'Nothing above 0.01 % of a query\'s attention.';
}

const tokens = i =>
    `${count(i * pics.cell)}–${count(Math.min((i + 1) * pics.cell, data.tokens) - 1)}`;

function drawVerdict() {
  const plan = planOf(state.method, state.layer, state.head), layer = pics.layers[state.layer];
  if (!plan) {
    $('verdict').textContent = `Layer ${layer}, head ${state.head}.`;
    return;
  }
  const row = rows.find(r => r.name === pics.methods[state.method].name);
  const density = (row.density_by_head[layer] || [])[state.head];
  $('verdict').textContent = `In layer ${layer}, head ${state.head}, ${label(row)} reads ${
                                 percent(density, 1)} of the pairs` +
      (known(plan.mass) ? ` and keeps ${percent(plan.mass, 1)} of the attention.` : '.');
}

function drawHeads() {
  $('heads').replaceChildren(...pics.exact[state.layer].map((_, h) => {
    const canvas = element('canvas'), plan = planOf(state.method, state.layer, h);
    const button = element(
        'button', {type: 'button', 'aria-pressed': String(h === state.head), 'data-head': h},
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
  const W = widthOf('scale', 620), H = 50, left = 4, right = 4,
        s = svg('svg', {
          viewBox: `0 0 ${W} ${H}`,
          role: 'img',
          'aria-label': 'Colour scale: share of a query\'s attention, logarithmic'
        });
  const x = t => left + t * (W - left - right);
  ['mass', 'missed'].forEach((name, line) => {
    if (line && !pics.methods.length) return;
    for (let i = 0; i < 120; ++i) {
      s.append(svg('rect', {
        x: x(i / 120),
        y: 2 + line * 12,
        width: (W - 8) / 120 + .6,
        height: 11,
        fill: `rgb(${ramp(name, i / 119).map(Math.round)})`
      }));
    }
  });
  for (let e = -logFloor; e <= 0.01; ++e) {
    if (W < 450 && e % 2) continue;
    const t = 1 + e / logFloor;
    const text =
        e >= -2.01 ? `${Math.round(100 * 10 ** e)} %` : `${(100 * 10 ** e).toPrecision(1)} %`;
    s.append(svgText(
        x(t), 42, text,
        {'text-anchor': t < .01 ? 'start' :
             t > .99            ? 'end' :
                                  'middle',
         class: 'soft'}));
  }
  $('scale').replaceChildren(s);
}

function readout(event) {
  const canvas = event.currentTarget, box = canvas.getBoundingClientRect();
  const c = Math.floor((event.clientX - box.left) / box.width * pics.grid);
  const r = Math.floor((event.clientY - box.top) / box.height * pics.grid);
  if (c < 0 || c > r || r >= pics.grid) {
    $('readout').textContent = '';
    return;
  }
  const plan = planOf(state.method, state.layer, state.head),
        share = massOf(bytes(exactOf(state.layer, state.head))[at(r, c)]);
  $('readout').textContent =
      `Queries ${tokens(r)}, keys ${tokens(c)}: ${percent(share, 3)} of the attention` +
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
    $('pictures')
        .replaceChildren(
            element('h2', {}, 'What a method keeps, and what it misses'),
            element(
                'p', {class: 'lead'},
                'No layer of this model attends to the whole document, so there is nothing to picture.'));
    return;
  }
  $('pictures-lead').textContent =
      `Each dot is a cell of ${pics.cell} queries (down) by ${pics.cell} keys (across). ` +
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
  const limit = {
    method: pics.methods.length,
    layer: pics.layers.length,
    head: pics.exact[0].length
  };
  const start = {
    method: Math.max(0, pics.methods.length - 1),
    layer: pics.layers.length >> 1,
    head: 0
  };
  for (const key of Object.keys(limit)) {
    const v = Number(wanted.get(key));
    if (wanted.has(key) && Number.isInteger(v) && v >= 0 && v < limit[key]) start[key] = v;
  }
  choose(start);
}
