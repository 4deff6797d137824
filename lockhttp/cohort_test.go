package lockhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

func TestKeptKeysAreShown(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	locks := cohort.Start(t.Context(), store.Engine(), cohort.WithKeep(time.Hour, 10))
	defer locks.Close()
	address := serve(t, map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(locks)})
	_, body := get(t, address+"?format=text")
	assert.NotContains(t, body, "kept")
	var token cohort.Token
	for range 3 {
		l, err := locks.Acquire(t.Context(), "key")
		require.NoError(t, err)
		token = l.Token()
		require.NoError(t, l.Release())
	}
	_, body = get(t, address+"?format=text")
	assert.Contains(t, body, "kept: 1 keys now, found 2 times, recalled 0 times")
	_, body = get(t, address+"?format=html")
	assert.Contains(t, body, "kept in this process: 1 keys now · found 2 times · recalled 0 times")
	_, body = get(t, address+"?format=json")
	assert.Regexp(t, `"kept": ?1,\s*"hits": ?2,\s*"recalls": ?0`, body)
	for _, format := range []string{"json", "text", "html"} {
		_, body = get(t, address+"?manager=orders&key=key&format="+format)
		assert.Contains(t, body, "kept", format)
		assert.NotContains(t, body, "kept for", "%s: since it was granted callers have had it", format)
		assert.Contains(t, body, token.String(), format)
	}
}

// The options of a cohort's queues are given to WithLocal.
func TestHintsOfACohortAreForCohorts(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	locks := cohort.Start(t.Context(), store.Engine())
	defer locks.Close()
	ctx, cancel := context.WithCancel(t.Context())
	held, err := locks.Acquire(ctx, "key")
	require.NoError(t, err)
	defer func() { assert.NoError(t, held.Release()) }()
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_, _ = locks.Acquire(ctx, "key")
	}()
	defer func() { cancel(); <-waited }()
	require.Eventually(t, func() bool {
		s, err := locks.Stats(ctx)
		return err == nil && s.Local.Waiting == 1
	}, time.Minute, time.Millisecond)
	text := page(map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(locks)}, "?format=text")
	assert.Contains(t, text, "with cohort.WithLocal(keylock.WithHoldTimes()) to see")
	assert.Contains(t, text, "with cohort.WithLocal(keylock.WithCallers()) to see")
}

// A cohort is shown like a manager, and with its engine: in every format, as a whole and one key.
func TestCohortIsShownWithItsEngine(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	engine := store.Engine()
	ours := cohort.Start(t.Context(), engine, cohort.WithLocal(keylock.WithHoldTimes()))
	defer ours.Close()
	theirs := cohort.Start(t.Context(), store.Engine())
	defer theirs.Close()
	const key = "<b>order</b>"
	held, err := theirs.Acquire(t.Context(), key)
	require.NoError(t, err)
	engine.Script(cohorttest.Fault{Call: cohorttest.Acquire, Err: errors.New("try again"), Passes: true})
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_, _ = ours.Acquire(ctx, key)
	}()
	defer func() { cancel(); <-waited }()
	require.Eventually(t, func() bool { return store.Len(key) == 2 }, time.Minute, time.Millisecond)

	address := serve(t, map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(ours)})
	one := address + "?manager=orders&key=" + url.QueryEscape(key)
	for _, format := range []string{"&format=json", "&format=text", "&format=html"} {
		resp, body := get(t, address+"?n=20"+format)
		require.Equal(t, http.StatusOK, resp.StatusCode, body)
		assert.Contains(t, body, "order")
		if format == "&format=html" {
			assert.NotContains(t, body, key)
		}
		resp, body = get(t, one+format)
		require.Equal(t, http.StatusOK, resp.StatusCode, body)
		assert.Contains(t, body, "process 2", format)
		if local := max(strings.Index(body, "In this process, held by"), strings.Index(body, "\ngrant ")); local >= 0 { // no order in JSON
			assert.Less(t, strings.Index(body, "process 2"), local, "first who holds it, then this process, where many may wait")
		}
		if format == "&format=html" {
			assert.NotContains(t, body, key)
		}
	}
	var shown struct {
		Managers []struct {
			Engine struct {
				Waiting     int
				Retries     uint64
				OldestWaits []struct{ Key, State string } `json:"oldest_waits"`
			}
			Key struct {
				Claim  struct{ State string }
				Engine []struct {
					Process string
					Own     bool
					Epoch   uint64
				}
			}
		}
	}
	_, body := get(t, address+"?format=json")
	require.NoError(t, json.Unmarshal([]byte(body), &shown))
	seen := shown.Managers[0].Engine
	assert.Equal(t, 1, seen.Waiting)
	assert.Equal(t, uint64(1), seen.Retries)
	require.Len(t, seen.OldestWaits, 1)
	assert.Equal(t, key, seen.OldestWaits[0].Key)
	_, body = get(t, one+"&format=json")
	require.NoError(t, json.Unmarshal([]byte(body), &shown))
	assert.Equal(t, "waiting", shown.Managers[0].Key.Claim.State)
	require.Len(t, shown.Managers[0].Key.Engine, 2)
	assert.Equal(t, held.Token().Epoch, shown.Managers[0].Key.Engine[0].Epoch)
	assert.True(t, shown.Managers[0].Key.Engine[1].Own)

	require.NoError(t, held.Release())
}

