package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

func TestMain(m *testing.M) {
	if run, ok := role(); ok { // the processes are this program, which is the test here
		exit(run())
	}
	if os.Getenv("MANYPROCESSES_MAIN") != "" {
		os.Args = append(os.Args[:1], strings.Fields(os.Getenv("MANYPROCESSES_MAIN"))...)
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestShowTellsWhatHappenedAndCountsRight(t *testing.T) {
	for engine := range services {
		t.Run(engine, func(t *testing.T) {
			switch engine {
			case "redis":
				locktest.Tool(t, "redis-server", "redis-server")
			case "postgres":
				postgrestest.Require(t)
			}
			told := []string{
				"A is killed", "B is paused while it holds the key", "B goes on", "B writes at last: refused",
				"C holds the key", "No increment was lost or doubled",
			}
			var out bytes.Buffer
			// On a busy machine B may not be paused for longer than its lease, unless all of it takes longer.
			untold := func(words string) bool { return !strings.Contains(out.String(), words) }
			for duration := 8 * time.Second; slices.ContainsFunc(told, untold) && duration < 2*time.Minute; duration *= 2 {
				out.Reset()
				err := show(t.Context(), engine, duration, &out)
				t.Log("\n" + out.String())
				require.NoError(t, err)
			}
			for _, words := range told {
				assert.Contains(t, out.String(), words)
			}
			assert.NotContains(t, out.String(), "Late writes refused: 0.")
		})
	}
}

// program is this program as a person starts it.
func program(t *testing.T, args string) (cmd *exec.Cmd, temporary string) {
	temporary = t.TempDir()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MANYPROCESSES_MAIN="+args, "TMPDIR="+temporary)
	return cmd, temporary
}

// noProcessStays waits until no process has the folder in its environment, which all of them inherit.
func noProcessStays(t *testing.T, temporary string) {
	require.Eventually(t, func() bool {
		files, err := filepath.Glob("/proc/[0-9]*/environ")
		require.NoError(t, err)
		for _, file := range files {
			if environ, err := os.ReadFile(file); err == nil && strings.Contains(string(environ), temporary) {
				return false
			}
		}
		return true
	}, 3*time.Minute, 50*time.Millisecond, "a process stays")
}

// run starts the program and returns its output up to a line with the words.
func run(t *testing.T, cmd *exec.Cmd, until string) (end func() error) {
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), until) {
			return func() error {
				_ = out.Close()
				return cmd.Wait()
			}
		}
	}
	require.Fail(t, "the program has ended before it said "+until, "%v", cmd.Wait())
	return nil
}

func TestReaderThatLeavesEndsEverything(t *testing.T) {
	cmd, temporary := program(t, "-for 8s")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	end := run(t, cmd, "A starts")
	require.Error(t, end())
	assert.Equal(t, 1, cmd.ProcessState.ExitCode())
	assert.Empty(t, errs.String())
	noProcessStays(t, temporary)
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestKilledProgramLeavesNoProcess(t *testing.T) {
	cmd, temporary := program(t, "-for 6s")
	end := run(t, cmd, "is paused") // the hardest one to end
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, end())
	noProcessStays(t, temporary)
}

func TestInterruptSaysSo(t *testing.T) {
	cmd, temporary := program(t, "-for 8s")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	end := run(t, cmd, "C starts")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Error(t, end())
	assert.Equal(t, 130, cmd.ProcessState.ExitCode())
	assert.Equal(t, "manyprocesses: interrupted\n", errs.String())
	noProcessStays(t, temporary)
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A limit on the size of files stands for a disk that is full.
func TestFullDiskIsReportedInOneLine(t *testing.T) {
	cmd, temporary := program(t, "-for 8s")
	limited := exec.Command("sh", "-c", "ulimit -f 2000; exec "+cmd.Path)
	limited.Env = cmd.Env
	out, err := limited.CombinedOutput()
	require.Error(t, err)
	assert.Equal(t, 1, limited.ProcessState.ExitCode())
	assert.Regexp(t, `^manyprocesses: etcd has ended: file too large, while it wrote its files in [^\n]*\n$`, string(out))
	noProcessStays(t, temporary)
}

func TestWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"-for 0":     "manyprocesses: -for 0s is too short: want at least 6s\n",
		"-for -1s":   "manyprocesses: -for -1s is too short: want at least 6s\n",
		"-engine zk": "manyprocesses: -engine zk is unknown: want one of etcd, postgres, redis\n",
		"more words": "manyprocesses: unexpected argument \"more\"\n",
	} {
		cmd, _ := program(t, args)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		assert.Equal(t, 2, cmd.ProcessState.ExitCode(), args)
		assert.Equal(t, want, string(out))
	}
}
