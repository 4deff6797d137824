package cohort

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

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
