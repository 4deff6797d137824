package pglock_test

import (
	"context"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// The test binary is also the worker processes of the chaos test.
func TestMain(m *testing.M) {
	if arguments := os.Getenv(workerVariable); arguments != "" {
		if err := workerMain(arguments); err != nil {
			os.Stderr.WriteString("worker: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	goleak.VerifyTestMain(pgtest.Main{M: m})
}

// migrated returns a database that has the tables.
func migrated(t testing.TB) *pgtest.Server { return migrate(t, pgtest.Shared(t)) }

// alone starts a server that has the tables, for a test that crashes it or wants other settings.
func alone(t testing.TB, settings ...string) *pgtest.Server {
	return migrate(t, pgtest.Start(t, settings...))
}

func migrate(t testing.TB, s *pgtest.Server) *pgtest.Server {
	require.NoError(t, pglock.Migrate(t.Context(), s.Connect(t)))
	return s
}

// newEngine returns an engine that is closed when the test ends.
func newEngine(t testing.TB, s *pgtest.Server, addr string, opts ...pglock.Option) *pglock.Engine {
	e, err := pglock.New(s.Config(t, addr), opts...)
	require.NoError(t, err)
	t.Cleanup(func() { closeEngine(e) })
	return e
}

func closeEngine(e cohort.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = e.Close(ctx)
}

func acquire(t testing.TB, e cohort.Engine, key string) *pglock.Grant {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pgtest.Patience)
	defer cancel()
	g, err := e.Acquire(ctx, key)
	require.NoError(t, err)
	return g.(*pglock.Grant)
}

// logTables makes the tables survive a crash.
func logTables(t testing.TB, conn *pgx.Conn) {
	pgtest.Must(t, conn, "ALTER TABLE pglock_session SET LOGGED")
	pgtest.Must(t, conn, "ALTER TABLE pglock_key SET LOGGED")
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conform(t, s, s.Addr())
}

// Locks that survive a crash keep the same promises.
func TestConformanceDurable(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	logTables(t, conn)
	conform(t, s, s.Addr(), pglock.WithDurable())
}

// conform runs the whole suite, each process with a network of its own to the address.
func conform(t *testing.T, s *pgtest.Server, addr string, opts ...pglock.Option) {
	conn := s.Connect(t)
	networks := make(map[cohort.Engine]*cohorttest.Network)
	cohorttest.Run(t, cohorttest.Harness{
		Within: pgtest.Patience,
		Engine: func() (cohort.Engine, error) {
			n := cohorttest.NewNetwork(t, addr)
			e := newEngine(t, s, n.Addr, append([]pglock.Option{pglock.WithTTL(8 * time.Second)}, opts...)...) // which is not lost because the machine is busy
			networks[e] = n
			return e, nil
		},
		Revoke: func(e cohort.Engine) error {
			session := acquire(t, e, "which session is it").Entry().Session.ID
			_, err := conn.Exec(t.Context(), "SELECT pglock_end($1, '0', false)", session)
			return err
		},
		Delete: func(key string) error {
			_, err := conn.Exec(t.Context(), "DELETE FROM pglock_key WHERE key = $1", pglock.KeyOf(key))
			return err
		},
		Cut:  func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{Silent: true}); return nil },
		Heal: func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{}); return nil },
	})
	assert.Eventually(t, func() bool {
		return pgtest.Count(t, conn, "SELECT count(*) FROM pglock_key WHERE pglock_alive(entry) OR queue <> '{}'") == 0
	}, pgtest.Patience, 20*time.Millisecond, "entries are left behind")
}

// The statements that the README has for an operator find the holder of a key, and break its lock.
func TestStatementsOfTheReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	statements := regexp.MustCompile("`((?:SELECT|DELETE) [^`]* pglock_key [^`]*)`").FindAllSubmatch(text, -1)
	require.Len(t, statements, 2)

	s := migrated(t)
	conn := s.Connect(t)
	e := newEngine(t, s, s.Addr())
	held := acquire(t, e, "order/42")
	odd := acquire(t, e, "\xff")
	acquire(t, e, strings.Repeat("long", 1000))
	rows, err := conn.Query(t.Context(), string(statements[0][1]))
	require.NoError(t, err)
	shown, err := pgx.CollectRows(rows, pgx.RowToMap)
	require.NoError(t, err)
	holders := make(map[any]any)
	for _, row := range shown {
		holders[row["encode"]] = row["entry"]
	}
	assert.Equal(t, map[any]any{"order/42": held.Entry().ID(), `\377`: odd.Entry().ID()}, holders)
	pgtest.Must(t, conn, string(statements[1][1]))
	queue, err := e.Inspect(t.Context(), "order/42")
	require.NoError(t, err)
	assert.Empty(t, queue)
}

// The statement of docs/RECIPES.md refuses a holder that a later one has written after.
func TestRecipeForFencingInSQL(t *testing.T) {
	text, err := os.ReadFile("../docs/RECIPES.md")
	require.NoError(t, err)
	statement := regexp.MustCompile("(?s)```sql\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, statement)

	conn := pgtest.Shared(t).Connect(t)
	pgtest.Must(t, conn, "CREATE TABLE account (id text, balance bigint, fence_epoch bigint, fence_seq bigint)")
	pgtest.Must(t, conn, "INSERT INTO account VALUES ('alice', 0, 0, 0), ('bob', 0, 0, 0)")
	write := func(balance int, token cohort.Token) int64 {
		tag, err := conn.Exec(t.Context(), string(statement[1]), "alice", balance, token.Epoch, token.Seq)
		require.NoError(t, err)
		return tag.RowsAffected()
	}
	assert.EqualValues(t, 1, write(10, cohort.Token{Epoch: 7, Seq: 9}))
	assert.EqualValues(t, 1, write(11, cohort.Token{Epoch: 7, Seq: 9}), "the same holder, again")
	assert.EqualValues(t, 1, write(12, cohort.Token{Epoch: 8, Seq: 1}))
	assert.EqualValues(t, 0, write(13, cohort.Token{Epoch: 7, Seq: 10}), "an earlier one")
	assert.EqualValues(t, 1, write(14, cohort.Token{Epoch: 8, Seq: 2}))
	assert.EqualValues(t, 0, write(15, cohort.Token{Epoch: 8, Seq: 1}))
	var balance int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT balance FROM account WHERE id = 'alice'").Scan(&balance))
	assert.Equal(t, 14, balance)
}
