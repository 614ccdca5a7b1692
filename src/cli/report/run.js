// The rows of one run.

const rows = data.rows, llama = rows[0], exact = rows[1], pics = data.pictures;
const methods = rows.slice(2);
// The short name where it says which row is meant, else the whole specification.
const label = r =>
    rows.filter(o => baseName(o.name) === baseName(r.name)).length > 1 ? r.name : baseName(r.name);
