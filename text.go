package keylock

import (
	"fmt"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

// The handles have texts of their own, because package fmt would print their fields, and
// read what other goroutines write.

// String returns the type of the keys, and whether the manager has ended.
func (m *Manager[K]) String() string {
	if m == nil || m.mailbox == nil {
		return "no manager"
	}
	state := "running"
	if m.ended.Load() {
		state = "ended"
	}
	return fmt.Sprintf("manager of keys of type %s, %s", show.Type[K](), state)
}

// String names the session by its label.
func (s *Session[K]) String() string {
	if s == nil || s.state.entries == nil {
		return "no session"
	}
	return sessionText(s.state.entries.Label())
}

// String returns the key and the number of the grant.
func (l Lock[K]) String() string {
	if l.m == nil {
		return "no lock"
	}
	return fmt.Sprintf("lock of key %s, grant %d", show.Quoted(&l.key), l.Seq())
}

// String returns the number of the grant.
func (l Locks[K]) String() string {
	if l.lock.m == nil {
		return "no locks"
	}
	return fmt.Sprintf("locks of many keys, grant %d", l.Seq())
}

// String says whether the reservation was used.
func (v Reservation[K]) String() string {
	if v.r == nil || v.r.generation.Load() != v.generation {
		return "reservation, used"
	}
	return "reservation, not used yet"
}

// String says whether the reservations were used.
func (v Reservations[K]) String() string { return v.reservation.String() }
