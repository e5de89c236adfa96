// The suite in the words of database/sql and lib/pq.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	. "pgweir.io/tests/drivers/suite"
)

var background = context.Background()

// One connection, closed at the end of the check; the pool of database/sql would hide which connection says what.
type client struct {
	*sql.Conn
	db *sql.DB
}

func connect(options ...string) client {
	if Mode == "transaction" {
		// Else lib/pq parses the unnamed statement in one transaction and binds it in the next, wherever that runs.
		options = append(options, "binary_parameters=yes")
	}
	db, err := sql.Open("postgres", strings.Join(options, " "))
	Must(err)
	conn, err := db.Conn(background)
	Must(err)
	return client{conn, db}
}

func (c client) close() {
	_ = c.Conn.Close()
	_ = c.db.Close()
}

type runner interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func run(on runner, statement string, arguments ...any) {
	_, err := on.ExecContext(background, statement, arguments...)
	Must(err)
}

func text(on runner, statement string, arguments ...any) string {
	var value string
	Must(on.QueryRowContext(background, statement, arguments...).Scan(&value))
	return value
}

func number(on runner, statement string, arguments ...any) int64 {
	var value int64
	Must(on.QueryRowContext(background, statement, arguments...).Scan(&value))
	return value
}

func begin(c client) *sql.Tx {
	tx, err := c.BeginTx(background, nil)
	Must(err)
	return tx
}

func state(err error) string {
	var told *pq.Error
	if errors.As(err, &told) {
		return string(told.Code)
	}
	return fmt.Sprintf("no SQLSTATE: %v", err)
}

func connects() error {
	c := connect()
	defer c.close()
	Same("who", text(c, "SELECT current_user || '@' || current_database()"), "alice@app")
	Same("application", text(c, "SHOW application_name"), "driver-suite")
	newer := connect("max_protocol_version=latest")
	defer newer.close()
	Same("with protocol 3.2", number(newer, "SELECT 1"), 1)
	return nil
}

func commits() error {
	c, other := connect(), connect()
	defer c.close()
	defer other.close()
	run(c, "DROP TABLE IF EXISTS drv_commit")
	tx := begin(c)
	run(tx, "CREATE TABLE drv_commit (x int)")
	run(tx, "INSERT INTO drv_commit SELECT generate_series(1, $1::int)", 3)
	Must(tx.Commit())
	Same("rows", number(c, "SELECT count(*) FROM drv_commit"), 3)
	Same("rows elsewhere", number(other, "SELECT count(*) FROM drv_commit"), 3)
	return nil
}

func rollsBack() error {
	c := connect()
	defer c.close()
	run(c, "DROP TABLE IF EXISTS drv_rollback")
	run(c, "CREATE TABLE drv_rollback (x int)")
	tx, err := c.BeginTx(background, &sql.TxOptions{Isolation: sql.LevelSerializable})
	Must(err)
	Same("isolation", text(tx, "SHOW transaction_isolation"), "serializable")
	run(tx, "INSERT INTO drv_rollback VALUES (1)")
	Must(tx.Rollback())
	Same("rows", number(c, "SELECT count(*) FROM drv_rollback"), 0)
	return nil
}

func savepoint() error {
	c := connect()
	defer c.close()
	run(c, "DROP TABLE IF EXISTS drv_savepoint")
	run(c, "CREATE TABLE drv_savepoint (x int PRIMARY KEY)")
	tx := begin(c)
	run(tx, "INSERT INTO drv_savepoint VALUES (1)")
	run(tx, "SAVEPOINT here")
	run(tx, "INSERT INTO drv_savepoint VALUES (2)")
	_, err := tx.ExecContext(background, "INSERT INTO drv_savepoint VALUES ($1)", 1)
	Same("state", state(err), "23505")
	run(tx, "ROLLBACK TO SAVEPOINT here")
	run(tx, "INSERT INTO drv_savepoint VALUES (3)")
	Must(tx.Commit())
	Same("rows", text(c, "SELECT string_agg(x::text, ',' ORDER BY x) FROM drv_savepoint"), "1,3")
	return nil
}

