// The frontier: loss rise against time or density.

const axes = {
  attention_s: {name: 'attention, seconds', lead: 'Left is faster'},
  density: {name: 'share of the pairs read', lead: 'Left reads less'},
  prefill_s: {name: 'whole prefill, seconds', lead: 'Left is faster'},
};
// Linear near zero, logarithmic beyond: rises from 0.001 to 10 nats in one picture.
const bend = v => Math.asinh(v / .01);
const riseTicks = [-1, -.3, -.1, -.03, -.01, 0, .01, .03, .1, .3, 1, 3, 10, 30];

function drawFrontier() {
  const W = widthOf('frontier-plot', 760), H = W < 450 ? 400 : 470;
  const left = 68, right = 20, top = 14, bottom = 46;
  const points = shown().filter(r => known(r.loss_rise) || r.name === 'llama.cpp').map(r => ({
    r,
    i: indexOf(r),
    rise: known(r.loss_rise) ? r.loss_rise : exact() ? r.loss - exact().loss : 0
  }));
  if (!points.length) {
    $('frontier-plot').replaceChildren(element('p', {}, 'No row on the model yet.'));
    return;
  }
  // Rows far slower than all that matters stand at the edge, so that the rest keeps its room.
  const usual = Math.max(...[exact(), llama()].filter(Boolean).map(r => r[state.x]));
  const xMax = Math.min(Math.max(...points.map(p => p.r[state.x])) * 1.08, 1.5 * usual || Infinity);
  const rises = points.map(p => p.rise), limit = exact() ? exact().loss * .01 : .02;
  const low = bend(Math.min(-.004, ...rises)) - .35,
        high = bend(Math.max(limit * 1.3, ...rises)) + .45;
  const x = v => left + Math.min(1, v / xMax) * (W - left - right);
  const y = v => top + (high - bend(v)) / (high - low) * (H - top - bottom);
  const s = svg('svg', {
    viewBox: `0 0 ${W} ${H}`,
    role: 'img',
    'aria-label': `Loss rise against ${axes[state.x].name}; the numbers are in the table`
  });
  const xt = ticks(0, xMax, W < 450 ? 4 : 7);
  for (const v of xt.values) {
    s.append(
        svg('line', {x1: x(v), x2: x(v), y1: top, y2: H - bottom, class: 'grid'}),
        svgText(
            x(v), H - bottom + 18, v.toFixed(xt.digits), {'text-anchor': 'middle', class: 'soft'}));
  }
  for (const v of riseTicks.filter(v => bend(v) >= low && bend(v) <= high)) {
    s.append(
        svg('line', {x1: left, x2: W - right, y1: y(v), y2: y(v), class: 'grid'}),
        svgText(
            left - 8, y(v) + 4, v === 0 ? '0' : signed(v, Math.abs(v) < .1 ? 2 : Math.abs(v) < 1 ? 1 : 0),
            {'text-anchor': 'end', class: 'soft'}));
  }
  s.append(svg('line', {x1: left, x2: W - right, y1: y(0), y2: y(0), class: 'guide'}));
  if (exact()) {
    s.append(
        svg('line', {x1: left, x2: W - right, y1: y(limit), y2: y(limit), class: 'grid', 'stroke-dasharray': '2 4', style: 'stroke: var(--red)'}),
        svgText(W - right, y(limit) - 5, '1 % of the loss', {'text-anchor': 'end', class: 'soft'}));
  }
  s.append(svgText(
      (left + W - right) / 2, H - 8, axes[state.x].name, {'text-anchor': 'middle', class: 'soft'}));
  const axis = svgText(
      11, (top + H - bottom) / 2, 'loss rise, nats a token', {'text-anchor': 'middle', class: 'soft'});
  axis.setAttribute('transform', `rotate(-90 11 ${(top + H - bottom) / 2})`);
  s.append(axis);

  // A thin line joins the settings of a method.
  const byMethod = new Map();
  for (const p of points)
    if (p.r.method) byMethod.set(p.r.method, [...(byMethod.get(p.r.method) || []), p]);
  for (const line of byMethod.values()) {
    line.sort((a, b) => a.r[state.x] - b.r[state.x]);
    s.append(svg('polyline', {
      points: line.map(p => `${x(p.r[state.x])},${y(p.rise)}`).join(' '),
      class: 'method-line',
      stroke: colour(line[0].i)
    }));
  }
  // The frontier as stairs: nothing measured lies below it.
  const best = front(methodsShown(), state.x), stairs = [];
  best.forEach((r, n) => {
    if (n) stairs.push(`${x(r[state.x])},${y(best[n - 1].loss_rise)}`);
    stairs.push(`${x(r[state.x])},${y(r.loss_rise)}`);
  });
  s.append(svg('polyline', {points: stairs.join(' '), class: 'front', id: 'stairs'}));

  const placed = points.map(p => ({...p, x: x(p.r[state.x]), y: y(p.rise)}));
  const onFront = new Set(best), seen = new Set();
  // Labels: the references, what is chosen, and each method once where it is on the frontier.
  const labelled = placed.filter(p => {
    if (!isMethod(p.r) || p.r.name === state.row) return true;
    if (!onFront.has(p.r) || seen.has(p.r.method)) return false;
    seen.add(p.r.method);
    return true;
  });
  const texts = placeLabels(
      labelled.slice(0, W < 450 ? 8 : 16)
          .map(p => ({...p, text: isMethod(p.r) ? (p.r.method === 'profile' ? 'profile' : p.r.method) : p.r.name})),
      {left, right: W - right, top, bottom: H - bottom}, y(0));
  for (const p of placed) {
    const g = svg(
        'g', {
          class: 'point' + (onFront.has(p.r) || !isMethod(p.r) || p.r.name === state.row ? '' : ' dim'),
          'data-row': p.r.name,
          tabindex: 0,
          role: 'button'
        },
        svg('title', {},
            `${shortName(p.r)}: ${fixed(p.r.attention_s, 2)} s, density ${percent(p.r.density, 1)}, ${
                signed(p.rise, 4)}`));
    if (p.r.name === state.row) g.append(svg('circle', {cx: p.x, cy: p.y, r: 13, class: 'halo'}));
    g.append(svg('circle', {cx: p.x, cy: p.y, r: 12, fill: 'transparent'}), marker(p.i, p.x, p.y));
    if (ranExactly(p.r)) g.lastChild.setAttribute('fill-opacity', .15);
    if (ranExactly(p.r)) g.lastChild.setAttribute('stroke', colour(p.i));
    if (p.r[state.x] > xMax) g.append(svgText(p.x + 8, p.y + 5, '›'));
    g.addEventListener('click', () => choose({row: p.r.name}));
    g.addEventListener('keydown', e => e.key === 'Enter' && choose({row: p.r.name}));
    s.append(g);
  }
  for (const p of texts) {
    if (p.far)
      s.append(svg('line', {x1: p.x, y1: p.y, x2: p.tx + (p.anchor === 'end' ? 3 : -3), y2: p.ty - 4, class: 'grid'}));
    s.append(svgText(p.tx, p.ty, p.text, {'text-anchor': p.anchor, class: 'label'}));
  }
  $('frontier-plot').replaceChildren(s);
  $('frontier-lead').textContent = `${axes[state.x].lead}, low is more faithful. The stairs join the rows that no other beats on both; thin lines join one method's settings. Press a point.`;
}

