package pglock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// contender describes who holds a key with the epoch, which is the server's clock as long as that is not set
// back; with none, who waits.
func contender(p cohort.Process, epoch int64, own bool) cohort.Contender {
	c := cohort.Contender{Process: p, Own: own}
	if epoch > 0 {
		c.Epoch, c.Since = uint64(epoch), time.UnixMicro(epoch)
	}
	return c
}

// seen is what a statement returns of some entries; the sessions are "" where there is none.
type seen struct {
	epochs        []int64 // 0 for an entry that waits
	sessions      []string
	labels, hosts []string
	pids          []int32
}

func (s *seen) columns() []any { return []any{&s.epochs, &s.sessions, &s.labels, &s.hosts, &s.pids} }

func (s *seen) contender(i int, own string) cohort.Contender {
	p := cohort.Process{Label: s.labels[i], Host: s.hosts[i], PID: int(s.pids[i])}
	return contender(p, s.epochs[i], s.sessions[i] == own)
}

const inspect = `
	SELECT coalesce(array_agg(CASE WHEN entry = holder THEN epoch ELSE 0 END ORDER BY i), '{}'),
		coalesce(array_agg(id ORDER BY i), '{}'), coalesce(array_agg(label ORDER BY i), '{}'),
		coalesce(array_agg(host ORDER BY i), '{}'), coalesce(array_agg(pid ORDER BY i), '{}')
	FROM (
		SELECT e.entry, k.entry AS holder, k.epoch, s.id, s.label, s.host, s.pid, e.i
		FROM pglock_key k
		CROSS JOIN unnest(k.entry || k.queue) WITH ORDINALITY AS e (entry, i)
		JOIN pglock_session s ON s.id = split_part(e.entry, ':', 1) AND s.expires > clock_timestamp()
		WHERE k.key = $1
		ORDER BY e.i LIMIT 1000
	) AS queue`

// Inspect implements cohort.Inspector; it returns at most the first 1,000. Since when the first holds the key is
// told by its epoch, which is the clock of the server, as long as that is not set back. Since when the others wait is not known.
// After Close it returns cohort.ErrClosed, as List and Break do.
func (e *Engine) Inspect(ctx context.Context, key string) ([]cohort.Contender, error) {
	var found seen
	if err := e.store.call(ctx, found.columns(), inspect, keyOf(key)); err != nil {
		return nil, operatorError(ctx, "inspect", err)
	}
	own := e.Report().Session
	var queue []cohort.Contender
	for i := range found.sessions {
		queue = append(queue, found.contender(i, own))
	}
	return queue, nil
}

const list = `
	WITH page AS (
		SELECT key, entry, epoch, queue FROM pglock_key
		WHERE key > $1 AND (entry IS NOT NULL OR queue <> '{}') ORDER BY key LIMIT 1000
	)
	SELECT coalesce(array_agg(key ORDER BY key), '{}'),
		coalesce(array_agg(CASE WHEN f.entry = page.entry THEN epoch ELSE 0 END ORDER BY key), '{}'),
		coalesce(array_agg(coalesce(id, '') ORDER BY key), '{}'), coalesce(array_agg(coalesce(label, '') ORDER BY key), '{}'),
		coalesce(array_agg(coalesce(host, '') ORDER BY key), '{}'), coalesce(array_agg(coalesce(pid, 0) ORDER BY key), '{}')
	FROM page LEFT JOIN LATERAL (
		SELECT e.entry, s.id, s.label, s.host, s.pid
		FROM unnest(page.entry || page.queue) WITH ORDINALITY AS e (entry, i)
		JOIN pglock_session s ON s.id = split_part(e.entry, ':', 1) AND s.expires > clock_timestamp()
		ORDER BY e.i LIMIT 1
	) AS f ON true`

// List implements cohort.Operator. It reads the rows of the keys, 1,000 at a time. Of a key that is longer than
// 1,024 bytes only the first 64 are stored, and listed.
func (e *Engine) List(ctx context.Context, yield func(key string, first cohort.Contender) bool) error {
	own := e.Report().Session
	for after := []byte{}; ; {
		var keys [][]byte
		var found seen
		if err := e.store.call(ctx, append([]any{&keys}, found.columns()...), list, after); err != nil {
			return operatorError(ctx, "list", err)
		}
		if len(keys) == 0 {
			return nil
		}
		for i, key := range keys {
			if found.sessions[i] != "" && !yield(listed(key), found.contender(i, own)) {
				return nil
			}
		}
		after = keys[len(keys)-1]
	}
}

// listed returns the key that keyOf has stored, or what is left of it.
func listed(stored []byte) string {
	if stored[0] == 0 {
		return string(stored[1:])
	}
	return string(stored[1+32:])
}

// Break implements cohort.Operator. While a transaction has called [Grant.Guard] of that grant, Break waits for its
// end. A process that did not release in time learns of it within a quarter of its TTL, as long as it holds
// no more than 1,024 keys.
func (e *Engine) Break(ctx context.Context, key string, epoch uint64) (bool, error) {
	s := e.store
	for {
		var broken bool
		err := s.call(ctx, []any{&broken}, "SELECT pglock_break($1, $2)", keyOf(key), int64(epoch))
		var reply *pgconn.PgError
		if err == nil || !errors.As(err, &reply) || reply.Code != "55P03" {
			return broken, operatorError(ctx, "break", err)
		}
		select { // a guard holds the row
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return false, operatorError(ctx, "break", err)
		}
	}
}

func operatorError(ctx context.Context, call string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("pglock: %s: %w; before that: %w", call, ctx.Err(), err)
	default:
		return fmt.Errorf("pglock: %s: %w", call, err)
	}
}
