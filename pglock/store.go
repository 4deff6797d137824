package pglock

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

// store is the lease.Store in PostgreSQL.
type store struct {
	config *pgxpool.Config
	options

	contended hints
	turns     chan struct{} // receives a value for each connection that locks are asked for over

	mu      sync.Mutex
	pool    *pgxpool.Pool // nil until it is needed, and after close
	closed  bool          // once close was called
	closing int           // how many calls of the engine's Close are under way: one that failed may be repeated
	swept   time.Time     // when this process last swept; zero while it has not finished
}

// connections returns the pool. After close it returns cohort.ErrClosed, unless a Close is under way, which gets another one.
func (s *store) connections() (*pgxpool.Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.closing == 0 {
		return nil, cohort.ErrClosed
	}
	if s.pool == nil {
		pool, err := pgxpool.NewWithConfig(context.Background(), s.config)
		if err != nil {
			return nil, lease.Refused(err) // of the configuration; it does not connect yet
		}
		s.pool = pool
	}
	return s.pool, nil
}

// closes is called when a Close of the engine begins.
func (s *store) closes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing++
}

// close is called when a Close of the engine ends. It returns a function that closes the connections, and waits until they
// are not in use; that of the last Close that is under way does.
func (s *store) close() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.closing--
	pool := s.pool
	if pool == nil || s.closing > 0 {
		return func() {}
	}
	s.pool = nil
	return pool.Close
}

// longest is the length in bytes up to which a key is stored as it is: an index has room for 2,704.
const longest = 1024

// keyOf returns what stands for a key in the table.
func keyOf(key string) []byte {
	if len(key) <= longest {
		return append([]byte{0}, key...)
	}
	sum := sha256.Sum256([]byte(key))
	return append(append([]byte{1}, sum[:]...), key[:64]...)
}

// brief returns a key for an error, cut when it is long.
func brief(key string) string {
	const most = 64
	if len(key) <= most {
		return strconv.Quote(key)
	}
	return strconv.Quote(key[:most]) + "… of " + strconv.Itoa(len(key)) + " bytes"
}

// settle makes a new connection one of its own kind: the statements on it commit as they should without being told so each
// time. A connection through a pooler stays as it is, because others would get the settings, or the pooler drops them. Its
// server process has another number than the pooler said.
func (s *store) settle(ctx context.Context, conn *pgx.Conn) error {
	var pid uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
		return err
	}
	if pid != conn.PgConn().PID() {
		return nil
	}
	commit := "SET synchronous_commit = off"
	if s.durable { // remote_apply, or the names of standbys, are for the server's own settings to say
		commit = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
	}
	_, err := conn.Exec(ctx, commit+`;
		SET default_transaction_isolation = 'read committed';
		SET default_transaction_read_only = off;
		SET lock_timeout = 100;
		SET plan_cache_mode = force_generic_plan`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	for _, sql := range []string{enterFree, enterHeld, enter, leaveAlone, leaveNext, leave} {
		if _, err := conn.Prepare(ctx, sql, sql); err != nil {
			return err
		}
	}
	conn.PgConn().CustomData()[direct] = true
	return nil
}

// direct is the name of a connection's mark that it leads to the server, and not to a pooler.
const direct = "pglock.direct"

// call is urgent, but waits until one of the connections for locks is free. There is one more, so that a renewal does not stand
// behind thousands of locks that are asked for at once.
func (s *store) call(ctx context.Context, into []any, sql string, args ...any) error {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turns }()
	return s.urgent(ctx, into, sql, args...)
}

