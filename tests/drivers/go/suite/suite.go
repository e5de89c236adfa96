// Package suite runs the checks that PGWEIR_CHECKS names and prints one JSON line for each.
package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Mode is the pool mode of this world.
var Mode = os.Getenv("PGWEIR_MODE")

// Limit is how long one check may take.
const Limit = 20 * time.Second

type answer struct {
	Check   string  `json:"check"`
	OK      bool    `json:"ok"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Run runs the checks that were asked for, one after the other.
func Run(checks map[string]func() error) {
	out := json.NewEncoder(os.Stdout)
	for _, name := range strings.Split(os.Getenv("PGWEIR_CHECKS"), ",") {
		began := time.Now()
		err := one(checks[name])
		said := answer{Check: name, OK: err == nil, Seconds: time.Since(began).Seconds()}
		if err != nil {
			said.Error = err.Error()
		}
		if out.Encode(said) != nil {
			os.Exit(1)
		}
	}
}

func one(check func() error) (err error) {
	if check == nil {
		return fmt.Errorf("this program has no such check")
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if trouble := recover(); trouble != nil {
				done <- fmt.Errorf("%v", trouble)
			}
		}()
		done <- check()
	}()
	select {
	case err = <-done:
		return err
	case <-time.After(Limit):
		return fmt.Errorf("not done after %v", Limit)
	}
}

// Must ends the check with the error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Same ends the check unless both are equal when printed.
func Same(what string, got, want any) {
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		if len(g) > 200 {
			g = g[:200] + "…"
		}
		if len(w) > 200 {
			w = w[:200] + "…"
		}
		panic(fmt.Sprintf("%s: got %s, want %s", what, g, w))
	}
}

// Value is one value of a type, as text that PostgreSQL prints again unchanged.
type Value struct{ Type, Text string }

// Values has something of most families of types.
var Values = []Value{
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
	{"jsonb", `{"a": [1, 2.50, null], "ü": "\n"}`},
	{"int4[]", "{1,NULL,-3}"},
	{"text[]", `{plain,"with \"quotes\"",NULL,"NULL",""}`},
	{"bytea", `\x0001ff5c27`},
}
