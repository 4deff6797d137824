package lockctl_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run returns what a command writes.
func run(t *testing.T, engine cohort.Operator, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, lockctl.Run(t.Context(), engine, &out, args...))
	return out.String()
}

func TestListShowAndBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins in the year 2000
		store := cohorttest.NewStore()
		defer store.Close()
		operator, hanging, waiting := store.Engine(), store.Engine(), store.Engine()
		assert.Equal(t, "KEY  EPOCH  SINCE  PROCESS\n", run(t, operator, "list"))
		stuck, err := hanging.Acquire(t.Context(), "order/42")
		require.NoError(t, err)
		odd, err := hanging.Acquire(t.Context(), "two words\n")
		require.NoError(t, err)
		time.Sleep(time.Hour)
		granted := make(chan cohort.Grant)
		go func() {
			g, err := waiting.Acquire(t.Context(), "order/42")
			assert.NoError(t, err)
			granted <- g
		}()
		synctest.Wait()
		began := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		now := time.Now().UTC().Format(time.RFC3339)
		assert.Equal(t, `KEY            EPOCH  SINCE                 PROCESS
order/42       1      `+began+`  process 2
"two words\n"  2      `+began+`  process 2
`, run(t, operator, "list"))
		assert.Equal(t, `       EPOCH  SINCE                 PROCESS
holds  1      `+began+`  process 2
waits  -      `+now+`  process 3
`, run(t, operator, "show", "order/42"))
		assert.Equal(t, "free is free\n", run(t, operator, "show", "free"))

		err = lockctl.Run(t.Context(), operator, &bytes.Buffer{}, "break", "order/42", "2")
		require.EqualError(t, err, "order/42 is not held with epoch 2 any more; nothing was changed")
		assert.Equal(t, "order/42 was held with epoch 1, and is not any more; its holder learns of it at its next renewal\n", run(t, operator, "break", "order/42", "1"))
		next := <-granted
		assert.Greater(t, next.Epoch(), stuck.Epoch())
		<-stuck.Lost()
		require.ErrorIs(t, stuck.Release(t.Context()), cohort.ErrLost)
		require.Error(t, lockctl.Run(t.Context(), operator, &bytes.Buffer{}, "break", "order/42", "1"), "again, it harms no later holder")

		run(t, operator, "break", `"two words\n"`, strconv.FormatUint(odd.Epoch(), 10))
		<-odd.Lost()
		require.NoError(t, next.Release(t.Context()))
	})
}

func TestWrongArguments(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	for _, args := range [][]string{nil, {"list", "all"}, {"show"}, {"break", "key"}, {"break", "key", "x"}, {"break", "key", "0"}, {"steal", "key"}} {
		require.ErrorIs(t, lockctl.Run(t.Context(), store.Engine(), &bytes.Buffer{}, args...), lockctl.ErrUsage, "%q", args)
	}
	require.Error(t, lockctl.Run(t.Context(), store.Engine(), &bytes.Buffer{}, "show", `"no end`))
}

// A command exits as others do: scripts rely on it.
func TestCommandExits(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	unreachable, ended := false, false
	command := lockctl.Command{Name: "locks", Flags: func(flags *flag.FlagSet) lockctl.Connect {
		flags.BoolVar(&unreachable, "unreachable", false, "there is no engine")
		return func(context.Context) (cohort.Operator, func(), error) {
			if unreachable {
				return nil, nil, errCut
			}
			return store.Engine(), func() { ended = true }, nil
		}
	}}
	for _, test := range []struct {
		args     []string
		code     int
		out, log string
	}{
		{[]string{"-h"}, 0, "usage: locks [flags] list | show KEY | break KEY EPOCH\n", ""},
		{[]string{"list"}, 0, "KEY  EPOCH", ""},
		{nil, 2, "", "locks: usage: list | show KEY | break KEY EPOCH\nlocks -h shows the flags\n"},
		{[]string{"steal"}, 2, "", "locks: usage: "},
		{[]string{"-unreachable", "steal"}, 2, "", "locks: usage: "}, // for which no engine is needed
		{[]string{"show", `"key`}, 2, "", "locks: the key \"key: "},
		{[]string{"break", "key", "0"}, 2, "", "locks: the epoch \"0\" is no number that list shows"},
		{[]string{"-timeout", "0", "list"}, 2, "", "locks: -timeout 0s: want more than 0; usage: list"},
		{[]string{"-timeout", "-1s", "list"}, 2, "", "locks: -timeout -1s: want more than 0; usage: list"},
		{[]string{"-x", "list"}, 2, "", "locks: flag provided but not defined: -x; usage: list"},
		{[]string{"-timeout", "soon", "list"}, 2, "", `locks: invalid value "soon" for flag -timeout`},
		{[]string{"break", "key", "1"}, 1, "", "locks: key is not held with epoch 1 any more; nothing was changed\n"},
		{[]string{"-unreachable", "list"}, 1, "", "locks: cut off\n"},
	} {
		var out, log bytes.Buffer
		assert.Equal(t, test.code, command.Run(&out, &log, test.args...), "%q", test.args)
		assert.True(t, strings.HasPrefix(out.String(), test.out), out.String())
		assert.True(t, strings.HasPrefix(log.String(), test.log), log.String())
		assert.Equal(t, test.out == "", out.Len() == 0)
		assert.Equal(t, test.log == "", log.Len() == 0)
	}
	assert.True(t, ended)
}

// failing is an engine that cannot be reached.
type failing struct{ cohort.Operator }

var errCut = errors.New("cut off")

func (failing) Inspect(context.Context, string) ([]cohort.Contender, error)     { return nil, errCut }
func (failing) List(context.Context, func(string, cohort.Contender) bool) error { return errCut }
func (failing) Break(context.Context, string, uint64) (bool, error)             { return false, errCut }

func TestErrorsOfTheEngine(t *testing.T) {
	for _, args := range [][]string{{"list"}, {"show", "key"}, {"break", "key", "1"}} {
		require.ErrorIs(t, lockctl.Run(t.Context(), failing{}, &bytes.Buffer{}, args...), errCut)
	}
}

// beginning has a queue in which nothing is granted yet, as that of a server that has just been started.
type beginning struct{ cohort.Operator }

func (beginning) Inspect(context.Context, string) ([]cohort.Contender, error) {
	return []cohort.Contender{{Process: cohort.Process{Label: "first"}}, {Process: cohort.Process{Label: "second"}}}, nil
}

func TestFirstOfAQueueWaitsUntilItIsGranted(t *testing.T) {
	assert.Equal(t, `       EPOCH  SINCE  PROCESS
waits  -      -      first
waits  -      -      second
`, run(t, beginning{}, "show", "key"))
}

// many has more keys than a person reads.
type many struct{ cohort.Operator }

func (many) List(_ context.Context, yield func(string, cohort.Contender) bool) error {
	for i := range 20_000 {
		if !yield(strconv.Itoa(i), cohort.Contender{}) {
			break
		}
	}
	return nil
}

func TestLongListIsCut(t *testing.T) {
	out := run(t, many{}, "list")
	assert.Equal(t, 10_002, bytes.Count([]byte(out), []byte("\n")))
	assert.Contains(t, out, "and more than these 10000\n")
	assert.Contains(t, out, "unknown")
}
