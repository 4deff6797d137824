package postgres_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
)

// holds, set in the environment, makes the test binary a program that starts a server and hangs.
const holds = "POSTGRES_TEST_HOLDS"

func TestMain(m *testing.M) {
	if os.Getenv(holds) != "" {
		s, err := postgres.Start()
		if err != nil {
			panic(err)
		}
		fmt.Println(s.URL)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

// tempDir makes a temporary folder for the servers of this test, which their user can enter and
// write to, as it can /tmp.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, os.ModeSticky|0o777))
	t.Setenv("TMPDIR", dir)
	return dir
}

// query returns the only value that the statement selects at the server with that URL.
func query(t *testing.T, url, statement string) (value string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), statement).Scan(&value))
	return value
}

func TestPrivateServerAnswersOnItsSocketOnly(t *testing.T) {
	s := postgrestest.Start(t)
	assert.Equal(t, "", query(t, s.URL, "SHOW listen_addresses"))
	assert.Equal(t, "on", query(t, s.URL, "SHOW fsync"), "as durable as any other")
}

func TestConfirmedChangesSurviveACrash(t *testing.T) {
	s := postgrestest.Start(t)
	conn, err := pgx.Connect(t.Context(), s.URL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "CREATE TABLE t AS SELECT 7 AS n")
	require.NoError(t, err)

	require.NoError(t, s.Crash())
	assert.Error(t, conn.Ping(t.Context()), "what was open is broken")
	assert.Equal(t, "7", query(t, s.URL, "SELECT n::text FROM t"))
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	postgrestest.Require(t)
	temp := tempDir(t)
	s, err := postgres.Start()
	require.NoError(t, err)
	require.NoError(t, s.Close())

	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
	_, err = pgx.Connect(t.Context(), s.URL)
	assert.Error(t, err)
}

func TestServerEndsWithTheProgramHoweverThatDies(t *testing.T) {
	postgrestest.Require(t)
	temp := tempDir(t)
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), holds+"=1")
	stdin, err := program.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	url, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "1", query(t, url[:len(url)-1], "SELECT '1'"))

	require.NoError(t, program.Process.Kill())
	assert.Error(t, program.Wait())
	require.Eventually(t, func() bool {
		left, err := os.ReadDir(temp)
		return err == nil && len(left) == 0
	}, time.Minute, 50*time.Millisecond)
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	postgrestest.Require(t)
	long := filepath.Join(tempDir(t), "a-name-that-is-too-long-for-a-socket-whose-path-has-no-room-for-more-than-107-bytes")
	require.NoError(t, os.Mkdir(long, 0o755))
	t.Setenv("TMPDIR", long)
	_, err := postgres.Start()
	require.ErrorContains(t, err, "socket path")
	left, err := os.ReadDir(long)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestFolderThatItsUserCannotEnterIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		return // the server's user is this process's own
	}
	postgrestest.Require(t)
	private := t.TempDir()
	t.Setenv("TMPDIR", private)
	_, err := postgres.Start()
	require.ErrorContains(t, err, "starting PostgreSQL in "+private)
}

func TestOpenPrefersTheServerThatIsNamed(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://environment/")
	s, err := postgres.Open("postgres://argument/")
	require.NoError(t, err)
	assert.Equal(t, "postgres://argument/", s.URL)
	require.NoError(t, s.Close())

	s, err = postgres.Open("")
	require.NoError(t, err)
	assert.Equal(t, "postgres://environment/", s.URL)
	require.NoError(t, s.Close())
}
