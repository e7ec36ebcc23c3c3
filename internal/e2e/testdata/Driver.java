import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;

/** JDBC by way of a proxy. Argument: a JDBC address. */
public class Driver {
  static void check(boolean ok, String what) {
    if (!ok) {
      throw new AssertionError(what);
    }
  }

  public static void main(String[] args) throws Exception {
    for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
      run(args[0] + "&preferQueryMode=" + mode, mode.equals("simple"));
    }
    System.out.println("ok");
  }

  static void run(String address, boolean simple) throws Exception {
    try (Connection c = DriverManager.getConnection(address)) {
      try (Statement s = c.createStatement()) {
        s.execute("DROP TABLE IF EXISTS jdbc");
        s.execute("CREATE TABLE jdbc (a int PRIMARY KEY, b text)");
      }
      try (PreparedStatement p = c.prepareStatement("INSERT INTO jdbc VALUES (?, ?)")) {
        for (int i = 0; i < 20; i++) { // one pipeline
          p.setInt(1, i);
          p.setString(2, "jdbc " + i);
          p.addBatch();
        }
        check(p.executeBatch().length == 20, "batch");
      }
      try (PreparedStatement p = c.prepareStatement("SELECT b FROM jdbc WHERE a = ?")) {
        for (int i = 0; i < 10; i++) { // named and binary after the fifth
          p.setInt(1, i);
          ResultSet r = p.executeQuery();
          check(r.next() && r.getString(1).equals("jdbc " + i), "select");
        }
      }
      c.setAutoCommit(false);
      try (PreparedStatement p = c.prepareStatement("SELECT a FROM jdbc ORDER BY a")) {
        p.setFetchSize(3); // a portal, suspended again and again
        ResultSet r = p.executeQuery();
        int n = 0;
        while (r.next()) {
          n++;
        }
        check(n == 20, "cursor");
      }
      try (Statement s = c.createStatement()) {
        s.execute("INSERT INTO jdbc VALUES (0, 'twice')");
        throw new AssertionError("no error");
      } catch (SQLException e) {
        check(e.getSQLState().equals("23505"), e.getSQLState());
      }
      c.rollback();
      c.setAutoCommit(true);
      var copy = c.unwrap(PGConnection.class).getCopyAPI();
      check(copy.copyIn("COPY jdbc FROM STDIN", new StringReader("100\tcopied\n101\tcopied\n")) == 2, "copy in");
      check(copy.copyOut("COPY jdbc TO STDOUT", new StringWriter()) == 22, "copy out");
      c.setAutoCommit(false);
      var large = c.unwrap(PGConnection.class);
      if (!simple) { // which calls functions by their own message
        var objects = large.getLargeObjectAPI();
        long oid = objects.createLO();
        try (var object = objects.open(oid)) {
          object.write("large object".getBytes());
          object.seek(6);
          check(new String(object.read(6)).equals("object"), "large object");
        }
        objects.delete(oid);
      }
      var point = c.setSavepoint("point");
      try (Statement s = c.createStatement()) {
        s.execute("INSERT INTO jdbc VALUES (1000, 'undone')");
      }
      c.rollback(point);
      c.commit();
    }
  }
}