func preparedReused() error {
	c := connect()
	defer c.close()
	twice, err := c.PrepareContext(background, "SELECT 2 * $1::int")
	Must(err)
	for i := range 50 {
		tx := begin(c)
		var got int
		Must(tx.Stmt(twice).QueryRow(i).Scan(&got))
		Same("twice", got, 2*i)
		Must(tx.Commit())
		Must(twice.QueryRow(-i).Scan(&got))
		Same("twice", got, -2*i)
	}
	return twice.Close()
}

func preparedMany() error {
	c := connect()
	defer c.close()
	var statements []*sql.Stmt
	for i := range 20 {
		statement, err := c.PrepareContext(background, fmt.Sprintf("SELECT %d + $1::int", i*1000))
		Must(err)
		statements = append(statements, statement)
	}
	for round := range 2 {
		for i, statement := range statements {
			var got int
			Must(statement.QueryRow(round).Scan(&got))
			Same("sum", got, i*1000+round)
		}
	}
	for _, statement := range statements {
		Must(statement.Close())
	}
	Same("next", number(c, "SELECT 1"), 1)
	return nil
}

// Two servers and two others who hold them in turn: our statement must run on both.
func preparedElsewhere() error {
	c, first, second := connect(), connect(), connect()
	defer c.close()
	defer first.close()
	defer second.close()
	whose, err := c.PrepareContext(background, "SELECT pg_backend_pid() + $1::int")
	Must(err)
	holding := begin(first)
	run(holding, "SELECT 1")
	var here, there int
	Must(whose.QueryRow(0).Scan(&here))
	next := begin(second)
	run(next, "SELECT 1")
	Must(holding.Commit())
	Must(whose.QueryRow(0).Scan(&there))
	Must(next.Commit())
	if Mode == "transaction" && here == there {
		return fmt.Errorf("both executions ran on server %d", here)
	}
	return nil
}

func preparedReplanned() error {
	c, other := connect(), connect()
	defer c.close()
	defer other.close()
	run(c, "DROP TABLE IF EXISTS drv_replanned")
	run(c, "CREATE TABLE drv_replanned AS SELECT 1 AS a")
	plan, err := c.PrepareContext(background, "SELECT a FROM drv_replanned WHERE a = $1")
	Must(err)
	var got int
	Must(plan.QueryRow(1).Scan(&got))
	run(other, "ALTER TABLE drv_replanned ADD COLUMN b text DEFAULT 'x'")
	Must(plan.QueryRow(1).Scan(&got))
	Same("after", got, 1)
	return nil
}

func values(options ...string) error {
	c := connect(options...)
	defer c.close()
	for _, each := range Values {
		Same(each.Type, text(c, fmt.Sprintf("SELECT $1::text::%s::text", each.Type), each.Text), each.Text)
	}
	var (
		whole  int64
		real   float64
		bits   []byte
		list   []sql.NullInt64
		moment time.Time
		truth  bool
		absent *string
	)
	when := time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	row := c.QueryRowContext(background,
		"SELECT $1::int8, $2::float8, $3::bytea, $4::int4[], $5::timestamptz, $6::bool, $7::text",
		int64(-1)<<62, 0.1, every, "{3,NULL}", when, true, nil)
	Must(row.Scan(&whole, &real, &bits, pq.Array(&list), &moment, &truth, &absent))
	Same("int8", whole, int64(-1)<<62)
	Same("float8", real, 0.1)
	Same("bytea", bytes.Equal(bits, every), true)
	Same("array", list, "[{3 true} {0 false}]")
	Same("moment", moment.Equal(when), true)
	Same("bool", truth, true)
	Same("null", absent == nil, true)
	return nil
}

