package main

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A witness that sees nothing wrong proves nothing, so each kind of wrong is shown to it once.
func TestWitnessSees(t *testing.T) {
	first, second := &kgo.Record{Key: []byte("k"), Offset: 1}, &kgo.Record{Key: []byte("k"), Offset: 2}
	succeed := func(context.Context, *kgo.Record) error { return nil }
	fail := func(context.Context, *kgo.Record) error { return errors.New("no") }

	t.Run("an overlap", func(t *testing.T) {
		w := newWitness()
		w.begin(t.Context(), first)
		w.begin(t.Context(), second)
		w.end(first, nil)
		w.end(second, nil)
		assert.Equal(t, findings{handled: 2, overlaps: 1}, w.found())
	})
	t.Run("a later record first", func(t *testing.T) {
		w := newWitness()
		require.NoError(t, w.watch(succeed)(t.Context(), second))
		require.NoError(t, w.watch(succeed)(t.Context(), first))
		assert.Equal(t, findings{handled: 2, violations: 1}, w.found())
	})
	t.Run("a later record after a failure", func(t *testing.T) {
		w := newWitness()
		require.Error(t, w.watch(fail)(t.Context(), first))
		require.NoError(t, w.watch(succeed)(t.Context(), second))
		assert.Equal(t, findings{handled: 1, violations: 1}, w.found())
	})
	t.Run("a record again", func(t *testing.T) {
		w := newWitness()
		require.NoError(t, w.watch(succeed)(t.Context(), first))
		w.rewound([]*kgo.Record{first, second})
		require.NoError(t, w.watch(succeed)(t.Context(), first))
		require.NoError(t, w.watch(succeed)(t.Context(), second))
		assert.Equal(t, findings{handled: 2, again: 1}, w.found())
	})
	t.Run("a call that comes too late to be made", func(t *testing.T) {
		w := newWitness()
		require.NoError(t, w.watch(succeed)(t.Context(), first))
		w.released(0, 1)
		ended, end := context.WithCancel(t.Context())
		end()
		require.ErrorIs(t, w.watch(succeed)(ended, second), context.Canceled)
		require.NoError(t, w.watch(succeed)(t.Context(), first))
		assert.Equal(t, findings{handled: 1, again: 1}, w.found())
		require.Error(t, w.watch(fail)(t.Context(), second))
		require.NoError(t, w.watch(succeed)(ended, second), "it passes a failure")
		assert.Equal(t, findings{handled: 2, again: 1, violations: 1}, w.found())
	})
	t.Run("nothing between partitions", func(t *testing.T) {
		w := newWitness()
		elsewhere := &kgo.Record{Key: []byte("k"), Partition: 1, Offset: 1}
		w.begin(t.Context(), second)
		w.begin(t.Context(), elsewhere)
		w.end(elsewhere, nil)
		w.end(second, nil)
		assert.Equal(t, findings{handled: 2}, w.found())
	})
}
