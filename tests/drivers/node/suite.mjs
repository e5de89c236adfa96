// Runs the checks that PGWEIR_CHECKS names and prints one JSON line for each.
import fs from "node:fs";
import { isDeepStrictEqual, inspect } from "node:util";

export const mode = process.env.PGWEIR_MODE;
export const LIMIT = 20_000; // milliseconds for one check

export const settings = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  ssl: process.env.PGSSLROOTCERT
    ? { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8"), rejectUnauthorized: true }
    : false,
};

// A type, and a value as text that PostgreSQL prints again unchanged.
export const VALUES = [
  ["int2", "-32768"],
  ["int4", "2147483647"],
  ["int8", "-9223372036854775808"],
  ["float8", "0.1"],
  ["numeric", "12345678901234567890.123456789"],
  ["bool", "true"],
  ["text", "Grüße 🐘 ' \" \\ $1 \n\t;"],
  ["text", ""],
  ["date", "2026-02-28"],
  ["timestamp", "2026-02-28 23:59:59.999999"],
  ["uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
  ["jsonb", '{"a": [1, 2.50, null], "ü": "\\n"}'],
  ["int4[]", "{1,NULL,-3}"],
  ["text[]", '{plain,"with \\"quotes\\"",NULL,"NULL",""}'],
  ["bytea", "\\x0001ff5c27"],
];

export const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
export const big = "0123456789".repeat(500_000);
export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export function same(what, got, want) {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: got ${inspect(got).slice(0, 200)}, want ${inspect(want).slice(0, 200)}`);
  }
}

export async function raises(state, promise) {
  try {
    await promise;
  } catch (error) {
    if (error.code !== state) throw error;
    return;
  }
  throw new Error(`no error ${state}`);
}

export async function run(checks) {
  for (const check of process.env.PGWEIR_CHECKS.split(",")) {
    const began = performance.now();
    const answer = { check, ok: true };
    let timer;
    try {
      if (!checks[check]) throw new Error("this program has no such check");
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not done after ${LIMIT} ms`)), LIMIT);
      });
      await Promise.race([checks[check](), late]);
    } catch (error) {
      answer.ok = false;
      answer.error = String(error);
      console.error(error);
    }
    clearTimeout(timer);
    answer.seconds = Math.round(performance.now() - began) / 1000;
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
}
