// The suite in node-postgres' own words.
import { pipeline as stream } from "node:stream/promises";
import { Readable } from "node:stream";
import pg from "pg";
import Cursor from "pg-cursor";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { VALUES, big, everyByte, mode, raises, run, same, settings, sleep } from "./suite.mjs";

const open = [];

async function connect(options = {}) {
  const client = new pg.Client({ ...settings, application_name: process.env.PGAPPNAME, ...options });
  client.on("error", (error) => console.error(error));
  await client.connect();
  open.push(client);
  return client;
}

// Every check has its own connections, and they are closed at its end.
const check = (body) => async () => {
  try {
    await body();
  } finally {
    await Promise.all(open.splice(0).map((client) => client.end()));
  }
};

const value = async (client, ...query) => Object.values((await client.query(...query)).rows[0])[0];

async function commits() {
  const [conn, other] = [await connect(), await connect()];
  await conn.query("DROP TABLE IF EXISTS drv_commit");
  await conn.query("BEGIN");
  await conn.query("CREATE TABLE drv_commit (x int)");
  await conn.query("INSERT INTO drv_commit SELECT generate_series(1, $1::int)", [3]);
  await conn.query("COMMIT");
  same("rows", await value(conn, "SELECT count(*)::int FROM drv_commit"), 3);
  same("rows elsewhere", await value(other, "SELECT count(*)::int FROM drv_commit"), 3);
}

async function rollsBack() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_rollback; CREATE TABLE drv_rollback (x int)");
  await conn.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
  same("isolation", await value(conn, "SHOW transaction_isolation"), "serializable");
  await conn.query("INSERT INTO drv_rollback VALUES (1)");
  await conn.query("ROLLBACK");
  same("rows", await value(conn, "SELECT count(*)::int FROM drv_rollback"), 0);
}

async function savepoint() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_savepoint; CREATE TABLE drv_savepoint (x int PRIMARY KEY)");
  await conn.query("BEGIN");
  await conn.query("INSERT INTO drv_savepoint VALUES (1)");
  await conn.query("SAVEPOINT here");
  await conn.query("INSERT INTO drv_savepoint VALUES (2)");
  await raises("23505", conn.query("INSERT INTO drv_savepoint VALUES ($1)", [1]));
  await conn.query("ROLLBACK TO SAVEPOINT here");
  await conn.query("INSERT INTO drv_savepoint VALUES (3)");
  await conn.query("COMMIT");
  same("rows", await value(conn, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3");
}

async function preparedReused() {
  const conn = await connect();
  const twice = (i) => value(conn, { name: "twice", text: "SELECT 2 * $1::int", values: [i] });
  for (let i = 0; i < 50; i++) {
    await conn.query("BEGIN");
    same("twice", await twice(i), 2 * i);
    await conn.query("COMMIT");
    same("twice", await twice(-i - 1), -2 * i - 2);
  }
}

async function preparedMany() {
  const conn = await connect();
  for (const turn of [0, 1]) {
    for (let i = 0; i < 20; i++) {
      const sum = { name: `many${i}`, text: `SELECT ${i * 1000} + $1::int`, values: [turn] };
      same("sum", await value(conn, sum), i * 1000 + turn);
    }
  }
}

async function preparedElsewhere() {
  const [conn, first, second] = [await connect(), await connect(), await connect()];
  const whose = { name: "whose", text: "SELECT pg_backend_pid() + $1::int", values: [0] };
  await first.query("BEGIN");
  const here = await value(conn, whose);
  await second.query("BEGIN");
  await first.query("COMMIT");
  const there = await value(conn, whose);
  await second.query("COMMIT");
  if (mode === "transaction" && here === there) throw new Error(`both executions ran on server ${here}`);
}

async function preparedReplanned() {
  const [conn, other] = [await connect(), await connect()];
  await conn.query("DROP TABLE IF EXISTS drv_replanned; CREATE TABLE drv_replanned AS SELECT 1 AS a");
  const plan = { name: "plan", text: "SELECT a FROM drv_replanned WHERE a = $1", values: [1] };
  same("before", await value(conn, plan), 1);
  await other.query("ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'");
  same("after", await value(conn, plan), 1);
}

async function parametersText() {
  const conn = await connect();
  for (const [type, text] of VALUES) {
    same(type, await value(conn, `SELECT $1::text::${type}::text`, [text]), text);
  }
  const row = await conn.query({
    text: "SELECT $1::float8, $2::int4[], $3::bool, $4::text, $5::jsonb, $6::timestamptz",
    values: [0.1, [3, null], true, null, { a: [1, null] }, new Date("2026-02-28T23:59:59.123Z")],
    rowMode: "array",
  });
  const when = new Date("2026-02-28T23:59:59.123Z");
  same("values", row.rows[0], [0.1, [3, null], true, null, { a: [1, null] }, when]);
}

// Buffers are what node-postgres sends in binary; it reads results in text.
async function parametersBinary() {
  const conn = await connect();
  const row = await conn.query("SELECT encode($1::bytea, 'hex') AS hex, $1::bytea AS bytes, $2::int4 AS n", [everyByte, 7]);
  same("values", row.rows[0], { hex: everyByte.toString("hex"), bytes: everyByte, n: 7 });
}

async function copyIn() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_copy_in; CREATE TABLE drv_copy_in (id int8, t text)");
  const lines = Array.from({ length: 10_000 }, (_, i) => `${i}\trow ${i}\n`);
  const target = conn.query(copyFrom("COPY drv_copy_in FROM STDIN"));
  await stream(Readable.from(lines), target);
  same("copied", target.rowCount, 10_000);
  const there = await value(conn, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in");
  same("there", there, "10000 49995000");
}

async function copyOut() {
  const conn = await connect();
  const source = conn.query(copyTo("COPY (SELECT i, 'row ' || i FROM generate_series(1, 10000) i) TO STDOUT"));
  const parts = [];
  for await (const part of source) parts.push(part);
  const lines = Buffer.concat(parts).toString().split("\n");
  same("lines", [lines.length, lines[9_999]], [10_001, "10000\trow 10000"]);
  same("next", await value(conn, "SELECT 1 AS one"), 1);
}

async function copyBroken() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_copy_broken; CREATE TABLE drv_copy_broken (id int)");
  const parts = ["1\n".repeat(100_000), "no number\n", "2\n".repeat(100_000)];
  await raises("22P02", stream(Readable.from(parts), conn.query(copyFrom("COPY drv_copy_broken FROM STDIN"))));
  same("rows", await value(conn, "SELECT count(*)::int FROM drv_copy_broken"), 0);
}

