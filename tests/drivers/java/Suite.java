// The suite in JDBC's words, with PostgreSQL's own driver.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

public final class Suite {
    private static final int LIMIT = 20; // seconds for one check
    private static final String MODE = System.getenv("PGWEIR_MODE");

    // A type, and a value as text that PostgreSQL prints again unchanged.
    private static final String[][] VALUES = {
        {"int2", "-32768"},
        {"int4", "2147483647"},
        {"int8", "-9223372036854775808"},
        {"float8", "0.1"},
        {"numeric", "12345678901234567890.123456789"},
        {"bool", "true"},
        {"text", "Grüße 🐘 ' \" \\ $1 \n\t;"},
        {"text", ""},
        {"date", "2026-02-28"},
        {"timestamp", "2026-02-28 23:59:59.999999"},
        {"uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
        {"jsonb", "{\"a\": [1, 2.50, null], \"ü\": \"\\n\"}"},
        {"int4[]", "{1,NULL,-3}"},
        {"text[]", "{plain,\"with \\\"quotes\\\"\",NULL,\"NULL\",\"\"}"},
        {"bytea", "\\x0001ff5c27"},
    };

    private interface Check {
        void run() throws Exception;
    }

    // prepareThreshold=1: named on the server from the first execution on. The driver's own default, 5, is in `reused`.
    private static Connection connect(String... options) throws SQLException {
        var properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("ApplicationName", System.getenv("PGAPPNAME"));
        properties.setProperty("sslmode", System.getenv("PGSSLMODE"));
        properties.setProperty("prepareThreshold", "1");
        if (System.getenv("PGSSLROOTCERT") != null) {
            properties.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        }
        for (int i = 0; i < options.length; i += 2) {
            properties.setProperty(options[i], options[i + 1]);
        }
        var url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        return DriverManager.getConnection(url, properties);
    }

    private static void same(String what, Object got, Object want) {
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError(what + ": got " + shown(got) + ", want " + shown(want));
        }
    }

    private static String shown(Object value) {
        var text = String.valueOf(value);
        return text.length() > 200 ? text.substring(0, 200) + "…" : text;
    }

