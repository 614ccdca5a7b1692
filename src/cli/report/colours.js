// Colour ramps for maps.

const dark = () => matchMedia('(prefers-color-scheme: dark)').matches;
const ramps = {
  // lightness runs one way in each, so they also read in grey
  light: {
    mass: ['#faf8f4', '#d5e3ea', '#86b6cf', '#3b79a8', '#123a66', '#061a33'],
    missed: ['#faf8f4', '#f6dccf', '#eca58c', '#d4593f', '#98210f', '#4a0a04']
  },
  dark: {
    mass: ['#161b21', '#1d3347', '#28608a', '#4b9cc0', '#a5d9d8', '#fbfbe6'],
    missed: ['#161b21', '#452420', '#8a3428', '#d85c3f', '#ffab7d', '#fff3d6']
  },
};
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
function ramp(name, t) {
  const stops = ramps[dark() ? 'dark' : 'light'][name];
  const p = Math.max(0, Math.min(1, t)) * (stops.length - 1),
        i = Math.min(stops.length - 2, Math.floor(p));
  const a = rgb(stops[i]), b = rgb(stops[i + 1]);
  return a.map((v, c) => v + (b[c] - v) * (p - i));
}
