package cohort

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oneKey is an engine that grants everything at once, and never wants it back.
type oneKey struct{ lost chan struct{} }

func (e *oneKey) Acquire(context.Context, string) (Grant, error)    { return e, nil }
func (e *oneKey) TryAcquire(context.Context, string) (Grant, error) { return e, nil }
func (e *oneKey) Close(context.Context) error                       { return nil }
func (e *oneKey) Epoch() uint64                                     { return 1 }
func (e *oneKey) Lost() <-chan struct{}                             { return e.lost }
func (e *oneKey) Release(context.Context) error                     { return nil }
func (e *oneKey) OnWanted(func())                                   {}

// A hot key is kept for a moment each time that it passes from one caller to the next. It is in use then, and
// not kept, to those who look.
func TestKeyOnItsWayToACallerIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Start(t.Context(), &oneKey{make(chan struct{})}, WithKeep(time.Hour, 2))
		defer m.Close()
		for _, key := range []string{"hot", "idle"} {
			l, err := m.Acquire(t.Context(), key)
			require.NoError(t, err)
			require.NoError(t, l.Release())
		}
		next, err := m.local.Acquire(t.Context(), "hot") // and has not taken the claim out yet
		require.NoError(t, err)
		require.Equal(t, kept, m.keeper.find("hot").state.Load())

		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 2, s.Held)
		assert.Equal(t, 1, s.Kept)
		info, err := m.Inspect(t.Context(), "hot")
		require.NoError(t, err)
		assert.Equal(t, ClaimHeld, info.Claim.State)
		infos, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, infos, 2)
		assert.Equal(t, ClaimHeld, infos[0].Claim.State)
		assert.Equal(t, ClaimKept, infos[1].Claim.State)
		next.Release()
	})
}

// The registry may carry out, in this order: that the engine has replied, and a check that the claim's timer had begun before. The
// caller of the engine closes replied only after that.
func TestCheckThatCrossesTheReplyReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &slowLog{after: time.Second, records: make(chan slowRecord, 2), next: make(map[*claim]time.Duration), look: func(func(*claims)) {}}
		cs := &claims{byKey: make(map[string]*claim), slow: l}
		c := &claim{key: "k", asked: time.Now(), replied: make(chan struct{})}
		cs.begin(c)
		time.Sleep(l.after)
		c.at = time.Now()
		cs.replied(c)
		l.check(c)
		close(c.replied)
		assert.Empty(t, l.records)
		assert.Empty(t, l.next)
		cs.endSlow()
	})
}