async function cancels() {
  const conn = await connect();
  for (let turn = 0; turn < 3; turn++) {
    const began = performance.now();
    const query = new pg.Query("SELECT pg_sleep(15)");
    const ended = new Promise((resolve, reject) => query.on("end", resolve).on("error", reject));
    conn.query(query);
    await sleep(200);
    // The driver has no cancel of its own but this one, which opens a connection with our key.
    new pg.Client({ ...settings }).cancel(conn, query);
    await raises("57014", ended);
    if (performance.now() - began > 8000) throw new Error("the cancel took too long");
    same("next", await value(conn, "SELECT 1 AS one"), 1);
  }
}

// node-postgres queues queries itself, one after the other; with `pipeline` set it sends them at once.
async function pipelines() {
  const conn = await connect();
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, i) => value(conn, { name: i % 2 ? "odd" : undefined, text: "SELECT $1::int * 3 AS x", values: [i] })),
  );
  same("answers", answers, Array.from({ length: 200 }, (_, i) => i * 3));
}

async function pipelineBroken() {
  const conn = await connect();
  const answers = await Promise.allSettled([
    conn.query("SELECT $1::int AS x", [1]),
    conn.query("SELECT nonsense, $1::int", [1]),
    conn.query({ name: "good", text: "SELECT $1::int AS x", values: [2] }),
  ]);
  same("outcomes", answers.map((answer) => answer.status), ["fulfilled", "rejected", "fulfilled"]);
  same("state", answers[1].reason.code, "42703");
  same("answer", answers[2].value.rows, [{ x: 2 }]);
}

async function uniqueViolation() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_unique; CREATE TABLE drv_unique (x int PRIMARY KEY)");
  await conn.query("BEGIN");
  await conn.query("INSERT INTO drv_unique VALUES (1)");
  await raises("23505", conn.query("INSERT INTO drv_unique VALUES ($1)", [1]));
  await raises("25P02", conn.query("SELECT 1"));
  await conn.query("ROLLBACK");
  same("rows", await value(conn, "SELECT count(*)::int FROM drv_unique"), 0);
}

async function syntaxError() {
  const conn = await connect();
  for (let turn = 0; turn < 5; turn++) {
    await raises("42601", conn.query("SELEKT 1"));
    await raises("42601", conn.query("SELEKT $1", [1]));
    await raises("42601", conn.query({ name: "bad", text: "SELEKT $1", values: [1] }));
    same("next", await value(conn, "SELECT 1 AS one"), 1);
  }
}

