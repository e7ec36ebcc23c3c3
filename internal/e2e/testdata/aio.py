"""asyncpg by way of a proxy. Argument: a connection string."""
import asyncio
import sys
import asyncpg

dsn = sys.argv[1]


async def main():
    c = await asyncpg.connect(dsn, server_settings={"application_name": "asyncpg"})
    await c.execute("CREATE TABLE aio (a int PRIMARY KEY, b text, c bytea)")
    await c.execute("INSERT INTO aio VALUES ($1, $2, $3)", 1, "asyncpg 'quoted'", b"\x00\xff")
    await c.executemany("INSERT INTO aio VALUES ($1, $2)", [(i, f"asyncpg {i}") for i in range(2, 30)])  # one pipeline
    statement = await c.prepare("SELECT b FROM aio WHERE a = $1")
    for i in range(2, 10):
        assert await statement.fetchval(i) == f"asyncpg {i}"
    try:
        await c.execute("INSERT INTO aio VALUES ($1)", 1)
        raise SystemExit("no error")
    except asyncpg.UniqueViolationError:
        pass
    async with c.transaction():
        async for _ in c.cursor("SELECT * FROM aio", prefetch=7):  # a portal, suspended again and again
            pass
        try:
            async with c.transaction():  # a savepoint
                await c.execute("INSERT INTO aio VALUES (1000, 'undone')")
                raise ValueError
        except ValueError:
            pass
    assert await c.fetchval("SELECT count(*) FROM aio") == 29
    await c.copy_records_to_table("aio", records=[(i, "copied", None) for i in range(100, 200)])
    await c.copy_from_query("SELECT a FROM aio WHERE a > $1", 100, output=lambda b: asyncio.sleep(0))
    heard = asyncio.get_running_loop().create_future()
    await c.add_listener("aio", lambda *args: heard.done() or heard.set_result(args[3]))
    await c.execute("NOTIFY aio, 'from asyncpg'")
    assert await asyncio.wait_for(heard, 120) == "from asyncpg"
    try:
        await c.fetchval("SELECT pg_sleep(30)", timeout=0.3)  # it cancels
        raise SystemExit("no timeout")
    except asyncio.TimeoutError:
        pass
    assert await c.fetchval("SELECT 1") == 1
    await c.close()


asyncio.run(main())
print("ok")
