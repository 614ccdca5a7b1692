// Loss rise against attention time, and where the time goes.

function drawTradeoff() {
  const W = widthOf('tradeoff-plot', 560), H = 380, left = 66, right = 24, top = 14, bottom = 46;
  const points = rows.map((r, i) => ({r, i})).filter(p => known(p.r.loss_rise));
  const xMax = Math.max(...points.map(p => p.r.attention_s)) * 1.18;
  const rises = points.map(p => p.r.loss_rise);
  const span = Math.max(0.004, Math.max(...rises) - Math.min(0, ...rises));
  const yMin = Math.min(0, ...rises) - span * .12, yMax = Math.max(0, ...rises) + span * .14;
  const x = v => left + v / xMax * (W - left - right);
  const y = v => top + (yMax - v) / (yMax - yMin) * (H - top - bottom);
  const s = svg('svg', {
    viewBox: `0 0 ${W} ${H}`,
    role: 'img',
    'aria-label': 'Loss rise against attention seconds; the numbers are in the table'
  });
  const xt = ticks(0, xMax, W < 450 ? 4 : 6), yt = ticks(yMin, yMax, 6);
  for (const v of xt.values) {
    s.append(
        svg('line', {x1: x(v), x2: x(v), y1: top, y2: H - bottom, class: 'grid'}),
        svgText(
            x(v), H - bottom + 18, v.toFixed(xt.digits), {'text-anchor': 'middle', class: 'soft'}));
  }
  for (const v of yt.values) {
    s.append(
        svg('line', {x1: left, x2: W - right, y1: y(v), y2: y(v), class: 'grid'}),
        svgText(
            left - 8, y(v) + 4, Math.abs(v) < 1e-12 ? '0' : signed(v, yt.digits),
            {'text-anchor': 'end', class: 'soft'}));
  }
  s.append(svg('line', {x1: left, x2: W - right, y1: y(0), y2: y(0), class: 'guide'}));
  s.append(svgText(
      (left + W - right) / 2, H - 8, 'attention, seconds',
      {'text-anchor': 'middle', class: 'soft'}));
  const axis =
      svgText(9, (top + H - bottom) / 2, 'loss rise', {'text-anchor': 'middle', class: 'soft'});
  axis.setAttribute('transform', `rotate(-90 9 ${(top + H - bottom) / 2})`);
  s.append(axis);
  placeLabels(
      points.map(p => ({...p, x: x(p.r.attention_s), y: y(p.r.loss_rise), text: label(p.r)})),
      {left, right: W - right, top, bottom: H - bottom}, y(0))
      .forEach(p => {
        const group =
            svg('g', {class: 'point', 'data-row': p.r.name},
                svg('title', {},
                    `${p.r.name}: ${fixed(p.r.attention_s, 2)} s, ${signed(p.r.loss_rise, 4)}`));
        if (p.far)
          group.append(svg('line', {
            x1: p.x,
            y1: p.y,
            x2: p.tx + (p.anchor === 'end' ? 3 : -3),
            y2: p.ty - 4,
            class: 'grid'
          }));
        group.append(marker(p.i, p.x, p.y), svgText(p.tx, p.ty, p.text, {'text-anchor': p.anchor}));
        s.append(group);
      });
  $('tradeoff-plot').replaceChildren(s);
}

function drawTime() {
  const W = widthOf('time-plot', 560), row = 50, top = 26, H = top + rows.length * row + 44,
        right = 20;
  const xMax = Math.max(...rows.map(r => r.prefill_s)) * 1.1;
  const x = v => v / xMax * (W - right);
  const s = svg(
      'svg',
      {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Attention and other seconds by row'});
  s.append(
      svg('rect', {x: 0, y: 2, width: 14, height: 12, fill: 'var(--ink)'}),
      svgText(20, 13, 'attention'),
      svg('rect', {x: 104, y: 2, width: 14, height: 12, fill: 'var(--rest)'}),
      svgText(124, 13, 'all else'));
  rows.forEach((r, i) => {
    const y = top + i * row, a = x(r.attention_s), all = x(r.prefill_s);
    s.append(
        svgText(0, y + 16, label(r)),
        svgText(W - right, y + 16, `${fixed(r.prefill_s, 2)} s`, {'text-anchor': 'end'}),
        svg('rect', {x: 0, y: y + 22, width: a, height: 18, fill: colour(i)}),
        svg('rect',
            {x: a, y: y + 22, width: Math.max(0, all - a), height: 18, fill: 'var(--rest)'}));
    const inside = a > 62;
    s.append(svgText(
        inside ? a - 6 : a + 6, y + 35, `${fixed(r.attention_s, 2)} s`,
        {'text-anchor': inside ? 'end' : 'start', style: inside ? 'fill: var(--card)' : ''}));
  });
  const limit = x(llama.prefill_s - llama.attention_s), bottom = top + rows.length * row;
  s.append(svg('line', {x1: limit, x2: limit, y1: top + 22, y2: bottom + 10, class: 'guide'}));
  s.append(svgText(
      Math.min(limit, W - 190), bottom + 28, 'if attention cost nothing',
      {'text-anchor': limit > 170 ? 'middle' : 'start', class: 'soft'}));
  $('time-plot').replaceChildren(s);
}