async function largeRows() {
  const conn = await connect();
  const { rows } = await conn.query("SELECT repeat(chr(96 + i), 4000000) AS t FROM generate_series(1, 4) i");
  same("large", rows.map((row) => row.t), ["a", "b", "c", "d"].map((letter) => letter.repeat(4_000_000)));
  const many = await conn.query("SELECT i, md5(i::text) FROM generate_series(1, 50000) i");
  same("sum", many.rows.reduce((sum, row) => sum + row.i, 0), (50_000 * 50_001) / 2);
}

async function largeParameter() {
  const conn = await connect();
  same("there and back", (await value(conn, "SELECT $1::text || 'x'", [big])) === `${big}x`, true);
}

async function cursor() {
  const conn = await connect();
  await conn.query("BEGIN");
  const pieces = conn.query(new Cursor("SELECT generate_series(1, $1::int) AS i", [250]));
  let seen = 0;
  for (;;) {
    const rows = await pieces.read(100);
    seen += rows.length;
    if (!rows.length) break;
  }
  await pieces.close();
  await conn.query("COMMIT");
  same("rows", seen, 250);
}

async function notices() {
  const conn = await connect();
  const heard = [];
  conn.on("notice", (notice) => heard.push(notice.message));
  await conn.query("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$");
  same("notices", heard, ["hear this", "and that"]);
}

async function multiStatement() {
  const conn = await connect();
  const results = await conn.query("SELECT 1 AS x; SELECT 'two' AS x; SELECT 3 AS x WHERE false");
  same("results", results.map((result) => result.rows), [[{ x: 1 }], [{ x: "two" }], []]);
  await raises("22012", conn.query("SELECT 1; SELECT 1/0; SELECT 3"));
}

async function trackedSetting() {
  const [conn, other] = [await connect(), await connect()];
  const plain = await value(other, "SHOW TimeZone");
  await conn.query("SET TimeZone = 'Asia/Tokyo'");
  for (let turn = 0; turn < 5; turn++) {
    same("other", await value(other, "SHOW TimeZone"), plain);
    same("ours", await value(conn, "SHOW TimeZone"), "Asia/Tokyo");
  }
}

async function manyClients() {
  const conn = await connect();
  await conn.query("DROP TABLE IF EXISTS drv_counter; CREATE TABLE drv_counter AS SELECT 0 AS n");
  const pool = new pg.Pool({ ...settings, max: 8 });
  const add = async () => {
    for (let turn = 0; turn < 25; turn++) await pool.query("UPDATE drv_counter SET n = n + $1", [1]);
  };
  await Promise.all(Array.from({ length: 8 }, add));
  await pool.end();
  same("counted", await value(conn, "SELECT n FROM drv_counter"), 200);
}

async function listens() {
  const [conn, other] = [await connect(), await connect()];
  const heard = new Promise((resolve) => conn.on("notification", resolve));
  await conn.query("LISTEN drv_channel");
  await other.query("SELECT pg_notify('drv_channel', $1)", ["hello"]);
  const { channel, payload } = await heard;
  same("heard", [channel, payload], ["drv_channel", "hello"]);
}

const checks = {
  connect: async () => {
    const conn = await connect();
    same("who", await value(conn, "SELECT current_user || '@' || current_database()"), "alice@app");
    same("application", await value(conn, "SHOW application_name"), "driver-suite");
  },
  commit: commits,
  rollback: rollsBack,
  savepoint,
  prepared_reused: preparedReused,
  prepared_many: preparedMany,
  prepared_elsewhere: preparedElsewhere,
  prepared_replanned: preparedReplanned,
  parameters_text: parametersText,
  parameters_binary: parametersBinary,
  copy_in: copyIn,
  copy_out: copyOut,
  copy_broken: copyBroken,
  cancel: cancels,
  pipeline: pipelines,
  pipeline_broken: pipelineBroken,
  unique_violation: uniqueViolation,
  syntax_error: syntaxError,
  large_rows: largeRows,
  large_parameter: largeParameter,
  cursor,
  notices,
  multi_statement: multiStatement,
  tracked_setting: trackedSetting,
  many_clients: manyClients,
  session_setting: async () => {
    const conn = await connect();
    await conn.query("SET work_mem = '1234kB'");
    same("work_mem", await value(conn, "SHOW work_mem"), "1234kB");
  },
  listen_notify: listens,
  temporary_table: async () => {
    const conn = await connect();
    await conn.query("CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x");
    same("kept", await value(conn, "SELECT x FROM drv_temporary"), 7);
  },
};

await run(Object.fromEntries(Object.entries(checks).map(([name, body]) => [name, check(body)])));