func copyIn() error {
	c := connect()
	defer c.close()
	run(c, "DROP TABLE IF EXISTS drv_copy_in")
	run(c, "CREATE TABLE drv_copy_in (id int8, t text)")
	tx := begin(c)
	rows, err := tx.Prepare("COPY drv_copy_in (id, t) FROM STDIN")
	Must(err)
	for i := range 10_000 {
		_, err = rows.Exec(i, fmt.Sprintf("row %d", i))
		Must(err)
	}
	_, err = rows.Exec()
	Must(err)
	Must(rows.Close())
	Must(tx.Commit())
	Same("there", text(c, "SELECT count(*) || ' ' || sum(id) FROM drv_copy_in"), "10000 49995000")
	return nil
}

func copyBroken() error {
	c := connect()
	defer c.close()
	run(c, "DROP TABLE IF EXISTS drv_copy_broken")
	run(c, "CREATE TABLE drv_copy_broken (id int)")
	tx := begin(c)
	rows, err := tx.Prepare("COPY drv_copy_broken (id) FROM STDIN")
	Must(err)
	for i := range 50_000 {
		var value any = i
		if i == 100 {
			value = "no number"
		}
		if _, err = rows.Exec(value); err != nil {
			break
		}
	}
	if err == nil {
		_, err = rows.Exec()
	}
	Same("state", state(err), "22P02")
	_ = rows.Close()
	Must(tx.Rollback())
	Same("rows", number(c, "SELECT count(*) FROM drv_copy_broken"), 0)
	return nil
}

func cancels() error {
	db, err := sql.Open("postgres", "")
	Must(err)
	defer db.Close()
	for range 3 {
		limited, stop := context.WithTimeout(background, 200*time.Millisecond)
		began := time.Now()
		_, err = db.ExecContext(limited, "SELECT pg_sleep(15)")
		stop()
		if err == nil || (state(err) != "57014" && !errors.Is(err, context.DeadlineExceeded)) {
			return fmt.Errorf("the cancelled query said %v", err)
		}
		if time.Since(began) > 8*time.Second {
			return fmt.Errorf("the cancel took %v", time.Since(began))
		}
		Same("next", number(db, "SELECT 1"), 1)
	}
	// lib/pq drops the connection after a cancel: the server must have been told all the same.
	for range 50 {
		if number(db, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(15)' AND state = 'active'") == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the query is still running at the server")
}

func uniqueViolation() error {
	c := connect()
	defer c.close()
	run(c, "DROP TABLE IF EXISTS drv_unique")
	run(c, "CREATE TABLE drv_unique (x int PRIMARY KEY)")
	tx := begin(c)
	run(tx, "INSERT INTO drv_unique VALUES (1)")
	_, err := tx.Exec("INSERT INTO drv_unique VALUES (1)")
	Same("state", state(err), "23505")
	_, err = tx.Exec("SELECT $1::int", 1)
	Same("state", state(err), "25P02")
	Must(tx.Rollback())
	Same("rows", number(c, "SELECT count(*) FROM drv_unique"), 0)
	return nil
}

func syntaxError() error {
	c := connect()
	defer c.close()
	for range 5 {
		_, err := c.ExecContext(background, "SELEKT 1")
		Same("state", state(err), "42601")
		_, err = c.ExecContext(background, "SELEKT $1", 1)
		Same("state", state(err), "42601")
		Same("next", number(c, "SELECT 1"), 1)
	}
	return nil
}

func largeRows() error {
	c := connect()
	defer c.close()
	rows, err := c.QueryContext(background, "SELECT repeat(chr(96 + i), 4000000) FROM generate_series(1, 4) i")
	Must(err)
	for i := 0; rows.Next(); i++ {
		var value string
		Must(rows.Scan(&value))
		Same("row", value == strings.Repeat(string(rune('a'+i)), 4_000_000), true)
	}
	Must(rows.Err())
	rows, err = c.QueryContext(background, "SELECT i, md5(i::text) FROM generate_series(1, 50000) i")
	Must(err)
	var sum, id int
	var digest string
	for rows.Next() {
		Must(rows.Scan(&id, &digest))
		sum += id
	}
	Must(rows.Err())
	Same("sum", sum, 50_000*50_001/2)
	return nil
}

func largeParameter() error {
	c := connect()
	defer c.close()
	big := strings.Repeat("0123456789", 500_000)
	Same("there and back", text(c, "SELECT $1::text || 'x'", big) == big+"x", true)
	return nil
}

func cursor() error {
	c := connect()
	defer c.close()
	tx := begin(c)
	run(tx, "DECLARE pieces CURSOR FOR SELECT generate_series(1, 250)")
	seen := 0
	for {
		rows, err := tx.Query("FETCH 100 FROM pieces")
		Must(err)
		some := 0
		for rows.Next() {
			some++
		}
		Must(rows.Err())
		seen += some
		if some < 100 {
			break
		}
	}
	Must(tx.Commit())
	Same("rows", seen, 250)
	return nil
}

func notices() error {
	connector, err := pq.NewConnector("")
	Must(err)
	var heard []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(said *pq.Error) { heard = append(heard, said.Message) }))
	defer db.Close()
	run(db, "DO $$ BEGIN RAISE NOTICE 'hear %', 'this'; RAISE WARNING 'and that'; END $$")
	Same("notices", heard, "[hear this and that]")
	return nil
}

