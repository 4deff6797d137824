package dropped

import (
	"context"
	"testing"

	"github.com/seed-46f81e6d/keylock"
)

// Tests leave locks held on purpose.
func TestHolds(t *testing.T) {
	m := keylock.Start[string](context.Background())
	m.Acquire(context.Background(), "k")
}
