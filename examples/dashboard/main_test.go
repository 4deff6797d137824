package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The culprit is the first line of the page.
func TestTheCulpritIsOnTop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdout, printed := io.Pipe()
	over := make(chan int)
	go func() { over <- run(ctx, nil, printed, io.Discard) }()
	lines := bufio.NewScanner(stdout)
	var urls []string
	for len(urls) < 2 && lines.Scan() {
		urls = append(urls, lines.Text()[strings.Index(lines.Text(), "http://"):])
	}
	require.Len(t, urls, 2)

	type answer struct {
		Managers []struct {
			LongestQueues []struct {
				Key     string
				Waiting int
				Holders []struct{ Session, Caller string }
			} `json:"longest_queues"`
		}
	}
	require.Eventually(t, func() bool {
		var a answer
		require.NoError(t, json.Unmarshal([]byte(get(t, urls[0]+"?format=json")), &a))
		longest := a.Managers[0].LongestQueues
		if len(longest) == 0 || longest[0].Key != popular || longest[0].Holders[0].Session != "monthly statements" {
			return false // it takes the tellers a moment to come across it
		}
		assert.Regexp(t, `^dashboard/bank.go:\d+ .*printStatement$`, longest[0].Holders[0].Caller)
		return true
	}, 5*time.Minute, 50*time.Millisecond)
	assert.Contains(t, get(t, urls[0]), "monthly statements")
	assert.Contains(t, get(t, strings.Replace(urls[0], "/debug/locks", "/", 1)), "monthly statements")
	assert.Contains(t, get(t, urls[1]), `keylock_requests_total{manager="accounts",outcome="waited"}`)

	cancel()
	assert.Zero(t, <-over)
	http.DefaultClient.CloseIdleConnections()
}

func get(t *testing.T, url string) string {
	answer, err := http.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(body)
}

// The bank alone, in a bubble: after ten seconds many tellers stand behind the culprit.
func TestTellersStandBehindTheCulprit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		locks := keylock.Start[string](ctx, keylock.WithHoldTimes())
		bank := openBank(ctx, locks)
		time.Sleep(10 * time.Second)
		top, err := locks.Top(ctx, 1)
		require.NoError(t, err)
		assert.Equal(t, popular, top.LongestQueues[0].Key)
		assert.Greater(t, top.LongestQueues[0].Waiting, tellers/6)
		assert.Equal(t, popular, top.OldestHolds[0].Key)
		cancel()
		bank.Wait()
		<-locks.Done()
	})
}

func TestArgumentsAreCheckedBeforeAnythingStarts(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		said   string
	}{
		{[]string{"-h"}, 0, "Dashboard starts a busy lock manager with a culprit in it"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"extra"}, 2, `unexpected argument "extra"`},
		{[]string{"-for", "10ms", "stray"}, 2, `unexpected argument "stray"`},
		{[]string{"-for", "-1s"}, 2, "-for must not be negative"},
		{[]string{"-addr", "256.0.0.1:x"}, 1, "dashboard: listen tcp"},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, c.status, run(t.Context(), c.args, &stdout, &stderr), c.args)
		assert.Contains(t, stderr.String(), c.said)
		assert.Empty(t, stdout.String(), c.args)
	}
	assert.Zero(t, run(t.Context(), []string{"-for", "10ms"}, io.Discard, io.Discard))
}
