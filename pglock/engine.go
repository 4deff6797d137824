package pglock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

// Schema is the SQL that makes the tables and functions. It may be executed again; that changes no lock.
//
//go:embed schema.sql
var Schema string

// Migrate executes [Schema] in a transaction. Processes that do so at the same time wait for each other. It
// returns the error of the database, such as that of a role that may not create tables.
func Migrate(ctx context.Context, conn *pgx.Conn) error {
	mode := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite} // whatever the defaults of the database
	err := pgx.BeginTxFunc(ctx, conn, mode, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('pglock'))"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, Schema)
		return err
	})
	if err != nil {
		return fmt.Errorf("pglock: migrate: %w", err)
	}
	return nil
}

// connections is how many an engine uses at most, besides the one to listen on. One of them is for renewals.
const connections = 5

// Engine is a cohort.Engine that keeps its locks in PostgreSQL.
type Engine struct {
	*lease.Engine
	store *store
}

type options struct {
	label         string
	ttl           time.Duration
	quarantine    time.Duration
	quarantineSet bool
	durable       bool
	listener      *pgx.ConnConfig
}

// An Option changes how an Engine works; pass it to [New].
type Option func(*options)

// WithTTL sets how long the keys of a process stay locked that has died or is cut off: at least 100 ms.
// The default is 10 s. All processes that share keys should use the same TTL, because each counts on the
// quarantine of the others.
func WithTTL(d time.Duration) Option { return func(o *options) { o.ttl = d } }

// WithLabel sets how this process is called in the queues, besides its host and its number: see
// [Engine.Inspect]. It has at most 128 bytes. The default is none.
func WithLabel(label string) Option { return func(o *options) { o.label = label } }

// WithQuarantine sets for how long nothing is granted after a crash of the server, or after a standby was
// promoted. The default is the TTL, after which no process that is not paused can believe in a grant that
// the server has forgotten. With 0 there is no quarantine: then a failover can let two processes in at once.
func WithQuarantine(d time.Duration) Option {
	return func(o *options) { o.quarantine, o.quarantineSet = d, true }
}

// WithDurable makes every statement wait until it is on disk, and on the synchronous standbys if the server
// has any, so that locks survive a crash. It wants logged tables, see [Schema]. Each
// lock then waits for the disk twice.
func WithDurable() Option { return func(o *options) { o.durable = true } }

// WithListener sets how to connect for LISTEN, where the connections of New lead to a pooler in transaction
// mode: directly to the server.
func WithListener(config *pgx.ConnConfig) Option { return func(o *options) { o.listener = config } }

// New returns an engine that connects to PostgreSQL as config says. It connects when a key is first asked
// for. Close ends it and its connections. New returns an error for a config that is nil, or that pgx.ParseConfig did not
// make, and for an option that is nil or out of its bounds.
func New(config *pgx.ConnConfig, opts ...Option) (*Engine, error) {
	o := options{ttl: 10 * time.Second}
	for _, set := range opts {
		if set == nil {
			return nil, errors.New("pglock: nil Option")
		}
		set(&o)
	}
	if !o.quarantineSet {
		o.quarantine = o.ttl
	}
	if o.listener == nil {
		o.listener = config
	}
	switch {
	case config == nil:
		return nil, errors.New("pglock: nil config")
	case config.DialFunc == nil || o.listener.DialFunc == nil: // which ParseConfig sets
		return nil, errors.New("pglock: a config that pgx.ParseConfig did not make")
	case o.ttl < 100*time.Millisecond:
		return nil, fmt.Errorf("pglock: a TTL of %v is below 100 ms", o.ttl)
	case o.quarantine < 0:
		return nil, fmt.Errorf("pglock: a quarantine of %v", o.quarantine)
	}
	pooled, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("pglock: %w", err) // PGHOST and its kin may be wrong
	}
	s := &store{config: pooled, options: o, turns: make(chan struct{}, connections-1)}
	pooled.ConnConfig = config.Copy()
	pooled.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // prepares nothing, for the sake of poolers
	pooled.MaxConns, pooled.MinConns = connections, 0
	// A connection that was idle for a second is not asked first whether it lives, which would cost a lock that is taken now
	// and then another trip: each renewal uses the last one, and what fails is repeated.
	pooled.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > o.ttl }
	pooled.AfterConnect = s.settle
	e, err := lease.New(s, lease.Config{Name: "pglock", TTL: o.ttl, Label: o.label})
	if err != nil {
		return nil, err
	}
	return &Engine{e, s}, nil
}

// Acquire implements cohort.Engine. The grant is a *Grant.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.grant(e.Engine.Acquire(ctx, key))
}

// TryAcquire implements cohort.Engine. The grant is a *Grant. During a quarantine every key is held.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.grant(e.Engine.TryAcquire(ctx, key))
}

// Ask implements cohort.Asker. The grant is a *Grant.
func (e *Engine) Ask(ctx context.Context, key string, try bool, reply func(cohort.Grant, error)) {
	e.Engine.Ask(ctx, key, try, func(g cohort.Grant, err error) { reply(e.grant(g, err)) })
}

func (e *Engine) grant(g cohort.Grant, err error) (cohort.Grant, error) {
	if err != nil {
		return nil, err
	}
	return &Grant{g.(*lease.Grant)}, nil
}

// Close implements cohort.Engine, and closes the engine's connections.
func (e *Engine) Close(ctx context.Context) error {
	e.store.closes()
	err := e.Engine.Close(ctx)
	disconnect := e.store.close()
	if err != nil {
		go disconnect() // a connection may be in use until its request has timed out
		return err
	}
	disconnect()
	return nil
}

// Grant is a lock in PostgreSQL. It implements cohort.Grant.
type Grant struct {
	*lease.Grant
}

// Guard makes a transaction exclude every other holder of the key: it returns nil if the grant still holds
// its lock, and from then until the transaction has ended the lock is not granted to another entry, also
// if the lease runs out meanwhile. Otherwise it returns an error that is [cohort.ErrLost], or the error of the
// database; the transaction should then be rolled back. Call it first, with a transaction at READ COMMITTED
// or with one that has not read yet.
//
//	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
//		if err := grant.Guard(ctx, tx); err != nil {
//			return err
//		}
//		_, err := tx.Exec(ctx, "UPDATE …")
//		return err
//	})
//
// While the transaction lasts, the release of the lock waits for it, so keep it short.
func (g *Grant) Guard(ctx context.Context, tx pgx.Tx) error {
	var one int
	err := tx.QueryRow(ctx, guardSQL, pgx.QueryExecModeExec, keyOf(g.Key()), g.Entry().ID(), int64(g.Epoch())).Scan(&one)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("pglock: guard of %s: %w", brief(g.Key()), cohort.ErrLost)
	case err != nil:
		return fmt.Errorf("pglock: guard of %s: %w", brief(g.Key()), err)
	}
	return nil
}

// guardSQL locks the row against the next grant, which would not change the column of the key: FOR SHARE.
const guardSQL = `SELECT 1 FROM pglock_key WHERE key = $1 AND entry = $2 AND epoch = $3 AND pglock_alive(entry) FOR SHARE`
