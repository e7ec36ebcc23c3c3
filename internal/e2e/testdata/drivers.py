"""psycopg 3 and psycopg2 by way of a proxy. Argument: a connection string."""
import sys
import psycopg
import psycopg2
import psycopg2.extras
from psycopg import errors
from psycopg.types.json import Jsonb

dsn = sys.argv[1]

# psycopg 3: server-side parameters, binary, pipeline, COPY, notifications.
with psycopg.connect(dsn, application_name="psycopg3") as c:
    cur = c.cursor()
    cur.execute("CREATE TABLE py3 (a int, b text, c bytea, j jsonb)")
    cur.execute("INSERT INTO py3 VALUES (%s, %s, %s, %s)", (1, "psycopg three 'quoted'", b"\x00\xff", Jsonb({"k": [1, 2]})))
    cur = c.cursor(binary=True)
    assert cur.execute("SELECT a, b, c FROM py3 WHERE a = %b", (1,)).fetchone() == (1, "psycopg three 'quoted'", b"\x00\xff")
    for i in range(10):  # prepared after the fifth
        assert cur.execute("SELECT %s::int + 1", (i,)).fetchone() == (i + 1,)
    c.commit()
    try:
        cur.execute("SELECT * FROM missing")
        raise SystemExit("no error")
    except errors.UndefinedTable:
        c.rollback()
    with c.cursor().copy("COPY py3 (a, b) FROM STDIN") as copy:
        for i in range(100):
            copy.write_row((i + 100, f"row {i}"))
    with c.cursor().copy("COPY py3 (a) TO STDOUT") as copy:
        assert sum(1 for _ in copy.rows()) == 101
    if psycopg.Pipeline.is_supported():
        with c.pipeline():
            many = [c.execute("SELECT %s::text", (f"pipelined {i}",)) for i in range(20)]
            assert [m.fetchone()[0] for m in many] == [f"pipelined {i}" for i in range(20)]
    c.commit()
    with c.cursor("named") as named:  # a cursor of the server
        named.itersize = 7
        assert len(list(named.execute("SELECT a FROM py3"))) == 101
    c.rollback()

with psycopg.connect(dsn, autocommit=True) as a, psycopg.connect(dsn, autocommit=True) as b:
    a.execute("LISTEN news")
    b.execute("NOTIFY news, 'hello'")
    for n in a.notifies():
        assert n.payload == "hello"
        break

# psycopg2: parameters written into the statement by the client.
c = psycopg2.connect(dsn, application_name="psycopg2")
cur = c.cursor()
cur.execute("CREATE TABLE py2 (a int, b text)")
psycopg2.extras.execute_values(cur, "INSERT INTO py2 VALUES %s", [(i, f"psycopg two {i}") for i in range(50)])
cur.execute("SELECT count(*) FROM py2 WHERE b LIKE %s", ("psycopg two%",))
assert cur.fetchone() == (50,)
with open("/dev/null", "w") as sink:
    cur.copy_expert("COPY py2 TO STDOUT", sink)
lo = c.lobject(0, "wb")
lo.write(b"large object " * 10000)
lo.close()
assert c.lobject(lo.oid, "rb").read()[:12] == b"large object"
c.commit()
c.close()
print("ok")