// urgent executes one statement that returns at most one row, in a transaction of its own that does not depend on the
// database's defaults, in one round trip. It returns pgx.ErrNoRows if there was none.
func (s *store) urgent(ctx context.Context, into []any, sql string, args ...any) error {
	pool, err := s.connections()
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return judge(err)
	}
	defer conn.Release()
	if conn.Conn().PgConn().CustomData()[direct] != nil {
		err := conn.QueryRow(ctx, sql, args...).Scan(into...)
		if outdated(err) {
			_ = conn.Conn().Close(ctx)
		}
		return judge(err)
	}
	var batch pgx.Batch
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	batch.Queue("SELECT pglock_settings($1)", s.durable)
	batch.Queue(sql, args...)
	batch.Queue("COMMIT")
	// Statements that are prepared, or described, would not survive a pooler in transaction mode.
	results := conn.Conn().SendBatch(ctx, &batch)
	_, err = results.Exec()
	if err == nil {
		_, err = results.Exec()
	}
	if err == nil {
		err = results.QueryRow().Scan(into...)
	}
	none := errors.Is(err, pgx.ErrNoRows)
	if err == nil || none {
		_, err = results.Exec() // only now it is committed
	}
	closeErr := results.Close()
	if err != nil {
		// The transaction is open, or in doubt.
		_ = conn.Conn().Close(ctx)
		return judge(err)
	}
	if none && closeErr == nil {
		return pgx.ErrNoRows
	}
	return judge(closeErr)
}

// outdated reports whether err says that the connection will not do any more, though it is whole, and another may: it leads to what is
// a standby now, or its prepared statements are of other tables, or gone.
func outdated(err error) bool {
	var reply *pgconn.PgError
	if !errors.As(err, &reply) {
		return false
	}
	switch reply.Code {
	case "25006", "0A000", "26000":
		return true
	}
	return false
}

func interval(d time.Duration) string {
	return strconv.FormatInt(d.Microseconds(), 10) + " microseconds"
}

// judge marks what waiting does not mend. It is the only place that decides so.
func judge(err error) error {
	var reply *pgconn.PgError
	if err == nil || !errors.As(err, &reply) {
		return err // a connection that is cut, or refused because nothing listens, passes
	}
	switch reply.Code {
	case "42P01", "42883", "3F000": // a table, a function or a schema that is not there
		return lease.Refused(fmt.Errorf("%w; has Migrate been run, and is its schema in the search_path?", err))
	case "42501", "3D000", "0LP01": // a privilege or a database that is missing
		return lease.Refused(err)
	case "55P03", // a guard holds the row
		"25006", "0A000", // a standby, before its promotion; the second of unlogged tables
		"57014": // a statement_timeout
		return err
	}
	switch reply.Code[:2] {
	case "28", // a password, or pg_hba.conf
		"22", "42", "23", "21": // a statement that this server does not understand
		return lease.Refused(err)
	}
	// Connections (08), resources (53), conflicts (40), a shutdown (57), an I/O error (58), an internal
	// one (XX), and whatever else a server may say for a while.
	return err
}

func (s *store) Begin(ctx context.Context, id lease.Session) error {
	var void any
	err := s.urgent(ctx, []any{&void}, "SELECT pglock_begin($1, $2::interval, $3::interval, $4, $5, $6, $7)::text",
		id.ID, interval(id.TTL), interval(s.quarantine), s.durable, id.Process.Label, id.Process.Host, int32(id.Process.PID))
	if err == nil {
		s.sweep(ctx, 0)
	}
	return err
}

func (s *store) Renew(ctx context.Context, id lease.Session, held []lease.Held) ([]lease.Held, error) {
	keys, attempts, epochs := make([][]byte, len(held)), make([]int64, len(held)), make([]int64, len(held))
	for i, h := range held {
		keys[i], attempts[i], epochs[i] = keyOf(h.Key), int64(h.Attempt), int64(h.Epoch)
	}
	var (
		alive     bool
		positions []int32
	)
	err := s.urgent(ctx, []any{&alive, &positions},
		"SELECT alive, missing FROM pglock_renew($1, $2::interval, $3, $4, $5, $6)",
		id.ID, interval(id.TTL), keys, attempts, epochs, s.durable)
	if err != nil {
		return nil, err
	}
	if !alive {
		return nil, lease.ErrSessionGone
	}
	var missing []lease.Held
	for _, p := range positions {
		if p < 1 || int(p) > len(held) {
			return nil, fmt.Errorf("position %d of %d in the reply to a renewal", p, len(held))
		}
		missing = append(missing, held[p-1])
	}
	s.sweep(ctx, id.TTL/8)
	return missing, nil
}

