package keylock

import "github.com/seed-46f81e6d/keylock/internal/table"

// CancelLate is a Cancel that was held up between its look at a Wait that was under way
// and its word to the owner.
func (v Reservation[K]) CancelLate() {
	v.m.send(&cancelReservation[K]{v.r, v.generation}, table.Token[K]{})
}
