// Title, headline, table, and how it was measured.

// The file's name without its quantisation.
const modelName =
    data.model_description.replace(/ \(.*/, '').replace(/[.-](I?Q\d\w*|B?F\d+)$/i, '');

function drawTop() {
  $('title').textContent = `How ${modelName} reads ${count(data.tokens)} tokens`;
  $('subtitle').textContent =
      `${fileName(data.text)} · ${data.machine} · ${data.threads} threads · ${data.date}`;
}

function card(id, what, big, more) {
  $('headline')
      .append(element(
          'div', {class: 'card', id}, element('div', {class: 'what'}, what),
          element('div', {class: 'big'}, big), element('div', {class: 'more'}, more)));
}

function drawHeadline() {
  card(
      'card-exact', 'Exact attention on Regard', fixed(exact.attention_speedup, 2) + '×',
      `as fast as llama.cpp's own; the whole prefill ${
          fixed(exact.prefill_speedup, 2)}×. The likeliest next ` +
          `token is the same at ${percent(llama.top1, 1)} of the scored positions.`);
  // Fastest among those that hardly lose; if all lose, the one that loses least.
  const faithful = methods.filter(r => r.loss_rise <= 0.01);
  const best = faithful.length ? faithful.reduce((a, b) => b.attention_s < a.attention_s ? b : a) :
      methods.length           ? methods.reduce((a, b) => b.loss_rise < a.loss_rise ? b : a) :
                                 null;
  if (best) {
    card(
        'card-best',
        faithful.length ? 'Fastest method that keeps the loss within 0.01' : 'Most faithful method',
        fixed(best.attention_speedup, 2) + '×',
        `attention with ${label(best)}, at ${percent(best.density)} of the pairs; loss ${
            signed(best.loss_rise, 4)}, ` +
            `the whole prefill ${fixed(best.prefill_speedup, 2)}×.`);
  }
  card(
      'card-limit', 'If attention cost nothing', fixed(data.best_possible_speedup, 2) + '×',
      `would be the whole prefill's best: attention is ${
          percent(data.attention_share)} of llama.cpp's time here.`);
}

function drawTable() {
  const head =
      ['', 'Prefill', 'Attention', 'Density', 'Loss', 'Rise', 'KL', 'Top-1', 'Peak memory'];
  $('table').append(
      element('thead', {}, element('tr', {}, ...head.map(h => element('th', {scope: 'col'}, h)))));
  const body = element('tbody');
  rows.forEach((r, i) => {
    const name = element(
        'td', {}, svg('svg', {viewBox: '0 0 20 20', 'aria-hidden': 'true'}, marker(i, 10, 10, 8)),
        baseName(r.name) + (data.beyond_train_ctx ? ' *' : ''));
    if (params(r.name)) name.append(element('span', {class: 'params'}, params(r.name)));
    const timed = (s, speed) =>
        element('td', {}, fixed(s, 2) + ' s', element('small', {}, fixed(speed, 2) + '×'));
    body.append(element(
        'tr', {'data-row': r.name}, name, timed(r.prefill_s, r.prefill_speedup),
        timed(r.attention_s, r.attention_speedup),
        ...[percent(r.density, 1), fixed(r.loss, 4), signed(r.loss_rise, 4), fixed(r.kl, 5),
            percent(r.top1, 1), fixed(r.peak_mib, 0) + ' MiB']
            .map(t => element('td', {}, t))));
  });
  $('table').append(body);
  const note = text => $('notes').append(element('li', {}, text));
  if (data.beyond_train_ctx) {
    note(`* ${count(data.ctx)} tokens of context are more than the ${
        count(data.train_ctx)} the model was trained for.`);
  }
  note(
      `Rise, KL(exact ‖ row) and top-1 are against exact, at ${
          count(data.scored)} evenly spaced positions. ` +
      '× is speed against llama.cpp\'s own.');
  for (const r of rows) {
    for (const [reason, calls] of Object.entries(r.exact_calls)) {
      note(`${label(r)} ran exactly in ${count(calls)} of ${count(r.calls)} calls: ${reason}.`);
    }
  }
}

function drawMeasured() {
  $('how').textContent = data.how_measured;
  const facts = {
    Model: `${data.model_description}, ${data.layers} layers, ${data.heads} query and ${
        data.kv_heads} KV heads`,
    File: data.model,
    Document: `${data.text}, ${count(data.tokens)} of its ${count(data.text_tokens)} tokens`,
    'Micro-batch': `${data.ubatch} queries`,
    Cache: data.kv,
    Threads: data.threads,
    Machine: data.machine,
    Regard: data.regard,
    Date: data.date,
  };
  for (const [k, v] of Object.entries(facts))
    $('facts').append(element('dt', {}, k), element('dd', {}, String(v)));
}