const (
	sweepEvery = 10 * time.Minute // how often a process removes what was not used for an hour
	sweepMost  = 1000             // how many keys pglock_sweep removes at most
)

// sweep removes rows that were not used for an hour, now and then. What is left after so long, or when all connections are in use, is
// for the next renewal. Its error is of no interest: the next process will sweep.
func (s *store) sweep(ctx context.Context, patience time.Duration) {
	begun := time.Now()
	s.mu.Lock()
	due := begun.Sub(s.swept) > sweepEvery
	if due {
		s.swept = begun
	}
	s.mu.Unlock()
	if !due {
		return
	}
	for n, done := int32(0), false; !done; {
		select {
		case s.turns <- struct{}{}:
			err := s.urgent(ctx, []any{&n}, "SELECT pglock_sweep()")
			<-s.turns
			if err != nil || n < sweepMost {
				return
			}
			done = time.Since(begun) > patience
		default:
			done = true
		}
	}
	s.mu.Lock()
	s.swept = time.Time{}
	s.mu.Unlock()
}

// The statements that are prepared. Most locks are enterFree and leaveAlone, and those of a key that others contend for are
// enterHeld and leaveNext, one statement each. The functions follow where they find no such row: for a try, a key that is new or that entries of the dead
// hold, an entry that asks again, and in quarantine.
const (
	enterFree = `
		INSERT INTO pglock_key AS k (key, entry, epoch)
		SELECT $1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
		WHERE EXISTS (SELECT FROM pglock_session WHERE id = $3 AND expires > clock_timestamp())
			AND (SELECT quiet FROM pglock_life) <= clock_timestamp()
		ON CONFLICT (key) DO UPDATE
		SET entry = excluded.entry, epoch = greatest(k.epoch + 1, excluded.epoch), used = clock_timestamp()
		WHERE k.entry IS NULL AND k.queue = '{}' AND NOT excluded.entry = ANY (k.refused)
		RETURNING epoch`
	enterHeld = `
		UPDATE pglock_key AS k
		SET entry = coalesce(entry, $2),
			epoch = CASE WHEN entry IS NULL THEN greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ELSE epoch END,
			queue = CASE WHEN entry IS NULL THEN queue ELSE queue || $2 END,
			used = clock_timestamp()
		WHERE key = $1 AND refused = '{}'
			AND EXISTS (SELECT FROM pglock_session WHERE id = $3 AND expires > clock_timestamp())
			AND CASE WHEN entry IS NULL THEN queue = '{}' AND (SELECT quiet FROM pglock_life) <= clock_timestamp()
				ELSE entry <> $2 AND NOT $2 = ANY (queue)
					AND EXISTS (SELECT FROM pglock_session WHERE id = split_part(k.entry, ':', 1) AND expires > clock_timestamp()) END
		RETURNING epoch, entry = $2, cardinality(queue), CASE WHEN entry <> $2 THEN (
			SELECT extract(epoch FROM expires - clock_timestamp())::float8 FROM pglock_session WHERE id = split_part(k.entry, ':', 1)) END`
	enter = `
		SELECT outcome, granted, wanted, extract(epoch FROM again)::float8, holder, coalesce(label, ''), coalesce(host, ''), coalesce(pid, 0)
		FROM pglock_enter($1, $2, $3, $4, $5::interval, $6)`

	leaveAlone = `UPDATE pglock_key SET entry = NULL, used = clock_timestamp() WHERE key = $1 AND entry = $2 AND queue = '{}' RETURNING 1`
	leaveNext  = `
		UPDATE pglock_key
		SET entry = queue[1], queue = queue[2:], used = clock_timestamp(),
			epoch = CASE WHEN queue = '{}' THEN epoch ELSE greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) END
		WHERE key = $1 AND entry = $2 AND (queue = '{}'
			OR EXISTS (SELECT FROM pglock_session WHERE id = split_part(queue[1], ':', 1) AND expires > clock_timestamp())
				AND (SELECT quiet FROM pglock_life) <= clock_timestamp())
		RETURNING entry IS NULL, CASE WHEN entry IS NOT NULL THEN pg_notify('pglock_' || split_part(entry, ':', 1),
			CASE WHEN queue <> '{}' THEN 'granted,wanted ' ELSE 'granted ' END || epoch || ' ' || split_part(entry, ':', 2))::text END`
	leave = `SELECT alive, present, alone FROM pglock_leave($1, $2, $3, $4, $5::interval, $6)`
)

