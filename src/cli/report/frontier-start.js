// Draws the page and keeps what is chosen in the address: #length=2048&x=density&row=a_shape.

function drawControls() {
  $('pick-length').append(...lengths.map(n => element('option', {value: n}, count(n))));
  $('pick-x').append(...Object.entries(axes).map(([k, a]) => element('option', {value: k}, a.name)));
  $('pick-length').addEventListener('change', e => choose({length: Number(e.target.value)}));
  $('pick-x').addEventListener('change', e => choose({x: e.target.value}));
  for (const f of families) {
    const box = element('input', {type: 'checkbox', value: f});
    box.checked = true;
    box.addEventListener('change', () => {
      box.checked ? hidden.delete(f) : hidden.add(f);
      draw();
    });
    $('families').append(element('label', {}, box, mark(familyIndex(f)), nameOfFamily(f)));
  }
  $('controls').hidden = !families.length;
}

function draw() {
  drawHeadline();
  drawFrontier();
  drawChosen();
  drawRecall();
  drawStages();
  drawHeads();
  drawPlanted();
  drawTable();
}

function choose(change) {
  Object.assign(state, change);
  $('pick-length').value = state.length;
  $('pick-x').value = state.x;
  history.replaceState(null, '', '#' + new URLSearchParams({length: state.length, x: state.x, row: state.row || ''}));
  draw();
}

drawTop();
drawControls();
drawNotRun();
drawMeasured();
const wanted = new URLSearchParams(location.hash.slice(1));
const first = {};
if (lengths.includes(Number(wanted.get('length')))) first.length = Number(wanted.get('length'));
if (axes[wanted.get('x')]) first.x = wanted.get('x');
Object.assign(state, first);
const likely = bestRow() || front(methodsShown(), 'attention_s').pop() || exact();
first.row = at(state.length).some(r => r.name === wanted.get('row')) ? wanted.get('row') : likely && likely.name;
choose(first);
for (const id of ['frontier', 'recall', 'time', 'reads', 'results']) $(id).hidden = !lengths.length;
addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
document.documentElement.dataset.ready = 'yes';
