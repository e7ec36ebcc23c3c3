// node pg by way of a proxy. Argument: a connection string.
const assert = require('node:assert')
const { Client } = require('pg')

async function main() {
  const c = new Client({ connectionString: process.argv[2], application_name: 'node-pg' })
  await c.connect()
  await c.query('CREATE TABLE js (a int, b text, c bytea)')
  await c.query('INSERT INTO js VALUES ($1, $2, $3)', [1, "node 'quoted'", Buffer.from([0, 255])])
  for (let i = 0; i < 5; i++) {
    const r = await c.query({ name: 'named', text: 'SELECT a, b, c FROM js WHERE a = $1', values: [1] })
    assert.deepStrictEqual(r.rows, [{ a: 1, b: "node 'quoted'", c: Buffer.from([0, 255]) }])
  }
  await assert.rejects(c.query('SELECT * FROM missing'), { code: '42P01' })
  await assert.rejects(c.query('SELECT 1/$1::int', [0]), { code: '22012' })
  await c.query('BEGIN')
  await c.query('DELETE FROM js WHERE a = $1', [1])
  await c.query('ROLLBACK')
  const all = await Promise.all(Array.from({ length: 50 }, (_, i) => c.query('SELECT $1::int AS i', [i])))
  assert.deepStrictEqual(all.map(r => r.rows[0].i), Array.from({ length: 50 }, (_, i) => i))
  const several = await c.query('SELECT 1 AS x; SELECT 2 AS y')
  assert.strictEqual(several.length, 2)
  const heard = new Promise(resolve => c.on('notification', resolve))
  await c.query('LISTEN news')
  await c.query("NOTIFY news, 'from node'")
  assert.strictEqual((await heard).payload, 'from node')
  const big = 'x'.repeat(3 << 20)
  assert.strictEqual((await c.query('SELECT length($1::text) AS n', [big])).rows[0].n, big.length)
  await c.end()
  console.log('ok')
}
main().catch(e => { console.error(e); process.exit(1) })
