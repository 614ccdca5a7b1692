// Draws the page.

function drawPlots() {
  drawTradeoff();
  drawTime();
  if (pics.layers.length) drawScale();
}

drawTop();
drawHeadline();
drawTable();
drawPictures();
drawPlots();
drawDensity();
drawMeasured();
addEventListener('resize', drawPlots);
// Colours of canvases and shades are numbers, not CSS: draw again when the scheme changes.
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  drawPlots();
  if (pics.layers.length) choose({});
  drawDensity();
});
document.documentElement.dataset.ready = 'yes';
