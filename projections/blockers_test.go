package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/migrations"
)

// TestEveryWaitForALockIsLogged: also of another session than the one before, also where the statement was busy at first, and not in every
// round.
func TestEveryWaitForALockIsLogged(t *testing.T) {
	t.Parallel()
	db := database(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	said := &journal{}
	st.log = said.logger()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	waiter := connect()
	for i := range 2 {
		holder := connect()
		if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock($1)", i); err != nil {
			t.Fatal(err)
		}
		stop := st.tellBlockers(t.Context(), waiter, fmt.Sprintf("do number %d", i))
		waited := make(chan error, 1)
		go func() {
			_, err := waiter.Exec(t.Context(), fmt.Sprintf("SELECT pg_sleep(%g); SELECT pg_advisory_lock(%d)", 1.5*tellAfter.Seconds(), i))
			waited <- err
		}()
		line := fmt.Sprintf("to=\"do number %d\" pid=%d", i, holder.PgConn().PID())
		eventually(t, "it says "+line, func() bool { return strings.Contains(said.String(), line) })
		for range 2 {
			st.logBlockers(t.Context(), waiter.PgConn().PID(), fmt.Sprintf("do number %d", i))
		}
		if n := strings.Count(said.String(), line); n != 1 {
			t.Errorf("the same wait is told %d times within a minute", n)
		}
		if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", i); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		stop()
	}
}

// TestOneProjectorDropsDays: while another one does so, or a rebuild moves them, it is told as that.
func TestOneProjectorDropsDays(t *testing.T) {
	t.Parallel()
	db := database(t)
	st, err := openStore(db, migrations.Schema, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	other, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock($1, $2)", st.class, int32(lockDrop)); err != nil {
		t.Fatal(err)
	}
	if err := st.maintain(t.Context(), now, retention{days: 30, most: 3}); !errors.Is(err, errElsewhere) {
		t.Errorf("while another one drops days: %v", err)
	}
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_unlock($1, $2)", st.class, int32(lockDrop)); err != nil {
		t.Fatal(err)
	}
	if err := st.maintain(t.Context(), now, retention{days: 30, most: 3}); err != nil {
		t.Error(err)
	}
}
