package cohort_test

import (
	"cmp"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Tokens of one engine grant share its epoch (P7 of the pitfalls): only epoch and
// sequence together tell holders apart.
func TestTokenOrdersByEpochThenSeq(t *testing.T) {
	ascending := []cohort.Token{{}, {1, 1}, {1, 2}, {1, 10}, {2, 1}, {10, 1}, {1 << 40, 3}}
	for i, a := range ascending {
		for j, b := range ascending {
			assert.Equal(t, cmp.Compare(i, j), a.Compare(b), "%v against %v", a, b)
			assert.Equal(t, cmp.Compare(i, j), cmp.Compare(a.String(), b.String()), "%v against %v as text", a, b)
		}
	}
}
