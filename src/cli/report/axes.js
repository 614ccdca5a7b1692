// Axes and labels of plots.

// About `n` round numbers that span [low, high].
function ticks(low, high, n) {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= rough * .999);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(v);
  return {
    values: out,
    digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0))
  };
}

// Labels beside their points, tried right, left, then further up and down until nothing overlaps.
function placeLabels(points, box, zero) {
  const taken = points.map(p => ({x0: p.x - 9, x1: p.x + 9, y0: p.y - 9, y1: p.y + 9}));
  taken.push({x0: box.left, x1: box.right, y0: zero - 1, y1: zero + 1});  // the guide line
  for (const p of points) {
    const width = p.text.length * 7.2;
    const spots = [];
    for (const dy of [0, -12, 14, -24, 26, -42, 44, -60, 62, -80, 80]) {
      for (const side of [1, -1]) spots.push({dy, side});
    }
    let chosen = null;
    for (const {dy, side} of spots) {
      const tx = p.x + side * 13, ty = p.y + 5 + dy;
      const r =
          {x0: side > 0 ? tx : tx - width, x1: side > 0 ? tx + width : tx, y0: ty - 13, y1: ty + 4};
      const inside =
          r.x0 >= box.left && r.x1 <= box.right + 20 && r.y0 >= box.top - 6 && r.y1 <= box.bottom;
      const free = taken.every(t => t.x1 < r.x0 || t.x0 > r.x1 || t.y1 < r.y0 || t.y0 > r.y1);
      if (inside && free) {
        chosen = {tx, ty, side, dy, r};
        break;
      }
    }
    chosen = chosen || {tx: p.x + 13, ty: p.y + 5, side: 1, dy: 0, r: {x0: 0, x1: 0, y0: 0, y1: 0}};
    taken.push(chosen.r);
    Object.assign(p, {
      tx: chosen.tx,
      ty: chosen.ty,
      anchor: chosen.side > 0 ? 'start' : 'end',
      far: Math.abs(chosen.dy) > 14
    });
  }
  return points;
}
