package postgrestest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// verdict notes how a test was ended, and by what words.
type verdict struct {
	testing.TB
	skipped, failed []any
}

func (v *verdict) Helper()           {}
func (v *verdict) Skip(args ...any)  { v.skipped = args }
func (v *verdict) Fatal(args ...any) { v.failed = args }

func TestMissingServerSkipsOnlyOutsideCI(t *testing.T) {
	var v verdict
	require(&v, postgres.ErrNotInstalled, true)
	assert.Equal(t, []any{postgres.ErrNotInstalled}, v.failed)
	assert.Empty(t, v.skipped)

	v = verdict{}
	require(&v, postgres.ErrNotInstalled, false)
	assert.Equal(t, []any{postgres.ErrNotInstalled}, v.skipped)
}

func TestInstalledServerIsNoReasonToStop(t *testing.T) {
	var v verdict
	require(&v, nil, true)
	assert.Equal(t, verdict{}, v)
}

func TestOtherTroubleFailsEverywhere(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, ci := range []bool{false, true} {
		var v verdict
		require(&v, broken, ci)
		assert.Equal(t, []any{broken}, v.failed)
		assert.Empty(t, v.skipped)
	}
}