func (s *store) Enter(ctx context.Context, e lease.Entry, try bool) (lease.Standing, error) {
	key := keyOf(e.Key)
	contended := s.contended.of(e.Key)
	if !contended.Load() {
		var epoch int64
		err := s.call(ctx, []any{&epoch}, enterFree, key, e.ID(), e.Session.ID)
		if err == nil {
			return lease.Standing{Epoch: uint64(epoch)}, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return lease.Standing{}, err
		}
		contended.Store(true)
	}
	if !try {
		var (
			epoch   int64
			granted bool
			queued  int32
			ends    *float64
		)
		err := s.call(ctx, []any{&epoch, &granted, &queued, &ends}, enterHeld, key, e.ID(), e.Session.ID)
		switch {
		case err == nil && granted:
			return lease.Standing{Epoch: uint64(epoch)}, nil
		case err == nil && queued == 1:
			return lease.Standing{Again: time.Millisecond}, nil
		case err == nil:
			return lease.Standing{Again: after(ends)}, nil
		case !errors.Is(err, pgx.ErrNoRows):
			return lease.Standing{}, err
		}
	}
	var (
		outcome string
		epoch   *int64
		wanted  bool
		again   *float64
		holder  *string
		who     cohort.Process
	)
	err := s.call(ctx, []any{&outcome, &epoch, &wanted, &again, &holder, &who.Label, &who.Host, &who.PID},
		enter, key, e.Session.ID, int64(e.Attempt), try, interval(s.quarantine), s.durable)
	switch {
	case err != nil:
		return lease.Standing{}, err
	case outcome == "gone":
		return lease.Standing{}, lease.ErrSessionGone
	case outcome == "held" && holder != nil && epoch != nil:
		return lease.Standing{}, &cohort.HeldError{Holder: contender(who, *epoch, *holder == e.Session.ID)}
	case outcome == "held":
		return lease.Standing{}, cohort.ErrHeld
	case outcome == "granted" && epoch != nil:
		return lease.Standing{Epoch: uint64(*epoch), Wanted: wanted}, nil
	case outcome == "waits" && again != nil:
		return lease.Standing{Again: after(again)}, nil
	default: // "left" cannot be the reply to a request that is waited for
		return lease.Standing{}, fmt.Errorf("the reply %q to an entry", outcome)
	}
}

// after returns a number of seconds as the time after which to ask again.
func after(seconds *float64) time.Duration {
	if seconds == nil {
		return 0
	}
	return max(time.Duration(*seconds*float64(time.Second)), 0) + time.Millisecond
}

