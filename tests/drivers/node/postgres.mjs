// The suite in postgres.js' own words. It prepares every query under a name, and pipelines on its own.
import { pipeline as stream } from "node:stream/promises";
import { Readable, Writable } from "node:stream";
import postgres from "postgres";
import { VALUES, big, everyByte, mode, raises, run, same, settings, sleep } from "./suite.mjs";

const open = [];

// One connection, unless asked for more; `sql` is postgres.js' word for it.
function connect(options = {}) {
  const sql = postgres({
    ...settings,
    max: 1,
    onnotice: () => {},
    connection: { application_name: process.env.PGAPPNAME },
    ...options,
  });
  open.push(sql);
  return sql;
}

const check = (body) => async () => {
  try {
    await body();
  } finally {
    await Promise.all(open.splice(0).map((sql) => sql.end({ timeout: 5 })));
  }
};

const value = async (query) => Object.values((await query)[0])[0];

async function commits() {
  const [sql, other] = [connect(), connect()];
  await sql`DROP TABLE IF EXISTS drv_commit`;
  await sql.begin(async (tx) => {
    await tx`CREATE TABLE drv_commit (x int)`;
    await tx`INSERT INTO drv_commit SELECT generate_series(1, ${3}::int)`;
  });
  same("rows", await value(sql`SELECT count(*)::int FROM drv_commit`), 3);
  same("rows elsewhere", await value(other`SELECT count(*)::int FROM drv_commit`), 3);
}

async function rollsBack() {
  const sql = connect();
  await sql.unsafe("DROP TABLE IF EXISTS drv_rollback; CREATE TABLE drv_rollback (x int)");
  const gone = sql.begin("ISOLATION LEVEL SERIALIZABLE", async (tx) => {
    same("isolation", await value(tx`SHOW transaction_isolation`), "serializable");
    await tx`INSERT INTO drv_rollback VALUES (1)`;
    throw Object.assign(new Error("enough"), { code: "ours" });
  });
  await raises("ours", gone);
  same("rows", await value(sql`SELECT count(*)::int FROM drv_rollback`), 0);
}

async function savepoint() {
  const sql = connect();
  await sql.unsafe("DROP TABLE IF EXISTS drv_savepoint; CREATE TABLE drv_savepoint (x int PRIMARY KEY)");
  await sql.begin(async (tx) => {
    await tx`INSERT INTO drv_savepoint VALUES (1)`;
    const inner = tx.savepoint(async (point) => {
      await point`INSERT INTO drv_savepoint VALUES (2)`;
      await point`INSERT INTO drv_savepoint VALUES (${1})`;
    });
    await raises("23505", inner);
    await tx`INSERT INTO drv_savepoint VALUES (3)`;
  });
  same("rows", await value(sql`SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint`), "1,3");
}

async function preparedReused() {
  const sql = connect();
  const twice = (on, i) => value(on`SELECT 2 * ${i}::int`);
  for (let i = 1; i < 50; i++) {
    await sql.begin(async (tx) => same("twice", await twice(tx, i), 2 * i));
    same("twice", await twice(sql, -i), -2 * i);
  }
}

async function preparedMany() {
  const sql = connect();
  for (const turn of [0, 1]) {
    for (let i = 0; i < 20; i++) {
      same("sum", await value(sql.unsafe(`SELECT ${i * 1000} + $1::int`, [turn], { prepare: true })), i * 1000 + turn);
    }
  }
}

async function preparedElsewhere() {
  const [sql, first, second] = [connect(), connect(), connect()];
  const whose = () => value(sql`SELECT pg_backend_pid() + ${0}::int`);
  let here;
  let release;
  let second_ends;
  await first.begin(async (tx) => {
    await tx`SELECT 1`;
    here = await whose();
    await new Promise((held) => {
      second_ends = second.begin(async (next) => {
        await next`SELECT 1`;
        held();
        await new Promise((resolve) => { release = resolve; });
      });
    });
  });
  const there = await whose();
  release();
  await second_ends;
  if (mode === "transaction" && here === there) throw new Error(`both executions ran on server ${here}`);
}