    private static void raises(String state, Check action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            same("state", error.getSQLState(), state);
            return;
        }
        throw new AssertionError("no error " + state);
    }

    private static void run(Connection on, String sql) throws SQLException {
        try (Statement statement = on.createStatement()) {
            statement.execute(sql);
        }
    }

    private static String one(Connection on, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = on.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    private static void connects() throws Exception {
        try (var conn = connect()) {
            same("who", one(conn, "SELECT current_user || '@' || current_database()"), "alice@app");
            same("application", one(conn, "SHOW application_name"), "driver-suite");
            same("valid", conn.isValid(5), true);
        }
        for (var mode : List.of("simple", "extendedForPrepared", "extendedCacheEverything")) {
            try (var conn = connect("preferQueryMode", mode)) {
                for (int i = 0; i < 10; i++) {
                    same(mode, one(conn, "SELECT ?::int + 1", i), String.valueOf(i + 1));
                }
            }
        }
    }

    private static void commits() throws Exception {
        try (var conn = connect(); var other = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_commit");
            conn.setAutoCommit(false);
            run(conn, "CREATE TABLE drv_commit (x int)");
            run(conn, "INSERT INTO drv_commit SELECT generate_series(1, 3)");
            conn.commit();
            same("rows", one(conn, "SELECT count(*) FROM drv_commit"), "3");
            same("rows elsewhere", one(other, "SELECT count(*) FROM drv_commit"), "3");
            conn.commit();
        }
    }

    private static void rollsBack() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_rollback; CREATE TABLE drv_rollback (x int)");
            conn.setAutoCommit(false);
            run(conn, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
            same("isolation", one(conn, "SHOW transaction_isolation"), "serializable");
            run(conn, "INSERT INTO drv_rollback VALUES (1)");
            conn.rollback();
            conn.setAutoCommit(true);
            same("rows", one(conn, "SELECT count(*) FROM drv_rollback"), "0");
        }
    }

    private static void savepoint() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_savepoint; CREATE TABLE drv_savepoint (x int PRIMARY KEY)");
            conn.setAutoCommit(false);
            run(conn, "INSERT INTO drv_savepoint VALUES (1)");
            Savepoint here = conn.setSavepoint("here");
            run(conn, "INSERT INTO drv_savepoint VALUES (2)");
            raises("23505", () -> run(conn, "INSERT INTO drv_savepoint VALUES (1)"));
            conn.rollback(here);
            run(conn, "INSERT INTO drv_savepoint VALUES (3)");
            conn.commit();
            conn.setAutoCommit(true);
            same("rows", one(conn, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3");
        }
    }

    private static void preparedReused() throws Exception {
        for (var threshold : List.of("1", "5")) {
            try (var conn = connect("prepareThreshold", threshold);
                    var twice = conn.prepareStatement("SELECT 2 * ?::int")) {
                for (int i = 0; i < 50; i++) {
                    conn.setAutoCommit(i % 2 == 0);
                    twice.setInt(1, i);
                    try (var rows = twice.executeQuery()) {
                        rows.next();
                        same("twice", rows.getInt(1), 2 * i);
                    }
                    if (i % 2 == 1) {
                        conn.commit();
                    }
                }
            }
        }
    }

    private static void preparedMany() throws Exception {
        try (var conn = connect()) {
            for (int turn = 0; turn < 2; turn++) {
                for (int i = 0; i < 20; i++) {
                    same("sum", one(conn, "SELECT " + i * 1000 + " + ?::int", turn), String.valueOf(i * 1000 + turn));
                }
            }
        }
        try (var conn = connect("preparedStatementCacheQueries", "3")) { // the driver closes what falls out
            for (int i = 0; i < 40; i++) {
                same("sum", one(conn, "SELECT " + i % 8 + " + ?::int", i), String.valueOf(i % 8 + i));
            }
        }
    }

    private static void preparedElsewhere() throws Exception {
        try (var conn = connect(); var first = connect(); var second = connect()) {
            var whose = "SELECT pg_backend_pid() + ?::int";
            first.setAutoCommit(false);
            second.setAutoCommit(false);
            run(first, "SELECT 1");
            var here = one(conn, whose, 0);
            run(second, "SELECT 1");
            first.commit();
            var there = one(conn, whose, 0);
            second.commit();
            if (MODE.equals("transaction") && here.equals(there)) {
                throw new AssertionError("both executions ran on server " + here);
            }
        }
    }

    private static void preparedReplanned() throws Exception {
        try (var conn = connect(); var other = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_replanned; CREATE TABLE drv_replanned AS SELECT 1 AS a");
            var plan = "SELECT a FROM drv_replanned WHERE a = ?";
            same("before", one(conn, plan, 1), "1");
            run(other, "ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'");
            same("after", one(conn, plan, 1), "1");
        }
    }

    private static void values(String binary) throws Exception {
        try (var conn = connect("binaryTransfer", binary)) {
            for (var each : VALUES) {
                same(each[0], one(conn, "SELECT ?::text::" + each[0] + "::text", each[1]), each[1]);
            }
            var every = new byte[256];
            for (int i = 0; i < 256; i++) {
                every[i] = (byte) i;
            }
            var when = Timestamp.valueOf("2026-02-28 23:59:59.123456");
            var sql = "SELECT ?::int8, ?::float8, ?::bytea, ?::int4[], ?::timestamp, ?::bool, ?::text, ?::numeric";
            try (var statement = conn.prepareStatement(sql)) {
                for (int turn = 0; turn < 3; turn++) { // the driver turns to binary once it knows the types
                    statement.setLong(1, -(1L << 62));
                    statement.setDouble(2, 0.1);
                    statement.setBytes(3, every);
                    statement.setArray(4, conn.createArrayOf("int4", new Object[] {3, null}));
                    statement.setTimestamp(5, when);
                    statement.setBoolean(6, true);
                    statement.setNull(7, Types.VARCHAR);
                    statement.setBigDecimal(8, new BigDecimal("12345678901234567890.5"));
                    try (var row = statement.executeQuery()) {
                        row.next();
                        same("int8", row.getLong(1), -(1L << 62));
                        same("float8", row.getDouble(2), 0.1);
                        same("bytea", Arrays.equals(row.getBytes(3), every), true);
                        same("array", row.getArray(4).getArray(), new Integer[] {3, null});
                        same("timestamp", row.getTimestamp(5), when);
                        same("bool", row.getBoolean(6), true);
                        same("null", row.getString(7), null);
                        same("numeric", row.getBigDecimal(8), new BigDecimal("12345678901234567890.5"));
                    }
                }
            }
        }
    }

    private static void copyIn() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_copy_in; CREATE TABLE drv_copy_in (id int8, t text)");
            var lines = new StringBuilder();
            for (int i = 0; i < 10_000; i++) {
                lines.append(i).append("\trow ").append(i).append('\n');
            }
            var copy = conn.unwrap(PGConnection.class).getCopyAPI();
            same("copied", copy.copyIn("COPY drv_copy_in FROM STDIN", new StringReader(lines.toString())), 10_000L);
            same("there", one(conn, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10000 49995000");
        }
    }

    private static void copyOut() throws Exception {
        try (var conn = connect()) {
            var out = new ByteArrayOutputStream();
            var sql = "COPY (SELECT i, 'row ' || i FROM generate_series(1, 10000) i) TO STDOUT";
            same("copied", conn.unwrap(PGConnection.class).getCopyAPI().copyOut(sql, out), 10_000L);
            var lines = out.toString().split("\n");
            same("lines", lines.length, 10_000);
            same("last", lines[9_999], "10000\trow 10000");
            same("next", one(conn, "SELECT 1"), "1");
        }
    }

    private static void copyBroken() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_copy_broken; CREATE TABLE drv_copy_broken (id int)");
            var copy = conn.unwrap(PGConnection.class).getCopyAPI();
            var data = "1\n".repeat(100_000) + "no number\n" + "2\n".repeat(100_000);
            raises("22P02", () -> copy.copyIn("COPY drv_copy_broken FROM STDIN", new StringReader(data)));
            var half = copy.copyIn("COPY drv_copy_broken FROM STDIN");
            half.writeToCopy("1\n".getBytes(), 0, 2);
            half.cancelCopy();
            same("rows", one(conn, "SELECT count(*) FROM drv_copy_broken"), "0");
        }
    }

    private static void cancels() throws Exception {
        try (var conn = connect()) {
            for (int turn = 0; turn < 2; turn++) {
                var began = System.nanoTime();
                try (var statement = conn.createStatement()) {
                    var killer = new Thread(() -> {
                        try {
                            Thread.sleep(200);
                            statement.cancel();
                        } catch (InterruptedException | SQLException error) {
                            error.printStackTrace();
                        }
                    });
                    killer.start();
                    raises("57014", () -> statement.execute("SELECT pg_sleep(15)"));
                    killer.join();
                }
                try (var statement = conn.createStatement()) {
                    statement.setQueryTimeout(1);
                    raises("57014", () -> statement.execute("SELECT pg_sleep(15)"));
                }
                if (System.nanoTime() - began > 8_000_000_000L) {
                    throw new AssertionError("the cancels took too long");
                }
                same("next", one(conn, "SELECT 1"), "1");
            }
        }
    }

    private static void pipelines() throws Exception {
        for (var rewrite : List.of("false", "true")) {
            try (var conn = connect("reWriteBatchedInserts", rewrite)) {
                run(conn, "DROP TABLE IF EXISTS drv_many; CREATE TABLE drv_many (x int, t text)");
                try (var insert = conn.prepareStatement("INSERT INTO drv_many VALUES (?, ?)")) {
                    for (int i = 0; i < 500; i++) {
                        insert.setInt(1, i);
                        insert.setString(2, "x".repeat(i));
                        insert.addBatch();
                    }
                    same("batch", insert.executeBatch().length, 500);
                }
                same("rows", one(conn, "SELECT count(*) || ' ' || sum(length(t)) FROM drv_many"), "500 124750");
            }
        }
    }

    private static void pipelineBroken() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_pipeline; CREATE TABLE drv_pipeline (x int PRIMARY KEY)");
            try (var insert = conn.prepareStatement("INSERT INTO drv_pipeline VALUES (?)")) {
                for (int x = 0; x < 302; x++) {
                    insert.setInt(1, x == 300 ? 1 : x);
                    insert.addBatch();
                }
                try {
                    insert.executeBatch();
                    throw new AssertionError("no error");
                } catch (BatchUpdateException error) {
                    same("state", error.getSQLState(), "23505");
                }
            }
            same("next", one(conn, "SELECT 1"), "1");
            conn.setAutoCommit(false);
            try (var insert = conn.prepareStatement("INSERT INTO drv_pipeline VALUES (?)")) {
                insert.setInt(1, 1000);
                insert.execute();
            }
            conn.commit();
        }
    }

    private static void uniqueViolation() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_unique; CREATE TABLE drv_unique (x int PRIMARY KEY)");
            conn.setAutoCommit(false);
            run(conn, "INSERT INTO drv_unique VALUES (1)");
            raises("23505", () -> run(conn, "INSERT INTO drv_unique VALUES (1)"));
            raises("25P02", () -> run(conn, "SELECT 1"));
            conn.rollback();
            conn.setAutoCommit(true);
            same("rows", one(conn, "SELECT count(*) FROM drv_unique"), "0");
        }
    }

    private static void syntaxError() throws Exception {
        try (var conn = connect()) {
            for (int turn = 0; turn < 5; turn++) {
                raises("42601", () -> run(conn, "SELEKT 1"));
                raises("42601", () -> one(conn, "SELEKT ?", 1));
                same("next", one(conn, "SELECT 1"), "1");
            }
        }
    }

    private static void largeRows() throws Exception {
        try (var conn = connect(); var statement = conn.createStatement()) {
            try (var rows = statement.executeQuery("SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i")) {
                for (char letter = 'a'; rows.next(); letter++) {
                    same("row", rows.getString(1).equals(String.valueOf(letter).repeat(4_000_000)), true);
                }
            }
            long sum = 0;
            try (var rows = statement.executeQuery("SELECT i, md5(i::text) FROM generate_series(1, 50000) i")) {
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
            }
            same("sum", sum, 50_000L * 50_001 / 2);
        }
    }

    private static void largeParameter() throws Exception {
        try (var conn = connect()) {
            var big = "0123456789".repeat(500_000);
            same("there and back", one(conn, "SELECT ?::text || 'x'", big).equals(big + "x"), true);
        }
    }

    private static void cursor() throws Exception {
        try (var conn = connect()) {
            conn.setAutoCommit(false); // else the driver ignores the fetch size
            try (var statement = conn.prepareStatement("SELECT generate_series(1, ?::int)")) {
                statement.setFetchSize(100);
                statement.setInt(1, 250);
                int seen = 0;
                try (var rows = statement.executeQuery()) {
                    while (rows.next()) {
                        seen++;
                    }
                }
                same("rows", seen, 250);
            }
            conn.commit();
        }
    }

    private static void notices() throws Exception {
        try (var conn = connect(); var statement = conn.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$");
            var heard = new ArrayList<String>();
            for (SQLWarning said = statement.getWarnings(); said != null; said = said.getNextWarning()) {
                heard.add(said.getMessage());
            }
            same("notices", heard, List.of("hear this", "and that"));
        }
    }

    private static void multiStatement() throws Exception {
        for (var mode : List.of("simple", "extended")) {
            try (var conn = connect("preferQueryMode", mode); var statement = conn.createStatement()) {
                same("a result", statement.execute("SELECT 1; SELECT 'two'; SELECT 3 WHERE false"), true);
                same("another", statement.getMoreResults(), true);
                var second = statement.getResultSet();
                second.next();
                same("second", second.getString(1), "two");
                raises("22012", () -> run(conn, "SELECT 1; SELECT 1/0; SELECT 3"));
            }
        }
    }

    private static void trackedSetting() throws Exception {
        try (var conn = connect(); var other = connect()) {
            var plain = one(other, "SHOW TimeZone");
            run(conn, "SET TimeZone = 'Asia/Tokyo'");
            for (int turn = 0; turn < 5; turn++) {
                same("other", one(other, "SHOW TimeZone"), plain);
                same("ours", one(conn, "SHOW TimeZone"), "Asia/Tokyo");
            }
        }
    }

    private static void manyClients() throws Exception {
        try (var conn = connect()) {
            run(conn, "DROP TABLE IF EXISTS drv_counter; CREATE TABLE drv_counter AS SELECT 0 AS n");
            ExecutorService eight = Executors.newFixedThreadPool(8);
            Callable<Void> count = () -> {
                try (var own = connect(); var add = own.prepareStatement("UPDATE drv_counter SET n = n + ?")) {
                    for (int turn = 0; turn < 25; turn++) {
                        add.setInt(1, 1);
                        add.executeUpdate();
                    }
                }
                return null;
            };
            try {
                for (Future<Void> each : eight.invokeAll(java.util.Collections.nCopies(8, count))) {
                    each.get();
                }
            } finally {
                eight.shutdown();
            }
            same("counted", one(conn, "SELECT n FROM drv_counter"), "200");
        }
    }

    private static void sessionSetting() throws Exception {
        try (var conn = connect()) {
            run(conn, "SET work_mem = '1234kB'");
            same("work_mem", one(conn, "SHOW work_mem"), "1234kB");
        }
    }

    private static void listens() throws Exception {
        try (var conn = connect(); var other = connect()) {
            run(conn, "LISTEN drv_channel");
            one(other, "SELECT pg_notify('drv_channel', ?)", "hello");
            PGNotification[] heard = conn.unwrap(PGConnection.class).getNotifications(10_000);
            same("heard", heard[0].getName() + " " + heard[0].getParameter(), "drv_channel hello");
        }
    }

    private static void temporaryTable() throws Exception {
        try (var conn = connect()) {
            run(conn, "CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x");
            same("kept", one(conn, "SELECT x FROM drv_temporary"), "7");
        }
    }

    private static String quoted(String text) {
        var out = new StringBuilder("\"");
        for (char each : text.toCharArray()) {
            if (each == '"' || each == '\\') {
                out.append('\\').append(each);
            } else if (each < 32 || each > 126) {
                out.append(String.format("\\u%04x", (int) each));
            } else {
                out.append(each);
            }
        }
        return out.append('"').toString();
    }

    public static void main(String[] arguments) {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("connect", Suite::connects);
        checks.put("commit", Suite::commits);
        checks.put("rollback", Suite::rollsBack);
        checks.put("savepoint", Suite::savepoint);
        checks.put("prepared_reused", Suite::preparedReused);
        checks.put("prepared_many", Suite::preparedMany);
        checks.put("prepared_elsewhere", Suite::preparedElsewhere);
        checks.put("prepared_replanned", Suite::preparedReplanned);
        checks.put("parameters_text", () -> values("false"));
        checks.put("parameters_binary", () -> values("true"));
        checks.put("copy_in", Suite::copyIn);
        checks.put("copy_out", Suite::copyOut);
        checks.put("copy_broken", Suite::copyBroken);
        checks.put("cancel", Suite::cancels);
        checks.put("pipeline", Suite::pipelines);
        checks.put("pipeline_broken", Suite::pipelineBroken);
        checks.put("unique_violation", Suite::uniqueViolation);
        checks.put("syntax_error", Suite::syntaxError);
        checks.put("large_rows", Suite::largeRows);
        checks.put("large_parameter", Suite::largeParameter);
        checks.put("cursor", Suite::cursor);
        checks.put("notices", Suite::notices);
        checks.put("multi_statement", Suite::multiStatement);
        checks.put("tracked_setting", Suite::trackedSetting);
        checks.put("many_clients", Suite::manyClients);
        checks.put("session_setting", Suite::sessionSetting);
        checks.put("listen_notify", Suite::listens);
        checks.put("temporary_table", Suite::temporaryTable);

        var worker = Executors.newCachedThreadPool();
        for (var name : System.getenv("PGWEIR_CHECKS").split(",")) {
            long began = System.nanoTime();
            String trouble = null;
            var done = worker.submit(() -> {
                checks.get(name).run();
                return null;
            });
            try {
                done.get(LIMIT, TimeUnit.SECONDS);
            } catch (ExecutionException error) {
                trouble = String.valueOf(error.getCause());
                error.getCause().printStackTrace();
            } catch (TimeoutException | InterruptedException error) {
                trouble = "not done after " + LIMIT + " s";
            }
            System.out.printf(
                    "{\"check\": %s, \"ok\": %s, \"error\": %s, \"seconds\": %.3f}%n",
                    quoted(name), trouble == null, quoted(trouble == null ? "" : trouble), (System.nanoTime() - began) / 1e9);
        }
        System.exit(0);
    }
}
