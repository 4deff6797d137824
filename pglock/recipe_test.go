package pglock_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// The statement of docs/RECIPES.md refuses a holder that a later one has written after.
func TestRecipeForFencingInSQL(t *testing.T) {
	text, err := os.ReadFile("../docs/RECIPES.md")
	require.NoError(t, err)
	statement := regexp.MustCompile("(?s)```sql\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, statement)

	conn := pgtest.Shared(t).Connect(t)
	pgtest.Must(t, conn, "CREATE TABLE account (id text, balance bigint, fence_epoch bigint, fence_seq bigint)")
	pgtest.Must(t, conn, "INSERT INTO account VALUES ('alice', 0, 0, 0), ('bob', 0, 0, 0)")
	write := func(balance int, token cohort.Token) int64 {
		tag, err := conn.Exec(t.Context(), string(statement[1]), "alice", balance, token.Epoch, token.Seq)
		require.NoError(t, err)
		return tag.RowsAffected()
	}
	assert.EqualValues(t, 1, write(10, cohort.Token{Epoch: 7, Seq: 9}))
	assert.EqualValues(t, 1, write(11, cohort.Token{Epoch: 7, Seq: 9}), "the same holder, again")
	assert.EqualValues(t, 1, write(12, cohort.Token{Epoch: 8, Seq: 1}))
	assert.EqualValues(t, 0, write(13, cohort.Token{Epoch: 7, Seq: 10}), "an earlier one")
	assert.EqualValues(t, 1, write(14, cohort.Token{Epoch: 8, Seq: 2}))
	assert.EqualValues(t, 0, write(15, cohort.Token{Epoch: 8, Seq: 1}))
	var balance int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT balance FROM account WHERE id = 'alice'").Scan(&balance))
	assert.Equal(t, 14, balance)
}
