// Density by layer and head.

function drawDensity() {
  const plots = methods.filter(r => r.density_by_head.length).map(r => {
    const layers = r.density_by_head.length,
          heads = Math.max(...r.density_by_head.map(l => l.length));
    const left = 34, top = 20, W = 340, w = (W - left) / heads, h = 15, numbers = w >= 20;
    const s = svg('svg', {
      viewBox: `0 0 ${W} ${top + layers * h + 4}`,
      role: 'img',
      'aria-label': `Density of ${r.name}`
    });
    for (let k = 0; k < heads; k += Math.ceil(18 / w)) {
      s.append(svgText(left + (k + .5) * w, 13, k, {'text-anchor': 'middle', class: 'soft'}));
    }
    r.density_by_head.forEach((line, l) => {
      const pictured = pics.layers.indexOf(l);
      s.append(svgText(
          left - 6, top + l * h + 12, (pictured >= 0 ? '• ' : '') + l,
          {'text-anchor': 'end', class: 'soft'}));
      line.forEach((d, k) => {
        if (!known(d)) return;
        const shade = ramp('mass', .08 + .8 * d),
              light = shade[0] * .3 + shade[1] * .59 + shade[2] * .11 > 128;
        const cell =
            svg('g', {class: 'cell' + (pictured >= 0 ? ' pictured' : '')},
                svg('title', {}, `layer ${l}, head ${k}: ${percent(d, 1)}`));
        cell.append(svg('rect', {
          x: left + k * w + .5,
          y: top + l * h + .5,
          width: w - 1,
          height: h - 1,
          fill: `rgb(${shade.map(Math.round)})`
        }));
        if (numbers) {
          cell.append(svgText(
              left + (k + .5) * w, top + l * h + 11.5, Math.round(100 * d),
              {style: `fill: ${light ? '#10151a' : '#f7f5f0'}`}));
        }
        if (pictured >= 0) {
          cell.addEventListener('click', () => {
            choose(
                {method: pics.methods.findIndex(m => m.name === r.name), layer: pictured, head: k});
            $('pictures').scrollIntoView({behavior: 'smooth'});
          });
        }
        s.append(cell);
      });
    });
    return element(
        'figure', {'data-row': r.name},
        element('figcaption', {}, element('b', {}, label(r)), ` ${percent(r.density, 1)} in all`),
        s);
  });
  $('density-plots').replaceChildren(...plots);
  if (!plots.length)
    $('density-plots')
        .append(element('p', {}, 'No method was asked for: every causal pair is read.'));
}
