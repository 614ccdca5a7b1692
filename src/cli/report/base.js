'use strict';
// The pages draw everything from the JSON in #data: no library, no network. run.cmake lists the
// parts of each page in order.

window.addEventListener('error', e => {
  document.documentElement.dataset.error = e.message;
});

const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);

const known = x => x !== null && x !== undefined;
const fixed = (x, n) => known(x) ? x.toFixed(n) : '–';
const signed = (x, n) => known(x) ? (x < 0 ? '−' : '+') + Math.abs(x).toFixed(n) : '–';
const percent = (x, n = 0) => known(x) ? (100 * x).toFixed(n) + ' %' : '–';
const count = n => n.toLocaleString('en').replace(/,/g, '\u202f');  // narrow, unbroken
const baseName = s => s.split(':')[0];
const params = s => s.includes(':') ? s.slice(s.indexOf(':') + 1).replace(/,/g, ', ') : '';
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
// Plots are as wide as their place on the page, so that text keeps its size on a phone.
const widthOf = (id, most) => Math.max(300, Math.min(most, $(id).clientWidth || most));
const svgText = (x, y, text, attributes = {}) => svg('text', {x, y, ...attributes}, text);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Every row has a colour AND a shape.
const colour = i => `var(--m${i % 8})`;
function marker(i, x, y, r = 7) {
  const polygon = points =>
      svg('polygon', {points: points.map(([a, b]) => `${x + a * r},${y + b * r}`).join(' ')});
  const shapes = [
    () => svg('circle', {cx: x, cy: y, r: r * .8}),
    () => svg('rect', {x: x - r * .8, y: y - r * .8, width: r * 1.6, height: r * 1.6}),
    () => polygon([[0, -1.1], [1, .8], [-1, .8]]),
    () => polygon([[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]]),
    () => polygon([[0, 1.1], [1, -.8], [-1, -.8]]),
    () => polygon([
      [-.3, -1], [.3, -1], [.3, -.3], [1, -.3], [1, .3], [.3, .3], [.3, 1], [-.3, 1], [-.3, .3],
      [-1, .3], [-1, -.3], [-.3, -.3]
    ]),
    () => polygon(Array.from({length: 10}, (_, k) => {
      const a = Math.PI * (k / 5 - .5), d = k % 2 ? .55 : 1.25;
      return [d * Math.cos(a), d * Math.sin(a)];
    })),
  ];
  const m = shapes[i % shapes.length]();
  m.setAttribute('fill', colour(i));
  return m;
}
