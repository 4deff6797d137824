package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

func TestConformance(t *testing.T) {
	s := newServer()
	links := make(map[cohort.Engine]*link)
	cohorttest.Run(t, cohorttest.Harness{
		Engine: func() (cohort.Engine, error) {
			l := s.link()
			e, err := lease.New(l, lease.Config{Name: "memory", TTL: 500 * time.Millisecond})
			links[e] = l
			return e, err
		},
		Revoke: func(e cohort.Engine) error { s.revoke(links[e].session()); return nil },
		Cut:    func(e cohort.Engine) error { links[e].cut(); return nil },
		Heal:   func(e cohort.Engine) error { links[e].heal(); return nil },
	})
	require.Eventually(t, func() bool { _, entries := s.left(); return entries == 0 }, 5*time.Second, time.Millisecond)
}

// session returns the ID of the link's last session.
func (l *link) session() string {
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	return l.id
}
