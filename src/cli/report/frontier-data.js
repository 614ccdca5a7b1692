// What the page works with: rows by length, families, what is chosen.

const run = data.frontier || {}, model = data.model || {};
const lengths = [...new Set(data.rows.map(r => r.length))].sort((a, b) => a - b);
const familyOrder = ['pattern', 'dynamic', 'clustered', 'hybrid', 'profile'];
const familyName = {
  pattern: 'fixed patterns',
  dynamic: 'chosen from the data',
  clustered: 'groups of tokens',
  hybrid: 'several branches',
  profile: 'a method for each head'
};
const nameOfFamily = f => familyName[f] || f;
// Index of a family's colour and shape; 0 is llama.cpp, 1 is exact.
const familyIndex = f => familyOrder.includes(f) ? familyOrder.indexOf(f) + 2 : 7;
const indexOf = r => r.name === 'llama.cpp' ? 0 : r.name === 'exact' ? 1 : familyIndex(r.family);
const families = [
  ...new Set([...data.rows.filter(r => r.family), ...data.planted].map(r => r.family))
].sort((a, b) => familyIndex(a) - familyIndex(b));
const hidden = new Set();
const state = {
  length: lengths[lengths.length - 1],
  x: 'attention_s',
  row: null
};

const shortName = r => r.name.startsWith('@') ? 'profile ' + fileName(r.name) : r.name;
const at = length => data.rows.filter(r => r.length === length);
const referenceOf = (length, name) => at(length).find(r => r.name === name);
const llama = () => referenceOf(state.length, 'llama.cpp');
const exact = () => referenceOf(state.length, 'exact');
const isMethod = r => r.name !== 'llama.cpp' && r.name !== 'exact';
const ranExactly = r =>
    r.calls > 0 && Object.values(r.exact_calls || {}).reduce((a, b) => a + b, 0) >= r.calls;
const shown = () => at(state.length).filter(r => !isMethod(r) || !hidden.has(r.family));
const methodsShown = () => shown().filter(isMethod);
const chosen = () => at(state.length).find(r => r.name === state.row) || exact();

// Share of what exact attention gains from the first copies that a row keeps: 1 as exact, 0 as
// though there were none. Null where exact itself gains nothing.
function copiesKept(r) {
  const e = referenceOf(r.length, 'exact');
  const mine = r.recall && r.recall.copy_loss, all = e && e.recall && e.recall.copy_loss;
  const none = e && e.recall_without && e.recall_without.copy_loss;
  if (![mine, all, none].every(known) || none - all < .01) return null;
  return (none - mine) / (none - all);
}

// Rows that no other row beats on both axes, exact attention among them: what is no faster than
// exact is not on it.
function front(rows, x) {
  const e = exact();
  const sorted = rows.filter(r => known(r.loss_rise) && known(r[x]) && !ranExactly(r))
                     .filter(r => !e || r[x] < e[x])
                     .sort((a, b) => a[x] - b[x] || a.loss_rise - b.loss_rise);
  const out = [];
  let least = Infinity;
  for (const r of sorted) {
    if (r.loss_rise < least) {
      out.push(r);
      least = r.loss_rise;
    }
  }
  return out;
}

// The rows that small plots can hold: the frontier, what is chosen, and exact.
function fewRows(most) {
  const f = front(methodsShown(), 'attention_s');
  const step = Math.max(1, Math.ceil(f.length / most));
  const some = f.filter((_, i) => i % step === 0 || i === f.length - 1);
  const c = chosen();
  if (c && isMethod(c) && !some.includes(c)) some.push(c);
  return some;
}
const mark = (i, size = 20) =>
    svg('svg', {viewBox: '0 0 20 20', 'aria-hidden': 'true'}, marker(i, 10, 10, 8));
