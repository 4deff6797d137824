//go:build unix

package show_test

import (
	"syscall"
	"unsafe"
)

// forbidden is memory that nothing may read.
var forbidden = func() []byte {
	memory, err := syscall.Mmap(-1, 0, 1<<16, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return memory
}()

// nowhere returns a pointer that must not be followed.
func (m *maker) nowhere() unsafe.Pointer { return unsafe.Pointer(&forbidden[int(m.byte())*16]) }
