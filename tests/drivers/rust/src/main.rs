//! The suite in tokio-postgres' own words.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{pin_mut, SinkExt, StreamExt, TryStreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, IsolationLevel, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
type Check = fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

const LIMIT: Duration = Duration::from_secs(20);

/// A type, and a value as text that PostgreSQL prints again unchanged.
const VALUES: [(&str, &str); 15] = [
    ("int2", "-32768"),
    ("int4", "2147483647"),
    ("int8", "-9223372036854775808"),
    ("float8", "0.1"),
    ("numeric", "12345678901234567890.123456789"),
    ("bool", "true"),
    ("text", "Grüße 🐘 ' \" \\ $1 \n\t;"),
    ("text", ""),
    ("date", "2026-02-28"),
    ("timestamp", "2026-02-28 23:59:59.999999"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("jsonb", r#"{"a": [1, 2.50, null], "ü": "\n"}"#),
    ("int4[]", "{1,NULL,-3}"),
    ("text[]", r#"{plain,"with \"quotes\"",NULL,"NULL",""}"#),
    ("bytea", r"\x0001ff5c27"),
];

macro_rules! same {
    ($what:expr, $got:expr, $want:expr) => {{
        let (got, want) = ($got, $want);
        if got != want {
            let shown: String = format!("{:?}, want {:?}", got, want).chars().take(400).collect();
            return Err(format!("{}: got {}", $what, shown).into());
        }
    }};
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .host(variable("PGHOST"))
        .port(variable("PGPORT").parse().expect("a port"))
        .user(variable("PGUSER"))
        .password(variable("PGPASSWORD"))
        .dbname(variable("PGDATABASE"))
        .application_name(variable("PGAPPNAME"));
    config
}

fn tls() -> Option<MakeRustlsConnect> {
    let file = env::var("PGSSLROOTCERT").ok()?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("the CA file") {
        roots.add(certificate.expect("a certificate")).expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(MakeRustlsConnect::new(config))
}

/// Drive the connection in the background; what it hears unasked goes to the channel.
macro_rules! drive {
    ($connection:expr) => {{
        let mut connection = $connection;
        let (told, heard) = mpsc::unbounded_channel();
        let mut stream = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let _ = told.send(message);
            }
        });
        heard
    }};
}

async fn connect_and_hear() -> Result<(Client, mpsc::UnboundedReceiver<AsyncMessage>), tokio_postgres::Error> {
    Ok(match tls() {
        Some(tls) => {
            let (client, connection) = config()
                .ssl_mode(tokio_postgres::config::SslMode::Require)
                .connect(tls)
                .await?;
            (client, drive!(connection))
        }
        None => {
            let (client, connection) = config()
                .ssl_mode(tokio_postgres::config::SslMode::Disable)
                .connect(NoTls)
                .await?;
            (client, drive!(connection))
        }
    })
}

async fn connect() -> Result<Client, tokio_postgres::Error> {
    Ok(connect_and_hear().await?.0)
}

async fn text(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<String, tokio_postgres::Error> {
    Ok(client.query_one(sql, parameters).await?.get(0))
}

async fn number(client: &Client, sql: &str) -> Result<i64, tokio_postgres::Error> {
    Ok(client.query_one(sql, &[]).await?.get(0))
}

fn state<T>(outcome: Result<T, tokio_postgres::Error>) -> String {
    match outcome {
        Ok(_) => "no error".into(),
        Err(error) => error
            .code()
            .map_or_else(|| error.to_string(), |code| code.code().to_string()),
    }
}

async fn connects() -> Outcome {
    let client = connect().await?;
    same!(
        "who",
        text(&client, "SELECT current_user || '@' || current_database()", &[]).await?,
        "alice@app"
    );
    same!(
        "application",
        text(&client, "SHOW application_name", &[]).await?,
        "driver-suite"
    );
    Ok(())
}

async fn commits() -> Outcome {
    let (mut client, other) = (connect().await?, connect().await?);
    client.batch_execute("DROP TABLE IF EXISTS drv_commit").await?;
    let tx = client.transaction().await?;
    tx.batch_execute("CREATE TABLE drv_commit (x int)").await?;
    tx.execute("INSERT INTO drv_commit SELECT generate_series(1, $1::int)", &[&3])
        .await?;
    tx.commit().await?;
    same!("rows", number(&client, "SELECT count(*) FROM drv_commit").await?, 3);
    same!(
        "rows elsewhere",
        number(&other, "SELECT count(*) FROM drv_commit").await?,
        3
    );
    Ok(())
}

async fn rolls_back() -> Outcome {
    let mut client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_rollback; CREATE TABLE drv_rollback (x int)")
        .await?;
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::Serializable)
        .start()
        .await?;
    let level: String = tx.query_one("SHOW transaction_isolation", &[]).await?.get(0);
    same!("isolation", level, "serializable");
    tx.execute("INSERT INTO drv_rollback VALUES (1)", &[]).await?;
    tx.rollback().await?;
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO drv_rollback VALUES (2)", &[]).await?;
    drop(tx); // which rolls back as well
    same!("rows", number(&client, "SELECT count(*) FROM drv_rollback").await?, 0);
    Ok(())
}

async fn savepoint() -> Outcome {
    let mut client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_savepoint; CREATE TABLE drv_savepoint (x int PRIMARY KEY)")
        .await?;
    let mut tx = client.transaction().await?;
    tx.execute("INSERT INTO drv_savepoint VALUES (1)", &[]).await?;
    let inner = tx.savepoint("here").await?;
    inner.execute("INSERT INTO drv_savepoint VALUES (2)", &[]).await?;
    same!(
        "state",
        state(inner.execute("INSERT INTO drv_savepoint VALUES ($1)", &[&1]).await),
        "23505"
    );
    inner.rollback().await?;
    tx.execute("INSERT INTO drv_savepoint VALUES (3)", &[]).await?;
    tx.commit().await?;
    same!(
        "rows",
        text(
            &client,
            "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint",
            &[]
        )
        .await?,
        "1,3"
    );
    Ok(())
}

async fn prepared_reused() -> Outcome {
    let mut client = connect().await?;
    let twice = client.prepare("SELECT 2 * $1::int").await?;
    for i in 0..50i32 {
        let tx = client.transaction().await?;
        let got: i32 = tx.query_one(&twice, &[&i]).await?.get(0);
        same!("twice", got, 2 * i);
        tx.commit().await?;
        let got: i32 = client.query_one(&twice, &[&-i]).await?.get(0);
        same!("twice", got, -2 * i);
    }
    Ok(())
}

async fn prepared_many() -> Outcome {
    let client = connect().await?;
    let mut statements = Vec::new();
    for i in 0..20 {
        statements.push(client.prepare(&format!("SELECT {} + $1::int", i * 1000)).await?);
    }
    for turn in 0..2i32 {
        for (i, statement) in statements.iter().enumerate() {
            let got: i32 = client.query_one(statement, &[&turn]).await?.get(0);
            same!("sum", got, i as i32 * 1000 + turn);
        }
    }
    drop(statements); // they are closed behind our back
    same!("next", number(&client, "SELECT 1::int8").await?, 1);
    Ok(())
}

/// Two servers and two others who hold them in turn: our statement must run on both.
async fn prepared_elsewhere() -> Outcome {
    let (client, first, second) = (connect().await?, connect().await?, connect().await?);
    let whose = client.prepare("SELECT pg_backend_pid()").await?;
    first.batch_execute("BEGIN").await?;
    let here: i32 = client.query_one(&whose, &[]).await?.get(0);
    second.batch_execute("BEGIN").await?;
    first.batch_execute("COMMIT").await?;
    let there: i32 = client.query_one(&whose, &[]).await?.get(0);
    second.batch_execute("COMMIT").await?;
    if variable("PGWEIR_MODE") == "transaction" && here == there {
        return Err(format!("both executions ran on server {here}").into());
    }
    Ok(())
}

async fn prepared_replanned() -> Outcome {
    let (client, other) = (connect().await?, connect().await?);
    client
        .batch_execute("DROP TABLE IF EXISTS drv_replanned; CREATE TABLE drv_replanned AS SELECT 1 AS a")
        .await?;
    let plan = client.prepare("SELECT a FROM drv_replanned WHERE a = $1").await?;
    let before: i32 = client.query_one(&plan, &[&1]).await?.get(0);
    same!("before", before, 1);
    other
        .batch_execute("ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
        .await?;
    let after: i32 = client.query_one(&plan, &[&1]).await?.get(0);
    same!("after", after, 1);
    Ok(())
}

async fn parameters_text() -> Outcome {
    let client = connect().await?;
    for (kind, value) in VALUES {
        same!(
            kind,
            text(&client, &format!("SELECT $1::text::{kind}::text"), &[&value]).await?,
            value
        );
    }
    Ok(())
}

async fn parameters_binary() -> Outcome {
    let client = connect().await?;
    let every: Vec<u8> = (0..=255).collect();
    let list = vec![Some(3i32), None];
    let absent: Option<String> = None;
    let sql = "SELECT $1::int8, $2::float8, $3::bytea, $4::int4[], $5::bool, $6::text";
    let row = client
        .query_one(sql, &[&(-1i64 << 62), &0.1f64, &every, &list, &true, &absent])
        .await?;
    same!("int8", row.get::<_, i64>(0), -1i64 << 62);
    same!("float8", row.get::<_, f64>(1), 0.1);
    same!("bytea", row.get::<_, Vec<u8>>(2), every);
    same!("array", row.get::<_, Vec<Option<i32>>>(3), list);
    same!("bool", row.get::<_, bool>(4), true);
    same!("null", row.get::<_, Option<String>>(5), absent);
    Ok(())
}

async fn copy_in() -> Outcome {
    let client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_copy_in; CREATE TABLE drv_copy_in (id int8, t text)")
        .await?;
    let sink = client.copy_in("COPY drv_copy_in FROM STDIN").await?;
    pin_mut!(sink);
    for i in 0..10_000 {
        sink.send(Bytes::from(format!("{i}\trow {i}\n"))).await?;
    }
    same!("copied", sink.finish().await?, 10_000);
    let there = text(&client, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in", &[]).await?;
    same!("there", there, "10000 49995000");
    Ok(())
}

async fn copy_out() -> Outcome {
    let client = connect().await?;
    let sql = "COPY (SELECT i, 'row ' || i FROM generate_series(1, 10000) i) TO STDOUT";
    let parts: Vec<Bytes> = client.copy_out(sql).await?.try_collect().await?;
    same!("lines", parts.len(), 10_000);
    same!("last", &parts[9_999][..], &b"10000\trow 10000\n"[..]);
    same!("next", number(&client, "SELECT 1::int8").await?, 1);
    Ok(())
}

async fn copy_broken() -> Outcome {
    let client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_copy_broken; CREATE TABLE drv_copy_broken (id int)")
        .await?;
    let sink = client.copy_in("COPY drv_copy_broken FROM STDIN").await?;
    pin_mut!(sink);
    let outcome = async {
        for part in ["1\n".repeat(100_000), "no number\n".into(), "2\n".repeat(100_000)] {
            sink.send(Bytes::from(part)).await?;
        }
        sink.finish().await
    };
    same!("state", state(outcome.await), "22P02");
    let given_up = client.copy_in::<_, Bytes>("COPY drv_copy_broken FROM STDIN").await?;
    drop(given_up); // the driver says CopyFail
    same!(
        "rows",
        number(&client, "SELECT count(*) FROM drv_copy_broken").await?,
        0
    );
    Ok(())
}

async fn cancels() -> Outcome {
    let client = connect().await?;
    for _ in 0..3 {
        let began = Instant::now();
        let token = client.cancel_token();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            match tls() {
                Some(tls) => token.cancel_query(tls).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        let (outcome, sent) = tokio::join!(client.batch_execute("SELECT pg_sleep(15)"), cancel);
        sent?;
        same!("state", state(outcome), "57014");
        same!("in time", began.elapsed() < Duration::from_secs(8), true);
        same!("next", number(&client, "SELECT 1::int8").await?, 1);
    }
    Ok(())
}

/// Futures that are polled together are a pipeline.
async fn pipelines() -> Outcome {
    let client = connect().await?;
    let triple = client.prepare("SELECT $1::int * 3").await?;
    let numbers: Vec<i32> = (0..200).collect();
    let queries = numbers.iter().map(|i| {
        let (client, triple) = (&client, &triple);
        async move { client.query_one(triple, &[i]).await.map(|row| row.get::<_, i32>(0)) }
    });
    same!(
        "answers",
        try_join_all(queries).await?,
        numbers.iter().map(|i| i * 3).collect::<Vec<_>>()
    );
    let texts: Vec<String> = (0..40).map(|i| format!("SELECT {i}::int8")).collect();
    let others = try_join_all(texts.iter().map(|sql| number(&client, sql))).await?;
    same!("other statements", others, (0..40).collect::<Vec<i64>>());
    Ok(())
}

async fn pipeline_broken() -> Outcome {
    let client = connect().await?;
    let sqls = ["SELECT 1::int8", "SELECT nonsense", "SELECT 1/0", "SELECT 4::int8"];
    let outcomes = join_all(sqls.iter().map(|sql| number(&client, sql))).await;
    let states: Vec<String> = outcomes.into_iter().map(state).collect();
    same!("states", states, ["no error", "42703", "22012", "no error"]);
    Ok(())
}

async fn unique_violation() -> Outcome {
    let mut client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_unique; CREATE TABLE drv_unique (x int PRIMARY KEY)")
        .await?;
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO drv_unique VALUES (1)", &[]).await?;
    same!(
        "state",
        state(tx.execute("INSERT INTO drv_unique VALUES (1)", &[]).await),
        "23505"
    );
    same!("state", state(tx.query("SELECT 1", &[]).await), "25P02");
    tx.rollback().await?;
    same!("rows", number(&client, "SELECT count(*) FROM drv_unique").await?, 0);
    Ok(())
}

async fn syntax_error() -> Outcome {
    let client = connect().await?;
    for _ in 0..5 {
        same!("simple", state(client.batch_execute("SELEKT 1").await), "42601");
        same!("extended", state(client.query("SELEKT $1", &[&1]).await), "42601");
        same!("next", number(&client, "SELECT 1::int8").await?, 1);
    }
    Ok(())
}

async fn large_rows() -> Outcome {
    let client = connect().await?;
    let rows = client
        .query("SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i", &[])
        .await?;
    for (row, letter) in rows.iter().zip(["a", "b", "c", "d"]) {
        same!("row", row.get::<_, String>(0) == letter.repeat(4_000_000), true);
    }
    let rows = client
        .query("SELECT i, md5(i::text) FROM generate_series(1, 50000) i", &[])
        .await?;
    let sum: i64 = rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum();
    same!("sum", sum, 50_000 * 50_001 / 2);
    Ok(())
}

async fn large_parameter() -> Outcome {
    let client = connect().await?;
    let big = "0123456789".repeat(500_000);
    same!(
        "there and back",
        text(&client, "SELECT $1::text || 'x'", &[&big]).await? == big + "x",
        true
    );
    Ok(())
}

async fn cursor() -> Outcome {
    let mut client = connect().await?;
    let tx = client.transaction().await?;
    let portal = tx.bind("SELECT generate_series(1, $1::int)", &[&250]).await?;
    let mut seen = 0;
    loop {
        let rows = tx.query_portal(&portal, 100).await?;
        seen += rows.len();
        if rows.len() < 100 {
            break;
        }
    }
    tx.commit().await?;
    same!("rows", seen, 250);
    Ok(())
}

async fn notices() -> Outcome {
    let (client, mut heard) = connect_and_hear().await?;
    client
        .batch_execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
        .await?;
    for want in ["hear this", "and that"] {
        match heard.recv().await {
            Some(AsyncMessage::Notice(notice)) => same!("notice", notice.message(), want),
            other => return Err(format!("no notice: {other:?}").into()),
        }
    }
    Ok(())
}

async fn multi_statement() -> Outcome {
    let client = connect().await?;
    let said = client
        .simple_query("SELECT 1; SELECT 'two', 'deux'; SELECT 3 WHERE false")
        .await?;
    let rows: Vec<_> = said
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(row.len() - 1).unwrap_or("").to_string()),
            _ => None,
        })
        .collect();
    same!("rows", rows, ["1", "deux"]);
    same!(
        "state",
        state(client.batch_execute("SELECT 1; SELECT 1/0; SELECT 3").await),
        "22012"
    );
    Ok(())
}

async fn tracked_setting() -> Outcome {
    let (client, other) = (connect().await?, connect().await?);
    let plain = text(&other, "SHOW TimeZone", &[]).await?;
    client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await?;
    for _ in 0..5 {
        same!("other", text(&other, "SHOW TimeZone", &[]).await?, plain.clone());
        same!("ours", text(&client, "SHOW TimeZone", &[]).await?, "Asia/Tokyo");
    }
    Ok(())
}

async fn many_clients() -> Outcome {
    let client = connect().await?;
    client
        .batch_execute("DROP TABLE IF EXISTS drv_counter8; CREATE TABLE drv_counter8 AS SELECT 0::int8 AS n")
        .await?;
    try_join_all((0..8).map(|_| async {
        let own = connect().await?;
        for _ in 0..25 {
            own.execute("UPDATE drv_counter8 SET n = n + $1", &[&1i64]).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    }))
    .await?;
    same!("counted", number(&client, "SELECT n FROM drv_counter8").await?, 200);
    Ok(())
}

async fn session_setting() -> Outcome {
    let client = connect().await?;
    client.batch_execute("SET work_mem = '1234kB'").await?;
    same!("work_mem", text(&client, "SHOW work_mem", &[]).await?, "1234kB");
    Ok(())
}

async fn listens() -> Outcome {
    let ((client, mut heard), other) = (connect_and_hear().await?, connect().await?);
    client.batch_execute("LISTEN drv_channel").await?;
    other
        .execute("SELECT pg_notify('drv_channel', $1)", &[&"hello"])
        .await?;
    match heard.recv().await {
        Some(AsyncMessage::Notification(said)) => {
            same!("heard", (said.channel(), said.payload()), ("drv_channel", "hello"))
        }
        other => return Err(format!("no notification: {other:?}").into()),
    }
    Ok(())
}

async fn temporary_table() -> Outcome {
    let client = connect().await?;
    client
        .batch_execute("CREATE TEMPORARY TABLE drv_temporary AS SELECT 7::int8 AS x")
        .await?;
    same!("kept", number(&client, "SELECT x FROM drv_temporary").await?, 7);
    Ok(())
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for each in text.chars() {
        match each {
            '"' | '\\' => out.extend(['\\', each]),
            ' '..='~' => out.push(each),
            _ => out.push('?'),
        }
    }
    out + "\""
}

#[tokio::main]
async fn main() {
    let checks: HashMap<&str, Check> = HashMap::from([
        ("connect", (|| Box::pin(connects()) as _) as Check),
        ("commit", || Box::pin(commits())),
        ("rollback", || Box::pin(rolls_back())),
        ("savepoint", || Box::pin(savepoint())),
        ("prepared_reused", || Box::pin(prepared_reused())),
        ("prepared_many", || Box::pin(prepared_many())),
        ("prepared_elsewhere", || Box::pin(prepared_elsewhere())),
        ("prepared_replanned", || Box::pin(prepared_replanned())),
        ("parameters_text", || Box::pin(parameters_text())),
        ("parameters_binary", || Box::pin(parameters_binary())),
        ("copy_in", || Box::pin(copy_in())),
        ("copy_out", || Box::pin(copy_out())),
        ("copy_broken", || Box::pin(copy_broken())),
        ("cancel", || Box::pin(cancels())),
        ("pipeline", || Box::pin(pipelines())),
        ("pipeline_broken", || Box::pin(pipeline_broken())),
        ("unique_violation", || Box::pin(unique_violation())),
        ("syntax_error", || Box::pin(syntax_error())),
        ("large_rows", || Box::pin(large_rows())),
        ("large_parameter", || Box::pin(large_parameter())),
        ("cursor", || Box::pin(cursor())),
        ("notices", || Box::pin(notices())),
        ("multi_statement", || Box::pin(multi_statement())),
        ("tracked_setting", || Box::pin(tracked_setting())),
        ("many_clients", || Box::pin(many_clients())),
        ("session_setting", || Box::pin(session_setting())),
        ("listen_notify", || Box::pin(listens())),
        ("temporary_table", || Box::pin(temporary_table())),
    ]);
    for name in variable("PGWEIR_CHECKS").split(',') {
        let began = Instant::now();
        let trouble = match checks.get(name) {
            None => Some("this program has no such check".to_string()),
            Some(check) => match tokio::time::timeout(LIMIT, check()).await {
                Err(_) => Some(format!("not done after {LIMIT:?}")),
                Ok(outcome) => outcome.err().map(|error| format!("{error} {error:?}")),
            },
        };
        println!(
            "{{\"check\": {}, \"ok\": {}, \"error\": {}, \"seconds\": {:.3}}}",
            quoted(name),
            trouble.is_none(),
            quoted(&trouble.unwrap_or_default()),
            began.elapsed().as_secs_f64()
        );
        let _ = std::io::stdout().flush();
    }
}
