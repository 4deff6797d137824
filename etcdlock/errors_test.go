package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rpc "go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
)

// etcdErrors are all errors that etcd has a name for, and whether they pass.
var etcdErrors = map[string]struct {
	err    error
	passes bool
}{
	// The cluster, a member, or the way there is in trouble.
	"NoLeader":                   {rpc.ErrGRPCNoLeader, true},
	"NotLeader":                  {rpc.ErrGRPCNotLeader, true},
	"LeaderChanged":              {rpc.ErrGRPCLeaderChanged, true},
	"NotCapable":                 {rpc.ErrGRPCNotCapable, true},
	"Stopped":                    {rpc.ErrGRPCStopped, true},
	"Timeout":                    {rpc.ErrGRPCTimeout, true},
	"TimeoutDueToLeaderFail":     {rpc.ErrGRPCTimeoutDueToLeaderFail, true},
	"TimeoutDueToConnectionLost": {rpc.ErrGRPCTimeoutDueToConnectionLost, true},
	"TimeoutWaitAppliedIndex":    {rpc.ErrGRPCTimeoutWaitAppliedIndex, true},
	"Unhealthy":                  {rpc.ErrGRPCUnhealthy, true},
	"Corrupt":                    {rpc.ErrGRPCCorrupt, true},
	"NoSpace":                    {rpc.ErrGRPCNoSpace, true},
	"RequestTooManyRequests":     {rpc.ErrGRPCRequestTooManyRequests, true},
	"NotSupportedForLearner":     {rpc.ErrGRPCNotSupportedForLearner, true},
	"ClusterVersionUnavailable":  {rpc.ErrGRPCClusterVersionUnavailable, true},
	"MemberNotFound":             {rpc.ErrGRPCMemberNotFound, true},
	"Canceled":                   {rpc.ErrGRPCCanceled, true},
	"WatchCanceled":              {rpc.ErrGRPCWatchCanceled, true},
	"DeadlineExceeded":           {rpc.ErrGRPCDeadlineExceeded, true},

	// Something changed meanwhile.
	"Compacted":        {rpc.ErrGRPCCompacted, true},
	"FutureRev":        {rpc.ErrGRPCFutureRev, true},
	"LeaseNotFound":    {rpc.ErrGRPCLeaseNotFound, true},
	"LeaseExist":       {rpc.ErrGRPCLeaseExist, true},
	"InvalidAuthToken": {rpc.ErrGRPCInvalidAuthToken, true},
	"AuthOldRevision":  {rpc.ErrGRPCAuthOldRevision, true},

	// This client, this user.
	"PermissionDenied":        {rpc.ErrGRPCPermissionDenied, false},
	"UserEmpty":               {rpc.ErrGRPCUserEmpty, false},
	"UserNotFound":            {rpc.ErrGRPCUserNotFound, false},
	"AuthFailed":              {rpc.ErrGRPCAuthFailed, false},
	"AuthNotEnabled":          {rpc.ErrGRPCAuthNotEnabled, false},
	"InvalidAuthMgmt":         {rpc.ErrGRPCInvalidAuthMgmt, false},
	"RootUserNotExist":        {rpc.ErrGRPCRootUserNotExist, false},
	"RootRoleNotExist":        {rpc.ErrGRPCRootRoleNotExist, false},
	"UserAlreadyExist":        {rpc.ErrGRPCUserAlreadyExist, false},
	"RoleAlreadyExist":        {rpc.ErrGRPCRoleAlreadyExist, false},
	"RoleNotFound":            {rpc.ErrGRPCRoleNotFound, false},
	"RoleEmpty":               {rpc.ErrGRPCRoleEmpty, false},
	"RoleNotGranted":          {rpc.ErrGRPCRoleNotGranted, false},
	"PermissionNotGranted":    {rpc.ErrGRPCPermissionNotGranted, false},
	"PermissionNotGiven":      {rpc.ErrGRPCPermissionNotGiven, false},
	"InvalidClientAPIVersion": {rpc.ErrGRPCInvalidClientAPIVersion, false},
	"ClusterIDMismatch":       {rpc.ErrGRPCClusterIDMismatch, false},
	"ClusterIdMismatch":       {rpc.ErrGRPCClusterIDMismatch, false}, // its deprecated name

	// This request.
	"RequestTooLarge":   {rpc.ErrGRPCRequestTooLarge, false},
	"TooManyOps":        {rpc.ErrGRPCTooManyOps, false},
	"DuplicateKey":      {rpc.ErrGRPCDuplicateKey, false},
	"EmptyKey":          {rpc.ErrGRPCEmptyKey, false},
	"KeyNotFound":       {rpc.ErrGRPCKeyNotFound, false},
	"ValueProvided":     {rpc.ErrGRPCValueProvided, false},
	"LeaseProvided":     {rpc.ErrGRPCLeaseProvided, false},
	"InvalidSortOption": {rpc.ErrGRPCInvalidSortOption, false},
	"LeaseTTLTooLarge":  {rpc.ErrGRPCLeaseTTLTooLarge, false},

	// These are said to administrators.
	"MemberExist":                   {rpc.ErrGRPCMemberExist, false},
	"PeerURLExist":                  {rpc.ErrGRPCPeerURLExist, false},
	"MemberNotEnoughStarted":        {rpc.ErrGRPCMemberNotEnoughStarted, false},
	"MemberBadURLs":                 {rpc.ErrGRPCMemberBadURLs, false},
	"MemberNotLearner":              {rpc.ErrGRPCMemberNotLearner, false},
	"LearnerNotReady":               {rpc.ErrGRPCLearnerNotReady, false},
	"TooManyLearners":               {rpc.ErrGRPCTooManyLearners, false},
	"BadLeaderTransferee":           {rpc.ErrGRPCBadLeaderTransferee, false},
	"WrongDowngradeVersionFormat":   {rpc.ErrGRPCWrongDowngradeVersionFormat, false},
	"InvalidDowngradeTargetVersion": {rpc.ErrGRPCInvalidDowngradeTargetVersion, false},
	"DowngradeInProcess":            {rpc.ErrGRPCDowngradeInProcess, false},
	"NoInflightDowngrade":           {rpc.ErrGRPCNoInflightDowngrade, false},
}

