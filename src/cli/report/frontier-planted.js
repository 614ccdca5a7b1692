// Density by layer and head, plan pictures, and the planted inputs.

function drawHeads() {
  const r = chosen(), table = r && r.density_by_head;
  $('reads-lead').textContent = table ?
      `${shortName(r)}: per cent of the causal pairs read, by layer (down) and head (across).` +
          (r.pictures ? ' Beside it, plans of some heads: queries down, keys across.' : '') :
      'Choose a method above: exact attention reads everything.';
  $('density-plot').replaceChildren();
  $('plans').replaceChildren();
  if (!table || !table.length) return;
  const layers = table.length, heads = Math.max(...table.map(l => l.length));
  const W = widthOf('density-plot', 640), left = 30, top = 18, w = (W - left) / heads, h = 15;
  const s = svg('svg', {viewBox: `0 0 ${W} ${top + layers * h + 2}`, role: 'img', 'aria-label': `Density of ${r.name}`});
  for (let k = 0; k < heads; k += Math.ceil(18 / w)) s.append(svgText(left + (k + .5) * w, 12, k, {'text-anchor': 'middle', class: 'soft'}));
  table.forEach((line, l) => {
    s.append(svgText(left - 6, top + l * h + 12, l, {'text-anchor': 'end', class: 'soft'}));
    line.forEach((d, k) => {
      if (!known(d)) return;
      const shade = ramp('mass', .08 + .8 * d), light = shade[0] * .3 + shade[1] * .59 + shade[2] * .11 > 128;
      const cell = svg('g', {class: 'cell'}, svg('title', {}, `layer ${l}, head ${k}: ${percent(d, 1)}`), svg('rect', {x: left + k * w + .5, y: top + l * h + .5, width: w - 1, height: h - 1, fill: `rgb(${shade.map(Math.round)})`}));
      if (w >= 22) cell.append(svgText(left + (k + .5) * w, top + l * h + 11.5, Math.round(100 * d), {style: `fill: ${light ? '#10151a' : '#f7f5f0'}`}));
      s.append(cell);
    });
  });
  $('density-plot').append(s);
  if (r.pictures) $('plans').append(...r.pictures.plans.map(p => planPicture(r.pictures, p)));
}

// The lower triangle of cells, one byte a cell: the share of its causal pairs that is read.
function planPicture(pictures, p) {
  const n = pictures.grid, b = Uint8Array.from(atob(p.map), c => c.charCodeAt(0));
  const canvas = element('canvas', {width: n, height: n, role: 'img', 'aria-label': `Plan of layer ${p.layer}, head ${p.head}`});
  const context = canvas.getContext('2d'), image = context.createImageData(n, n);
  const keep = rgb(css('--keep')), empty = rgb(css('--empty'));
  for (let r = 0; r < n; ++r) {
    for (let c = 0; c <= r; ++c) {
      const share = b[r * (r + 1) / 2 + c] / 255, t = share === 0 ? 0 : .3 + .7 * share;
      for (let k = 0; k < 3; ++k) image.data[4 * (r * n + c) + k] = empty[k] + (keep[k] - empty[k]) * t;
      image.data[4 * (r * n + c) + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return element('figure', {}, element('figcaption', {}, `layer ${p.layer}, head ${p.head}`), canvas);
}

function drawPlanted() {
  if (!data.best) {
    $('planted').hidden = true;
    return;
  }
  $('planted-lead').textContent = `Made inputs of ${count(data.best.tokens)} tokens whose attention has a known structure: how much of it a plan keeps, by how much it reads. No mask of pairs lies above the solid line, none of 64 × 64 tiles above the dashed one.`;
  const entry = (line, text) => element('span', {}, line, text);
  const sample = dash => {
    const k = svg('svg', {viewBox: '0 0 34 20', 'aria-hidden': 'true', style: 'width: 30px; height: 18px'});
    k.append(svg('line', {x1: 0, x2: 34, y1: 10, y2: 10, stroke: 'var(--ink)', 'stroke-width': 1.6, 'stroke-dasharray': dash}));
    return k;
  };
  $('planted-key').replaceChildren(entry(sample(''), 'best mask of pairs'), entry(sample('6 4'), 'best mask of tiles'), ...families.filter(f => f !== 'profile').map(f => entry(mark(familyIndex(f)), nameOfFamily(f))));
  $('planted-plots').replaceChildren(...data.best.inputs.map(drawPlantedInput));
}

function drawPlantedInput(input) {
  const W = 300, H = 230, left = 46, right = 10, top = 10, bottom = 38, low = 1e-3;
  const x = d => left + (1 + Math.log10(Math.max(low, d)) / 3) * (W - left - right), y = m => top + (1 - m) * (H - top - bottom);
  const s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': `Mass kept against density on ${input.input}`});
  for (const [d, text] of [[.001, '0.1 %'], [.01, '1 %'], [.1, '10 %'], [1, '100 %']])
    s.append(svg('line', {x1: x(d), x2: x(d), y1: top, y2: H - bottom, class: 'grid'}), svgText(x(d), H - bottom + 15, text, {'text-anchor': d === 1 ? 'end' : d === .001 ? 'start' : 'middle', class: 'soft', style: 'font-size: 11px'}));
  for (const m of [0, .5, 1])
    s.append(svg('line', {x1: left, x2: W - right, y1: y(m), y2: y(m), class: 'grid'}), svgText(left - 5, y(m) + 4, percent(m), {'text-anchor': 'end', class: 'soft', style: 'font-size: 11px'}));
  s.append(svgText((left + W - right) / 2, H - 6, 'pairs read', {'text-anchor': 'middle', class: 'soft', style: 'font-size: 11px'}));
  const line = (curve, dash) => svg('polyline', {class: 'front', 'stroke-dasharray': dash, points: curve.filter(([d]) => d >= low).map(([d, m]) => `${x(d)},${y(m)}`).join(' ')});
  s.append(line(input.pairs, ''), line(input.tiles, '6 4'));
  for (const r of data.planted) {
    if (hidden.has(r.family)) continue;
    const p = r.points.find(p => p.input === input.input);
    if (!p || !known(p.mass) || !known(p.density)) continue;
    const mine = r.name === state.row;
    const g = svg('g', {class: 'point planted', 'data-row': r.name}, svg('title', {}, `${r.name}: ${percent(p.density, 1)} read, ${percent(p.mass, 1)} kept`));
    if (mine) g.append(svg('circle', {cx: x(p.density), cy: y(p.mass), r: 9, class: 'halo'}));
    g.append(marker(familyIndex(r.family), x(p.density), y(p.mass), mine ? 6 : 4.5));
    g.addEventListener('click', () => choose({row: r.name}));
    s.append(g);
  }
  return element('figure', {'data-input': input.input}, element('figcaption', {}, element('b', {}, input.input)), s);
}
