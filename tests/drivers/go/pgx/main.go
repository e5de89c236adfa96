// The suite in pgx's own words.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	. "pgweir.io/tests/drivers/suite"
)

var background = context.Background()

func connect(change ...func(*pgx.ConnConfig)) *pgx.Conn {
	config, err := pgx.ParseConfig("")
	Must(err)
	for _, each := range change {
		each(config)
	}
	conn, err := pgx.ConnectConfig(background, config)
	Must(err)
	return conn
}

type runner interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

func run(on runner, sql string, arguments ...any) {
	_, err := on.Exec(background, sql, arguments...)
	Must(err)
}

func text(on runner, sql string, arguments ...any) string {
	var value string
	Must(on.QueryRow(background, sql, arguments...).Scan(&value))
	return value
}

func number(on runner, sql string, arguments ...any) int64 {
	var value int64
	Must(on.QueryRow(background, sql, arguments...).Scan(&value))
	return value
}

func state(err error) string {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	return fmt.Sprintf("no SQLSTATE: %v", err)
}

func connects() error {
	conn := connect()
	defer conn.Close(background)
	Same("who", text(conn, "SELECT current_user || '@' || current_database()"), "alice@app")
	Same("application", text(conn, "SHOW application_name"), "driver-suite")
	return nil
}

func commits() error {
	conn, other := connect(), connect()
	defer conn.Close(background)
	defer other.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_commit")
	tx, err := conn.Begin(background)
	Must(err)
	run(tx, "CREATE TABLE drv_commit (x int)")
	run(tx, "INSERT INTO drv_commit SELECT generate_series(1, $1::int)", 3)
	Must(tx.Commit(background))
	Same("rows", number(conn, "SELECT count(*) FROM drv_commit"), 3)
	Same("rows elsewhere", number(other, "SELECT count(*) FROM drv_commit"), 3)
	return nil
}

func rollsBack() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_rollback")
	run(conn, "CREATE TABLE drv_rollback (x int)")
	tx, err := conn.BeginTx(background, pgx.TxOptions{IsoLevel: pgx.Serializable})
	Must(err)
	Same("isolation", text(tx, "SHOW transaction_isolation"), "serializable")
	run(tx, "INSERT INTO drv_rollback VALUES (1)")
	Must(tx.Rollback(background))
	Same("rows", number(conn, "SELECT count(*) FROM drv_rollback"), 0)
	return nil
}

