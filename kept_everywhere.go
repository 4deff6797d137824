//go:build kept

package keylock

import (
	"os"
	"strconv"
)

// All managers keep grants, so that all tests can be run so: in as many cells as KEYLOCK_KEPT
// says, or in 256.
func init() {
	defaults.kept = 256
	if n, err := strconv.Atoi(os.Getenv("KEYLOCK_KEPT")); err == nil {
		defaults.kept = n
	}
}