async function preparedReplanned() {
  const [sql, other] = [connect(), connect()];
  await sql.unsafe("DROP TABLE IF EXISTS drv_replanned; CREATE TABLE drv_replanned AS SELECT 1 AS a");
  const plan = () => value(sql`SELECT a FROM drv_replanned WHERE a = ${1}`);
  same("before", await plan(), 1);
  await other`ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'`;
  same("after", await plan(), 1);
}

async function parametersText() {
  const sql = connect();
  for (const [type, text] of VALUES) {
    same(type, await value(sql.unsafe(`SELECT $1::text::${type}::text`, [text])), text);
  }
  const when = new Date("2026-02-28T23:59:59.123Z");
  const [row] = await sql`SELECT ${0.1}::float8 AS a, ${sql.array([3, 4])}::int4[] AS b, ${true}::bool AS c,
    ${null}::text AS d, ${sql.json({ a: [1, null] })}::jsonb AS e, ${when}::timestamptz AS f, ${everyByte}::bytea AS g`;
  same("bytea", Buffer.compare(row.g, everyByte), 0);
  delete row.g;
  same("values", { ...row }, { a: 0.1, b: [3, 4], c: true, d: null, e: { a: [1, null] }, f: when });
}

async function copyIn() {
  const sql = connect();
  await sql.unsafe("DROP TABLE IF EXISTS drv_copy_in; CREATE TABLE drv_copy_in (id int8, t text)");
  const lines = Array.from({ length: 10_000 }, (_, i) => `${i}\trow ${i}\n`);
  await stream(Readable.from(lines), await sql`COPY drv_copy_in FROM STDIN`.writable());
  same("there", await value(sql`SELECT count(*) || ' ' || sum(id) FROM drv_copy_in`), "10000 49995000");
}

async function copyOut() {
  const sql = connect();
  const parts = [];
  const source = await sql`COPY (SELECT i, 'row ' || i FROM generate_series(1, 10000) i) TO STDOUT`.readable();
  await stream(source, new Writable({ write: (part, _, next) => (parts.push(part), next()) }));
  const lines = Buffer.concat(parts).toString().split("\n");
  same("lines", [lines.length, lines[9_999]], [10_001, "10000\trow 10000"]);
  same("next", await value(sql`SELECT 1`), 1);
}

async function cancels() {
  const sql = connect();
  for (let turn = 0; turn < 3; turn++) {
    const began = performance.now();
    const query = sql`SELECT pg_sleep(15)`.execute();
    const ended = raises("57014", query);
    await sleep(200);
    query.cancel();
    await ended;
    if (performance.now() - began > 8000) throw new Error("the cancel took too long");
    same("next", await value(sql`SELECT 1`), 1);
  }
}

async function pipelines() {
  const sql = connect();
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => value(sql`SELECT ${i}::int * 3`)));
  same("answers", answers, Array.from({ length: 200 }, (_, i) => i * 3));
  const texts = Array.from({ length: 40 }, (_, i) => value(sql.unsafe(`SELECT ${i} + $1::int`, [1], { prepare: true })));
  same("other statements", await Promise.all(texts), Array.from({ length: 40 }, (_, i) => i + 1));
}

async function pipelineBroken() {
  const sql = connect();
  await sql`SELECT ${1}::int`; // what follows is sent at once
  const queries = [sql`SELECT ${1}::int AS x`, sql`SELECT nonsense, ${1}::int`, sql`SELECT ${2}::int AS x`];
  const answers = await Promise.allSettled(queries);
  same("outcomes", answers.map((answer) => answer.status), ["fulfilled", "rejected", "fulfilled"]);
  same("state", answers[1].reason.code, "42703");
  same("answer", answers[2].value[0].x, 2);
}

async function uniqueViolation() {
  const sql = connect();
  await sql.unsafe("DROP TABLE IF EXISTS drv_unique; CREATE TABLE drv_unique (x int PRIMARY KEY)");
  const conn = await sql.reserve();
  await conn`BEGIN`;
  await conn`INSERT INTO drv_unique VALUES (1)`;
  await raises("23505", conn`INSERT INTO drv_unique VALUES (${1})`);
  await raises("25P02", conn`SELECT 1`);
  await conn`ROLLBACK`;
  same("rows", await value(conn`SELECT count(*)::int FROM drv_unique`), 0);
  conn.release();
}

