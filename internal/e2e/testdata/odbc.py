"""ODBC by way of a proxy. Argument: a connection string of ODBC."""
import sys
import pyodbc

for prepare in (0, 1):  # parameters written into the text by the driver, or bound by the server
    c = pyodbc.connect(sys.argv[1] + f";UseServerSidePrepare={prepare}")
    cur = c.cursor()
    cur.execute("DROP TABLE IF EXISTS odbc")
    cur.execute("CREATE TABLE odbc (a int PRIMARY KEY, b varchar(50))")
    for i in range(10):
        cur.execute("INSERT INTO odbc VALUES (?, ?)", i, f"odbc 'quoted' {i}")
    c.commit()
    for i in range(10):
        assert cur.execute("SELECT b FROM odbc WHERE a = ?", i).fetchone()[0] == f"odbc 'quoted' {i}"
    try:
        cur.execute("INSERT INTO odbc VALUES (?, ?)", 1, "twice")
        raise SystemExit("no error")
    except pyodbc.IntegrityError:
        c.rollback()
    cur.execute("UPDATE odbc SET b = 'undone'")
    c.rollback()
    assert cur.execute("SELECT count(*) FROM odbc WHERE b = 'undone'").fetchone()[0] == 0
    assert len(cur.tables(table="odbc").fetchall()) == 1
    c.commit()
    c.close()
print("ok")