func TestEveryErrorOfEtcdIsDecided(t *testing.T) {
	for name, e := range etcdErrors {
		for how, err := range map[string]error{"as sent": e.err, "as the client has it": rpc.Error(e.err), "wrapped": fmt.Errorf("no lease: %w", rpc.Error(e.err))} {
			assert.Equal(t, e.passes, passes(err), "%s, %s: %v", name, how, err)
		}
	}
}

// A release of etcd that has a new error must not be met without a decision.
func TestNoErrorOfEtcdIsForgotten(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "go.etcd.io/etcd/api/v3/v3rpc/rpctypes").Output()
	require.NoError(t, err)
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "error.go"), nil, 0)
	require.NoError(t, err)
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, id := range spec.Names {
				if name, ok := strings.CutPrefix(id.Name, "ErrGRPC"); ok {
					found++
					assert.Contains(t, etcdErrors, name)
				}
			}
		}
		return true
	})
	assert.Equal(t, len(etcdErrors), found)
}

// Members of etcd 3.5 have fewer names, and other codes for three of them: the client is of 3.6, and what
// they send is decided as what 3.6 sends.
func TestEveryErrorOfAnOlderEtcdIsDecided(t *testing.T) {
	decided := make(map[string]bool)
	code := make(map[string]codes.Code)
	for _, e := range etcdErrors {
		decided[messageOf(e.err)], code[messageOf(e.err)] = e.passes, codeOf(e.err)
	}
	text, err := os.ReadFile("testdata/etcd-3.5.txt")
	require.NoError(t, err)
	older, moved := 0, 0
	for line := range strings.Lines(string(text)) {
		name, message, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		older++
		want, known := decided[message]
		require.True(t, known, "%s", line)
		sent := status.Error(codeNamed(t, name), message)
		if codeOf(sent) != code[message] {
			moved++
		}
		for how, err := range map[string]error{"as sent": sent, "as the client has it": rpc.Error(sent), "wrapped": fmt.Errorf("no lease: %w", rpc.Error(sent))} {
			assert.Equal(t, want, passes(err), "%s, %s", line, how)
		}
	}
	assert.Equal(t, 61, older)
	assert.Equal(t, 3, moved, "codes that are others in 3.6")
}

func codeNamed(t *testing.T, name string) codes.Code {
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		if c.String() == name {
			return c
		}
	}
	require.Fail(t, "there is no code "+name)
	return 0
}

// What has no name at etcd is decided by its code.
func TestEveryCodeIsDecided(t *testing.T) {
	passing := map[codes.Code]bool{
		codes.Unavailable: true, codes.Internal: true, codes.DeadlineExceeded: true, codes.Aborted: true,
		codes.Unknown: true, codes.ResourceExhausted: true, codes.DataLoss: true, codes.Unauthenticated: true,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		assert.Equal(t, passing[code], passes(status.Error(code, "anything")), "%v", code)
	}
	assert.True(t, passes(status.Error(codes.Unknown, "raft proposal dropped")), "what etcd says while leadership moves")
	assert.False(t, passes(status.Error(codes.Canceled, "grpc: the client connection is closing")), "the client was closed")
}

func TestOwnErrorsAreDecided(t *testing.T) {
	for _, err := range []error{errSessionLost, errEntryGone, errLeftover, errWatchEnded, context.DeadlineExceeded} {
		assert.True(t, passes(fmt.Errorf("wrapped: %w", err)), "%v", err)
	}
	for _, err := range []error{cohort.ErrHeld, cohort.ErrClosed, context.Canceled, errors.New("from somewhere else")} {
		assert.False(t, passes(err), "%v", err)
	}
}

// A watch has only the text of the error with which etcd refused it.
func TestTokenErrorsAreFoundInTheTextOfAWatch(t *testing.T) {
	assert.True(t, isTokenError(rpc.Error(errors.New(rpc.ErrGRPCInvalidAuthToken.Error()))))
	assert.True(t, isTokenError(rpc.ErrInvalidAuthToken))
	assert.True(t, isTokenError(rpc.ErrAuthOldRevision))
	assert.False(t, isTokenError(rpc.ErrNoLeader))
	assert.False(t, isTokenError(errors.New(rpc.ErrGRPCPermissionDenied.Error())))
}

func TestBackoffGrowsToABound(t *testing.T) {
	var b crew.Backoff
	for range 100 {
		pause := b.Next()
		assert.Positive(t, pause)
		assert.Less(t, pause, 601*time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Wait(ctx, ctx), context.Canceled)
}

func TestKeyTextIsShortAndValid(t *testing.T) {
	assert.Equal(t, `"order/42"`, keyText("order/42"))
	assert.Equal(t, `"a\nb\xff"`, keyText("a\nb\xff"))
	assert.Less(t, len(keyText(strings.Repeat("\xff", 1<<20))), 600)
	assert.Contains(t, keyText(strings.Repeat("ä", 100)), "(200 bytes)")
}