func savepoint() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_savepoint")
	run(conn, "CREATE TABLE drv_savepoint (x int PRIMARY KEY)")
	tx, err := conn.Begin(background)
	Must(err)
	run(tx, "INSERT INTO drv_savepoint VALUES (1)")
	inner, err := tx.Begin(background)
	Must(err)
	run(inner, "INSERT INTO drv_savepoint VALUES (2)")
	_, err = inner.Exec(background, "INSERT INTO drv_savepoint VALUES (1)")
	Same("state", state(err), "23505")
	Must(inner.Rollback(background))
	run(tx, "INSERT INTO drv_savepoint VALUES (3)")
	Must(tx.Commit(background))
	Same("rows", text(conn, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3")
	return nil
}

func preparedReused() error {
	conn := connect()
	defer conn.Close(background)
	_, err := conn.Prepare(background, "twice", "SELECT 2 * $1::int")
	Must(err)
	for i := range 50 {
		tx, err := conn.Begin(background)
		Must(err)
		Same("twice", number(tx, "twice", i), 2*i)
		Must(tx.Commit(background))
		Same("twice", number(conn, "twice", -i), -2*i)
	}
	Must(conn.Deallocate(background, "twice"))
	_, err = conn.Prepare(background, "twice", "SELECT 'another ' || $1::text")
	Must(err)
	Same("the name again", text(conn, "twice", "one"), "another one")
	return nil
}

func preparedMany() error {
	conn := connect()
	defer conn.Close(background)
	for i := range 20 {
		_, err := conn.Prepare(background, fmt.Sprintf("many%d", i), fmt.Sprintf("SELECT %d + $1::int", i*1000))
		Must(err)
	}
	for round := range 2 {
		for i := range 20 {
			Same("sum", number(conn, fmt.Sprintf("many%d", i), round), i*1000+round)
		}
	}
	return nil
}

// Two servers and two others who hold them in turn: our statement must run on both.
func preparedElsewhere() error {
	conn, first, second := connect(), connect(), connect()
	defer conn.Close(background)
	defer first.Close(background)
	defer second.Close(background)
	_, err := conn.Prepare(background, "whose", "SELECT pg_backend_pid() + $1::int")
	Must(err)
	holding, err := first.Begin(background)
	Must(err)
	run(holding, "SELECT 1")
	here := number(conn, "whose", 0)
	next, err := second.Begin(background)
	Must(err)
	run(next, "SELECT 1")
	Must(holding.Commit(background))
	there := number(conn, "whose", 0)
	Must(next.Commit(background))
	if Mode == "transaction" && here == there {
		return fmt.Errorf("both executions ran on server %d", here)
	}
	return nil
}

func preparedReplanned() error {
	conn, other := connect(), connect()
	defer conn.Close(background)
	defer other.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_replanned")
	run(conn, "CREATE TABLE drv_replanned AS SELECT 1 AS a")
	_, err := conn.Prepare(background, "plan", "SELECT a FROM drv_replanned WHERE a = $1")
	Must(err)
	Same("before", number(conn, "plan", 1), 1)
	run(other, "ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
	Same("after", number(conn, "plan", 1), 1)
	return nil
}

func values(mode pgx.QueryExecMode, format int16) error {
	conn := connect(func(config *pgx.ConnConfig) { config.DefaultQueryExecMode = mode })
	defer conn.Close(background)
	for _, each := range Values {
		sql := fmt.Sprintf("SELECT $1::text::%s::text", each.Type)
		Same(each.Type, text(conn, sql, each.Text), each.Text)
	}
	var (
		whole  int64
		real   float64
		bits   []byte
		list   []*int32
		moment time.Time
		truth  bool
		absent *string
	)
	when := time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)
	three := int32(3)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	formats := pgx.QueryResultFormats{format}
	row := conn.QueryRow(background,
		"SELECT $1::int8, $2::float8, $3::bytea, $4::int4[], $5::timestamptz, $6::bool, $7::text",
		formats, int64(-1)<<62, 0.1, every, []*int32{&three, nil}, when, true, nil)
	Must(row.Scan(&whole, &real, &bits, &list, &moment, &truth, &absent))
	Same("int8", whole, int64(-1)<<62)
	Same("float8", real, 0.1)
	Same("bytea", bytes.Equal(bits, every), true)
	Same("array", fmt.Sprint(len(list), *list[0], list[1] == nil), "2 3 true")
	Same("moment", moment.Equal(when), true)
	Same("bool", truth, true)
	Same("null", absent == nil, true)
	return nil
}

func copyIn() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_copy_in")
	run(conn, "CREATE TABLE drv_copy_in (id int8, t text)")
	rows := make([][]any, 10_000)
	for i := range rows {
		rows[i] = []any{int64(i), fmt.Sprintf("row %d", i)}
	}
	count, err := conn.CopyFrom(background, pgx.Identifier{"drv_copy_in"}, []string{"id", "t"}, pgx.CopyFromRows(rows))
	Must(err)
	Same("copied", count, 10_000)
	tag, err := conn.PgConn().CopyFrom(background, strings.NewReader("10000\tx\n10001\t\\N\n"), "COPY drv_copy_in FROM STDIN")
	Must(err)
	Same("copied as text", tag.RowsAffected(), 2)
	Same("there", text(conn, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10002 50015001")
	return nil
}

func copyOut() error {
	conn := connect()
	defer conn.Close(background)
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(background, &out, "COPY (SELECT i, 'row ' || i FROM generate_series(1, 10000) i) TO STDOUT")
	Must(err)
	Same("copied", tag.RowsAffected(), 10_000)
	lines := strings.Split(out.String(), "\n")
	Same("lines", len(lines), 10_001)
	Same("last", lines[9_999], "10000\trow 10000")
	Same("next", number(conn, "SELECT 1"), 1)
	return nil
}

func copyBroken() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_copy_broken")
	run(conn, "CREATE TABLE drv_copy_broken (id int)")
	data := strings.Repeat("1\n", 100_000) + "no number\n" + strings.Repeat("2\n", 100_000)
	_, err := conn.PgConn().CopyFrom(background, strings.NewReader(data), "COPY drv_copy_broken FROM STDIN")
	Same("state", state(err), "22P02")
	_, err = conn.PgConn().CopyFrom(background, &breaks{}, "COPY drv_copy_broken FROM STDIN")
	Same("state of a copy that the client gave up", state(err), "57014")
	Same("rows", number(conn, "SELECT count(*) FROM drv_copy_broken"), 0)
	return nil
}

type breaks struct{ said bool }

func (reader *breaks) Read(into []byte) (int, error) {
	if reader.said {
		return 0, errors.New("the file is gone")
	}
	reader.said = true
	return copy(into, "1\n2\n"), nil
}

func cancels() error {
	conn := connect()
	defer conn.Close(background)
	for range 3 {
		sent := make(chan error, 1)
		go func() {
			time.Sleep(200 * time.Millisecond)
			sent <- conn.PgConn().CancelRequest(background)
		}()
		began := time.Now()
		_, err := conn.Exec(background, "SELECT pg_sleep(15)")
		Same("state", state(err), "57014")
		if time.Since(began) > 8*time.Second {
			return fmt.Errorf("the cancel took %v", time.Since(began))
		}
		Must(<-sent)
		Same("next", number(conn, "SELECT 1"), 1)
	}
	return nil
}

func pipelines() error {
	conn := connect()
	defer conn.Close(background)
	batch := &pgx.Batch{}
	for i := range 200 {
		batch.Queue("SELECT $1::int * 3", i)
	}
	results := conn.SendBatch(background, batch)
	for i := range 200 {
		var got int
		Must(results.QueryRow().Scan(&got))
		Same("answer", got, i*3)
	}
	Must(results.Close())

	// Many syncs at once: each is a transaction of its own.
	pipe := conn.PgConn().StartPipeline(background)
	for i := range 50 {
		pipe.SendQueryParams("SELECT $1::int", [][]byte{[]byte(fmt.Sprint(i))}, nil, nil, nil)
		Must(pipe.Sync())
	}
	for i := range 50 {
		result, err := pipe.GetResults()
		Must(err)
		answer := result.(*pgconn.ResultReader).Read()
		Must(answer.Err)
		Same("answer", string(answer.Rows[0][0]), i)
		_, err = pipe.GetResults()
		Must(err)
	}
	Must(pipe.Close())
	return nil
}

func pipelineBroken() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_pipeline")
	run(conn, "CREATE TABLE drv_pipeline (x int PRIMARY KEY)")
	batch := &pgx.Batch{}
	for _, x := range []int{1, 2, 1, 3} {
		batch.Queue("INSERT INTO drv_pipeline VALUES ($1)", x)
	}
	results := conn.SendBatch(background, batch)
	_, err := results.Exec()
	Must(err)
	_, err = results.Exec()
	Must(err)
	_, err = results.Exec()
	Same("state", state(err), "23505")
	_ = results.Close()
	Same("rows", number(conn, "SELECT count(*) FROM drv_pipeline"), 0)

	pipe := conn.PgConn().StartPipeline(background)
	pipe.SendPrepare("broken1", "SELECT nonsense", nil)
	pipe.SendPrepare("good1", "SELECT 1", nil)
	Must(pipe.Sync())
	pipe.SendPrepare("good2", "SELECT 2", nil)
	pipe.SendQueryPrepared("good2", nil, nil, nil)
	Must(pipe.Sync())
	_, err = pipe.GetResults()
	Same("state", state(err), "42703")
	result, err := pipe.GetResults()
	Must(err)
	Same("the sync after the error", fmt.Sprintf("%T", result), "*pgconn.PipelineSync")
	result, err = pipe.GetResults()
	Must(err)
	Same("the second part", fmt.Sprintf("%T", result), "*pgconn.StatementDescription")
	result, err = pipe.GetResults()
	Must(err)
	answer := result.(*pgconn.ResultReader).Read()
	Must(answer.Err)
	Same("answer", string(answer.Rows[0][0]), "2")
	Must(pipe.Close())
	_, err = conn.Prepare(background, "good1", "SELECT 'good1 was skipped'")
	Must(err)
	Same("good1", text(conn, "good1"), "good1 was skipped")
	return nil
}

