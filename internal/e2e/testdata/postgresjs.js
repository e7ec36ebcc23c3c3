// postgres.js by way of a proxy. Argument: a connection string.
const assert = require('node:assert')
const postgres = require('postgres')

async function main() {
  const sql = postgres(process.argv[2], { max: 2, onnotice: () => {}, connection: { application_name: 'postgres.js' } })
  await sql`CREATE TABLE pjs (a int PRIMARY KEY, b text)`
  await sql`INSERT INTO pjs VALUES (${1}, ${"postgres.js 'quoted'"})`
  await sql`INSERT INTO pjs ${sql([{ a: 2, b: 'two' }, { a: 3, b: 'three' }])}`
  const many = await Promise.all(Array.from({ length: 40 }, (_, i) => sql`SELECT ${i}::int AS i`)) // pipelined
  assert.deepStrictEqual(many.map(r => r[0].i), Array.from({ length: 40 }, (_, i) => i))
  await assert.rejects(sql`INSERT INTO pjs VALUES (${1}, 'twice')`, { code: '23505' })
  await sql.begin(async sql => {
    await sql`INSERT INTO pjs VALUES (4, 'four')`
    await sql.savepoint(async sql => {
      await sql`INSERT INTO pjs VALUES (5, 'undone')`
      throw new Error('undo')
    }).catch(() => {})
  })
  assert.strictEqual((await sql`SELECT count(*)::int AS n FROM pjs`)[0].n, 4)
  await sql`SELECT generate_series(1, 25) AS i`.cursor(10, () => {}) // a portal, suspended
  assert.strictEqual((await sql.unsafe('SELECT 1 AS x; SELECT 2 AS y')).length, 2)
  const heard = new Promise(resolve => sql.listen('pjs', resolve).then(() => sql.notify('pjs', 'from postgres.js')))
  assert.strictEqual(await heard, 'from postgres.js')
  const copy = await sql`COPY pjs FROM STDIN`.writable()
  await new Promise((resolve, reject) => { copy.on('finish', resolve); copy.on('error', reject); copy.end('100\tcopied\n101\tcopied\n') })
  const slow = sql`SELECT pg_sleep(600)`
  const refused = assert.rejects(slow, { code: '57014' })
  const asleep = () => sql`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'postgres.js'` // before that nothing is cancelled
  while ((await asleep()).length === 0);
  slow.cancel()
  await refused
  await sql.end()
  console.log('ok')
}
main().catch(e => { console.error(e); process.exit(1) })