func (s *store) Leave(ctx context.Context, e lease.Entry, late bool) (bool, error) {
	key := keyOf(e.Key)
	contended := s.contended.of(e.Key)
	if !late && !contended.Load() { // a late entry has to be refused from now on
		var one int32
		if err := s.call(ctx, []any{&one}, leaveAlone, key, e.ID()); !errors.Is(err, pgx.ErrNoRows) {
			return err == nil, err
		}
	}
	var alive, found, alone bool
	if !late {
		var notified *string
		err := s.call(ctx, []any{&alone, &notified}, leaveNext, key, e.ID())
		if err == nil {
			contended.Store(!alone)
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err == nil, err
		}
	}
	err := s.call(ctx, []any{&alive, &found, &alone}, leave, key, e.Session.ID, int64(e.Attempt), late, interval(s.quarantine), s.durable)
	if err != nil {
		return false, err
	}
	contended.Store(!alone)
	if !alive {
		return false, lease.ErrSessionGone
	}
	return found, nil
}

// hints says for each key whether others probably contend for it, so that the statements for a key that
// is free would be in vain. A wrong hint costs one statement.
type hints [1024]atomic.Bool

var hintSeed = maphash.MakeSeed()

// of returns the hint for a key, which it may share with others.
func (h *hints) of(key string) *atomic.Bool {
	return &h[maphash.String(hintSeed, key)%uint64(len(h))]
}

func (s *store) End(ctx context.Context, id lease.Session) error {
	for more := true; more; {
		err := s.call(ctx, []any{&more}, "SELECT pglock_end($1, $2::interval, $3)", id.ID, interval(s.quarantine), s.durable)
		if err != nil {
			return err
		}
	}
	return nil
}

// channel is what the process of a session listens to. A name has at most 63 bytes.
func channel(session string) string { return "pglock_" + session }

// Listen passes on what the server sends to the session's channel. A pooler in transaction mode says yes to
// LISTEN and passes nothing on, so it notifies itself first, over another connection; until something is
// heard it asks by the clock, four times per TTL. After a TTL without a word it asks the server for one, because a connection
// that was cut in between, as routers do with those that are idle, is silent too.
func (s *store) Listen(ctx context.Context, id lease.Session, notify func(lease.Notice)) error {
	config := s.listener.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel(id.ID)}.Sanitize()); err != nil {
		return err
	}
	var void any
	if err := s.urgent(ctx, []any{&void}, "SELECT pg_notify($1, 'probe')::text", channel(id.ID)); err != nil {
		return err
	}
	for hears, patience := false, id.TTL/4; ; {
		message, err := await(ctx, conn, patience)
		switch {
		case err != nil:
			return err
		case message != nil && hears:
			for _, n := range parseNotices(message.Payload) {
				notify(n)
			}
		case message != nil:
			hears, patience = true, id.TTL
			notify(lease.Notice{Kind: lease.Look})
		case hears:
			if err := ping(ctx, conn, id.TTL); err != nil {
				return err
			}
		default:
			notify(lease.Notice{Kind: lease.Look})
		}
	}
}

// await returns the next notification, or nil when none has come for so long.
func await(ctx context.Context, conn *pgx.Conn, patience time.Duration) (*pgconn.Notification, error) {
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	message, err := conn.WaitForNotification(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return message, err
}

// ping returns an error unless the server replies within so long.
func ping(ctx context.Context, conn *pgx.Conn, patience time.Duration) error {
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return conn.Ping(short)
}

// parseNotices reads "granted EPOCH ATTEMPT", "wanted 0 ATTEMPT", and both in one, "granted,wanted EPOCH ATTEMPT".
func parseNotices(message string) (notices []lease.Notice) {
	words := strings.Fields(message)
	if len(words) != 3 {
		return nil
	}
	epoch, err1 := strconv.ParseUint(words[1], 10, 64)
	attempt, err2 := strconv.ParseUint(words[2], 10, 64)
	if err1 != nil || err2 != nil {
		return nil
	}
	for kind := range strings.SplitSeq(words[0], ",") {
		switch kind {
		case "granted":
			notices = append(notices, lease.Notice{Kind: lease.Granted, Attempt: attempt, Epoch: epoch})
		case "wanted":
			notices = append(notices, lease.Notice{Kind: lease.Wanted, Attempt: attempt})
		}
	}
	return notices
}