func uniqueViolation() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_unique")
	run(conn, "CREATE TABLE drv_unique (x int PRIMARY KEY)")
	tx, err := conn.Begin(background)
	Must(err)
	run(tx, "INSERT INTO drv_unique VALUES (1)")
	_, err = tx.Exec(background, "INSERT INTO drv_unique VALUES (1)")
	Same("state", state(err), "23505")
	_, err = tx.Exec(background, "SELECT 1")
	Same("state", state(err), "25P02")
	Must(tx.Rollback(background))
	Same("rows", number(conn, "SELECT count(*) FROM drv_unique"), 0)
	return nil
}

func syntaxError() error {
	conn := connect()
	defer conn.Close(background)
	for range 5 {
		_, err := conn.Exec(background, "SELEKT 1")
		Same("state", state(err), "42601")
		_, err = conn.Exec(background, "SELEKT $1", 1)
		Same("state", state(err), "42601")
		Same("next", number(conn, "SELECT 1"), 1)
	}
	return nil
}

func largeRows() error {
	conn := connect()
	defer conn.Close(background)
	rows, err := conn.Query(background, "SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i")
	Must(err)
	big, err := pgx.CollectRows(rows, pgx.RowTo[string])
	Must(err)
	for i, value := range big {
		Same("row", value == strings.Repeat(string(rune('a'+i)), 4_000_000), true)
	}
	rows, err = conn.Query(background, "SELECT i, md5(i::text) FROM generate_series(1, 50000) i")
	Must(err)
	var sum, id int
	var digest string
	_, err = pgx.ForEachRow(rows, []any{&id, &digest}, func() error { sum += id; return nil })
	Must(err)
	Same("sum", sum, 50_000*50_001/2)
	return nil
}

