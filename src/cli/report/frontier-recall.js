// Recall by distance, needles, and time by stage.

function recallRows() {
  return fewRows(5).filter(r => r.recall && r.recall.copies);
}

const dashes = ['', '7 3', '2 3', '9 3 2 3', '4 2', '12 4'];

function drawRecall() {
  const e = exact();
  if (!e || !e.recall || !e.recall.copies) {
    $('recall-plot').replaceChildren(element('p', {}, (e && e.recall && e.recall.why_not) || 'Not measured at this length.'));
    $('recall-key').replaceChildren();
    $('needles').replaceChildren();
    return;
  }
  const lines = [
    {name: 'exact', copies: e.recall.copies, i: 1, dash: ''},
    {name: 'no first copy', copies: e.recall_without.copies, i: 0, dash: '3 5'},
    ...recallRows().map((r, n) => ({name: shortName(r), copies: r.recall.copies, i: indexOf(r), dash: dashes[(n + 1) % 6], n}))
  ];
  const W = widthOf('recall-plot', 560), H = 330, left = 48, right = 18, top = 12, bottom = 44;
  const xMax = Math.max(...e.recall.copies.map(c => c.distance)) * 1.06;
  const all = lines.flatMap(l => l.copies.map(c => c.loss)), yMax = Math.max(...all) * 1.08;
  const x = v => left + v / xMax * (W - left - right), y = v => top + (1 - v / yMax) * (H - top - bottom);
  const s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Loss on second copies by distance'});
  const yt = ticks(0, yMax, 5);
  for (const v of yt.values)
    s.append(svg('line', {x1: left, x2: W - right, y1: y(v), y2: y(v), class: 'grid'}),
             svgText(left - 8, y(v) + 4, v.toFixed(yt.digits), {'text-anchor': 'end', class: 'soft'}));
  for (const c of e.recall.copies)
    s.append(svgText(x(c.distance), H - bottom + 18, count(c.distance), {'text-anchor': 'middle', class: 'soft', style: W < 450 ? 'font-size: 10.5px' : ''}));
  s.append(svgText((left + W - right) / 2, H - 6, 'tokens back to the first copy', {'text-anchor': 'middle', class: 'soft'}));
  for (const l of lines) {
    s.append(svg('polyline', {class: 'line', stroke: colour(l.i), 'stroke-dasharray': l.dash, points: l.copies.map(c => `${x(c.distance)},${y(c.loss)}`).join(' '), 'data-row': l.name}));
    for (const c of l.copies) {
      const m = marker(l.i, x(c.distance), y(c.loss), 5);
      m.append(svg('title', {}, `${l.name}: ${fixed(c.loss, 3)} at ${count(c.distance)}`));
      s.append(m);
    }
  }
  $('recall-plot').replaceChildren(s);
  $('recall-key').replaceChildren(...lines.map(l => {
    const k = svg('svg', {viewBox: '0 0 34 20', 'aria-hidden': 'true', style: 'width: 30px; height: 18px; flex: none'});
    k.append(svg('line', {x1: 0, x2: 34, y1: 10, y2: 10, stroke: colour(l.i), 'stroke-width': 2, 'stroke-dasharray': l.dash}), marker(l.i, 17, 10, 5));
    return element('span', {}, k, l.name);
  }));
  drawNeedles(e);
}

function drawNeedles(e) {
  const rows = [e, ...recallRows()];
  const without = e.recall_without;
  const head = element('tr', {}, element('th', {scope: 'col'}, 'tokens back'), ...e.recall.needles.map(n => element('th', {scope: 'col'}, count(n.distance))));
  const line = (name, i, needles) => element('tr', {}, element('td', {}, mark(i), name), ...needles.map(n => {
    const worst = Math.max(...n.ranks);
    return element('td', {}, worst === 1 ? '✓ 1' : count(worst));
  }));
  $('needles').replaceChildren(element('thead', {}, head), element('tbody', {}, ...rows.map(r => line(shortName(r), indexOf(r), r.recall.needles)), line('no needle', 0, without.needles)));
}

// Stages in the order they run; "attend" reads the keys, the rest is planning.
function stagesOf(r) {
  const entries = Object.entries(r.stages || {}).filter(([, s]) => s > 0);
  if (!entries.length) return [{name: 'attend', seconds: r.attention_s}];
  const attend = (r.stages || {}).attend || 0;
  const named = entries.filter(([k]) => k !== 'attend').sort((a, b) => b[1] - a[1]);
  const sum = entries.reduce((t, [, s]) => t + s, 0);
  const out = named.map(([name, seconds]) => ({name, seconds}));
  const rest = r.attention_s - sum;
  if (rest > .002 * r.attention_s) out.push({name: 'other', seconds: rest});
  out.push({name: 'attend', seconds: attend || r.attention_s - (attend ? 0 : sum)});
  return out;
}

function drawStages() {
  const rows = [llama(), exact(), ...fewRows(9)].filter(Boolean);
  if (!rows.length) return $('time-plot').replaceChildren();
  const stageNames = [...new Set(rows.flatMap(r => stagesOf(r).map(p => p.name)))].filter(n => n !== 'attend');
  // Planning stages have a hatch of their own, so that neighbours differ without colour.
  const patterns = svg('defs');
  const fillOf = (name, i) => name === 'attend' ? colour(i) : `url(#hatch-${stageNames.indexOf(name)})`;
  stageNames.forEach((_, n) => {
    const p = svg('pattern', {id: `hatch-${n}`, width: 4 + n % 3 * 2, height: 4 + n % 3 * 2, patternUnits: 'userSpaceOnUse', patternTransform: `rotate(${45 + 50 * n})`});
    p.append(svg('rect', {width: 8, height: 8, fill: `var(--m${(n + 3) % 8})`, 'fill-opacity': .35}), svg('rect', {width: 2, height: 8, fill: `var(--m${(n + 3) % 8})`}));
    patterns.append(p);
  });
  const W = widthOf('time-plot', 560), rowHeight = 44, top = 4, right = 64, H = top + rows.length * rowHeight + 6;
  const xMax = Math.max(...rows.map(r => r.attention_s)), x = v => v / xMax * (W - right);
  const s = svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Attention seconds by stage'}, patterns);
  rows.forEach((r, n) => {
    const y0 = top + n * rowHeight, i = indexOf(r);
    s.append(svgText(0, y0 + 14, shortName(r).slice(0, Math.floor(W / 7.4))));
    let at = 0;
    for (const part of stagesOf(r)) {
      const w = Math.max(0, x(part.seconds));
      const rect = svg('rect', {x: at, y: y0 + 20, width: w, height: 17, fill: fillOf(part.name, i), class: 'stage', 'data-stage': part.name});
      rect.append(svg('title', {}, `${part.name}: ${fixed(part.seconds, 3)} s`));
      s.append(rect);
      at += w;
      if (part.name !== 'attend' && w > 1) s.append(svg('line', {x1: at, x2: at, y1: y0 + 18, y2: y0 + 39, stroke: 'var(--ink)', 'stroke-width': .8}));
    }
    s.append(svgText(at + 6, y0 + 33, `${fixed(r.attention_s, 2)} s`));
  });
  $('time-plot').replaceChildren(s);
  $('time-key').replaceChildren(...stageNames.map(name => {
    const k = svg('svg', {viewBox: '0 0 20 20', 'aria-hidden': 'true'});
    k.append(svg('rect', {width: 20, height: 20, fill: fillOf(name)}));
    return element('span', {}, k, name);
  }), element('span', {}, mark(1), 'solid: attend, reading keys and values'));
}
