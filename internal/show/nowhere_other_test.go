//go:build !unix

package show_test

import "unsafe"

var place [256]byte

// nowhere returns a pointer that should not be followed; here it may be.
func (m *maker) nowhere() unsafe.Pointer { return unsafe.Pointer(&place[m.byte()]) }
