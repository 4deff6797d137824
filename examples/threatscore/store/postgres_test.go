package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
)

func openAt(t *testing.T, server *postgres.Server, transaction Transaction) Store {
	t.Helper()
	s, err := OpenPostgres(t.Context(), server.URL, 16, transaction)
	require.NoError(t, err)
	return s
}

func TestPostgres(t *testing.T) {
	server := postgrestest.Start(t)

	for _, transaction := range Transactions {
		t.Run(string(transaction), func(t *testing.T) {
			optimistic := transaction == Serializable || transaction == RepeatableRead
			testStore(t, func(t *testing.T) Store { return openAt(t, server, transaction) }, optimistic)

			t.Run("LosesAndDoublesNothingWhenTheServerCrashes", func(t *testing.T) {
				testCrashes(t, server, transaction)
			})
			t.Run("FindsOutWhatBecameOfAnUnansweredTransaction", func(t *testing.T) {
				testUnanswered(t, server, transaction)
			})
		})
	}

	t.Run("DropsItsSchema", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), server.URL)
		require.NoError(t, err)
		defer conn.Close(t.Context())
		var left int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'threatscore%'").Scan(&left))
		assert.Zero(t, left)
	})
}

// testCrashes kills the server twice while 16 goroutines raise scores.
func testCrashes(t *testing.T, server *postgres.Server, transaction Transaction) {
	s := openAt(t, server, transaction)
	defer func() { require.NoError(t, s.Close()) }()
	const threshold = 500

	var (
		raises, blocks atomic.Int64
		raised         = make(chan struct{})
		over           = make(chan struct{})
	)
	group, ctx := errgroup.WithContext(t.Context())
	for range 16 {
		group.Go(func() error {
			for {
				blocked, err := s.Raise(ctx, v4, 1, threshold)
				if errors.Is(err, ErrConflict) {
					continue
				}
				if err != nil {
					return err
				}
				raises.Add(1)
				if blocked {
					blocks.Add(1)
				}
				select {
				case raised <- struct{}{}:
				case <-over:
					return nil
				}
			}
		})
	}
	go func() {
		defer close(over)
		for range 2 {
			for range 300 {
				select {
				case <-raised:
				case <-ctx.Done():
					return
				}
			}
			crash := make(chan error)
			go func() { crash <- server.Crash() }()
			for up := false; !up; {
				select {
				case err := <-crash:
					assert.NoError(t, err)
					up = true
				case <-raised: // and on they go
				}
			}
		}
	}()
	require.NoError(t, group.Wait())

	records, err := s.Records(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[netip.Addr]Record{v4: {Score: raises.Load(), Blocked: true}}, records)
	assert.EqualValues(t, 1, blocks.Load())
}

// testUnanswered cuts connections before, and after, the server has done what commits.
func testUnanswered(t *testing.T, server *postgres.Server, transaction Transaction) {
	for _, reaches := range []bool{false, true} {
		t.Run(fmt.Sprintf("Reaches=%t", reaches), func(t *testing.T) {
			config, err := pgxpool.ParseConfig(server.URL)
			require.NoError(t, err)
			var cuts atomic.Int64
			config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return &cutConn{Conn: conn, reaches: reaches, cuts: &cuts}, err
			}
			// A statement is sent by its text, so that the one to be cut off is known.
			config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
			s, err := openPostgres(t.Context(), config, transaction)
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()

			for i := range int64(6) {
				blocks, err := s.Raise(t.Context(), v6, 10, 29)
				require.NoError(t, err)
				assert.Equal(t, i == 2, blocks, "raise %d", i)
			}
			records, err := s.Records(t.Context())
			require.NoError(t, err)
			assert.Equal(t, map[netip.Addr]Record{v6: {Score: 60, Blocked: true}}, records)
			assert.GreaterOrEqual(t, cuts.Load(), int64(3), "connections were cut")
		})
	}
}

// cutConn breaks at every second of the connections' commits: before the server hears of it, or
// when it has answered.
type cutConn struct {
	net.Conn
	reaches bool
	cuts    *atomic.Int64 // commits so far, of all connections
	cut     bool
}

var errCut = errors.New("cut off")

func (c *cutConn) Write(b []byte) (int, error) {
	commits := bytes.Contains(b, []byte("commit\x00")) || bytes.Contains(b, []byte("WITH raised"))
	c.cut = commits && c.cuts.Add(1)%2 == 1
	if c.cut && !c.reaches {
		return 0, c.broken("write")
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.cut && err == nil { // the server has replied, but the reply is lost
		return 0, c.broken("read")
	}
	return n, err
}

func (c *cutConn) broken(op string) error {
	_ = c.Close()
	return &net.OpError{Op: op, Net: "unix", Err: errCut}
}

func TestOpenPostgresFailsAtOnceWhereThereIsNoServer(t *testing.T) {
	_, err := OpenPostgres(t.Context(), "postgres:///?host="+t.TempDir(), 1, Upsert)
	var connect *pgconn.ConnectError
	require.ErrorAs(t, err, &connect)
	_, err = OpenPostgres(t.Context(), "postgres://%", 1, Upsert)
	assert.Error(t, err)
}

func TestOutages(t *testing.T) {
	for err, outage := range map[error]bool{
		nil:                                       false,
		&pgconn.PgError{Code: "57P01"}:            true,
		&pgconn.PgError{Code: "40001"}:            false,
		&pgconn.PgError{Code: "53300"}:            false, // too many connections: it is there
		&net.OpError{Op: "write", Err: errCut}:    true,
		fmt.Errorf("read: %w", net.ErrClosed):     false,
		context.Canceled:                          false,
		pgx.ErrNoRows:                             false,
		fmt.Errorf("x: %w", pgconn.ErrConnClosed): true,
	} {
		assert.Equal(t, outage, isOutage(err), "%v", err)
	}
}
