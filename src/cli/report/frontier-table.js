// Title, headline, the table to sort, what was not run, how it was measured.

const modelName = (model.description || 'planted inputs').replace(/ \(.*/, '').replace(/[.-](I?Q\d\w*|B?F\d+)$/i, '');

function drawTop() {
  $('title').textContent = `What sparse attention costs ${modelName}`;
  $('subtitle').textContent = [run.text && fileName(run.text), run.machine, run.threads && `${run.threads} threads`, run.date].filter(Boolean).join(' · ');
}

function card(what, big, more) {
  return element('div', {class: 'card'}, element('div', {class: 'what'}, what), element('div', {class: 'big'}, big), element('div', {class: 'more'}, more));
}

// 95 % of what exact gains from a first copy, and of the needles' tokens that it gets right.
function recallsAsExact(r, e) {
  const needles = r.recall && known(r.recall.needle_hits) ? r.recall.needle_hits / e.recall.needle_hits : 1;
  return (copiesKept(r) ?? 1) >= .95 && !(needles < .95 - 1e-9);
}

// Fastest row that loses at most 1 % and finds what exact finds.
function bestRow() {
  const e = exact();
  if (!e) return null;
  return methodsShown()
             .filter(r => r.loss_rise <= .01 * e.loss && r.attention_s < e.attention_s && !ranExactly(r) && recallsAsExact(r, e))
             .sort((a, b) => a.attention_s - b.attention_s)[0] || null;
}

function drawHeadline() {
  const e = exact(), l = llama(), best = bestRow(), cards = [];
  if (best) {
    cards.push(card(`Fastest at ${count(state.length)} tokens within 1 % of the loss that finds 95 % of what exact finds`, fixed(e.attention_s / best.attention_s, 2) + '×', `less attention time than exact: ${shortName(best)}, reading ${percent(best.density)} of the pairs.`));
    cards.push(card('The whole prefill with it', fixed(l.prefill_s / best.prefill_s, 2) + '×', `as fast as llama.cpp's; loss ${signed(best.loss_rise, 4)}, ${percent(copiesKept(best))} of the copies, ${percent(best.recall && best.recall.needle_hits)} of the needles (exact: ${percent(e.recall && e.recall.needle_hits)}).`));
  } else if (e) {
    cards.push(card(`At ${count(state.length)} tokens`, 'none', 'No row shown is faster than exact, within 1 % of its loss and finds 95 % of what it finds.'));
  }
  if (e && l) cards.push(card('Exact attention on Regard', fixed(l.attention_s / e.attention_s, 2) + '×', `as fast as llama.cpp's own. Attention that cost nothing would make the whole ${fixed(l.prefill_s / (l.prefill_s - l.attention_s), 2)}×.`));
  $('headline').replaceChildren(...cards);
}

// How many times less time than exact in the layers without a sliding window; null: all are such.
function inGlobalLayers(r) {
  const e = exact(), layers = (e && e.global_layers) || [];
  if (!r.layer_s || !layers.length || layers.length === e.layer_s.length) return null;
  const seconds = row => layers.reduce((sum, l) => sum + row.layer_s[l], 0);
  return seconds(e) / seconds(r);
}

const columns = [
  ['Row', r => shortName(r), r => shortName(r)],
  ['Loss rise', r => r.loss_rise, r => signed(r.loss_rise, 4)],
  ['Attention', r => r.attention_s, r => fixed(r.attention_s, 2) + ' s'],
  ['× exact', r => exact() && exact().attention_s / r.attention_s, r => exact() ? fixed(exact().attention_s / r.attention_s, 2) : '–'],
  ['× exact, global layers', r => inGlobalLayers(r), r => known(inGlobalLayers(r)) ? fixed(inGlobalLayers(r), 2) : 'all'],
  ['× llama.cpp', r => llama() && llama().attention_s / r.attention_s, r => llama() ? fixed(llama().attention_s / r.attention_s, 2) : '–'],
  ['Prefill', r => r.prefill_s, r => fixed(r.prefill_s, 2) + ' s'],
  ['Planning', r => r.plan_s / r.attention_s, r => percent(r.plan_s / r.attention_s)],
  ['Pairs', r => r.density, r => percent(r.density, 1)],
  ['Tiles', r => r.tile_density, r => percent(r.tile_density, 1)],
  ['Mass kept', r => r.mass_kept, r => percent(r.mass_kept, 2)],
  ['KL', r => r.kl, r => fixed(r.kl, 5)],
  ['Top-1', r => r.top1, r => percent(r.top1, 1)],
  ['Copies', r => copiesKept(r), r => percent(copiesKept(r))],
  ['Needles', r => r.recall && r.recall.needle_hits, r => r.recall && known(r.recall.needle_hits) ? percent(r.recall.needle_hits) : '–'],
];
const sorting = {column: 2, down: false};

function drawTable() {
  const value = columns[sorting.column][1];
  const rows = shown().slice().sort((a, b) => {
    const va = value(a), vb = value(b);
    if (!known(va) || !known(vb)) return known(vb) - known(va);
    const order = typeof va === 'string' ? va.localeCompare(vb) : va - vb;
    return sorting.down ? -order : order;
  });
  const head = element('tr', {}, ...columns.map(([name], c) => {
    const button = element('button', {type: 'button'}, name);
    button.addEventListener('click', () => {
      sorting.down = sorting.column === c ? !sorting.down : false;
      sorting.column = c;
      drawTable();
    });
    const th = element('th', {scope: 'col'}, button);
    if (c === sorting.column) th.setAttribute('aria-sort', sorting.down ? 'descending' : 'ascending');
    return th;
  }));
  const body = rows.map(r => {
    const tr = element('tr', {'data-row': r.name}, ...columns.map(([, , text], c) => c ? element('td', {}, text(r)) : element('td', {}, mark(indexOf(r)), text(r))));
    if (r.name === state.row) tr.classList.add('chosen');
    tr.addEventListener('click', () => choose({row: r.name}));
    return tr;
  });
  $('table').replaceChildren(element('thead', {}, head), element('tbody', {}, ...body));
  const notes = [`Loss rise, KL(exact ‖ row) and top-1 are against exact at ${exact() ? count(exact().scored) : '–'} evenly spaced positions. Mass is of some layers. Copies: the share of what exact gains from a passage's first copy. Needles: the share of the codes' tokens that are the likeliest.`];
  for (const r of shown())
    for (const [why, calls] of Object.entries(r.exact_calls || {})) notes.push(`${shortName(r)} ran exactly in ${count(calls)} of ${count(r.calls)} calls: ${why}.`);
  $('notes').replaceChildren(...notes.map(n => element('li', {}, n)));
}

function drawNotRun() {
  const rows = data.settings.filter(s => s.not_on_model);
  if (!rows.length) {
    $('absent').hidden = true;
    return;
  }
  $('not-run').replaceChildren(
      element('thead', {}, element('tr', {}, ...['Method', 'Why', 'On planted inputs'].map(t => element('th', {scope: 'col', style: 'text-align: left'}, t)))),
      element('tbody', {}, ...rows.map(s => element('tr', {}, element('td', {}, s.name), element('td', {}, s.not_on_model), element('td', {}, s.not_at_all || 'yes')))));
}

function drawMeasured() {
  $('how').textContent =
      `Every row ran once, in one process with exact attention and llama.cpp at the same length. The model was in memory, and each timed pass began with one micro-batch of ${run.ubatch} tokens off the clock. Attention is timed node by node, planning included; llama.cpp's own in a pass of its own that calls ggml's kernel. Counting pairs, drawing plans and measuring mass are off the clock. ` +
      'Recall is a pass of its own over a document whose last eighth holds copies of seven passages and four questions; "no first copy" is exact attention on the same document with the passages and codes taken out of its body.';
  const facts = {
    Model: model.description && `${model.description}, ${model.layers} layers, ${model.heads} query and ${model.kv_heads} KV heads`,
    File: run.model,
    Document: run.text,
    'Micro-batch': `${run.ubatch} queries`,
    Cache: run.kv,
    Arithmetic: run.numeric,
    Threads: run.threads,
    Seed: run.seed,
    Machine: run.machine,
    Regard: run.regard,
    Begun: run.date,
  };
  for (const [k, v] of Object.entries(facts))
    if (known(v)) $('facts').append(element('dt', {}, k), element('dd', {}, String(v)));
}