async function syntaxError() {
  const sql = connect();
  for (let turn = 0; turn < 5; turn++) {
    await raises("42601", sql.unsafe("SELEKT 1"));
    await raises("42601", sql`SELEKT ${1}`);
    same("next", await value(sql`SELECT 1`), 1);
  }
}

async function largeRows() {
  const sql = connect();
  const rows = await sql`SELECT repeat(chr(96 + i), 4000000) AS t FROM generate_series(1, 4) i`;
  same("large", rows.map((row) => row.t), ["a", "b", "c", "d"].map((letter) => letter.repeat(4_000_000)));
  const many = await sql`SELECT i, md5(i::text) FROM generate_series(1, 50000) i`;
  same("sum", many.reduce((sum, row) => sum + row.i, 0), (50_000 * 50_001) / 2);
}

async function largeParameter() {
  const sql = connect();
  same("there and back", (await value(sql`SELECT ${big}::text || 'x'`)) === `${big}x`, true);
}

async function cursor() {
  const sql = connect();
  let seen = 0;
  await sql.begin(async (tx) => {
    for await (const rows of tx`SELECT generate_series(1, ${250}::int)`.cursor(100)) seen += rows.length;
  });
  same("rows", seen, 250);
}

async function notices() {
  const heard = [];
  const sql = connect({ onnotice: (notice) => heard.push(notice.message) });
  await sql.unsafe("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$");
  same("notices", heard, ["hear this", "and that"]);
}

async function multiStatement() {
  const sql = connect();
  const results = await sql.unsafe("SELECT 1 AS x; SELECT 'two' AS x; SELECT 3 AS x WHERE false");
  same("results", results.map((rows) => rows.map((row) => row.x)), [[1], ["two"], []]);
  await raises("22012", sql.unsafe("SELECT 1; SELECT 1/0; SELECT 3"));
}

async function trackedSetting() {
  const [sql, other] = [connect(), connect()];
  const plain = await value(other`SHOW TimeZone`);
  await sql`SET TimeZone = 'Asia/Tokyo'`;
  for (let turn = 0; turn < 5; turn++) {
    same("other", await value(other`SHOW TimeZone`), plain);
    same("ours", await value(sql`SHOW TimeZone`), "Asia/Tokyo");
  }
}

async function manyClients() {
  const sql = connect({ max: 8 });
  await sql.unsafe("DROP TABLE IF EXISTS drv_counter; CREATE TABLE drv_counter AS SELECT 0 AS n");
  await Promise.all(Array.from({ length: 200 }, () => sql`UPDATE drv_counter SET n = n + ${1}`));
  same("counted", await value(sql`SELECT n FROM drv_counter`), 200);
}

async function listens() {
  const [sql, other] = [connect(), connect()];
  let hear;
  const heard = new Promise((resolve) => { hear = resolve; });
  await sql.listen("drv_channel", hear);
  await other.notify("drv_channel", "hello");
  same("heard", await heard, "hello");
}

const checks = {
  connect: async () => {
    const sql = connect();
    same("who", await value(sql`SELECT current_user || '@' || current_database()`), "alice@app");
    same("application", await value(sql`SHOW application_name`), "driver-suite");
  },
  commit: commits,
  rollback: rollsBack,
  savepoint,
  prepared_reused: preparedReused,
  prepared_many: preparedMany,
  prepared_elsewhere: preparedElsewhere,
  prepared_replanned: preparedReplanned,
  parameters_text: parametersText,
  copy_in: copyIn,
  copy_out: copyOut,
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
    const sql = connect();
    await sql`SET work_mem = '1234kB'`;
    same("work_mem", await value(sql`SHOW work_mem`), "1234kB");
  },
  listen_notify: listens,
  temporary_table: async () => {
    const sql = connect();
    await sql`CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x`;
    same("kept", await value(sql`SELECT x FROM drv_temporary`), 7);
  },
};

await run(Object.fromEntries(Object.entries(checks).map(([name, body]) => [name, check(body)])));