// Requests that wait at the engine wait, whether or not others wait behind them in the process: the page begins
// with what is worst.
func TestWaitsAtTheEngineAreNotHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		ours, theirs := cohort.Start(t.Context(), store.Engine()), cohort.Start(t.Context(), store.Engine())
		defer ours.Close()
		defer theirs.Close()
		held, err := theirs.Acquire(t.Context(), "k")
		require.NoError(t, err)
		managers := map[string]lockhttp.Manager{"a": lockhttp.Of(busySource(2, time.Minute, time.Minute)), "b": lockhttp.OfCohort(ours)}
		granted := make(chan cohort.Lock)
		acquire := func() {
			l, err := ours.Acquire(t.Context(), "k")
			assert.NoError(t, err)
			granted <- l
		}
		go acquire()
		time.Sleep(time.Hour)
		const query = "manager=b&amp;key=k"
		text := page(managers, "?format=text")
		assert.Contains(t, text, "\n3 requests wait, most of all in manager b. Key \"k\" has waited at the engine for 1h 00m.\n")
		assert.Less(t, strings.Index(text, "manager b\n"), strings.Index(text, "manager a\n"))
		html := page(managers, "")
		assert.Contains(t, html, `<p class="summary wrong"><a href="?`+query+`">`)
		assert.Contains(t, html, `<td class="n" data-label="waiting">1</td>`)
		assert.Contains(t, html, `<td class="n wrong" data-label="oldest wait">1h 00m</td>`)
		go acquire()
		time.Sleep(2 * time.Hour)
		assert.Contains(t, page(managers, "?format=text"),
			"\n4 requests wait, most of all in manager b. Key \"k\" has 1 waiter, the first for 2h 00m; it has waited at the engine for 3h 00m.\n")
		require.NoError(t, held.Release())
		require.NoError(t, (<-granted).Release())
		require.NoError(t, (<-granted).Release())
		assert.Contains(t, page(map[string]lockhttp.Manager{"b": managers["b"]}, "?format=text"), "\nNothing waits.\n")
	})
}

// elsewhere is an engine of which other processes have a key.
type elsewhere struct {
	*cohorttest.Engine
	queue []cohort.Contender
}

func (e elsewhere) Inspect(context.Context, string) ([]cohort.Contender, error) { return e.queue, nil }

func (e elsewhere) Report() cohort.EngineReport {
	return cohort.EngineReport{Process: cohort.Process{Label: "billing", Host: "web-1", PID: 17}, Sessions: 1}
}

// Who holds a key in another process is shown with its label, host, number, since when and with which epoch, and so is
// who waits there; a label may contain what it likes.
func TestHolderInAnotherProcessIsShown(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	since := time.Now().Add(-90 * time.Second).Truncate(time.Second)
	locks := cohort.Start(t.Context(), elsewhere{store.Engine(), []cohort.Contender{
		{Process: cohort.Process{Label: "checkout", Host: "web-3", PID: 4242}, Since: since, Epoch: 118},
		{Process: cohort.Process{Label: "billing", Host: "web-1", PID: 17}, Own: true},
		{Process: cohort.Process{Label: "<i>evil</i>\u202e"}},
		{},
	}})
	defer locks.Close()
	address := serve(t, map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(locks)})
	one := address + "?manager=orders&key=key&format="

	type contender struct {
		Process, Label, Host string
		PID                  int
		Own                  bool
		Epoch                uint64
		Since                time.Time
	}
	var shown struct {
		Managers []struct {
			Engine struct{ Process string }
			Key    struct{ Engine []contender }
		}
	}
	_, body := get(t, one+"json")
	require.NoError(t, json.Unmarshal([]byte(body), &shown))
	queue := shown.Managers[0].Key.Engine
	require.Len(t, queue, 4)
	assert.True(t, since.Equal(queue[0].Since))
	queue[0].Since = time.Time{}
	assert.Equal(t, []contender{
		{Process: "web-3:4242 checkout", Label: "checkout", Host: "web-3", PID: 4242, Epoch: 118},
		{Process: "web-1:17 billing", Label: "billing", Host: "web-1", PID: 17, Own: true},
		{Process: `"<i>evil</i>\u202e"`, Label: `"<i>evil</i>\u202e"`},
		{},
	}, queue)
	_, body = get(t, address+"?format=json")
	require.NoError(t, json.Unmarshal([]byte(body), &shown))
	assert.Equal(t, "web-1:17 billing", shown.Managers[0].Engine.Process)

	_, body = get(t, one+"text")
	assert.Regexp(t, `holds +1m 3\ds +118 +web-3:4242 checkout\n`, body)
	assert.Regexp(t, `waits +web-1:17 billing \(this process\)\n`, body)
	assert.Regexp(t, `waits +unknown\n`, body)
	_, body = get(t, one+"html")
	assert.Regexp(t, `>holds<.*>1m 3\ds<.*>118<.*<bdi>web-3:4242 checkout</bdi>`, body)
	assert.Contains(t, body, "<bdi>web-1:17 billing (this process)</bdi>")
	assert.NotContains(t, body, "<i>")
	assert.Contains(t, body, "&lt;i&gt;evil")
}

// Where nothing is granted yet, as at a server that has just been started, the first of a queue waits, too.
func TestFirstOfAnEnginesQueueIsNoHolderBeforeItsGrant(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	locks := cohort.Start(t.Context(), elsewhere{store.Engine(), []cohort.Contender{{Process: cohort.Process{Label: "checkout"}}}})
	defer locks.Close()
	text := page(map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(locks)}, "?manager=orders&key=key&format=text")
	assert.Regexp(t, `waits +checkout\n`, text)
}