function drawChosen() {
  const r = chosen();
  if (!r) return;
  const setting = data.settings.find(s => s.name === r.name);
  const facts = {
    'Attention': `${fixed(r.attention_s, 2)} s`,
    '… against exact': exact() ? fixed(exact().attention_s / r.attention_s, 2) + '×' : '–',
    '… against llama.cpp': llama() ? fixed(llama().attention_s / r.attention_s, 2) + '×' : '–',
    'Whole prefill': `${fixed(r.prefill_s, 2)} s`,
    '… against llama.cpp ': llama() ? fixed(llama().prefill_s / r.prefill_s, 2) + '×' : '–',
    'Pairs read': percent(r.density, 1),
    'Pairs in touched tiles': percent(r.tile_density, 1),
    'Attention mass kept': percent(r.mass_kept, 2),
    'Loss rise': signed(r.loss_rise, 4),
    'KL from exact': fixed(r.kl, 5),
    'Same likeliest token': percent(r.top1, 1),
    'Copies found': percent(copiesKept(r)),
    'Needle tokens right': r.recall ? percent(r.recall.needle_hits) : '–',
  };
  const list = element('dl', {});
  for (const [k, v] of Object.entries(facts)) list.append(element('dt', {}, k), element('dd', {}, v));
  const box = [element('h3', {}, shortName(r)), element('p', {class: 'fine'}, setting ? setting.title : isMethod(r) ? '' : 'a reference'), list];
  for (const [why, calls] of Object.entries(r.exact_calls || {}))
    box.push(element('p', {class: 'fine'}, `Exact in ${calls} of ${r.calls} calls: ${why}.`));
  if (r.command) {
    const copy = element('button', {type: 'button', class: 'copy'}, 'Copy the command');
    copy.addEventListener('click', () => {
      if (navigator.clipboard) navigator.clipboard.writeText(r.command).then(() => copy.textContent = 'Copied');
    });
    box.push(element('code', {class: 'command', id: 'command'}, r.command), copy);
  }
  $('chosen').replaceChildren(...box);
}
