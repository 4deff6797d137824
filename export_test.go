package keylock

// CancelLate is a Cancel that was held up between its look at a Wait that was under way
// and its word to the owner.
func (v Reservation[K]) CancelLate() {
	v.m.send(message[K]{request: &cancelReservation[K]{v.r, v.generation}})
}