func largeParameter() error {
	conn := connect()
	defer conn.Close(background)
	big := strings.Repeat("0123456789", 500_000)
	Same("there and back", text(conn, "SELECT $1::text || 'x'", big) == big+"x", true)
	return nil
}

// pgx reads rows as they come; a portal with a row limit is for the wire tests. A cursor is what its users use.
func cursor() error {
	conn := connect()
	defer conn.Close(background)
	tx, err := conn.Begin(background)
	Must(err)
	run(tx, "DECLARE pieces CURSOR FOR SELECT generate_series(1, 250)")
	var seen int
	for {
		rows, err := tx.Query(background, "FETCH 100 FROM pieces")
		Must(err)
		some, err := pgx.CollectRows(rows, pgx.RowTo[int])
		Must(err)
		seen += len(some)
		if len(some) < 100 {
			break
		}
	}
	Must(tx.Commit(background))
	Same("rows", seen, 250)
	return nil
}

func notices() error {
	var heard []string
	conn := connect(func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { heard = append(heard, notice.Message) }
	})
	defer conn.Close(background)
	run(conn, "DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
	Same("notices", heard, "[hear this and that]")
	return nil
}

func multiStatement() error {
	conn := connect()
	defer conn.Close(background)
	results, err := conn.PgConn().Exec(background, "SELECT 1; SELECT 'two', 'deux'; SELECT 3 WHERE false").ReadAll()
	Must(err)
	Same("results", len(results), 3)
	Same("second", string(results[1].Rows[0][1]), "deux")
	Same("third", len(results[2].Rows), 0)
	_, err = conn.PgConn().Exec(background, "SELECT 1; SELECT 1/0; SELECT 3").ReadAll()
	Same("state", state(err), "22012")
	return nil
}

func trackedSetting() error {
	conn, other := connect(), connect()
	defer conn.Close(background)
	defer other.Close(background)
	plain := text(other, "SHOW TimeZone")
	run(conn, "SET TimeZone = 'Asia/Tokyo'")
	for range 5 {
		Same("other", text(other, "SHOW TimeZone"), plain)
		Same("ours", text(conn, "SHOW TimeZone"), "Asia/Tokyo")
	}
	Same("reported", conn.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo")
	return nil
}

func manyClients() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "DROP TABLE IF EXISTS drv_counter")
	run(conn, "CREATE TABLE drv_counter AS SELECT 0 AS n")
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			own := connect()
			defer own.Close(background)
			for range 25 {
				if _, err := own.Exec(background, "UPDATE drv_counter SET n = n + $1", 1); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		return err
	}
	Same("counted", number(conn, "SELECT n FROM drv_counter"), 200)
	return nil
}

func sessionSetting() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "SET work_mem = '1234kB'")
	Same("work_mem", text(conn, "SHOW work_mem"), "1234kB")
	return nil
}

func listens() error {
	conn, other := connect(), connect()
	defer conn.Close(background)
	defer other.Close(background)
	run(conn, "LISTEN drv_channel")
	run(other, "SELECT pg_notify('drv_channel', $1)", "hello")
	limited, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	heard, err := conn.WaitForNotification(limited)
	Must(err)
	told, _ := json.Marshal([]string{heard.Channel, heard.Payload})
	Same("heard", string(told), `["drv_channel","hello"]`)
	return nil
}

func temporaryTable() error {
	conn := connect()
	defer conn.Close(background)
	run(conn, "CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x")
	Same("kept", number(conn, "SELECT x FROM drv_temporary"), 7)
	return nil
}

func main() {
	Run(map[string]func() error{
		"connect":            connects,
		"commit":             commits,
		"rollback":           rollsBack,
		"savepoint":          savepoint,
		"prepared_reused":    preparedReused,
		"prepared_many":      preparedMany,
		"prepared_elsewhere": preparedElsewhere,
		"prepared_replanned": preparedReplanned,
		"parameters_text":    func() error { return values(pgx.QueryExecModeExec, pgx.TextFormatCode) },
		"parameters_binary":  func() error { return values(pgx.QueryExecModeCacheStatement, pgx.BinaryFormatCode) },
		"copy_in":            copyIn,
		"copy_out":           copyOut,
		"copy_broken":        copyBroken,
		"cancel":             cancels,
		"pipeline":           pipelines,
		"pipeline_broken":    pipelineBroken,
		"unique_violation":   uniqueViolation,
		"syntax_error":       syntaxError,
		"large_rows":         largeRows,
		"large_parameter":    largeParameter,
		"cursor":             cursor,
		"notices":            notices,
		"multi_statement":    multiStatement,
		"tracked_setting":    trackedSetting,
		"many_clients":       manyClients,
		"session_setting":    sessionSetting,
		"listen_notify":      listens,
		"temporary_table":    temporaryTable,
	})
}
