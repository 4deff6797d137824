//go:build explore && !kept

package keylock

import (
	"hash/maphash"
	"reflect"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Without the build tag kept the explorer knows nothing of kept grants.
type (
	keeps        struct{}
	keptScenario struct{}
	keptCaller   struct{}
	keptCells    struct{}
)

var (
	seed         = maphash.MakeSeed()
	keptFamilies []family
)

func (keptScenario) String() string { return "" }

func (keptCaller) idle(bool) {}
func (keptCaller) sends()    {}

func (keptCells) cellOf(uint64) uint64 { return 0 }

func keptSpecial(string) func(*fingerprint, reflect.Value) bool { return nil }

func (keeps) note(*world)                                 {}
func (keeps) gets(*caller, Lock[int], table.Request[int]) {}

func (w *world) keepsGrants() bool               { return false }
func (w *world) fillCells()                      {}
func (w *world) cells() (none keptCells)         { return none }
func (w *world) acquired() uint64                { return w.o.table.Counts().Acquired }
func (w *world) allCalled() bool                 { return true }
func (w *world) holdsKept(table.Token[int]) bool { return false }
func (w *world) parked() int                     { return 0 }
func (w *world) checkKept() error                { return nil }
