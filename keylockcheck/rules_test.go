package keylockcheck_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis/analysistest"
)

// Each rule, against the stub and against the real packages.
func TestRules(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	require.NoError(t, err)
	for _, a := range allRules() {
		t.Run(a.Name+"/stub", func(t *testing.T) {
			analysistest.Run(t, testdata, a, a.Name)
		})
		t.Run(a.Name+"/real", func(t *testing.T) {
			analysistest.Run(t, filepath.Dir(filepath.Dir(testdata)), a, "./keylockcheck/testdata/src/"+a.Name)
		})
	}
}