func multiStatement() error {
	c := connect()
	defer c.close()
	rows, err := c.QueryContext(background, "SELECT 1; SELECT 'two', 'deux'")
	Must(err)
	var one int
	var two, deux string
	Same("first", rows.Next(), true)
	Must(rows.Scan(&one))
	Same("end of the first", rows.Next(), false)
	Same("another result", rows.NextResultSet(), true)
	Same("second", rows.Next(), true)
	Must(rows.Scan(&two, &deux))
	Same("deux", deux, "deux")
	Must(rows.Close())
	_, err = c.ExecContext(background, "SELECT 1; SELECT 1/0; SELECT 3")
	Same("state", state(err), "22012")
	return nil
}

func trackedSetting() error {
	c, other := connect(), connect()
	defer c.close()
	defer other.close()
	plain := text(other, "SHOW TimeZone")
	run(c, "SET TimeZone = 'Asia/Tokyo'")
	for range 5 {
		Same("other", text(other, "SHOW TimeZone"), plain)
		Same("ours", text(c, "SHOW TimeZone"), "Asia/Tokyo")
	}
	return nil
}

func manyClients() error {
	c := connect()
	defer c.close()
	db := c.db
	db.SetMaxOpenConns(9)
	run(db, "DROP TABLE IF EXISTS drv_counter")
	run(db, "CREATE TABLE drv_counter AS SELECT 0 AS n")
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			for range 25 {
				if _, err := db.Exec("UPDATE drv_counter SET n = n + $1", 1); err != nil {
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
	Same("counted", number(db, "SELECT n FROM drv_counter"), 200)
	return nil
}

func sessionSetting() error {
	c := connect()
	defer c.close()
	run(c, "SET work_mem = '1234kB'")
	Same("work_mem", text(c, "SHOW work_mem"), "1234kB")
	return nil
}

func listens() error {
	other := connect()
	defer other.close()
	trouble := make(chan error, 8)
	listener := pq.NewListener("", time.Second, 5*time.Second, func(_ pq.ListenerEventType, err error) {
		if err != nil {
			trouble <- err
		}
	})
	defer listener.Close()
	Must(listener.Listen("drv_channel"))
	run(other, "SELECT pg_notify('drv_channel', $1)", "hello")
	select {
	case heard := <-listener.Notify:
		Same("heard", heard.Channel+" "+heard.Extra, "drv_channel hello")
		return nil
	case err := <-trouble:
		return err
	case <-time.After(10 * time.Second):
		return errors.New("nothing was heard")
	}
}

func temporaryTable() error {
	c := connect()
	defer c.close()
	run(c, "CREATE TEMPORARY TABLE drv_temporary AS SELECT 7 AS x")
	Same("kept", number(c, "SELECT x FROM drv_temporary"), 7)
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
		"parameters_text":    func() error { return values() },
		"parameters_binary":  func() error { return values("binary_parameters=yes") },
		"copy_in":            copyIn,
		"copy_broken":        copyBroken,
		"cancel":             cancels,
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
