package postgres

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hallmark-iot/hallmark/fault"
)

// Aborts implements store.Dialect: an error of a statement ends nothing but what is behind its savepoint.
func (d dialect) Aborts(err error) bool { return d.Lost(err) }

// Lost implements store.Dialect.
func (dialect) Lost(err error) bool {
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC" || strings.HasPrefix(e.Code, "08")
	}
	for _, gone := range []error{driver.ErrBadConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, gone) {
			return true
		}
	}
	_, broken := errors.AsType[net.Error](err)
	return broken
}

// remedies are what an operator can do, by SQLSTATE or its class (the PostgreSQL manual, appendix A).
var remedies = map[string]string{
	"28":    "the server refuses this user or password; give them as for psql: PGPASSWORD, PGPASSFILE, or a line in pg_hba.conf on the server",
	"3D000": "there is no such database; CREATE DATABASE makes one: UTF8, owned by the user that hallmark connects as",
	"42501": "this user may not do that; let the user that hallmark connects as own the database",
	"53100": "the server's disk is full; nothing was acknowledged that is not stored; free space and try again",
	"53200": "the server is out of memory",
	"53300": "the server has no connection left; raise max_connections: a node takes up to 19",
	"57P":   "the server is stopping or starting; writes go on by themselves when it is back",
	"08":    "the connection broke; the server or what is in between has stopped",
	"25006": "the server cannot be written to: it is a standby, or set read-only; name the primary",
	"25P03": "a transaction of this node stood still for too long, and the server ended it; nothing of it is stored",
	"40001": "the server could not bring this write in line with another; nothing of it is stored, try again",
	"40P01": "this write and another waited for each other; nothing of it is stored, try again",
	"58030": "the server could not read or write its disk; check the disk, and the server's log",
	"XX001": "the database is damaged; stop, keep a copy of it, and restore the last backup: the ledger's export will tell what is missing",
	"XX002": "an index of the database is damaged; REINDEX, and check the disk",
}

// Explain names the database and the remedy for what an operator can mend.
func (d dialect) Explain(err error) error {
	if err == nil {
		return nil
	}
	if _, explained := errors.AsType[*placed](err); explained {
		return err
	}
	say := func(text string) error {
		return &placed{text: fmt.Sprintf("database %s: %s: %v", d.place, text, err), cause: err}
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		if e.Code == "22021" {
			return &fault.Fault{Kind: fault.Invalid, Code: "text.invalid", Text: "a text has a character that cannot be stored", Remedy: "send UTF-8 without NUL", Cause: err}
		}
		for _, key := range []string{e.Code, e.Code[:min(3, len(e.Code))], e.Code[:min(2, len(e.Code))]} {
			if text, ok := remedies[key]; ok {
				return say(text)
			}
		}
		return err
	}
	if _, refused := errors.AsType[*pgconn.ConnectError](err); refused || d.Lost(err) {
		return say("it cannot be reached; is the server up, and the address right? What was not acknowledged is to be tried again")
	}
	return err
}

// placed is an error that says which database it is of, once.
type placed struct {
	text  string
	cause error
}

func (e *placed) Error() string { return e.text }
func (e *placed) Unwrap() error { return e.cause }
